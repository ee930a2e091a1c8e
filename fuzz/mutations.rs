//! Feeds a loader with mutations of good files and watches for panics, allocations that the file's size does not justify, and hangs.
//!
//! Without a fuzzer at hand this is the fuzzing that CI runs; the targets beside this file call the same functions. Mutations are drawn
//! from a seed, so a failure names the run that repeats it. ELGEN_FUZZ_SECONDS sets the time per target, ELGEN_FUZZ_SEED the seed,
//! ELGEN_FUZZ_ONLY names one target.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    env, fs, panic,
    path::Path,
    time::{Duration, Instant},
};

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Watched;

fn seen(size: usize) {
    // Gone while the thread ends.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
}

// SAFETY: every call is passed on unchanged to the system allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        seen(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and the memory came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        seen(size);
        // SAFETY: the caller keeps the contract of `realloc`, and the memory came from `System`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// The files here have some KiB; anything near this size followed a claim instead of content.
const ALLOCATION_LIMIT: usize = 16 << 20;
/// One file of this size takes milliseconds.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// Mutations stop growing here.
const MAX_BYTES: usize = 32 << 10;

/// What fuzzers found to be worth inserting.
const TOKENS: &[&str] = &[
    "null",
    "true",
    "false",
    "-1",
    "0",
    "1",
    "2",
    "1e308",
    "1e999",
    "-0.0",
    "0.5",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "\"\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "[]",
    "{}",
    "[[]]",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "\\",
    "\n",
    "\r\n",
    "\0",
    "\u{feff}",
    "\u{10ffff}",
    "</s>",
    "<s>",
    "Ġ",
    "\u{120}a",
    "\"BPE\"",
    "\"Unigram\"",
    "\"WordPiece\"",
    "\"WordLevel\"",
    "\"Sequence\"",
    "\"Precompiled\"",
    "\"Replace\"",
    "\"Split\"",
    "\"Regex\"",
    "\"(a*)*$\"",
    "\"TemplateProcessing\"",
    "\"Metaspace\"",
    "\"__metadata__\"",
    "\"F32\"",
    "\"F4\"",
    "../",
    "version https://git-lfs",
];

/// A counter-based generator (SplitMix64): a run is repeated from its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

/// The end of a JSON scalar or punctuation mark that starts at `at`, roughly: enough to hit whole values.
fn word_end(bytes: &[u8], at: usize) -> usize {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_' | b'"');
    let mut end = at;
    while end < bytes.len() && plain(bytes[end]) {
        end += 1;
    }
    end.max(at + 1).min(bytes.len())
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(bytes.len() + 1);
    let bits = random.below(9);
    let length = 1 + random.below(1 << bits);
    let end = (at + length).min(bytes.len());
    match random.below(9) {
        0 if at < bytes.len() => bytes[at] = random.next() as u8,
        1 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let copy = bytes[at..end].to_vec();
            let place = random.below(bytes.len() + 1);
            bytes.splice(place..place, copy);
        }
        4 => bytes.truncate(at),
        5 => {
            let token = TOKENS[random.below(TOKENS.len())].bytes();
            bytes.splice(at..at, token);
        }
        // A value for a value.
        6 | 7 => {
            let end = word_end(bytes, at);
            let token = TOKENS[random.below(TOKENS.len())].bytes();
            bytes.splice(at.min(end)..end, token);
        }
        // A piece of another file, or a nest.
        _ => {
            if random.below(4) == 0 {
                let piece = if random.below(2) == 0 { b"[" } else { b"{" };
                bytes.splice(at..at, piece.repeat(length));
            } else {
                let from = random.below(other.len() + 1);
                let to = (from + length).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    bytes.truncate(MAX_BYTES);
}

fn variable(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: not a number")))
}

/// Feeds `target` with `seeds`, which it has to accept, and with mutations of them until the time is over.
fn fuzz_seeds(name: &str, seeds: &[Vec<u8>], target: fn(&[u8]) -> bool) {
    for (number, seed) in seeds.iter().enumerate() {
        assert!(target(seed), "{name}: seed {number} is not accepted");
    }
    // What a loader catches of the tokenizers crate is not to be printed, thousands of times.
    panic::set_hook(Box::new(|_| {}));
    let time = Duration::from_secs(variable("ELGEN_FUZZ_SECONDS").unwrap_or(2));
    let first = variable("ELGEN_FUZZ_SEED").unwrap_or(1) << 40;
    let begin = Instant::now();
    let (mut runs, mut accepted) = (0_u64, 0_u64);
    while begin.elapsed() < time {
        let mut random = Random(first + runs);
        let mut bytes = seeds[random.below(seeds.len())].clone();
        let other = &seeds[random.below(seeds.len())];
        for _ in 0..=random.below(4) {
            mutate(&mut random, &mut bytes, other);
        }
        LARGEST.set(0);
        let start = Instant::now();
        let outcome = panic::catch_unwind(|| target(&bytes));
        let (largest, took) = (LARGEST.get(), start.elapsed());
        let what = match &outcome {
            Err(cause) => {
                let text = cause.downcast_ref::<String>().map(String::as_str);
                Some(format!("panics: {}", text.or(cause.downcast_ref::<&str>().copied()).unwrap_or("?")))
            }
            Ok(_) if largest > ALLOCATION_LIMIT => Some(format!("allocates {largest} bytes at once")),
            Ok(_) if took > TIME_LIMIT => Some(format!("takes {took:?}")),
            Ok(_) => None,
        };
        if let Some(what) = what {
            let file = env::temp_dir().join(format!("{name}-{}", first + runs));
            fs::write(&file, &bytes).unwrap();
            let _ = panic::take_hook();
            panic!("{name}: run {runs}: {what}; its input is {}", file.display());
        }
        accepted += u64::from(outcome.is_ok_and(|accepted| accepted));
        runs += 1;
    }
    let _ = panic::take_hook();
    println!("{name}: {runs} runs, {accepted} accepted");
    assert!(runs > 0 && accepted > 0 && accepted < runs, "{name}: {accepted} of {runs} accepted");
}

/// The seeds of a fuzz target, in the order of their names.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Feeds `target` with the seeds of that name and mutations of them. One test per process: the panic hook is the whole process's.
pub fn fuzz(name: &str, target: fn(&[u8]) -> bool) {
    if env::var("ELGEN_FUZZ_ONLY").map_or(true, |only| only == name) {
        fuzz_seeds(name, &seeds(name), target);
    }
}
