//! Downloads single files with hf-hub, and checks what came.

use std::{
    fs::{self, File},
    io::{self, Read},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use hf_hub::{
    Cache, Repo, RepoType,
    api::{
        RepoInfo,
        sync::{Api, ApiError, Metadata},
    },
};
use sha2::Digest;

use super::{HubError, ModelName};

const ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(300);

/// Fetches the files of one model.
pub(super) struct Downloader<'a> {
    api: Api,
    cache: Cache,
    model: &'a ModelName,
    has_token: bool,
}

impl Downloader<'_> {
    pub(super) fn new(api: Api, cache: Cache, model: &ModelName, has_token: bool) -> Downloader<'_> {
        Downloader { api, cache, model, has_token }
    }

    /// Commit and files of a revision.
    pub(super) fn info(&self, repo: &Repo) -> Result<RepoInfo, HubError> {
        const WHAT: &str = "list of files";
        let ask = |repo: &Repo| self.call(WHAT, || self.api.repo(repo.clone()).info());
        repeat(|| ask(repo)).map_err(|error| match error {
            HubError::Status { status: 404, .. } => {
                let plain = Repo::model(self.model.id().to_owned());
                if repo.revision() != plain.revision() && ask(&plain).is_ok() {
                    HubError::NoRevision { model: self.model.id().to_owned(), revision: repo.revision().to_owned() }
                } else {
                    HubError::NoModel { model: self.model.id().to_owned() }
                }
            }
            other => other,
        })
    }

    /// Brings one file into the cache; gives its place in the snapshot of `commit`.
    pub(super) fn fetch(&self, commit: &str, file: &str) -> Result<PathBuf, HubError> {
        let repo = Repo::with_revision(self.model.id().to_owned(), RepoType::Model, commit.to_owned());
        repeat(|| self.attempt(&repo, file))
    }

    fn attempt(&self, repo: &Repo, file: &str) -> Result<PathBuf, HubError> {
        let remote = self.api.repo(repo.clone());
        let announced = self.call(file, || self.api.metadata(&remote.url(file)))?;
        self.check(&announced, repo, file)?;
        let local = self.cache.repo(repo.clone());
        let pointer = local.pointer_path(repo.revision()).join(file);
        let blob = local.blob_path(announced.etag());
        let size = announced.size() as u64;
        // An earlier run may have been ended after this file.
        if size_of(&pointer) == Some(size) {
            return Ok(pointer);
        }
        remove(&pointer)?;
        // A whole part cannot be resumed: there is nothing left to ask for.
        let part = blob.with_extension("part");
        if size_of(&part).is_some_and(|length| length >= size) {
            remove(&part)?;
        }
        self.call(file, || remote.download(file))?;
        if let Some(reason) = difference(&blob, &announced)? {
            remove(&pointer)?;
            remove(&blob)?;
            return Err(HubError::Damaged { model: self.model.to_string(), file: file.to_owned(), reason });
        }
        Ok(pointer)
    }

    /// Calls hf-hub, which panics on some contradictory answers, and turns either failure into its reason.
    fn call<T>(&self, what: &str, call: impl FnOnce() -> Result<T, ApiError>) -> Result<T, HubError> {
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(result) => result.map_err(|error| self.explain(what, error)),
            Err(_) => Err(HubError::Answer {
                model: self.model.to_string(),
                what: what.to_owned(),
                reason: "it contradicts itself".to_owned(),
            }),
        }
    }

    /// The hub's answers become file names and must not lead elsewhere.
    fn check(&self, announced: &Metadata, repo: &Repo, file: &str) -> Result<(), HubError> {
        let etag = announced.etag();
        let plain = etag.strip_prefix("W/").unwrap_or(etag);
        let reason = if announced.commit_hash() != repo.revision() {
            format!("commit `{}` instead of {}", announced.commit_hash().escape_debug(), repo.revision())
        } else if plain.is_empty() || !plain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
            format!("etag `{}`", etag.escape_debug())
        } else {
            return Ok(());
        };
        Err(HubError::Answer { model: self.model.to_string(), what: file.to_owned(), reason })
    }

    fn explain(&self, what: &str, error: ApiError) -> HubError {
        let model = self.model.to_string();
        let reason = error.to_string();
        match error {
            ApiError::RequestError(request) => match *request {
                ureq::Error::StatusCode(status @ (401 | 403)) => {
                    let hint = match (self.has_token, status) {
                        (false, _) => {
                            "it does not exist, is private, or asks for consent; set HF_TOKEN to the token of an account that may read it"
                        }
                        (true, 401) => "the token (HF_TOKEN, or the stored one) is not valid for it",
                        (true, _) => {
                            "the account of the token (HF_TOKEN, or the stored one) may not read it; its owner may ask for consent on the model's page"
                        }
                    };
                    HubError::Denied { model, status, hint }
                }
                ureq::Error::StatusCode(status) => HubError::Status { model, what: what.to_owned(), status },
                ureq::Error::Json(_) => HubError::Answer { model, what: what.to_owned(), reason },
                _ => HubError::Unreachable { model, reason },
            },
            ApiError::IoError(source) if is_local(&source) => {
                HubError::Cache { path: self.cache.path().clone(), source }
            }
            ApiError::IoError(_) => HubError::Broken { model, file: what.to_owned(), reason },
            ApiError::LockAcquisition(lock) => HubError::Busy { model, file: what.to_owned(), lock },
            _ => HubError::Answer { model, what: what.to_owned(), reason },
        }
    }
}

/// Whether an I/O error is the disk's and not the connection's.
fn is_local(error: &io::Error) -> bool {
    use io::ErrorKind::{
        AlreadyExists, IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem,
        StorageFull,
    };
    matches!(
        error.kind(),
        StorageFull
            | PermissionDenied
            | ReadOnlyFilesystem
            | NotFound
            | NotADirectory
            | IsADirectory
            | QuotaExceeded
            | AlreadyExists
    )
}

fn repeat<T>(mut action: impl FnMut() -> Result<T, HubError>) -> Result<T, HubError> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..ATTEMPTS {
        match action() {
            Err(error) if error.may_pass() => thread::sleep(pause),
            result => return result,
        }
        pause *= 2;
    }
    action()
}

fn size_of(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|found| found.len())
}

fn remove(path: &Path) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(HubError::Cache { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// How a file differs from what was announced. The hub's etags are SHA-256 of large files and git's object ids (SHA-1) of others; of a
/// mirror with etags of its own, only the size is checked.
fn difference(path: &Path, announced: &Metadata) -> Result<Option<String>, HubError> {
    let unreadable = |source| HubError::Cache { path: path.to_owned(), source };
    let size = announced.size() as u64;
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    if length != size {
        return Ok(Some(format!("{length} bytes instead of {size}")));
    }
    let etag = announced.etag();
    let (kind, found) = match etag.len() {
        64 if is_hex(etag) => ("SHA-256", hash(sha2::Sha256::new(), &mut file)),
        40 if is_hex(etag) => {
            let start = sha1::Sha1::new_with_prefix(format!("blob {size}\0"));
            ("git object id", hash(start, &mut file))
        }
        _ => return Ok(None),
    };
    let found = found.map_err(unreadable)?;
    Ok((!found.eq_ignore_ascii_case(etag)).then(|| format!("{kind} {found} instead of {etag}")))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn hash(mut state: impl Digest, file: &mut File) -> io::Result<String> {
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        state.update(&chunk[..read]);
    }
    Ok(state.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
