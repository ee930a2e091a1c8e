//! Input files, one behind the other.

use std::{
    cell::{Ref, RefCell},
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    rc::Rc,
};

use super::watched::{Seen, Watched};

/// A line of one of the inputs, or an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file's number among those that were named.
    pub(super) file: usize,
    /// 1-based.
    pub(super) line: u64,
}

impl Place {
    /// The first line of the only input.
    pub(crate) const FIRST: Place = Place { file: 0, line: 1 };
}

/// Files of which one is open at a time.
pub(super) struct Files {
    open: Option<Box<dyn BufRead>>,
    waiting: VecDeque<PathBuf>,
    names: Vec<String>,
    /// The number of the open one.
    at: usize,
    /// What was read of the only one.
    seen: Option<Rc<RefCell<Seen>>>,
}

impl Files {
    /// What is open already.
    pub(super) fn opened(reader: Box<dyn BufRead>, name: String) -> Files {
        Files { open: Some(reader), waiting: VecDeque::new(), names: vec![name], at: 0, seen: None }
    }

    /// Files by their paths. All but the first are opened when their turn comes.
    ///
    /// # Errors
    /// A file that cannot be opened, and which one it is.
    pub(super) fn of_paths(paths: &[PathBuf]) -> Result<Files, (PathBuf, io::Error)> {
        for path in paths.iter().skip(1) {
            // What can be told before anything runs. Opening a pipe would wait for its writer.
            match std::fs::metadata(path) {
                Ok(found) if found.is_file() => open_file(path).map(drop).map_err(|error| (path.clone(), error))?,
                Ok(found) if found.is_dir() => return Err((path.clone(), io::ErrorKind::IsADirectory.into())),
                Ok(_) => {}
                Err(error) => return Err((path.clone(), error)),
            }
        }
        let mut waiting: VecDeque<PathBuf> = paths.iter().cloned().collect();
        let names = paths.iter().map(|path| path.display().to_string()).collect();
        let first = waiting.pop_front().map(|path| open_file(&path).map_err(|error| (path, error))).transpose()?;
        let mut files = Files { open: None, waiting, names, at: 0, seen: None };
        if let Some(file) = first {
            let (watched, seen) = Watched::new(file);
            files.open = Some(Box::new(BufReader::new(watched)));
            files.seen = (paths.len() == 1).then_some(seen);
        }
        Ok(files)
    }

    /// The reader of the open file; `None` behind the last one.
    pub(super) fn reader(&mut self) -> Option<&mut (dyn BufRead + 'static)> {
        self.open.as_deref_mut()
    }

    /// Goes on to the next file, if there is one.
    ///
    /// # Errors
    /// It cannot be opened; it is then the present one.
    pub(super) fn advance(&mut self) -> io::Result<()> {
        self.open = None;
        if let Some(path) = self.waiting.pop_front() {
            self.at += 1;
            self.open = Some(Box::new(BufReader::new(open_file(&path)?)));
        }
        Ok(())
    }

    /// The number of the present file.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What was read, where there is one file that was opened by its path.
    pub(super) fn seen(&self) -> Option<Ref<'_, Seen>> {
        Some(self.seen.as_ref()?.borrow())
    }

    /// The name of a file in messages.
    pub(super) fn name(&self, file: usize) -> &str {
        self.names.get(file).map_or("<input>", String::as_str)
    }
}

fn open_file(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    // Opening a directory works on Unix, reading it does not; say so before a model is loaded.
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(file)
}
