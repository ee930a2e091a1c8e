//! Two hosts on this machine that answer what a case wants, and what elgen's hub client makes of it.

#![allow(dead_code)] // Each test file uses its part.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use elgen_engine::hub::{HubLimits, HubOptions, resolve_model};
use sha2::Digest;
use tempfile::TempDir;

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const NAME: &str = "someone/tiny";
pub(crate) const CONFIG: &str = "config.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";
const TOKEN: &str = "hf_SECRET";
const PRECIOUS: &[u8] = b"precious\n";

/// Short, but long enough for an honest answer on a busy machine.
pub(crate) fn limits() -> HubLimits {
    HubLimits {
        connect: Duration::from_secs(2),
        answer: Duration::from_secs(2),
        question: Duration::from_secs(3),
        stall: Duration::from_secs(1),
        silence: Duration::from_secs(4),
        pause: Duration::from_millis(10),
        longest_pause: Duration::from_secs(1),
        lock: Duration::from_millis(500),
        ..HubLimits::default()
    }
}

/// No case may take longer.
const LONGEST: Duration = Duration::from_secs(12);

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    List,
    /// The first byte of a file.
    Info,
    /// A file from some byte on.
    Body,
    Other,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// To the hub, not to the other host.
    pub(crate) to_hub: bool,
    pub(crate) kind: Kind,
    pub(crate) path: String,
    /// The last part of the path.
    pub(crate) file: String,
    pub(crate) start: usize,
    /// How many requests of this kind for this file came to this host before.
    pub(crate) before: usize,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Ask {
    pub(crate) fn is(&self, kind: Kind, file: &str) -> bool {
        self.to_hub && self.kind == kind && self.file == file
    }
}

/// One step of an answer; after the last one the connection is closed.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// These bytes, one after another, with pauses of so many milliseconds.
    Drip(Vec<u8>, u64),
    /// These bytes again and again, with pauses of so many milliseconds.
    Endless(Vec<u8>, u64),
    /// Nothing more, and no end.
    Hang,
}
pub(crate) use Step::{Drip, Endless, Hang, Send};

/// What lies where.
pub(crate) struct World {
    pub(crate) hub: String,
    pub(crate) other: String,
    pub(crate) files: BTreeMap<&'static str, Vec<u8>>,
    /// A file outside the cache that must stay as it is.
    pub(crate) victim: PathBuf,
    pub(crate) cache: PathBuf,
}

/// An answer in place of the honest one.
pub(crate) type Fault = Arc<dyn Fn(&Ask, &World) -> Option<Vec<Step>> + std::marker::Send + Sync>;

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Status line and headers.
pub(crate) fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    (text + "\r\n").into_bytes()
}

impl World {
    pub(crate) fn etag(&self, file: &str) -> String {
        let content = &self.files[file];
        if file.ends_with(".safetensors") {
            hex(sha2::Sha256::digest(content))
        } else {
            hex(sha1::Sha1::digest([format!("blob {}\0", content.len()).as_bytes(), content].concat()))
        }
    }

    pub(crate) fn size(&self, file: &str) -> usize {
        self.files[file].len()
    }

    /// The honest headers of a file's answer, but for those that `change` replaces (or, if empty, removes).
    pub(crate) fn head_of(&self, ask: &Ask, status: u16, change: &[(&str, &str)]) -> Vec<u8> {
        let size = self.size(&ask.file);
        let end = if ask.kind == Kind::Info { 1.min(size) } else { size };
        let mut headers = vec![
            ("ETag", format!("\"{}\"", self.etag(&ask.file))),
            ("X-Repo-Commit", COMMIT.to_owned()),
            ("Content-Length", (end - ask.start.min(end)).to_string()),
        ];
        if status == 206 {
            headers.push(("Content-Range", format!("bytes {}-{}/{size}", ask.start, end.saturating_sub(1))));
        }
        headers.retain(|(name, _)| change.iter().all(|(other, _)| !other.eq_ignore_ascii_case(name)));
        headers.extend(
            change.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (*name, (*value).to_owned())),
        );
        head(status, &headers.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>())
    }

    /// A file's honest answer with other headers.
    pub(crate) fn with(&self, ask: &Ask, change: &[(&str, &str)]) -> Vec<Step> {
        let content = &self.files[ask.file.as_str()];
        let end = if ask.kind == Kind::Info { 1.min(content.len()) } else { content.len() };
        vec![Send(self.head_of(ask, 206, change)), Send(content[ask.start.min(end)..end].to_vec())]
    }

    /// The list with another commit or other names.
    pub(crate) fn list(&self, commit: &str, names: &[&str]) -> Vec<u8> {
        let files: Vec<_> = names.iter().map(|name| serde_json::json!({"rfilename": name})).collect();
        serde_json::json!({"sha": commit, "siblings": files}).to_string().into_bytes()
    }

    pub(crate) fn honest_list(&self) -> Vec<u8> {
        self.list(COMMIT, &self.files.keys().copied().collect::<Vec<_>>())
    }

    /// A redirect with what the hub says about a file.
    pub(crate) fn redirect(&self, ask: &Ask, to: &str) -> Vec<Step> {
        let mut change = vec![("Content-Length", "0"), ("Location", to)];
        let size = self.files.get(ask.file.as_str()).map(|content| content.len().to_string());
        match &size {
            Some(size) => {
                change.push(("X-Linked-Size", size));
                vec![Send(self.head_of(ask, 302, &change))]
            }
            None => vec![Send(head(302, &change))],
        }
    }

    fn honest(&self, ask: &Ask) -> Vec<Step> {
        if ask.kind == Kind::List {
            let body = self.honest_list();
            return vec![Send(head(200, &[("Content-Length", &body.len().to_string())])), Send(body)];
        }
        match self.files.get(ask.file.as_str()) {
            Some(content) if content.is_empty() => {
                vec![Send(self.head_of(ask, 416, &[("Content-Range", "bytes */0")]))]
            }
            Some(_) => self.with(ask, &[]),
            None => vec![Send(head(404, &[("Content-Length", "0")]))],
        }
    }
}

#[derive(Default)]
struct Seen {
    asks: Vec<Ask>,
    counts: BTreeMap<(bool, String), usize>,
}

/// One case: what goes wrong, and what comes of it.
pub(crate) struct Case {
    name: &'static str,
    fault: Fault,
    parts: Vec<&'static str>,
    works: bool,
    most: usize,
    longest: Duration,
    pub(crate) setup: Option<fn(&World)>,
    pub(crate) limits: HubLimits,
    pub(crate) revision: Option<String>,
    pub(crate) seen: Option<fn(&World, &[Ask])>,
    pub(crate) empty: Option<&'static str>,
    pub(crate) files: Vec<(&'static str, Vec<u8>)>,
}

impl Case {
    /// The model comes, whole.
    pub(crate) fn works(
        name: &'static str,
        fault: impl Fn(&Ask, &World) -> Option<Vec<Step>> + std::marker::Send + Sync + 'static,
    ) -> Case {
        Case {
            name,
            fault: Arc::new(fault),
            parts: Vec::new(),
            works: true,
            most: 100,
            longest: LONGEST,
            setup: None,
            limits: HubLimits { pause: Duration::from_millis(10), ..HubLimits::default() },
            revision: None,
            seen: None,
            empty: None,
            files: Vec::new(),
        }
    }

    /// An error with these parts.
    pub(crate) fn fails(
        name: &'static str,
        parts: &[&'static str],
        fault: impl Fn(&Ask, &World) -> Option<Vec<Step>> + std::marker::Send + Sync + 'static,
    ) -> Case {
        Case { parts: parts.to_vec(), works: false, limits: limits(), ..Case::works(name, fault) }
    }

    /// No more than so many requests to both hosts.
    pub(crate) fn at_most(self, most: usize) -> Case {
        Case { most, ..self }
    }

    /// Something is checked about the requests.
    pub(crate) fn seeing(self, seen: fn(&World, &[Ask])) -> Case {
        Case { seen: Some(seen), ..self }
    }

    /// Something lies there before.
    pub(crate) fn after(self, setup: fn(&World)) -> Case {
        Case { setup: Some(setup), ..self }
    }

    fn run(self) {
        let name = self.name;
        let home = TempDir::new().unwrap();
        let outside = home.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let victim = outside.join("victim");
        fs::write(&victim, PRECIOUS).unwrap();
        let (hub, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let address = |listener: &TcpListener| format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let mut files = BTreeMap::from([
            (CONFIG, br#"{"model_type": "bart"}"#.repeat(40)),
            ("tokenizer.json", b"{}".to_vec()),
            (WEIGHTS, (0..300_000_u32).flat_map(|number| (number * 7).to_le_bytes()).take(300_000).collect()),
        ]);
        files.extend(self.empty.map(|name| (name, Vec::new())));
        files.extend(self.files);
        let world = Arc::new(World {
            hub: address(&hub),
            other: address(&other),
            files,
            victim: victim.clone(),
            cache: home.path().join("cache"),
        });
        if let Some(setup) = self.setup {
            setup(&world);
        }
        let seen = Arc::new(Mutex::new(Seen::default()));
        for (listener, to_hub) in [(hub, true), (other, false)] {
            let (world, seen, fault) = (Arc::clone(&world), Arc::clone(&seen), Arc::clone(&self.fault));
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let (world, seen, fault) = (Arc::clone(&world), Arc::clone(&seen), Arc::clone(&fault));
                    thread::spawn(move || serve(stream.unwrap(), to_hub, &world, &seen, &fault));
                }
            });
        }
        let options = HubOptions {
            cache: Some(world.cache.clone()),
            endpoint: Some(world.hub.clone()),
            token: Some(TOKEN.to_owned()),
            limits: self.limits,
            revision: self.revision,
            ..HubOptions::default()
        };
        let begin = Instant::now();
        let result = resolve_model(NAME, &options, &mut |_| {});
        let took = begin.elapsed();
        assert!(took < self.longest, "{name}: {took:?}");
        match (&result, self.works) {
            (Ok(dir), true) => {
                for (file, content) in &world.files {
                    assert!(&fs::read(dir.join(file)).unwrap() == content, "{name}: {file}");
                    assert!(dir.join(file).canonicalize().unwrap().starts_with(world.cache.canonicalize().unwrap()));
                }
                let known = fs::read_to_string(world.cache.join("models--someone--tiny/refs/main"));
                assert_eq!(known.unwrap(), COMMIT, "{name}");
            }
            (Err(error), false) => {
                let text = error.to_string();
                assert!(!text.contains(char::is_control) && !text.contains(TOKEN), "{name}: {text:?}");
                assert!(text.len() < 700, "{name}: {text}");
                for part in &self.parts {
                    assert!(text.contains(part), "{name}: no {part:?} in {text}");
                }
            }
            _ => panic!("{name}: {result:?} after {took:?}"),
        }
        // Nothing outside, and no more on the disk than was announced.
        assert_eq!(fs::read(&victim).unwrap(), PRECIOUS, "{name}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1, "{name}: something new outside the cache");
        let most = world.files.values().map(Vec::len).max().unwrap();
        for file in files_below(&world.cache) {
            let length = fs::symlink_metadata(&file).unwrap().len();
            assert!(length <= most as u64, "{name}: {} has {length} bytes", file.display());
        }
        let asks = seen.lock().unwrap().asks.clone();
        assert!(asks.len() <= self.most, "{name}: {} requests", asks.len());
        for ask in &asks {
            let secret = ask.headers.iter().any(|(key, value)| key == "cookie" || value.contains(TOKEN));
            assert!(ask.to_hub || !secret, "{name}: {ask:?}");
        }
        if let Some(check) = self.seen {
            check(&world, &asks);
        }
    }
}

/// Runs cases, many at once: most of them wait.
pub(crate) fn run_all(cases: Vec<Case>) {
    const AT_ONCE: usize = 12;
    let count = cases.len();
    let cases: Vec<_> = cases.into_iter().map(|case| Mutex::new(Some(case))).collect();
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let case = case.lock().unwrap().take().unwrap();
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case.run())).is_err() {
                        failed.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(failed.into_inner(), 0, "of {count} cases");
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

fn serve(mut stream: TcpStream, to_hub: bool, world: &World, seen: &Mutex<Seen>, fault: &Fault) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let mut headers = BTreeMap::new();
    for line in lines.map_while(Result::ok) {
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let plain = path.split('?').next().unwrap_or_default();
    let file = plain.rsplit('/').next().unwrap_or_default().to_owned();
    let range = headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    let start = range.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0);
    let kind = match range {
        _ if plain.starts_with("/api/models/") => Kind::List,
        Some("0-0") => Kind::Info,
        Some(_) => Kind::Body,
        None => Kind::Other,
    };
    let ask = {
        let mut seen = seen.lock().unwrap();
        let count = seen.counts.entry((to_hub, format!("{kind:?} {file}"))).or_default();
        let before = *count;
        *count += 1;
        let ask = Ask { to_hub, kind, path, file, start, before, headers };
        seen.asks.push(ask.clone());
        ask
    };
    let steps = fault(&ask, world).unwrap_or_else(|| world.honest(&ask));
    // The other side may hang up at any point.
    for step in steps {
        let went = match step {
            Send(bytes) => stream.write_all(&bytes),
            Drip(bytes, pause) => bytes.iter().try_for_each(|byte| {
                thread::sleep(Duration::from_millis(pause));
                stream.write_all(&[*byte])
            }),
            Endless(bytes, pause) => loop {
                thread::sleep(Duration::from_millis(pause));
                if let Err(error) = stream.write_all(&bytes) {
                    break Err(error);
                }
            },
            // Until the other side has enough.
            Hang => stream.read(&mut [0]).map(|_| ()),
        };
        if went.is_err() {
            return;
        }
    }
    let _ = stream.flush();
}

/// The answer to one kind of request for one file.
pub(crate) fn on(
    kind: Kind,
    file: &'static str,
    answer: impl Fn(&Ask, &World) -> Vec<Step> + std::marker::Send + Sync + 'static,
) -> impl Fn(&Ask, &World) -> Option<Vec<Step>> + std::marker::Send + Sync + 'static {
    move |ask, world| ask.is(kind, file).then(|| answer(ask, world))
}

/// The answer to the list.
pub(crate) fn on_list(
    answer: impl Fn(&World) -> Vec<Step> + std::marker::Send + Sync + 'static,
) -> impl Fn(&Ask, &World) -> Option<Vec<Step>> + std::marker::Send + Sync + 'static {
    move |ask, world| (ask.to_hub && ask.kind == Kind::List).then(|| answer(world))
}

/// Headers of a file's answers that are not what they should be.
pub(crate) fn headers(
    kind: Kind,
    change: &'static [(&'static str, &'static str)],
) -> impl Fn(&Ask, &World) -> Option<Vec<Step>> + std::marker::Send + Sync + 'static {
    on(kind, CONFIG, move |ask, world| world.with(ask, change))
}
