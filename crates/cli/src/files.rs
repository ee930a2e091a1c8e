//! What can be said about the named files before a model is loaded.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    console::Console,
    error::{CliError, one_line},
    flags::{FileFlags, GenerateArgs},
    input::{RecordFormat, RecordReader},
    resume,
};

mod identity;
mod streams;
mod uses;
mod whole;

pub(crate) use identity::{FileId, check_in_place};
pub use streams::standard_streams_were_closed;
pub(crate) use streams::{Stream, check_open, results};
pub(crate) use uses::{FileUses, parent_of};
pub(crate) use whole::{MAX_OPTIONS_BYTES, NewFile, read_text, read_whole, write_whole};

/// The name that means stdin or stdout.
pub(crate) const STANDARD: &str = "-";

/// The reader of what was named, and its files if there are any.
pub(crate) fn open_input(arguments: &mut GenerateArgs) -> Result<(RecordReader, Vec<PathBuf>), CliError> {
    let texts = std::mem::take(&mut arguments.texts);
    let FileFlags { input, input_format, whole_file, .. } = &arguments.files;
    let whole_file = *whole_file == Some(true);
    let format = input_format_of(input, *input_format)?;
    if whole_file && format == RecordFormat::Jsonl {
        return Err(CliError::Usage("--whole-file: takes texts, not JSONL records".to_owned()));
    }
    let (reader, files) = match &input[..] {
        [] => (open_reader(None, Some(format), texts)?.0, Vec::new()),
        [only] => {
            let (reader, file) = open_reader(Some(only), Some(format), texts).map_err(text_as_file)?;
            (reader, file.into_iter().collect())
        }
        several => {
            if several.iter().any(|path| path.as_os_str() == STANDARD) {
                return Err(CliError::Usage("--input -: stdin cannot be one of several inputs".to_owned()));
            }
            let fail = |(path, source)| CliError::File { action: "read", path, source };
            (RecordReader::from_files(several, format).map_err(fail)?, several.to_vec())
        }
    };
    Ok((if whole_file { reader.whole() } else { reader }, files))
}

/// A file that is not there and has a text for its name.
fn text_as_file(error: CliError) -> CliError {
    match &error {
        CliError::File { path, source, .. }
            if source.kind() == io::ErrorKind::NotFound && path.to_string_lossy().contains(char::is_whitespace) =>
        {
            CliError::Failed(format!("{}; a text is given without --input", one_line(&error)))
        }
        _ => error,
    }
}

/// The one format of all inputs.
fn input_format_of(inputs: &[PathBuf], named: Option<RecordFormat>) -> Result<RecordFormat, CliError> {
    if let Some(named) = named {
        return Ok(named);
    }
    let first = inputs.first().map_or(RecordFormat::Text, |path| RecordFormat::of_path(path));
    match inputs.iter().find(|path| RecordFormat::of_path(path) != first) {
        None => Ok(first),
        Some(other) => {
            let (format, other_format) = (first.name(), RecordFormat::of_path(other).name());
            let (first, other) = (inputs[0].display(), other.display());
            Err(CliError::Usage(format!(
                "--input: {first} is {format} and {other} {other_format} by name; give --input-format"
            )))
        }
    }
}

/// The first text that is the name of a file, which is probably to be read.
pub(crate) fn file_among_texts(texts: &[String]) -> Option<&str> {
    texts.iter().map(String::as_str).find(|text| Path::new(text).is_file())
}

/// The warning about [`file_among_texts`].
pub(crate) fn warn_of_file_texts(texts: &[String], console: &Console) {
    if let Some(text) = file_among_texts(texts) {
        console.warning(&format!("{text} is an existing file, taken as a text here; did you mean --input?"));
    }
}

/// The reader of a file, of the given texts or, if there are neither, of stdin; and the file if it is one.
pub(crate) fn open_reader(
    input: Option<&Path>,
    format: Option<RecordFormat>,
    texts: Vec<String>,
) -> Result<(RecordReader, Option<PathBuf>), CliError> {
    match input {
        None if !texts.is_empty() => Ok((RecordReader::from_arguments(texts), None)),
        Some(path) if path.as_os_str() != STANDARD => {
            let format = format.unwrap_or_else(|| RecordFormat::of_path(path));
            let reader = RecordReader::from_file(path, format).map_err(|source| CliError::File {
                action: "read",
                path: path.to_owned(),
                source,
            })?;
            Ok((reader, Some(path.to_owned())))
        }
        _ => Ok((RecordReader::from_stdin(format.unwrap_or(RecordFormat::Text)), None)),
    }
}

/// The file of the results; `None` is stdout.
pub(crate) fn output_path(arguments: &GenerateArgs) -> Option<&Path> {
    arguments.files.output.as_deref().filter(|path| path.as_os_str() != STANDARD)
}

/// What `elgen generate` reads and writes, its model apart, whose directory may have to be found first.
pub(crate) fn uses(arguments: &GenerateArgs) -> Result<FileUses, CliError> {
    if arguments.report.stats_json.as_deref().is_some_and(|path| path.as_os_str() == STANDARD) {
        return Err(CliError::Usage("--stats-json -: give a file; stdout is for results".to_owned()));
    }
    let mut uses = FileUses::default();
    arguments.files.input.iter().for_each(|path| uses.reads("--input", Some(path)));
    if arguments.files.input.is_empty() && arguments.texts.is_empty() {
        uses.reads_stdin();
    }
    uses.reads("--generation-config", arguments.generation.generation_config.as_deref());
    let output = output_path(arguments);
    uses.results("--output", output);
    if let Some(output) = output.filter(|path| may_be_regular(path)) {
        for path in resume::beside(output) {
            uses.writes_beside("--output", path);
        }
    }
    uses.writes("--stats-json", arguments.report.stats_json.as_deref());
    Ok(uses)
}

/// Whether this is, or will be, a regular file.
pub(crate) fn may_be_regular(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |found| found.is_file())
}

/// Whether a run can be continued: from lines of a regular file that can be read again, to a regular file.
pub(crate) fn is_resumable(arguments: &GenerateArgs, inputs: &[PathBuf]) -> bool {
    let is_whole = arguments.files.whole_file == Some(true);
    output_path(arguments).is_some_and(may_be_regular) && !is_whole && matches!(inputs, [input] if input.is_file())
}

/// Refuses `--resume` where there is nothing to go on from. Nothing is opened: a pipe would wait for its other end.
pub(crate) fn check_resume(arguments: &GenerateArgs) -> Result<(), CliError> {
    if arguments.files.resume != Some(true) {
        return Ok(());
    }
    let inputs: Vec<&PathBuf> = arguments.files.input.iter().filter(|path| path.as_os_str() != STANDARD).collect();
    let wanted = match (output_path(arguments), &inputs[..]) {
        _ if arguments.files.whole_file == Some(true) => "not with --whole-file",
        (None, _) => "needs --output FILE; results on stdout cannot be continued",
        (Some(_), []) => "needs --input FILE; stdin and arguments cannot be read again",
        (Some(_), [_, _, ..]) => "needs one --input FILE, not several",
        // One that is not there is told when it is opened.
        (Some(_), [path]) if !may_be_regular(path) => "needs an input that is a regular file, which can be read again",
        (Some(path), [_]) if !may_be_regular(path) => "needs an output that is a regular file",
        _ => return Ok(()),
    };
    Err(CliError::Usage(format!("--resume: {wanted}")))
}
