//! What was read of an input, to be held against what was counted before.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read},
    rc::Rc,
};

use sha2::{Digest, Sha256};

use crate::files::FileId;

/// What was read of a file.
pub(super) struct Seen {
    pub(super) id: Option<FileId>,
    pub(super) bytes: u64,
    pub(super) hash: Sha256,
}

/// A file that notes what is read of it.
pub(super) struct Watched {
    file: File,
    seen: Rc<RefCell<Seen>>,
}

impl Watched {
    /// The file, and what will have been read of it.
    pub(super) fn new(file: File) -> (Watched, Rc<RefCell<Seen>>) {
        let seen = Rc::new(RefCell::new(Seen { id: FileId::of_file(&file), bytes: 0, hash: Sha256::new() }));
        (Watched { file, seen: Rc::clone(&seen) }, seen)
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let mut seen = self.seen.borrow_mut();
        seen.bytes += read as u64;
        seen.hash.update(&buffer[..read]);
        Ok(read)
    }
}
