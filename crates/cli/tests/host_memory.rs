//! Host memory does not grow with the number of records.

#![cfg(target_os = "linux")]

mod common;

use std::{
    fs,
    io::{BufWriter, Write},
    path::Path,
    thread,
    time::Duration,
};

use common::{Random, TINY_VOCAB, full, generate, tiny};
use serde_json::json;

/// What a record's id holds: it is read, kept while the record runs, and written.
const PADDING: usize = 2048;

/// Runs so many records and gives the peak of the resident memory, in MiB.
fn peak(dir: &Path, records: usize, flags: &[&str]) -> f64 {
    let (input, output) = (dir.join("in.jsonl"), dir.join("out.jsonl"));
    let mut random = Random(5);
    let mut lines = BufWriter::new(fs::File::create(&input).unwrap());
    for index in 0..records {
        let id = format!("{index:0>PADDING$}");
        let ids = [3 + random.below(TINY_VOCAB - 3), 4];
        writeln!(lines, "{}", json!({ "id": id, "input_ids": ids })).unwrap();
    }
    drop(lines);
    let mut command = generate(&tiny());
    command.args(["--quiet", "--num-beams", "1", "--max-new-tokens", "1", "--input"]).arg(&input);
    let mut child = command.args(flags).arg("--output").arg(&output).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut kib = 0;
    let ended = loop {
        // The line is gone once the process has ended.
        let text = fs::read_to_string(&status).unwrap_or_default();
        let found = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        kib = found.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(kib);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        thread::sleep(Duration::from_millis(2));
    };
    assert!(ended.success());
    let written = fs::read_to_string(&output).unwrap();
    assert_eq!(written.lines().count(), records);
    assert!(kib > 0);
    f64::from(kib) / 1024.0
}

#[test]
fn ten_times_the_records_take_the_same_memory() {
    let dir = tempfile::tempdir().unwrap();
    for batch in if full() { &["32", "128"][..] } else { &["32"] } {
        // Both are long enough for windows of their full size.
        let [small, large] = [2_000, 20_000].map(|records| peak(dir.path(), records, &["--batch-size", batch]));
        println!("batch size {batch}: peak {small:.1} MiB for 2,000 records, {large:.1} MiB for 20,000");
        // Holding the inputs alone would take 35 MiB, holding the results too twice that.
        assert!(large - small < 24.0, "{small:.1} MiB, then {large:.1} MiB");
    }
}
