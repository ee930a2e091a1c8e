//! Files that are read or written whole.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use elgen_models::files::{read_at_most, read_regular};

use super::{
    identity::{FileId, check_in_place},
    uses::parent_of,
};
use crate::error::CliError;

/// Far above any file of options; keeps a mistaken one from being read into memory.
pub(crate) const MAX_OPTIONS_BYTES: u64 = 64 << 20;

/// The bytes of a file of options, or of another file that must end: a regular one of at most `limit` bytes, or what comes
/// through a descriptor that the program was given, as with `<(…)`.
pub(crate) fn read_whole(path: &Path, limit: u64) -> Result<Vec<u8>, CliError> {
    let read = if is_descriptor(path) {
        File::open(path).and_then(|file| read_at_most(file, limit))
    } else {
        read_regular(path, limit)
    };
    read.map_err(|source| CliError::File { action: "read", path: path.to_owned(), source })
}

/// [`read_whole`] of a text.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, CliError> {
    String::from_utf8(read_whole(path, limit)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to() + 1;
        CliError::Failed(format!("{}: invalid UTF-8 at byte {at}", path.display()))
    })
}

/// Whether a path names an open descriptor: its other end is there, so that opening it does not wait.
fn is_descriptor(path: &Path) -> bool {
    ["/dev/fd", "/proc/self/fd", "/dev/stdin"].iter().any(|place| path.starts_with(place))
}

/// Writes a file whole or not at all. What was there stays until the new content is on the disk.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<(), CliError> {
    let fail = |source| CliError::File { action: "write", path: path.into(), source };
    let found = fs::metadata(path);
    // A terminal, a pipe or /dev/null cannot be replaced.
    if found.as_ref().is_ok_and(|found| !found.is_file()) {
        return fs::write(path, text).map_err(fail);
    }
    // A link goes on leading to the file.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".elgen-");
    // Temporary files are for their owner alone; this one becomes a file like any other.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = match builder.tempfile_in(parent_of(path)) {
        // A directory that takes no new file may still hold one that can be written.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && found.is_ok() => {
            return fs::write(path, text).map_err(fail);
        }
        other => other.map_err(fail)?,
    };
    if let Ok(found) = found {
        file.as_file().set_permissions(found.permissions()).map_err(fail)?;
    }
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

/// A file for results that are written as they come. One that did not exist before and that nothing was written to goes again
/// unless it is kept: a run that failed at once leaves nothing behind.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    id: Option<FileId>,
    created: bool,
    kept: bool,
}

impl NewFile {
    /// Opens a file for writing and empties it.
    pub(crate) fn create(path: &Path) -> Result<(File, NewFile), CliError> {
        let fail = |source| CliError::File { action: "write", path: path.to_owned(), source };
        let (file, new) = NewFile::open(path, |_| {}).map_err(fail)?;
        if !new.created && file.metadata().is_ok_and(|found| found.is_file()) {
            file.set_len(0).map_err(fail)?;
        }
        Ok((file, new))
    }

    /// Opens a file for writing as it is.
    pub(crate) fn open(path: &Path, with: impl Fn(&mut fs::OpenOptions)) -> io::Result<(File, NewFile)> {
        let mut options = File::options();
        with(options.write(true));
        let (file, created) = match options.clone().create_new(true).open(path) {
            // A link that leads nowhere is there and makes a new file all the same.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (options.create(true).open(path)?, false),
            other => (other?, true),
        };
        let id = FileId::of_file(&file);
        Ok((file, NewFile { path: path.to_owned(), id, created, kept: false }))
    }

    /// Leaves the file whatever is in it.
    pub(crate) fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        let is_empty = || fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_file() && found.len() == 0);
        if self.created && !self.kept && check_in_place(&self.path, self.id).is_ok() && is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_file_is_replaced_in_its_place_with_its_permissions() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        symlink("file", &link).unwrap();
        write_whole(&link, "new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(link.is_symlink());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(write_whole(&dir.path().join("no/file"), "x").is_err());
    }

    #[test]
    fn new_files_that_stay_empty_go_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        drop(NewFile::create(&path).unwrap());
        assert!(!path.exists());
        let (_, mut new) = NewFile::create(&path).unwrap();
        new.keep();
        drop(new);
        assert!(path.exists());
        drop(NewFile::create(&path).unwrap());
        assert!(path.exists(), "it was there before");
        let (mut file, new) = NewFile::create(&dir.path().join("other")).unwrap();
        file.write_all(b"x").unwrap();
        drop(new);
        assert!(dir.path().join("other").exists());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_are_no_files_of_options() {
        let told = |path: &str| crate::error::one_line(&read_whole(path.as_ref(), 4).unwrap_err());
        assert_eq!(told("/dev/zero"), "cannot read /dev/zero: not a regular file");
        assert_eq!(told("/dev"), "cannot read /dev: is a directory");
        let zero = File::open("/dev/zero").unwrap();
        let descriptor = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&zero));
        assert!(told(&descriptor).contains("more than the 4 bytes"), "it ends");
    }
}
