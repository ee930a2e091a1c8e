//! What can be said about the named files before a model is loaded.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    error::CliError,
    flags::GenerateArgs,
    input::{RecordFormat, RecordReader},
    resume::Journal,
};

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

/// Refuses files that would overwrite each other, and files that cannot be written.
pub(crate) fn check_targets(arguments: &GenerateArgs, input: Option<&Path>) -> Result<(), CliError> {
    if arguments.report.stats_json.as_deref().is_some_and(|path| path.as_os_str() == STANDARD) {
        return Err(CliError::Usage("--stats-json -: give a file; stdout is for results".to_owned()));
    }
    let named = [
        ("--input", input),
        ("--output", output_path(arguments)),
        ("--stats-json", arguments.report.stats_json.as_deref()),
    ];
    if let Some(journal) = output_path(arguments).map(Journal::path_of) {
        for (flag, path) in [named[0], named[2]] {
            if path.is_some_and(|path| same_file(path, &journal)) {
                let path = journal.display();
                return Err(CliError::Usage(format!("{flag} {path}: --output needs this name, to be resumable")));
            }
        }
    }
    check_named(&named[..1], &named[1..])
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

/// Whether a run can be continued: from a regular file that can be read again, to a regular file.
pub(crate) fn is_resumable(arguments: &GenerateArgs, input: Option<&Path>) -> bool {
    let output_is_file =
        output_path(arguments).is_some_and(|path| fs::metadata(path).map_or(true, |found| found.is_file()));
    output_is_file && input.is_some_and(Path::is_file)
}

/// Refuses `--resume` where there is nothing to go on from.
pub(crate) fn check_resume(arguments: &GenerateArgs, input: Option<&Path>) -> Result<(), CliError> {
    if arguments.files.resume != Some(true) || is_resumable(arguments, input) {
        return Ok(());
    }
    let wanted = match (output_path(arguments), input) {
        (None, _) => "needs --output FILE; results on stdout cannot be continued",
        (Some(_), None) => "needs --input FILE; stdin and arguments cannot be read again",
        (Some(_), Some(path)) if !path.is_file() => "needs an input that is a regular file, which can be read again",
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
