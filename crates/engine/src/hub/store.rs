//! The cache on disk, laid out as Python's `huggingface_hub` does.
//!
//! ```text
//! CACHE/models--OWNER--NAME/blobs/ETAG              a content, whole and checked
//! CACHE/models--OWNER--NAME/blobs/ETAG.incomplete   what has arrived of one
//! CACHE/models--OWNER--NAME/snapshots/COMMIT/FILE   a link to ../../blobs/ETAG
//! CACHE/models--OWNER--NAME/refs/REVISION           the commit of a branch or tag
//! CACHE/.locks/models--OWNER--NAME/ETAG.lock        held while ETAG is downloaded
//! ```
//!
//! Every name below the cache is checked before it becomes part of a path, and a folder that is written to must lie in the cache after its links are
//! followed.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use super::{
    HubError,
    answers::{Etag, is_commit},
    limits::from_now,
};

/// Larger files are read from the cache by whoever knows their format.
const SMALL: u64 = 64 << 20;
/// How often a lock is tried.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// The part of a cache that belongs to one model.
#[derive(Debug)]
pub(super) struct Store {
    /// As it was given.
    cache: PathBuf,
    folder: String,
}

/// Held while a content is downloaded.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Store {
    /// The model `owner/name` in a cache; nothing is created.
    pub(super) fn new(cache: &Path, id: &str) -> Store {
        Store { cache: cache.to_owned(), folder: format!("models--{}", id.replace('/', "--")) }
    }

    pub(super) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The snapshot of a revision that the cache knows. A commit is known by itself.
    pub(super) fn find(&self, revision: &str) -> Option<PathBuf> {
        let repository = self.cache.join(&self.folder);
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            let text = read_small(&repository.join("refs").join(revision), 1 << 10).ok()?;
            let text = String::from_utf8(text).ok()?;
            Some(text.trim().to_owned()).filter(|commit| is_commit(commit))?
        };
        let dir = repository.join("snapshots").join(commit);
        dir.is_dir().then_some(dir)
    }

    /// The snapshot of a commit, whether it exists or not.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.cache.join(&self.folder).join("snapshots").join(commit)
    }

    /// A folder of the cache, which is created.
    fn folder(&self, parts: &[&str]) -> Result<PathBuf, HubError> {
        let root = create(&self.cache, fs::create_dir_all)?;
        let mut path = self.cache.clone();
        for part in parts {
            path.push(checked(part, &path)?);
            let real = create(&path, fs::create_dir)?;
            if !real.starts_with(&root) {
                return Err(HubError::Outside { path, cache: self.cache.clone() });
            }
        }
        Ok(path)
    }

    fn blobs(&self) -> Result<PathBuf, HubError> {
        self.folder(&[&self.folder, "blobs"])
    }

    /// Takes the lock of a content, and waits for it. `None` and the lock's place if another program holds it for longer than `wait`.
    pub(super) fn lock(&self, etag: &Etag, wait: Duration) -> Result<Result<Lock, PathBuf>, HubError> {
        let path = self.folder(&[".locks", &self.folder])?.join(format!("{}.lock", etag.as_str()));
        let file = open_plain(&path, false)?;
        let end = from_now(wait);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Ok(Lock { _file: file })),
                Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(LOCK_POLL),
                Err(TryLockError::WouldBlock) => return Ok(Err(path)),
                // Not every network file system has locks; Python goes on without as well.
                Err(TryLockError::Error(source)) if source.kind() == io::ErrorKind::Unsupported => {
                    return Ok(Ok(Lock { _file: file }));
                }
                Err(TryLockError::Error(source)) => return Err(HubError::Cache { path, source }),
            }
        }
    }

    /// Whether a content of this size is there, whole.
    pub(super) fn has_blob(&self, etag: &Etag, size: u64) -> Result<bool, HubError> {
        let path = self.blobs()?.join(etag.as_str());
        Ok(fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == size))
    }

    /// Opens what has arrived of a content, at most nothing; what is no file of its own is replaced by one.
    pub(super) fn partial(&self, etag: &Etag) -> Result<(PathBuf, File), HubError> {
        let path = self.blobs()?.join(format!("{}.incomplete", etag.as_str()));
        let file = open_plain(&path, true)?;
        Ok((path, file))
    }

    /// What a content takes from here on is free, or how much is. `None` where the system does not say.
    pub(super) fn free_space(&self) -> Option<u64> {
        #[cfg(unix)]
        {
            let found = rustix::fs::statvfs(&self.cache).ok()?;
            Some(found.f_bavail.saturating_mul(found.f_frsize))
        }
        #[cfg(not(unix))]
        None
    }

    /// A content is whole: gives it its name.
    pub(super) fn publish(&self, etag: &Etag) -> Result<(), HubError> {
        let blobs = self.blobs()?;
        let path = blobs.join(etag.as_str());
        fs::rename(blobs.join(format!("{}.incomplete", etag.as_str())), &path)
            .map_err(|source| HubError::Cache { path, source })
    }

    /// Makes a content a file of a snapshot.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &Etag) -> Result<PathBuf, HubError> {
        let dir = self.folder(&[&self.folder, "snapshots", commit])?;
        let path = dir.join(checked(file, &dir)?);
        let target = Path::new("../../blobs").join(etag.as_str());
        if fs::read_link(&path).is_ok_and(|found| found == target) {
            return Ok(path);
        }
        replace(&path, |temporary| link_or_copy(&target, &self.blobs_path().join(etag.as_str()), temporary))?;
        Ok(path)
    }

    fn blobs_path(&self) -> PathBuf {
        self.cache.join(&self.folder).join("blobs")
    }

    /// Makes a revision known. A commit names itself.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let mut parts = vec![self.folder.as_str(), "refs"];
        parts.extend(revision.split('/'));
        let last = parts.pop().unwrap_or_default();
        let dir = self.folder(&parts)?;
        let path = dir.join(checked(last, &dir)?);
        if read_small(&path, 1 << 10).is_ok_and(|found| found == commit.as_bytes())
            && fs::symlink_metadata(&path).is_ok_and(|found| found.is_file())
        {
            return Ok(());
        }
        replace(&path, |temporary| fs::write(temporary, commit))
    }
}

/// A name that stays where it is put: letters, digits, `-`, `_` and `.`, not at its beginning, 200 at most.
pub(super) fn is_component(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 200
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn checked<'a>(part: &'a str, parent: &Path) -> Result<&'a str, HubError> {
    if part == ".locks" || is_component(part) {
        return Ok(part);
    }
    let source = io::Error::new(io::ErrorKind::InvalidFilename, "not a name for a file of a cache");
    Err(HubError::Cache { path: parent.to_owned(), source })
}

/// A folder that exists or is created, its links followed.
fn create(path: &Path, create: impl Fn(PathBuf) -> io::Result<()>) -> Result<PathBuf, HubError> {
    let failed = |source| HubError::Cache { path: path.to_owned(), source };
    if !path.is_dir()
        && let Err(source) = create(path.to_owned())
        && !path.is_dir()
    {
        return Err(failed(source));
    }
    fs::canonicalize(path).map_err(failed)
}

/// Opens a file for writing, which is created; never a link, a device or a pipe. If `own`, what has a second name is replaced too.
fn open_plain(path: &Path, own: bool) -> Result<File, HubError> {
    let failed = |source| HubError::Cache { path: path.to_owned(), source };
    if let Ok(found) = fs::symlink_metadata(path)
        && (!found.is_file() || own && names(&found) > 1)
    {
        fs::remove_file(path).map_err(failed)?;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.custom_flags(flags.bits().cast_signed());
    }
    let file = options.open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        Ok(file)
    } else {
        Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")))
    }
}

#[cfg(unix)]
fn names(found: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(found)
}

#[cfg(not(unix))]
fn names(_: &fs::Metadata) -> u64 {
    1
}

/// Makes something beside `path` and then calls it that, so that nobody ever sees half of it and no link at `path` is followed.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), HubError> {
    let failed = |source| HubError::Cache { path: path.to_owned(), source };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".elgen-{}-{name}", process::id()));
    match fs::remove_file(&temporary) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
        _ => {}
    }
    make(&temporary).and_then(|()| fs::rename(&temporary, path)).map_err(|source| {
        // Nothing more can be done about it.
        let _ = fs::remove_file(&temporary);
        failed(source)
    })
}

#[cfg(unix)]
fn link_or_copy(target: &Path, _: &Path, place: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, place)
}

#[cfg(windows)]
fn link_or_copy(target: &Path, blob: &Path, place: &Path) -> io::Result<()> {
    // Links need a privilege there.
    std::os::windows::fs::symlink_file(target, place).or_else(|_| fs::copy(blob, place).map(|_| ()))
}

#[cfg(not(any(unix, windows)))]
fn link_or_copy(_: &Path, blob: &Path, place: &Path) -> io::Result<()> {
    fs::copy(blob, place).map(|_| ())
}

/// Reads a regular file of at most `limit` bytes.
pub(super) fn read_small(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let refused = |reason| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    // A pipe would block as soon as it is opened.
    if !fs::metadata(path)?.is_file() {
        return refused("not a regular file");
    }
    let mut content = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit { refused("larger than it can be") } else { Ok(content) }
}

/// Reads a JSON file of a snapshot.
pub(super) fn read_json(path: &Path) -> io::Result<Vec<u8>> {
    read_small(path, SMALL)
}
