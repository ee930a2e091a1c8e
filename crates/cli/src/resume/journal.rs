//! The file beside an unfinished output that lets a later run continue it.
//!
//! `OUT.elgen-resume` is written before the first record and removed behind the last. Its first line is the [`Setup`]; a
//! line `{"failed":17}` follows for every record that failed, written before the record itself, so that a continued run
//! ends with the exit code of an uninterrupted one.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::setup::Setup;

const SUFFIX: &str = ".elgen-resume";

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    file: File,
}

/// What a journal holds.
#[derive(Debug)]
pub(crate) struct Written {
    /// The setup of the run that wrote it.
    pub(crate) setup: Setup,
    /// Numbers of records that failed.
    pub(crate) failed: BTreeSet<u64>,
}

#[derive(Serialize, Deserialize)]
struct Failed {
    failed: u64,
}

impl Journal {
    /// The journal's place beside an output.
    pub(crate) fn path_of(output: &Path) -> PathBuf {
        let mut path = OsString::from(output);
        path.push(SUFFIX);
        path.into()
    }

    /// Writes a journal that is there whole or not at all, whenever the process or the machine stops.
    pub(crate) fn create(path: &Path, setup: &Setup) -> io::Result<Journal> {
        let mut unfinished = OsString::from(path);
        unfinished.push(".tmp");
        let mut file = File::create(&unfinished)?;
        file.write_all(&line(setup)?)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        sync_directory_of(path)?;
        Ok(Journal { path: path.to_owned(), file })
    }

    /// Opens the journal at `path` if there is one.
    ///
    /// # Errors
    /// The file cannot be read, or is no journal ([`io::ErrorKind::InvalidData`]).
    pub(crate) fn open(path: &Path) -> io::Result<Option<(Journal, Written)>> {
        let mut file = match File::options().read(true).append(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut lines = BufReader::new(&file);
        let mut first = Vec::new();
        lines.read_until(b'\n', &mut first)?;
        let setup = serde_json::from_slice(&first).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut failed = BTreeSet::new();
        let mut last = first;
        loop {
            let mut next = Vec::new();
            if lines.read_until(b'\n', &mut next)? == 0 {
                break;
            }
            // A line that a kill cut short belongs to a record that was not written.
            if let Ok(Failed { failed: index }) = serde_json::from_slice(&next)
                && next.ends_with(b"\n")
            {
                failed.insert(index);
            }
            last = next;
        }
        if !last.ends_with(b"\n") {
            file.write_all(b"\n")?;
        }
        Ok(Some((Journal { path: path.to_owned(), file }, Written { setup, failed })))
    }

    /// The setup of the journal at `path`, if there is one that can be read.
    pub(crate) fn setup_at(path: &Path) -> Option<Setup> {
        let mut first = Vec::new();
        BufReader::new(File::open(path).ok()?).read_until(b'\n', &mut first).ok()?;
        serde_json::from_slice(&first).ok()
    }

    /// Notes that a record failed; to be called before the record is written.
    pub(crate) fn failed(&mut self, index: u64) -> io::Result<()> {
        self.file.write_all(&line(&Failed { failed: index })?)
    }

    /// Removes the journal: the output is complete.
    pub(crate) fn remove(self) -> io::Result<()> {
        Journal::remove_stale(&self.path)
    }

    /// Removes what an earlier run left.
    pub(crate) fn remove_stale(path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_directory_of(path),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

/// Makes a new or removed name outlast a crash of the machine.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Elsewhere a directory cannot be opened as a file.
    if cfg!(unix) { File::open(parent)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_journal_outlives_its_writer_and_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = Journal::path_of(&dir.path().join("out.jsonl"));
        assert_eq!(path.file_name().unwrap(), "out.jsonl.elgen-resume");
        assert!(Journal::open(&path).unwrap().is_none());
        let mut setup = Setup::default();
        setup.set("--seed", json!(7));
        let mut journal = Journal::create(&path, &setup).unwrap();
        journal.failed(3).unwrap();
        journal.failed(12).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        for end in first..=whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let (mut journal, written) = Journal::open(&path).unwrap().unwrap();
            assert_eq!(written.setup, setup);
            let complete = whole[first..end].iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(written.failed, [3, 12].into_iter().take(complete).collect(), "{end}");
            // What is noted now is not glued to the torn line.
            journal.failed(20).unwrap();
            let (journal, written) = Journal::open(&path).unwrap().unwrap();
            assert!(written.failed.contains(&20), "{end}");
            journal.remove().unwrap();
            assert!(!path.exists());
        }
        Journal::remove_stale(&path).unwrap();
        fs::write(&path, "no journal\n").unwrap();
        assert_eq!(Journal::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }
}
