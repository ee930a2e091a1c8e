//! Output files that an interrupted run leaves in a state from which `--resume` goes on.
//!
//! What makes this safe wherever the process is killed:
//! - the output only ever grows by whole records in input order, and each write is announced in the journal with the hash of all
//!   that the output will hold then: what stands in it is known to be the beginning of the whole output, and at most one torn
//!   write, which is cut off;
//! - a new run removes what earlier runs left beside the output, empties the output and writes the new journal in this order, so
//!   that a journal never stands beside an output of another run;
//! - when the output is complete and on the disk, a record of that takes the journal's place;
//! - a lock on the output keeps a second process away.

use std::{
    fs::{File, TryLockError},
    io::{Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::{error::CliError, files::NewFile};

mod journal;
mod output;
mod place;
mod setup;
mod verify;

use journal::{Journal, Note, Written};
pub(crate) use output::Output;
use place::Places;
pub(crate) use setup::Setup;
use verify::{Compared, Rest, compare};

/// What `--resume` finds.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing to go on from: the output begins anew. Why, where it had been begun.
    Nothing(Option<String>),
    /// All of the output.
    Complete {
        /// Its records.
        records: u64,
        /// Those of them that failed.
        failed: u64,
    },
    /// A beginning.
    Part(Box<Part>),
}

/// A beginning of an output, left by an interrupted run and not touched yet.
#[derive(Debug)]
pub(crate) struct Part {
    output: PathBuf,
    file: File,
    new: NewFile,
    written: Written,
    compared: Compared,
    /// What has happened to the output since, if anything that need not be refused.
    pub(crate) notice: Option<String>,
}

/// Every file that a run makes beside its output.
pub(crate) fn beside(output: &Path) -> Vec<PathBuf> {
    let Places { journal, done } = Places::of(output);
    vec![Places::unfinished(&journal), Places::unfinished(&done), journal, done]
}

/// Empties or creates an output whose records take `lines_per_record` lines each. With a `setup` the run can be continued later;
/// the text is why it cannot be although it should.
///
/// # Errors
/// The file cannot be written, another process writes it, or something else has a name that a run needs beside it.
pub(crate) fn start(
    output: &Path,
    setup: Option<&Setup>,
    lines_per_record: u64,
) -> Result<(Output, Option<String>), CliError> {
    let fail = |source| CliError::File { action: "write", path: output.to_owned(), source };
    if !crate::files::may_be_regular(output) {
        let (file, new) = NewFile::create(output)?;
        return Ok((Output::stream(file, new), None));
    }
    let places = Places::of(output);
    for path in beside(output) {
        journal::check_free(&path).map_err(|source| CliError::File { action: "replace", path, source })?;
    }
    let (file, new) = open_locked(output)?;
    for path in [&places.journal, &places.done] {
        journal::remove_stale(path).map_err(|source| CliError::File {
            action: "remove",
            path: path.clone(),
            source,
        })?;
    }
    file.set_len(0).and_then(|()| file.sync_all()).map_err(fail)?;
    let mut warning = None;
    let journal = setup.and_then(|setup| {
        Journal::create(&places, setup, &[])
            .map_err(|error| {
                let journal = places.journal.display();
                warning = Some(format!("cannot write {journal}: {error}; --resume will not be possible"));
            })
            .ok()
    });
    Ok((Output::new(output, file, new, journal, lines_per_record), warning))
}

/// Looks for what an earlier run of the same setup has left of an output, and touches nothing. `setup` is what is known of this
/// run before it begins; the parts of the earlier one's setup named in `later` are compared by [`Part::go_on`].
///
/// # Errors
/// The output cannot be written, another process writes it, it was not left by a run of elgen or by one of another setup, or it
/// was changed since.
pub(crate) fn examine(output: &Path, setup: &Setup, later: &[&str]) -> Result<Found, CliError> {
    let places = Places::of(output);
    let fail = |source| CliError::File { action: "write", path: output.to_owned(), source };
    let (file, new, length) = match std::fs::metadata(output) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (None, None, None),
        Err(error) => return Err(fail(error)),
        Ok(_) => {
            let (file, mut new) = open_locked(output)?;
            new.keep();
            let length = file.metadata().map_err(fail)?.len();
            (Some(file), Some(new), Some(length))
        }
    };
    let begun = read(&places.journal)?;
    let (Some(file), Some(new), Some(length @ 1..)) = (file, new, length) else {
        if let Some(written) = &begun {
            same_setup(output, "begun", setup, &written.setup.without(later))?;
        } else if let (Some(0), Some(done)) = (length, read(&places.done)?)
            && done.notes.iter().all(|note| note.bytes == 0)
            && setup.differences(&done.setup.without(later)).is_empty()
        {
            return Ok(Found::Complete { records: 0, failed: 0 });
        }
        let state = if length.is_some() { "is empty" } else { "is gone" };
        let had = begun.and_then(|written| written.notes.into_iter().rev().nth(1)).map_or(0, |note| note.records);
        let why = format!("{} {state}, though {had} records had been written; it is made anew", output.display());
        return Ok(Found::Nothing((had > 0).then_some(why)));
    };
    if let Some(Written { setup: earlier, notes }) = read(&places.done)? {
        let last = notes.last().cloned().unwrap_or_default();
        let compared = from_start(&file, &notes).map_err(fail)?;
        if compared.good == last && compared.rest == Rest::Torn {
            same_setup(output, "made", setup, &earlier.without(later))?;
            // Its run was killed before it could remove the journal.
            let _ = journal::remove_stale(&places.journal);
            return Ok(Found::Complete { records: last.records, failed: last.failed });
        }
        if begun.is_none() {
            let how = match length == last.bytes {
                true => "other bytes".to_owned(),
                false => format!("{length} bytes, had {}", last.bytes),
            };
            return Err(anew(output, &format!("was changed since it was complete: it has {how}")));
        }
    }
    let Some(written) = begun else {
        let what = format!(
            "was not left by a run of elgen that can be continued (there is no {}, and no {})",
            places.journal.display(),
            places.done.display()
        );
        return Err(anew(output, &what));
    };
    same_setup(output, "begun", setup, &written.setup.without(later))?;
    let compared = from_start(&file, &written.notes).map_err(fail)?;
    let notice = match compared.rest {
        Rest::Torn => None,
        Rest::Crashed => Some("holds NUL bytes, as a crash of the machine leaves them; they are cut off".to_owned()),
        Rest::Lost(records) => Some(format!("has lost {records} records that had been written; they are made anew")),
        Rest::Changed(first, last) => {
            let records = match first >= last {
                true => format!("at record {first}"),
                false => format!("within records {first} to {last}"),
            };
            return Err(anew(output, &format!("was changed since its run stopped: it differs {records}")));
        }
        Rest::Foreign(bytes) => {
            return Err(CliError::Usage(format!(
                "--resume: {} was changed since its run stopped: behind {} records it has {bytes} bytes that the run did not write; cut them off (`truncate -s {} FILE`), or run without --resume to start anew",
                output.display(),
                compared.good.records,
                compared.good.bytes
            )));
        }
    };
    let notice = notice.map(|what| format!("{} {what}", output.display()));
    Ok(Found::Part(Box::new(Part { output: output.to_owned(), file, new, written, compared, notice })))
}

impl Part {
    /// The setup of the run that left it.
    pub(crate) fn setup(&self) -> &Setup {
        &self.written.setup
    }

    /// Cuts off what is not complete, to write on behind it.
    ///
    /// # Errors
    /// The run that left it had another setup; the system refuses.
    pub(crate) fn go_on(self, setup: &Setup, lines_per_record: u64) -> Result<Output, CliError> {
        same_setup(&self.output, "begun", setup, &self.written.setup)?;
        let Part { output, file, new, written, compared, .. } = self;
        let fail = |source| CliError::File { action: "write", path: output.clone(), source };
        let known: Vec<Note> = written.notes.into_iter().take_while(|note| note.bytes <= compared.good.bytes).collect();
        // In this order: the journal must know all that stands in the output, whenever the process is killed.
        let cut = || {
            file.set_len(compared.good.bytes)?;
            file.sync_all()?;
            (&file).seek(SeekFrom::Start(compared.good.bytes)).map(|_| ())
        };
        cut().map_err(fail)?;
        let places = Places::of(&output);
        let journal = Journal::create(&places, setup, &known).map_err(|source| CliError::File {
            action: "write",
            path: places.journal.clone(),
            source,
        })?;
        Ok(Output::new(&output, file, new, Some(journal), lines_per_record).behind(compared.good, compared.hash))
    }
}

fn from_start(mut file: &File, notes: &[Note]) -> std::io::Result<Compared> {
    file.rewind()?;
    compare(file, notes)
}

fn read(path: &Path) -> Result<Option<Written>, CliError> {
    journal::read(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::InvalidData => {
            CliError::Failed(format!("--resume: {} is damaged; run without --resume to start anew", path.display()))
        }
        _ => CliError::File { action: "read", path: path.to_owned(), source },
    })
}

fn same_setup(output: &Path, how: &str, now: &Setup, then: &Setup) -> Result<(), CliError> {
    let differences = now.differences(then);
    if differences.is_empty() {
        return Ok(());
    }
    Err(anew(output, &format!("was {how} with another setup: {}", differences.join("; "))))
}

fn anew(output: &Path, what: &str) -> CliError {
    CliError::Usage(format!("--resume: {} {what}; run without --resume to start anew", output.display()))
}

/// Opens an output without touching what it holds, for this process alone.
fn open_locked(output: &Path) -> Result<(File, NewFile), CliError> {
    let fail = |source| CliError::File { action: "write", path: output.to_owned(), source };
    let (file, new) = NewFile::open(output, |options| {
        options.read(true);
    })
    .map_err(fail)?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(CliError::Failed(format!("cannot write {}: another process is writing it", output.display())))
        }
        // Some network file systems have no locks; without one the run is as safe as it was before there were any.
        Ok(()) | Err(TryLockError::Error(_)) => Ok((file, new)),
    }
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
