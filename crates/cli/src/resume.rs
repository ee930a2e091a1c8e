//! Output files that an interrupted run leaves in a state from which `--resume` goes on.
//!
//! What makes this safe wherever the process is killed:
//! - the output only ever grows by whole records in input order, so what stands in it is a beginning of the whole output and
//!   at most one torn record, which is cut off;
//! - a new run removes an old journal, empties the output and writes the new journal in this order, so that a journal never
//!   stands beside an output of another run;
//! - the journal is removed when the output is complete and on the disk;
//! - a lock on the output keeps a second process away.

use std::{
    fs::{self, File, TryLockError},
    io::{self, BufRead, BufReader, Seek, SeekFrom},
    path::Path,
};

use crate::error::CliError;

mod journal;
mod setup;

pub(crate) use journal::Journal;
pub(crate) use setup::Setup;

/// An output file, ready for its next record.
#[derive(Debug)]
pub(crate) struct OutputFile {
    /// Positioned behind the last complete record.
    pub(crate) file: File,
    /// The journal of the run, if it can be continued.
    pub(crate) journal: Option<Journal>,
    /// Records that stand in the file.
    pub(crate) records: u64,
    /// Those of them that failed.
    pub(crate) failed: u64,
    /// Why there is no journal although there should be.
    pub(crate) warning: Option<String>,
}

/// Empties or creates an output. With a `setup` the run can be continued later.
///
/// # Errors
/// The file cannot be written, or another process writes it.
pub(crate) fn start(output: &Path, setup: Option<&Setup>) -> Result<OutputFile, CliError> {
    let fail = |source| CliError::File { action: "write", path: output.to_owned(), source };
    if fs::metadata(output).is_ok_and(|found| !found.is_file()) {
        let file = File::create(output).map_err(fail)?;
        return Ok(OutputFile { file, journal: None, records: 0, failed: 0, warning: None });
    }
    begin(open_locked(output)?, output, setup)
}

fn begin(file: File, output: &Path, setup: Option<&Setup>) -> Result<OutputFile, CliError> {
    let fail = |source| CliError::File { action: "write", path: output.to_owned(), source };
    let mut output_file = OutputFile { file, journal: None, records: 0, failed: 0, warning: None };
    let path = Journal::path_of(output);
    Journal::remove_stale(&path).map_err(|source| CliError::File { action: "remove", path: path.clone(), source })?;
    output_file.file.set_len(0).and_then(|()| output_file.file.sync_all()).map_err(fail)?;
    if let Some(setup) = setup {
        match Journal::create(&path, setup) {
            Ok(journal) => output_file.journal = Some(journal),
            Err(error) => {
                output_file.warning =
                    Some(format!("cannot write {}: {error}; --resume will not be possible", path.display()));
            }
        }
    }
    Ok(output_file)
}

/// Continues an interrupted output whose records take `lines_per_record` lines each; one that is absent or empty is started.
///
/// # Errors
/// The file cannot be written, another process writes it, it was not left by an interrupted run, or by one of another setup.
pub(crate) fn resume(output: &Path, setup: &Setup, lines_per_record: u64) -> Result<OutputFile, CliError> {
    let fail = |source| CliError::File { action: "write", path: output.to_owned(), source };
    let path = Journal::path_of(output);
    let file = open_locked(output)?;
    let length = file.metadata().map_err(fail)?.len();
    let found = Journal::open(&path).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidData => {
            CliError::Failed(format!("--resume: {} is damaged; run without --resume to start anew", path.display()))
        }
        _ => CliError::File { action: "read", path: path.clone(), source },
    })?;
    let Some((journal, written)) = found else {
        if length > 0 {
            return Err(CliError::Usage(format!(
                "--resume: {} was not left by an interrupted run (there is no {}): it is complete, or not elgen's; run without --resume to overwrite it",
                output.display(),
                path.display()
            )));
        }
        let started = begin(file, output, Some(setup))?;
        return match started.warning {
            Some(warning) => Err(CliError::Failed(warning)),
            None => Ok(started),
        };
    };
    let differences = setup.differences(&written.setup);
    if !differences.is_empty() {
        return Err(CliError::Usage(format!(
            "--resume: {} was begun with another setup: {}; run without --resume to start anew",
            output.display(),
            differences.join("; ")
        )));
    }
    let complete = complete_records(BufReader::new(&file), lines_per_record).map_err(fail)?;
    let cut = || -> io::Result<()> {
        if complete.bytes < length {
            file.set_len(complete.bytes)?;
            file.sync_all()?;
        }
        (&file).seek(SeekFrom::Start(complete.bytes)).map(|_| ())
    };
    cut().map_err(fail)?;
    let failed = written.failed.range(..complete.records).count() as u64;
    Ok(OutputFile { file, journal: Some(journal), records: complete.records, failed, warning: None })
}

/// Opens an output without touching what it holds, for this process alone.
fn open_locked(output: &Path) -> Result<File, CliError> {
    let fail = |source| CliError::File { action: "write", path: output.to_owned(), source };
    let file = File::options().read(true).write(true).create(true).truncate(false).open(output).map_err(fail)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(CliError::Failed(format!("cannot write {}: another process is writing it", output.display())))
        }
        // Some network file systems have no locks; without one the run is as safe as it was before there were any.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// A beginning of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Complete {
    records: u64,
    bytes: u64,
}

/// The complete records of an output. A crash of the machine may leave NUL bytes where data had not reached the disk; what
/// stands before the first of them is counted, and a record too few costs time only.
fn complete_records(mut output: impl BufRead, lines_per_record: u64) -> io::Result<Complete> {
    let mut complete = Complete { records: 0, bytes: 0 };
    let (mut lines, mut at) = (0, 0);
    loop {
        let chunk = match output.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if chunk.is_empty() {
            return Ok(complete);
        }
        for &byte in chunk {
            at += 1;
            match byte {
                0 => return Ok(complete),
                b'\n' => {
                    lines += 1;
                    if lines == lines_per_record {
                        lines = 0;
                        complete = Complete { records: complete.records + 1, bytes: at };
                    }
                }
                _ => {}
            }
        }
        let used = chunk.len();
        output.consume(used);
    }
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
