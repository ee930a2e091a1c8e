//! Downloads single files and checks what came.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    thread,
    time::Instant,
};

use sha2::Digest;

use super::{
    HubError, HubEvent, ModelName,
    address::Address,
    answers::{
        Etag, FileInfo, HashKind, Listing, check_commit, check_encoding, content_range, etag, number_header, whole_size,
    },
    client::{Body, Client, Span},
    limits::{Pauses, from_now},
    store::Store,
};

const LIST: &str = "list of files";

/// Fetches the files of one model.
pub(super) struct Downloader<'a> {
    client: Client,
    store: &'a Store,
    model: &'a ModelName,
    events: &'a mut dyn FnMut(HubEvent<'_>),
}

impl<'a> Downloader<'a> {
    pub(super) fn new(
        client: Client,
        store: &'a Store,
        model: &'a ModelName,
        events: &'a mut dyn FnMut(HubEvent<'_>),
    ) -> Downloader<'a> {
        Downloader { client, store, model, events }
    }

    pub(super) fn tell(&mut self, event: HubEvent<'_>) {
        (self.events)(event);
    }

    /// Commit and files of a revision.
    pub(super) fn list(&mut self, revision: &str, default: &str) -> Result<Listing, HubError> {
        match self.list_of(revision) {
            Err(HubError::Status { status: 404, .. }) => {
                let model = self.model.id().to_owned();
                if revision != default && self.list_of(default).is_ok() {
                    Err(HubError::NoRevision { model, revision: revision.to_owned() })
                } else {
                    Err(HubError::NoModel { model })
                }
            }
            result => result,
        }
    }

    fn list_of(&mut self, revision: &str) -> Result<Listing, HubError> {
        let path = format!("api/models/{}/revision/{}", self.model.id(), revision.replace('/', "%2F"));
        let address = self.client.address(&path)?;
        self.question(|client, end| {
            let text = client.small(LIST, &address, end)?;
            Listing::parse(&text).map_err(|reason| client.refuse(LIST, reason))
        })
    }

    /// Asks until there is an answer, for as long as a question may take.
    fn question<T>(&mut self, mut ask: impl FnMut(&mut Client, Instant) -> Result<T, HubError>) -> Result<T, HubError> {
        let end = from_now(self.client.limits().question);
        let mut pauses = Pauses::new(self.client.limits());
        loop {
            let error = match ask(&mut self.client, end) {
                Err(error) if error.may_pass() => error,
                result => return result,
            };
            self.pause(error, &mut pauses, end)?;
        }
    }

    /// Waits before another attempt; the error if there is to be none.
    fn pause(&mut self, error: HubError, pauses: &mut Pauses, end: Instant) -> Result<(), HubError> {
        let Some(pause) = pauses.next(self.client.asked_pause(), end) else { return Err(error) };
        (self.events)(HubEvent::Retry { error: &error, pause });
        thread::sleep(pause);
        Ok(())
    }

    /// Brings one file into the cache; gives its place in the snapshot of `commit`.
    pub(super) fn fetch(&mut self, commit: &str, file: &str) -> Result<PathBuf, HubError> {
        let address = self.client.address(&format!("{}/resolve/{commit}/{file}", self.model.id()))?;
        let info = self.question(|client, end| info(client, &address, commit, file, end))?;
        let limits = self.client.limits();
        let limit = if file.ends_with(".safetensors") { limits.weight_bytes } else { limits.small_bytes };
        if info.size > limit {
            let model = self.client.model().to_owned();
            return Err(HubError::TooLarge { model, file: file.to_owned(), size: info.size, limit });
        }
        let lock = self.store.lock(&info.etag, limits.lock)?.map_err(|lock| HubError::Busy {
            model: self.model.to_string(),
            file: file.to_owned(),
            lock,
        })?;
        // An earlier run, or another program, may have brought it.
        if !self.store.has_blob(&info.etag, info.size)? {
            self.bring(&address, commit, file, &info)?;
            self.store.publish(&info.etag)?;
        }
        let place = self.store.link(commit, file, &info.etag)?;
        drop(lock);
        Ok(place)
    }

    /// Downloads what is missing of a content.
    fn bring(&mut self, address: &Address, commit: &str, file: &str, info: &FileInfo) -> Result<(), HubError> {
        let (path, handle) = self.store.partial(&info.etag)?;
        let mut part = Part { path, file: handle, length: 0 };
        part.length = part.file.metadata().map_err(|source| part.failed(source))?.len();
        if part.length > info.size {
            part.cut(0)?;
        }
        let missing = info.size - part.length;
        if let Some(free) = self.store.free_space().filter(|free| *free < missing) {
            let (model, path) = (self.client.model().to_owned(), self.store.cache().to_owned());
            return Err(HubError::NoSpace { model, file: file.to_owned(), path, missing, free });
        }
        (self.events)(HubEvent::File { name: file, bytes: part.length, size: info.size });
        let mut silence = from_now(self.client.limits().silence);
        let mut pauses = Pauses::new(self.client.limits());
        let mut was_damaged = false;
        loop {
            let attempt = self.attempt(address, commit, file, info, &mut part, &mut silence);
            let error = match attempt.and_then(|()| self.verify(file, info, &mut part)) {
                // A large file is not brought again and again: what was there before may have been bad, once.
                Err(error @ HubError::Damaged { .. }) if was_damaged => return Err(error),
                Err(error) if error.may_pass() => error,
                result => return result,
            };
            was_damaged |= matches!(error, HubError::Damaged { .. });
            self.pause(error, &mut pauses, silence)?;
        }
    }

    /// One request for the rest of a content. `silence` is when to give up, which is put off while the content moves on.
    fn attempt(
        &mut self,
        address: &Address,
        commit: &str,
        file: &str,
        info: &FileInfo,
        part: &mut Part,
        silence: &mut Instant,
    ) -> Result<(), HubError> {
        if part.length == info.size {
            return Ok(());
        }
        let client = &mut self.client;
        let damaged =
            |reason: String| HubError::Damaged { model: self.model.to_string(), file: file.to_owned(), reason };
        let watch = client
            .watch(*silence)
            .map_err(|source| HubError::Unreachable { model: self.model.to_string(), reason: source.to_string() })?;
        let range = format!("bytes={}-", part.length);
        let answer = client.get(file, address, Some(&range), Span::Watched(*silence), |_| false);
        let answer = match answer {
            Err(_) if watch.fired() => {
                client.reconnect();
                return Err(client.silent(file, &address.origin().to_string(), client.given_up()));
            }
            answer => answer?,
        };
        let refuse = |reason: String| client.refuse(file, reason);
        // What the hub said first is what counts; it may not say something else now.
        let hub = &answer.hub.1;
        check_commit(hub, commit).map_err(refuse)?;
        if etag(hub).map_err(refuse)?.is_some_and(|now| now != info.etag) {
            return Err(refuse("another etag than before".to_owned()));
        }
        check_encoding(&answer.headers).map_err(refuse)?;
        let length = number_header(&answer.headers, "content-length").map_err(refuse)?;
        let size = info.size;
        let expected = match (answer.status, content_range(&answer.headers).map_err(refuse)?) {
            (206, Some((Some((first, last)), said)))
                if first == part.length && last == size - 1 && said.is_none_or(|said| said == size) =>
            {
                size - first
            }
            (206, Some((Some((first, last)), said))) if first == part.length && last != size - 1 => {
                return Err(damaged(format!("{} bytes instead of {size}", said.unwrap_or(last.saturating_add(1)))));
            }
            (206, Some((_, Some(said)))) if said != size => {
                return Err(damaged(format!("{said} bytes instead of {size}")));
            }
            (206, _) => return Err(refuse(format!("not the bytes from {} on, which were asked for", part.length))),
            // It does not know ranges: all of it comes again.
            (200, _) => {
                part.cut(0)?;
                size
            }
            // 416: there is nothing from there on.
            _ => {
                let had = part.length;
                part.cut(0)?;
                return Err(damaged(format!("{had} bytes instead of {size}")));
            }
        };
        if let Some(length) = length.filter(|length| *length != expected) {
            return Err(damaged(format!("{length} bytes instead of {expected}")));
        }
        let host = answer.host().to_owned();
        let limits = client.limits().clone();
        let mut body = Body::new(answer.body, &watch, &limits, *silence);
        let result = copy(&mut body, expected, part, file, size, self.events);
        // Of a content that its etag does not prove, nothing may follow.
        let result = match result {
            Ok(()) if info.etag.hash().is_none() => {
                body.read(&mut [0]).map(|read| read > 0).map_err(Trouble::Connection)
            }
            result => result.map(|()| false),
        };
        *silence = body.silence();
        drop(body);
        if watch.fired() || result.is_err() {
            client.reconnect();
        }
        match result {
            Ok(false) => Ok(()),
            Ok(true) => {
                part.cut(0)?;
                Err(damaged(format!("more than the {size} bytes that were announced")))
            }
            Err(Trouble::Disk(source)) => Err(part.failed(source)),
            Err(Trouble::Connection(_) | Trouble::End) if watch.fired() => {
                let reason = format!("less than {} bytes in {:?}", limits.stall_bytes, limits.stall);
                Err(client.silent(file, &host, reason))
            }
            Err(trouble) => {
                let reason = match trouble {
                    Trouble::Connection(source) => format!(": {}", super::error::shown(&source.to_string())),
                    _ => String::new(),
                };
                let reason = format!("{} of {size} bytes came{reason}", part.length);
                Err(HubError::Broken { model: client.model().to_owned(), file: file.to_owned(), reason })
            }
        }
    }

    /// Fails, and forgets the content, if it is not what its etag says.
    fn verify(&self, file: &str, info: &FileInfo, part: &mut Part) -> Result<(), HubError> {
        match part.difference(&info.etag, info.size)? {
            None => Ok(()),
            Some(reason) => {
                part.cut(0)?;
                Err(HubError::Damaged { model: self.model.to_string(), file: file.to_owned(), reason })
            }
        }
    }
}

/// Asks the hub for the first byte of a file, and takes what it says about the whole.
fn info(client: &mut Client, address: &Address, commit: &str, file: &str, end: Instant) -> Result<FileInfo, HubError> {
    let has_size = |headers: &_| matches!(number_header(headers, "x-linked-size"), Ok(Some(_)));
    let answer = client.get(file, address, Some("bytes=0-0"), Span::Until(end), has_size)?;
    let read = || {
        let (status, hub) = &answer.hub;
        check_encoding(&answer.headers)?;
        if !check_commit(hub, commit)? {
            return Err("no commit".to_owned());
        }
        let etag = etag(hub)?.ok_or("no etag")?;
        let size = match whole_size(*status, hub)? {
            Some(size) => size,
            None => whole_size(answer.status, &answer.headers)?.ok_or("no size")?,
        };
        Ok(FileInfo { etag, size })
    };
    read().map_err(|reason| client.refuse(file, reason))
}

enum Trouble {
    Disk(io::Error),
    Connection(io::Error),
    /// The body ended early.
    End,
}

/// Appends `expected` bytes, no more.
fn copy(
    body: &mut Body<'_>,
    expected: u64,
    part: &mut Part,
    name: &str,
    size: u64,
    events: &mut dyn FnMut(HubEvent<'_>),
) -> Result<(), Trouble> {
    let mut chunk = vec![0; 64 << 10];
    let mut left = expected;
    part.file.seek(SeekFrom::Start(part.length)).map_err(Trouble::Disk)?;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let read = match body.read(&mut chunk[..most]) {
            Ok(0) => return Err(Trouble::End),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Trouble::Connection(error)),
        };
        part.file.write_all(&chunk[..read]).map_err(Trouble::Disk)?;
        part.length += read as u64;
        left -= read as u64;
        events(HubEvent::Bytes { name, bytes: part.length, size });
    }
    Ok(())
}

/// What has arrived of a content.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Part {
    fn failed(&self, source: io::Error) -> HubError {
        HubError::Cache { path: self.path.clone(), source }
    }

    fn cut(&mut self, length: u64) -> Result<(), HubError> {
        self.file.set_len(length).map_err(|source| self.failed(source))?;
        self.length = length;
        Ok(())
    }

    /// How a whole content differs from what its etag says. The hub's etags are hashes; of a mirror with etags of its own, only the size
    /// is known.
    fn difference(&mut self, etag: &Etag, size: u64) -> Result<Option<String>, HubError> {
        let (kind, found) = match etag.hash() {
            Some(HashKind::Sha256) => ("SHA-256", hash(sha2::Sha256::new(), &mut self.file)),
            Some(HashKind::GitBlob) => {
                let start = sha1::Sha1::new_with_prefix(format!("blob {size}\0"));
                ("git object id", hash(start, &mut self.file))
            }
            None => return Ok(None),
        };
        let found = found.map_err(|source| self.failed(source))?;
        let wanted = etag.as_str();
        Ok((!found.eq_ignore_ascii_case(wanted)).then(|| format!("{kind} {found} instead of {wanted}")))
    }
}

fn hash(mut state: impl Digest, file: &mut File) -> io::Result<String> {
    file.rewind()?;
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
