//! Runs the `elgen` program and spoils copies of the demo model.

#![allow(dead_code)] // Each test file uses its part.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use tempfile::TempDir;

/// No run here comes near this; one that does hangs.
const TIMEOUT: Duration = Duration::from_secs(240);

/// Quick generation on a software adapter.
pub(crate) const QUICK: &[&str] = &["--num-beams", "1", "--max-new-tokens", "5", "--quiet"];

/// The demo model's directory.
pub(crate) fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/bart-eng-fra")
}

/// The decoder-only demo model's directory.
pub(crate) fn stories() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/gpt2-stories")
}

/// What a finished run left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// The run ended with `code`, without a panic.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Finished {
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The run ended with `code`, without results, and with one line on stderr: an error that holds all `parts`.
    #[track_caller]
    pub(crate) fn expect_error(self, code: i32, parts: &[&str]) {
        let finished = self.expect(code);
        assert_eq!(finished.stdout, "", "{finished:#?}");
        let lines: Vec<_> = finished.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with("error: "), "{finished:#?}");
        for part in parts {
            assert!(lines[0].contains(part), "no {part:?} in {finished:#?}");
        }
    }

    /// The lines of stdout.
    pub(crate) fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }
}

/// The program, not yet started.
pub(crate) fn elgen() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_elgen"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_BACKTRACE");
    // The device is measured by the first test that lets `--attention auto` choose, and by no other.
    command.env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// `elgen generate` with a model, not yet started.
pub(crate) fn generate(model: &Path) -> Command {
    let mut command = elgen();
    command.arg("generate").arg("--model").arg(model);
    command
}

/// `elgen generate` with the demo model and quick options, not yet started.
pub(crate) fn quick() -> Command {
    let mut command = generate(&demo());
    command.args(QUICK);
    command
}

/// Runs to the end.
pub(crate) fn finish(command: &mut Command) -> Finished {
    finish_child(command.spawn().unwrap())
}

/// Runs to the end with `input` on stdin.
pub(crate) fn finish_with_input(command: &mut Command, input: &[u8]) -> Finished {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    finish_child(child)
}

/// Collects what a started run still writes.
pub(crate) fn finish_child(mut child: Child) -> Finished {
    fn reader(source: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut source) = source {
                source.read_to_end(&mut bytes).unwrap();
            }
            String::from_utf8(bytes).expect("output is UTF-8")
        })
    }
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > TIMEOUT {
            child.kill().unwrap();
            panic!("hangs: {} {}", stdout.join().unwrap(), stderr.join().unwrap());
        }
        thread::sleep(Duration::from_millis(5));
    };
    Finished { code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// A copy of the demo model that a test may spoil.
pub(crate) struct ModelCopy {
    dir: TempDir,
}

impl ModelCopy {
    pub(crate) fn new() -> ModelCopy {
        let dir = tempfile::tempdir().unwrap();
        for file in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"] {
            fs::copy(demo().join(file), dir.path().join(file)).unwrap();
        }
        ModelCopy { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    /// Edits a JSON file.
    pub(crate) fn edit_json(&self, name: &str, edit: impl FnOnce(&mut Map<String, Value>)) {
        let mut value: Value = serde_json::from_slice(&fs::read(self.file(name)).unwrap()).unwrap();
        edit(value.as_object_mut().unwrap());
        fs::write(self.file(name), serde_json::to_vec(&value).unwrap()).unwrap();
    }

    /// Edits the header and the data of the weights.
    pub(crate) fn edit_weights(&self, edit: impl FnOnce(&mut Map<String, Value>, &mut Vec<u8>)) {
        let file = self.file("model.safetensors");
        let bytes = fs::read(&file).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        let mut data = bytes[8 + length..].to_vec();
        edit(header.as_object_mut().unwrap(), &mut data);
        let mut header = serde_json::to_vec(&header).unwrap();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(data);
        fs::write(&file, bytes).unwrap();
    }

    /// Edits the bytes of the weights' file.
    pub(crate) fn edit_weight_bytes(&self, edit: impl FnOnce(&mut Vec<u8>)) {
        let file = self.file("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        edit(&mut bytes);
        fs::write(&file, bytes).unwrap();
    }

    /// Loading fails with one line that holds all `parts`, and no output file appears.
    #[track_caller]
    pub(crate) fn expect_refused(&self, parts: &[&str]) {
        let output = self.file("output.txt");
        let mut command = generate(self.path());
        command.args(QUICK).arg("--output").arg(&output).arg("Hello.");
        finish(&mut command).expect_error(1, parts);
        assert!(!output.exists());
    }
}

/// Tensors of a safetensors header in file order: name, begin, end.
pub(crate) fn tensors(header: &Map<String, Value>) -> Vec<(String, u64, u64)> {
    let mut found: Vec<_> = header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, entry)| {
            let offsets = &entry["data_offsets"];
            (name.clone(), offsets[0].as_u64().unwrap(), offsets[1].as_u64().unwrap())
        })
        .collect();
    found.sort_by_key(|(_, begin, _)| *begin);
    found
}

/// A recorded tiny model that takes and gives token ids; its options make a record cost little more than its place in a batch.
pub(crate) fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/bart-one-head")
}

/// The vocabulary of [`tiny`].
pub(crate) const TINY_VOCAB: u64 = 96;

/// True if the long runs are asked for.
pub(crate) fn full() -> bool {
    std::env::var_os("ELGEN_FULL").is_some_and(|value| value == "1")
}

/// Random numbers for tests (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A seed that differs from run to run, or `ELGEN_SEED`; it is printed, so that a failure can be repeated.
    pub(crate) fn seeded(test: &str) -> Random {
        let given = std::env::var("ELGEN_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = given.unwrap_or(now.as_nanos() as u64);
        println!("{test}: ELGEN_SEED={seed}");
        Random(seed)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }
}
