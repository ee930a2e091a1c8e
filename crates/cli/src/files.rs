//! What can be said about the named files before a model is loaded.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::CliError,
    flags::GenerateArgs,
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

/// The reader of the input that was named, and its file if it is one.
pub(crate) fn open_input(arguments: &mut GenerateArgs) -> Result<(RecordReader, Option<PathBuf>), CliError> {
    let texts = std::mem::take(&mut arguments.texts);
    open_reader(arguments.files.input.as_deref(), arguments.files.input_format, texts)
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
    match &arguments.files.input {
        Some(path) => uses.reads("--input", Some(path)),
        None if arguments.texts.is_empty() => uses.reads_stdin(),
        None => {}
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

/// Whether a run can be continued: from a regular file that can be read again, to a regular file.
pub(crate) fn is_resumable(arguments: &GenerateArgs, input: Option<&Path>) -> bool {
    output_path(arguments).is_some_and(may_be_regular) && input.is_some_and(Path::is_file)
}

/// Refuses `--resume` where there is nothing to go on from. Nothing is opened: a pipe would wait for its other end.
pub(crate) fn check_resume(arguments: &GenerateArgs) -> Result<(), CliError> {
    if arguments.files.resume != Some(true) {
        return Ok(());
    }
    let input = arguments.files.input.as_deref().filter(|path| path.as_os_str() != STANDARD);
    let wanted = match (output_path(arguments), input) {
        (None, _) => "needs --output FILE; results on stdout cannot be continued",
        (Some(_), None) => "needs --input FILE; stdin and arguments cannot be read again",
        // One that is not there is told when it is opened.
        (Some(_), Some(path)) if !may_be_regular(path) => {
            "needs an input that is a regular file, which can be read again"
        }
        (Some(path), Some(_)) if !may_be_regular(path) => "needs an output that is a regular file",
        _ => return Ok(()),
    };
    Err(CliError::Usage(format!("--resume: {wanted}")))
}
