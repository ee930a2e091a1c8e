//! The file beside an unfinished output that lets a later run continue it.
//!
//! `OUT.elgen-resume` is written before the first record. Its first line is the [`Setup`]. Behind it lie [`SLOTS`] places for
//! notes, filled in turn: each says, before records are written, how long the output will be then, how many records it will
//! hold and of these how many that failed, and what its bytes hash to. So an output that is longer than the last note, or that
//! has another hash than one of them, was changed by somebody else. Lines begin with a checksum of their own.
//!
//! When the output is complete, `.OUT.elgen-done` takes its place: the setup and the last note.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use elgen_models::files::open_regular;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{place::Places, setup::Setup};
use crate::{
    files::{FileId, check_in_place, parent_of},
    input::hex,
};

/// Notes that are kept: enough to say where an output was changed, in half a megabyte.
const SLOTS: u64 = 4096;
/// Bytes of a note's line. A slot never lies across the sectors of a disk, whose writes are whole or not at all.
const SLOT_BYTES: usize = 128;
const SECTOR_BYTES: usize = 512;
/// The longest first line; options hold lists, but none of this size.
const MAX_SETUP_BYTES: u64 = 16 << 20;
/// Of the format.
const VERSION: u32 = 2;
/// What the first line of every journal has behind its checksum.
const MARK: &[u8] = b"{\"elgen-resume\":";
const CHECKSUM_DIGITS: usize = 8;

/// What an output holds at some point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Those of the records that failed.
    pub(crate) failed: u64,
    /// The beginning of the SHA-256 of the bytes.
    pub(crate) hash: String,
}

impl Note {
    /// The digits that stand for a hash.
    pub(crate) fn digits(hash: &Sha256) -> String {
        hex(&hash.clone().finalize()[..8])
    }
}

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    places: Places,
    file: File,
    setup: Setup,
    /// Where the slots begin.
    slots_at: u64,
    notes: u64,
}

/// What a journal holds.
#[derive(Debug)]
pub(crate) struct Written {
    /// The setup of the run that wrote it.
    pub(crate) setup: Setup,
    /// By ascending length of the output.
    pub(crate) notes: Vec<Note>,
}

#[derive(Serialize, Deserialize)]
struct First {
    #[serde(rename = "elgen-resume")]
    version: u32,
    setup: Setup,
}

impl Journal {
    /// Writes a journal that is there whole or not at all, whenever the process or the machine stops; `notes` are known already.
    pub(crate) fn create(places: &Places, setup: &Setup, notes: &[Note]) -> io::Result<Journal> {
        let (first, slots) = (first_line(setup)?, notes.iter().map(slot).collect::<io::Result<Vec<_>>>()?);
        let slots_at = first.len() as u64;
        let file = write_in_place(&places.journal, &[first, slots.concat()].concat())?;
        Ok(Journal { places: places.clone(), file, setup: setup.clone(), slots_at, notes: notes.len() as u64 })
    }

    /// Says what the output will hold when the next write is done; to be called before that write.
    pub(crate) fn note(&mut self, note: &Note) -> io::Result<()> {
        let at = self.slots_at + (self.notes % SLOTS) * SLOT_BYTES as u64;
        self.notes += 1;
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(&slot(note)?)
    }

    /// Puts down that the output is complete, and removes the journal.
    ///
    /// # Errors
    /// The record of it cannot be written; the journal is removed all the same.
    pub(crate) fn finish(self, last: &Note) -> io::Result<()> {
        let recorded = first_line(&self.setup)
            .and_then(|first| Ok([first, slot(last)?].concat()))
            .and_then(|lines| write_in_place(&self.places.done, &lines));
        let removed = self.remove();
        recorded.and(removed)
    }

    /// Removes the journal, unless another run has put its own there.
    pub(crate) fn remove(self) -> io::Result<()> {
        match check_in_place(&self.places.journal, FileId::of_file(&self.file)) {
            Ok(()) => remove(&self.places.journal),
            Err(_) => Ok(()),
        }
    }

    /// The files beside the output.
    pub(crate) fn places(&self) -> &Places {
        &self.places
    }
}

/// Reads the journal, or the record of a complete output, at `path` if there is one.
///
/// # Errors
/// The file cannot be read, is no regular file, or is damaged ([`io::ErrorKind::InvalidData`]).
pub(crate) fn read(path: &Path) -> io::Result<Option<Written>> {
    match fs::symlink_metadata(path) {
        Err(error) if is_absent(&error) => return Ok(None),
        Ok(found) if found.is_symlink() => return Err(io::Error::other("a link, not a regular file")),
        _ => {}
    }
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let mut bytes = Vec::new();
    open_regular(path)?.take(MAX_SETUP_BYTES + SLOTS * SLOT_BYTES as u64).read_to_end(&mut bytes)?;
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)? + 1;
    let first: First = content(&bytes[..end]).ok_or_else(damaged)?;
    if first.version != VERSION {
        return Err(damaged());
    }
    let mut notes: Vec<Note> = Vec::new();
    // A slot that is not whole was being written when its run was killed, one of NUL bytes when the machine stopped; the write
    // that it was to announce had not begun.
    for slot in bytes[end..].chunks_exact(SLOT_BYTES).filter(|slot| slot.iter().any(|byte| *byte != 0)) {
        notes.push(content(slot).ok_or_else(damaged)?);
    }
    notes.sort_by_key(|note| note.bytes);
    let grow = |pair: &[Note]| pair[0].bytes < pair[1].bytes && pair[0].records <= pair[1].records;
    if notes.windows(2).all(grow) { Ok(Some(Written { setup: first.setup, notes })) } else { Err(damaged()) }
}

/// Removes what an earlier run left.
///
/// # Errors
/// The system refuses, or this is nothing that a run leaves.
pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
    check_free(path)?;
    remove(path)
}

/// Whether a name is free for a file of ours.
///
/// # Errors
/// Something has the name that no run has left.
pub(crate) fn check_free(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if found.is_file() && found.len() == 0 => return Ok(()),
        Ok(found) if found.is_file() => {
            let mut begin = vec![0; CHECKSUM_DIGITS + 1 + MARK.len()];
            if open_regular(path)?.read_exact(&mut begin).is_ok() && begin.ends_with(MARK) {
                return Ok(());
            }
        }
        Ok(_) => {}
    }
    Err(io::Error::other("no run of elgen has left what has this name"))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if is_absent(&error) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory_of(path),
    }
}

/// A path that is too long leads to nothing.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename)
}

/// Writes a file under another name first. What could not be written goes again.
fn write_in_place(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let unfinished: PathBuf = Places::unfinished(path);
    remove_stale(&unfinished)?;
    let mut file = File::options().write(true).create_new(true).open(&unfinished)?;
    let write = |file: &mut File| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)
    };
    if let Err(error) = write(&mut file) {
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    sync_directory_of(path)?;
    Ok(file)
}

fn first_line(setup: &Setup) -> io::Result<Vec<u8>> {
    let line = line(&First { version: VERSION, setup: setup.clone() }, SECTOR_BYTES)?;
    match line.len() as u64 {
        length if length > MAX_SETUP_BYTES => Err(io::Error::other("the options of the run are too long")),
        _ => Ok(line),
    }
}

fn slot(note: &Note) -> io::Result<Vec<u8>> {
    line(&(note.records, note.bytes, note.failed, &note.hash), SLOT_BYTES)
}

/// A value as a line with a checksum, filled up to a multiple of `unit` bytes.
fn line(value: &impl Serialize, unit: usize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    let mut line = checksum(&json).into_bytes();
    line.push(b' ');
    line.extend(json);
    line.resize((line.len() + 1).next_multiple_of(unit) - 1, b' ');
    line.push(b'\n');
    Ok(line)
}

/// The value of a line whose checksum is right.
fn content<T: for<'a> Deserialize<'a>>(line: &[u8]) -> Option<T> {
    let (sum, json) = line.split_at_checked(CHECKSUM_DIGITS)?;
    let json = json.strip_prefix(b" ")?.strip_suffix(b"\n")?.trim_ascii_end();
    if checksum(json).as_bytes() != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn checksum(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..CHECKSUM_DIGITS / 2])
}

/// Makes a new or removed name outlast a crash of the machine.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened as a file.
    if cfg!(unix) { File::open(parent_of(path))?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn note(records: u64) -> Note {
        Note { records, bytes: records * 10, failed: records / 3, hash: format!("{records:016x}") }
    }

    fn setup() -> Setup {
        let mut setup = Setup::default();
        setup.set("--seed", json!(7));
        setup
    }

    fn journal(dir: &Path) -> Journal {
        Journal::create(&Places::of(&dir.join("out.jsonl")), &setup(), &[]).unwrap()
    }

    #[test]
    fn a_journal_outlives_its_writer_and_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path());
        let path = journal.places().journal.clone();
        (1..=3).for_each(|records| journal.note(&note(records)).unwrap());
        let whole = fs::read(&path).unwrap();
        let first = whole.len() - 3 * SLOT_BYTES;
        for end in first..=whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let written = read(&path).unwrap().unwrap();
            assert_eq!(written.setup, setup());
            let complete = ((end - first) / SLOT_BYTES) as u64;
            assert_eq!(written.notes, (1..=complete).map(note).collect::<Vec<_>>(), "{end}");
            // A machine that stopped may leave NUL bytes.
            let mut holes = whole[..end].to_owned();
            holes.resize(whole.len(), 0);
            if (end - first).is_multiple_of(SLOT_BYTES) {
                fs::write(&path, &holes).unwrap();
                assert_eq!(read(&path).unwrap().unwrap().notes.len() as u64, complete);
            }
        }
    }

    #[test]
    fn a_journal_does_not_grow_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path());
        let path = journal.places().journal.clone();
        (1..=SLOTS + 5).for_each(|records| journal.note(&note(records)).unwrap());
        let written = read(&path).unwrap().unwrap();
        assert_eq!(written.notes, (6..=SLOTS + 5).map(note).collect::<Vec<_>>());
        let mut again = Journal::create(journal.places(), &setup(), &written.notes).unwrap();
        again.note(&note(SLOTS + 6)).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().notes, (7..=SLOTS + 6).map(note).collect::<Vec<_>>());
        assert!(fs::metadata(&path).unwrap().len() < 1 << 20);
    }

    #[test]
    fn any_changed_byte_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path());
        let path = journal.places().journal.clone();
        (1..=2).for_each(|records| journal.note(&note(records)).unwrap());
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).filter(|at| whole[*at] != b' ') {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{at}");
        }
        for other in ["", "no journal\n", "{}", "0123456\n", "é\n"] {
            fs::write(&path, other).unwrap();
            assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{other:?}");
        }
        fs::remove_file(&path).unwrap();
        assert!(read(&path).unwrap().is_none());
        assert!(read(&dir.path().join("y".repeat(300))).unwrap().is_none());
    }

    #[test]
    fn a_complete_output_has_a_small_record_in_place_of_its_journal() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = journal(dir.path());
        (1..=9).for_each(|records| journal.note(&note(records)).unwrap());
        let places = journal.places().clone();
        journal.finish(&note(9)).unwrap();
        assert!(!places.journal.exists());
        let written = read(&places.done).unwrap().unwrap();
        assert_eq!((written.setup, written.notes), (setup(), vec![note(9)]));
        assert!(fs::metadata(&places.done).unwrap().len() < 4096);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no other file is left");
    }

    #[test]
    fn only_files_of_ours_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = journal(dir.path());
        first.note(&note(1)).unwrap();
        let path = first.places().journal.clone();
        // Another run has put its own journal there.
        let second = journal(dir.path());
        first.remove().unwrap();
        assert!(path.exists());
        second.remove().unwrap();
        assert!(!path.exists());
        drop(journal(dir.path()));
        remove_stale(&path).unwrap();
        assert!(!path.exists());
        remove_stale(&path).unwrap();
        fs::write(&path, "a user's text\n").unwrap();
        assert!(remove_stale(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "a user's text\n");
        fs::create_dir(dir.path().join("dir")).unwrap();
        assert!(remove_stale(&dir.path().join("dir")).is_err());
    }
}
