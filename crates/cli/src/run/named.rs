//! What can be said about the files of a run before its model is loaded.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    error::{CliError, one_line},
    files::{FileUses, STANDARD, may_be_regular},
    flags::{FileFlags, GenerateArgs},
    input::{RecordFormat, RecordReader, Survey, open_reader},
    resume,
};

/// The reader of what was named, and its files if there are any.
pub(super) fn open_input(texts: Vec<String>, files: &FileFlags) -> Result<(RecordReader, Vec<PathBuf>), CliError> {
    let FileFlags { input, input_format, whole_file, .. } = files;
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

/// The file of the results; `None` is stdout.
pub(super) fn output_path(files: &FileFlags) -> Option<&Path> {
    files.output.as_deref().filter(|path| path.as_os_str() != STANDARD)
}

/// What `elgen generate` reads and writes, its model apart, whose directory may have to be found first.
pub(super) fn uses(arguments: &GenerateArgs) -> Result<FileUses, CliError> {
    if arguments.report.stats_json.as_deref().is_some_and(|path| path.as_os_str() == STANDARD) {
        return Err(CliError::Usage("--stats-json -: give a file; stdout is for results".to_owned()));
    }
    let mut uses = FileUses::default();
    arguments.files.input.iter().for_each(|path| uses.reads("--input", Some(path)));
    if arguments.files.input.is_empty() && arguments.texts.is_empty() {
        uses.reads_stdin();
    }
    uses.reads("--generation-config", arguments.generation.generation_config.as_deref());
    let output = output_path(&arguments.files);
    uses.results("--output", output);
    if let Some(output) = output.filter(|path| may_be_regular(path)) {
        for path in resume::beside(output) {
            uses.writes_beside("--output", path);
        }
    }
    uses.writes("--stats-json", arguments.report.stats_json.as_deref());
    Ok(uses)
}

/// Whether a run can be continued: from lines of a regular file that can be read again, to a regular file.
pub(super) fn is_resumable(files: &FileFlags, inputs: &[PathBuf]) -> bool {
    let is_whole = files.whole_file == Some(true);
    output_path(files).is_some_and(may_be_regular) && !is_whole && matches!(inputs, [input] if input.is_file())
}

/// Refuses `--resume` where there is nothing to go on from. Nothing is opened: a pipe would wait for its other end.
pub(super) fn check_resume(files: &FileFlags) -> Result<(), CliError> {
    if files.resume != Some(true) {
        return Ok(());
    }
    let inputs: Vec<&PathBuf> = files.input.iter().filter(|path| path.as_os_str() != STANDARD).collect();
    let wanted = match (output_path(files), &inputs[..]) {
        _ if files.whole_file == Some(true) => "not with --whole-file",
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

/// Reads the input once, for its identity and its number of records.
pub(super) fn survey(input: &Path, format: RecordFormat) -> Result<Survey, CliError> {
    Survey::of_file(input, format).map_err(|source| CliError::File { action: "read", path: input.to_owned(), source })
}

/// Records of all inputs, if they can be counted beforehand.
pub(super) fn total(files: &FileFlags, inputs: &[PathBuf], format: RecordFormat) -> Result<Option<u64>, CliError> {
    if inputs.is_empty() || !inputs.iter().all(|input| input.is_file()) {
        return Ok(None);
    }
    if files.whole_file == Some(true) {
        return Ok(Some(inputs.len() as u64));
    }
    let mut records = 0;
    for input in inputs {
        records += survey(input, format)?.records;
    }
    Ok(Some(records))
}
