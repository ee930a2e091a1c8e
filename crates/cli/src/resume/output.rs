//! An output that is written record by record.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    rc::Rc,
};

use sha2::{Digest, Sha256};

use super::journal::{Journal, Note};
use crate::{
    error::CliError,
    files::{FileId, NewFile, check_in_place},
};

/// An open output, shared by what writes records and by what ends the run.
#[derive(Clone, Debug)]
pub(crate) struct Output(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    file: File,
    /// Goes again if the run ends at once.
    new: NewFile,
    /// The name and the file that had it when it was opened; `None` for a pipe or a device.
    place: Option<(PathBuf, Option<FileId>)>,
    journal: Option<Journal>,
    lines_per_record: u64,
    /// What stands in the output.
    so_far: Note,
    hash: Sha256,
    /// Numbers of records that failed and are not written yet.
    failed: BTreeSet<u64>,
    /// The run ended in good order: what it left stays.
    ended: bool,
}

impl Output {
    /// A pipe or a device.
    pub(super) fn stream(file: File, new: NewFile) -> Output {
        Output::from(file, new, None, None, 1)
    }

    /// An empty file.
    pub(super) fn new(
        path: &Path,
        file: File,
        new: NewFile,
        journal: Option<Journal>,
        lines_per_record: u64,
    ) -> Output {
        let id = FileId::of_file(&file);
        Output::from(file, new, Some((path.to_owned(), id)), journal, lines_per_record)
    }

    fn from(
        file: File,
        new: NewFile,
        place: Option<(PathBuf, Option<FileId>)>,
        journal: Option<Journal>,
        lines_per_record: u64,
    ) -> Output {
        Output(Rc::new(RefCell::new(State {
            file,
            new,
            place,
            journal,
            lines_per_record,
            so_far: Note::default(),
            hash: Sha256::new(),
            failed: BTreeSet::new(),
            ended: false,
        })))
    }

    /// The same with records that stand in the file already.
    pub(super) fn behind(self, so_far: Note, hash: Sha256) -> Output {
        {
            let mut state = self.0.borrow_mut();
            state.so_far = so_far;
            state.hash = hash;
        }
        self
    }

    /// Records that stand in the file.
    pub(crate) fn records(&self) -> u64 {
        self.0.borrow().so_far.records
    }

    /// Those of them that failed.
    pub(crate) fn failures(&self) -> u64 {
        self.0.borrow().so_far.failed
    }

    /// Whether a later run can continue this one.
    pub(crate) fn is_resumable(&self) -> bool {
        self.0.borrow().journal.is_some()
    }

    /// Notes that a record failed; to be called before the record is written.
    pub(crate) fn failed(&self, index: u64) {
        let mut state = self.0.borrow_mut();
        if state.journal.is_some() {
            state.failed.insert(index);
        }
    }

    /// Ends a run that was interrupted: what is there stays.
    ///
    /// # Errors
    /// The file has lost its name, and its results are lost with it.
    pub(crate) fn interrupted(&self) -> Result<(), CliError> {
        let mut state = self.0.borrow_mut();
        state.check_in_place()?;
        state.ended = true;
        state.new.keep();
        Ok(())
    }

    /// Brings a complete output to the disk and puts down that it is complete. The text is why the latter was not possible.
    ///
    /// # Errors
    /// The system refuses, or the file has lost its name.
    pub(crate) fn complete(&self) -> Result<Option<String>, CliError> {
        let mut state = self.0.borrow_mut();
        state.check_in_place()?;
        state.new.keep();
        state.ended = true;
        let Some(journal) = state.journal.take() else { return Ok(None) };
        state.file.sync_all().map_err(|source| state.write_error(source))?;
        let done = journal.places().done.clone();
        let mut last = state.so_far.clone();
        last.hash = Note::digits(&state.hash);
        let warning =
            |error| format!("cannot write {}: {error}; --resume will not know that all is done", done.display());
        Ok(journal.finish(&last).err().map(warning))
    }
}

impl State {
    fn write_error(&self, source: io::Error) -> CliError {
        let path = self.place.as_ref().map_or_else(PathBuf::new, |(path, _)| path.clone());
        CliError::File { action: "write", path, source }
    }

    fn check_in_place(&self) -> Result<(), CliError> {
        self.in_place().map_err(|source| self.write_error(source))
    }

    fn in_place(&self) -> io::Result<()> {
        let Some((path, id)) = &self.place else { return Ok(()) };
        check_in_place(path, *id).map_err(|error| io::Error::other(format!("{error} while the run wrote it")))
    }

    /// Announces what the output will hold behind `lines`, whole records.
    fn announce(&mut self, lines: &[u8]) -> io::Result<()> {
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let ends = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        let records = self.so_far.records + ends / self.lines_per_record;
        let behind = self.failed.split_off(&records);
        let failed = std::mem::replace(&mut self.failed, behind).len() as u64;
        self.hash.update(lines);
        self.so_far = Note {
            records,
            bytes: self.so_far.bytes + lines.len() as u64,
            failed: self.so_far.failed + failed,
            hash: Note::digits(&self.hash),
        };
        journal.note(&self.so_far)
    }
}

impl Write for Output {
    /// Takes whole records.
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        state.in_place()?;
        state.announce(lines)?;
        state.file.write_all(lines)?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().file.flush()
    }
}

impl Drop for State {
    /// A run that failed before its first record, or whose file is gone, leaves no journal.
    fn drop(&mut self) {
        let is_empty = || self.file.metadata().is_ok_and(|found| found.len() == 0);
        if !self.ended
            && (is_empty() || self.in_place().is_err())
            && let Some(journal) = self.journal.take()
        {
            let _ = journal.remove();
        }
    }
}
