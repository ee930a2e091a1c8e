//! A hub on this machine: the paths and headers of the real one, and the ways in which it may fail.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use sha2::Digest;

/// The commit of every repository here.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// The one repository.
pub(crate) const NAME: &str = "someone/tiny-bart";

/// What goes wrong, and how often.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Requests whose path ends so are answered with this status.
    Status { path: &'static str, status: u16 },
    /// The body of this file ends after so many bytes, though more were announced.
    Cut { file: &'static str, after: usize },
    /// The same, but the connection stays open.
    Stall { file: &'static str, after: usize },
    /// Requests whose path ends so are never answered.
    Silence { path: &'static str },
    /// Downloads of this file start at its beginning, whatever was asked for.
    IgnoreRange { file: &'static str },
    /// One byte of this file is another.
    Corrupt { file: &'static str },
    /// This file's size is announced as larger by one.
    WrongSize { file: &'static str },
    /// This file's etag is this.
    Etag { file: &'static str, etag: &'static str },
    /// The commit is announced as this.
    Commit(&'static str),
    /// A redirect without a destination.
    NoLocation { file: &'static str },
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    faults: Vec<(Fault, usize)>,
    token: Option<String>,
    elsewhere: Option<String>,
    requests: Vec<Request>,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

impl Request {
    /// Where a download, not a question about a file, starts.
    pub(crate) fn start(&self) -> Option<usize> {
        self.range.as_deref()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// The running server. It ends with the test's process.
#[derive(Clone)]
pub(crate) struct Hub {
    state: Arc<Mutex<State>>,
    pub(crate) endpoint: String,
}

impl Hub {
    /// Serves these files of a directory.
    pub(crate) fn of(files: &[(&Path, &str)]) -> Hub {
        let hub = Hub::start();
        let files = files.iter().map(|(dir, name)| ((*name).to_owned(), fs::read(dir.join(name)).unwrap()));
        hub.state.lock().unwrap().files = files.collect();
        // Large files are redirected to another host, as the real hub does.
        let other = Hub { state: Arc::clone(&hub.state), endpoint: listen(&hub.state, "localhost") };
        hub.state.lock().unwrap().elsewhere = Some(other.endpoint);
        hub
    }

    fn start() -> Hub {
        let state = Arc::default();
        let endpoint = listen(&state, "127.0.0.1");
        Hub { state, endpoint }
    }

    /// Adds a file.
    pub(crate) fn add(&self, name: &str, content: &[u8]) {
        self.state.lock().unwrap().files.insert(name.to_owned(), content.to_owned());
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) {
        self.state.lock().unwrap().files.remove(name).unwrap();
    }

    /// Lets something fail so many times.
    pub(crate) fn fail(&self, fault: Fault, times: usize) {
        self.state.lock().unwrap().faults.push((fault, times));
    }

    /// Wants this token from now on.
    pub(crate) fn require(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    /// The requests since the last call.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn listen(state: &Arc<Mutex<State>>, host: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{host}:{}", listener.local_addr().unwrap().port());
    let state = Arc::clone(state);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let state = Arc::clone(&state);
            thread::spawn(move || answer(stream.unwrap(), &state));
        }
    });
    endpoint
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.unwrap();
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let header = |name: &str| headers.get(name).cloned();
    let request = Request { path, range: header("range"), authorization: header("authorization") };
    let (head, body, stays) = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let silent = state.fault(|fault| match fault {
            Fault::Silence { path } if request.path.ends_with(path) => Some(()),
            _ => None,
        });
        let (head, mut body) = if silent.is_some() { (String::new(), Vec::new()) } else { state.response(&request) };
        let stall = match request.start() {
            Some(_) if head.starts_with("HTTP/1.1 206") => state.fault(|fault| match fault {
                Fault::Stall { file, after } if request.path.ends_with(file) => Some(*after),
                _ => None,
            }),
            _ => None,
        };
        body.truncate(stall.unwrap_or(usize::MAX));
        (head, body, silent.is_some() || stall.is_some())
    };
    // The other side may have hung up.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).and_then(|()| stream.flush());
    if stays {
        let _ = stream.read(&mut [0]);
    }
}

fn response(status: u16, headers: &[(&str, String)], body: &[u8]) -> (String, Vec<u8>) {
    let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    (head + "\r\n", body.to_owned())
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl State {
    /// Takes one use of a fault.
    fn fault<T>(&mut self, fits: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let (found, left) = self
            .faults
            .iter_mut()
            .filter(|(_, left)| *left > 0)
            .find_map(|(fault, left)| Some((fits(fault)?, left)))?;
        *left -= 1;
        Some(found)
    }

    fn response(&mut self, request: &Request) -> (String, Vec<u8>) {
        let path = request.path.clone();
        let status = self.fault(|fault| match fault {
            Fault::Status { path: end, status } if path.ends_with(end) => Some(*status),
            _ => None,
        });
        if let Some(status) = status {
            return response(status, &[], b"");
        }
        if let Some(name) = path.strip_prefix("/large/") {
            return self.file(name, request, false);
        }
        if self.token.as_ref().is_some_and(|token| request.authorization != Some(format!("Bearer {token}"))) {
            return response(401, &[], b"");
        }
        if path == format!("/api/models/{NAME}/revision/main")
            || path == format!("/api/models/{NAME}/revision/{COMMIT}")
        {
            let files: Vec<_> = self.files.keys().map(|name| serde_json::json!({"rfilename": name})).collect();
            let info = serde_json::json!({"id": NAME, "sha": COMMIT, "siblings": files});
            return response(200, &[("Content-Type", "application/json".to_owned())], info.to_string().as_bytes());
        }
        if let Some(name) = path.strip_prefix(&format!("/{NAME}/resolve/{COMMIT}/")) {
            let name = name.to_owned();
            // Configs go through a relative redirect.
            if name == "config.json" {
                return response(307, &[("Location", format!("/api/resolve-cache/{name}"))], b"");
            }
            return self.file(&name, request, true);
        }
        if let Some(name) = path.strip_prefix("/api/resolve-cache/") {
            return self.file(name, request, true);
        }
        response(404, &[], b"")
    }

    fn file(&mut self, name: &str, request: &Request, redirects: bool) -> (String, Vec<u8>) {
        let Some(mut content) = self.files.get(name).cloned() else { return response(404, &[], b"") };
        let is_large = name.ends_with(".safetensors");
        let etag = if is_large {
            hex(sha2::Sha256::digest(&content))
        } else {
            hex(sha1::Sha1::digest([format!("blob {}\0", content.len()).as_bytes(), &content].concat()))
        };
        let etag = self
            .fault(|fault| match fault {
                Fault::Etag { file, etag } if *file == name => Some((*etag).to_owned()),
                _ => None,
            })
            .unwrap_or(etag);
        let commit = self.fault(|fault| match fault {
            Fault::Commit(commit) => Some((*commit).to_owned()),
            _ => None,
        });
        let mut headers = vec![("ETag", format!("\"{etag}\"")), ("X-Repo-Commit", commit.unwrap_or(COMMIT.to_owned()))];
        if self.fault(|fault| matches!(fault, Fault::NoLocation { file } if *file == name).then_some(())).is_some() {
            return response(302, &headers, b"");
        }
        if is_large && redirects {
            headers.push(("X-Linked-ETag", format!("\"{etag}\"")));
            headers.push(("Location", format!("{}/large/{name}", self.elsewhere.clone().unwrap())));
            return response(302, &headers, b"");
        }
        let larger = self.fault(|fault| matches!(fault, Fault::WrongSize { file } if *file == name).then_some(()));
        let total = content.len() + usize::from(larger.is_some());
        let Some(start) = request.start() else {
            headers.push(("Content-Range", format!("bytes 0-0/{total}")));
            return response(206, &headers, &content[..1]);
        };
        if self.fault(|fault| matches!(fault, Fault::Corrupt { file } if *file == name).then_some(())).is_some() {
            let middle = content.len() / 2;
            content[middle] ^= 1;
        }
        let ignored = self.fault(|fault| matches!(fault, Fault::IgnoreRange { file } if *file == name).then_some(()));
        if ignored.is_some() {
            return response(200, &headers, &content);
        }
        if start >= content.len() {
            return response(416, &headers, b"");
        }
        headers.push(("Content-Range", format!("bytes {start}-{}/{total}", content.len() - 1)));
        let (head, mut body) = response(206, &headers, &content[start..]);
        let cut = self.fault(|fault| match fault {
            Fault::Cut { file, after } if *file == name => Some(*after),
            _ => None,
        });
        body.truncate(cut.unwrap_or(usize::MAX));
        (head, body)
    }
}
