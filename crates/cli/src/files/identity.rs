//! Whether two names, or a name and an open file, are one file.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

/// What the system knows a file by, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The file that `found` tells of; `None` where the system has no such numbers.
    #[cfg(unix)]
    pub(crate) fn of(found: &fs::Metadata) -> Option<FileId> {
        use std::os::unix::fs::MetadataExt;
        Some(FileId { device: found.dev(), inode: found.ino() })
    }

    /// The file that `found` tells of; `None` where the system has no such numbers.
    #[cfg(not(unix))]
    pub(crate) fn of(_: &fs::Metadata) -> Option<FileId> {
        None
    }

    /// The same of an open file.
    pub(crate) fn of_file(file: &File) -> Option<FileId> {
        FileId::of(&file.metadata().ok()?)
    }
}

/// What has become of a name since a file was opened under it.
///
/// # Errors
/// Another file has the name, or none: in words that follow on "it".
pub(crate) fn check_in_place(path: &Path, opened: Option<FileId>) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if FileId::of(&found) == opened => Ok(()),
        Ok(_) => Err(io::Error::other("another file has taken its place")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(io::Error::other("it was removed")),
        Err(error) => Err(error),
    }
}
