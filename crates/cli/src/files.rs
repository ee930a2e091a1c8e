//! What can be said about the named files before a model is loaded.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    console::Console,
    error::{CliError, one_line},
    flags::{FileFlags, GenerateArgs},
    input::{RecordFormat, RecordReader},
    resume::Journal,
};

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

/// Refuses files that would overwrite each other, and files that cannot be written.
pub(crate) fn check_targets(arguments: &GenerateArgs, inputs: &[PathBuf]) -> Result<(), CliError> {
    if arguments.report.stats_json.as_deref().is_some_and(|path| path.as_os_str() == STANDARD) {
        return Err(CliError::Usage("--stats-json -: give a file; stdout is for results".to_owned()));
    }
    let read: Vec<_> = inputs.iter().map(|path| ("--input", Some(path.as_path()))).collect();
    let stats = ("--stats-json", arguments.report.stats_json.as_deref());
    if let Some(journal) = output_path(arguments).map(Journal::path_of) {
        for (flag, path) in read.iter().chain([&stats]) {
            if path.is_some_and(|path| same_file(path, &journal)) {
                let path = journal.display();
                return Err(CliError::Usage(format!("{flag} {path}: --output needs this name, to be resumable")));
            }
        }
    }
    check_named(&read, &[("--output", output_path(arguments)), stats])
}

/// Refuses a file to be written that is also named for something else, or that cannot be written. Both lists hold flags with
/// their files.
pub(crate) fn check_named(read: &[(&str, Option<&Path>)], written: &[(&str, Option<&Path>)]) -> Result<(), CliError> {
    for (place, (flag, path)) in written.iter().enumerate() {
        let Some(path) = path else { continue };
        for (other_flag, other) in read.iter().chain(&written[..place]) {
            if other.is_some_and(|other| same_file(path, other)) {
                let path = path.display();
                return Err(CliError::Usage(format!("{flag} {path}: the same file as {other_flag}")));
            }
        }
        check_writable(path)?;
    }
    Ok(())
}

/// Whether a run can be continued: from lines of a regular file that can be read again, to a regular file.
pub(crate) fn is_resumable(arguments: &GenerateArgs, inputs: &[PathBuf]) -> bool {
    let output_is_file =
        output_path(arguments).is_some_and(|path| fs::metadata(path).map_or(true, |found| found.is_file()));
    let is_whole = arguments.files.whole_file == Some(true);
    output_is_file && !is_whole && matches!(inputs, [input] if input.is_file())
}

/// Refuses `--resume` where there is nothing to go on from.
pub(crate) fn check_resume(arguments: &GenerateArgs, inputs: &[PathBuf]) -> Result<(), CliError> {
    if arguments.files.resume != Some(true) || is_resumable(arguments, inputs) {
        return Ok(());
    }
    let wanted = match (output_path(arguments), inputs) {
        _ if arguments.files.whole_file == Some(true) => "not with --whole-file",
        (None, _) => "needs --output FILE; results on stdout cannot be continued",
        (Some(_), []) => "needs --input FILE; stdin and arguments cannot be read again",
        (Some(_), [_, _, ..]) => "needs one --input FILE, not several",
        (Some(_), [path]) if !path.is_file() => "needs an input that is a regular file, which can be read again",
        _ => "needs an output that is a regular file",
    };
    Err(CliError::Usage(format!("--resume: {wanted}")))
}

/// Finds most of what will keep a file from being written, without touching it.
fn check_writable(path: &Path) -> Result<(), CliError> {
    let fail = |kind: io::ErrorKind| CliError::File { action: "write", path: path.to_owned(), source: kind.into() };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(fail(io::ErrorKind::IsADirectory)),
        // Opening a pipe would wait for its reader.
        Ok(found) if !found.is_file() => Ok(()),
        Ok(_) => File::options().append(true).open(path).map(drop).map_err(|error| fail(error.kind())),
        Err(_) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if parent.is_dir() { Ok(()) } else { Err(fail(io::ErrorKind::NotFound)) }
        }
    }
}

/// Whether two names lead to one regular file. A terminal or `/dev/null` may be named twice.
fn same_file(a: &Path, b: &Path) -> bool {
    if let (Ok(found_a), Ok(found_b)) = (fs::metadata(a), fs::metadata(b)) {
        return found_a.is_file() && found_b.is_file() && (same_inode(&found_a, &found_b) || canonical_equal(a, b));
    }
    // Neither exists yet: compare where they will be.
    match (place_of(a), place_of(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn canonical_equal(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn place_of(path: &Path) -> Option<PathBuf> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(parent.canonicalize().ok()?.join(path.file_name()?))
}

#[cfg(unix)]
fn same_inode(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn same_inode(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_under_two_names_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        assert!(same_file(&a, &dir.path().join(".").join("a")), "before it exists");
        assert!(!same_file(&a, &b));
        fs::write(&a, "x").unwrap();
        assert!(!same_file(&a, &b));
        fs::hard_link(&a, &b).unwrap();
        assert_eq!(same_file(&a, &b), cfg!(unix));
        assert!(same_file(&a, &dir.path().join(".").join("a")));
    }

    #[test]
    fn unwritable_targets_are_found_and_nothing_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("out");
        assert!(check_writable(&file).is_ok());
        assert!(!file.exists());
        fs::write(&file, "kept").unwrap();
        assert!(check_writable(&file).is_ok());
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        assert!(check_writable(dir.path()).is_err());
        assert!(check_writable(&dir.path().join("no/out")).is_err());
    }
}
