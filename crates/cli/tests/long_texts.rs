//! Very long lines: refused before they take memory, or tokenised in parts.

#![cfg(target_os = "linux")]

mod common;

use std::{fs, io::Write, process::Stdio, thread, time::Duration};

use common::{demo, elgen, finish_with_input, stories};

/// Runs with `input` on stdin; the exit code, what was written, and the peak of the resident memory in MiB.
fn run(arguments: &[&str], input: Vec<u8>) -> (i32, String, String, u64) {
    let mut command = elgen();
    let mut child = command.args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = thread::spawn(move || {
        // A program that has seen enough closes its input.
        let _ = stdin.write_all(&input);
    });
    let status = format!("/proc/{}/status", child.id());
    let watcher = thread::spawn(move || {
        let mut kib = 0;
        // The line is gone once the process has ended.
        while let Some(found) = fs::read_to_string(&status).ok().and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        }) {
            kib = found;
            thread::sleep(Duration::from_millis(2));
        }
        kib / 1024
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code().unwrap(), out, err, watcher.join().unwrap())
}

#[test]
fn a_line_of_ten_megabytes_is_refused_before_it_takes_memory() {
    let (stories, demo) = (stories(), demo());
    let (stories, demo) = (stories.to_str().unwrap(), demo.to_str().unwrap());
    let line = |word: &str| format!("{}\n", word.repeat((10 << 20) / word.len())).into_bytes();
    let [words, letters] = ["word ", "a"].map(line);
    let generate = |model, input: &Vec<u8>| {
        run(&["generate", "--quiet", "--attention=mha", "--max-new-tokens=3", "--model", model], input.clone())
    };
    for (model, input, what) in [
        (stories, &words, "10485760 bytes and more tokens than the model has positions for: 256 (--truncate cuts it)"),
        (demo, &words, "more tokens than the model has positions for: 128"),
        // Nowhere to cut.
        (
            stories,
            &letters,
            "10485760 bytes to be tokenised at once, more than this tokenizer takes: 2097152 (--max-text-bytes)",
        ),
    ] {
        let (code, _, error, mib) = generate(model, input);
        assert_eq!(code, 1, "{error}");
        assert!(
            error.starts_with("error: <stdin>:1: ") && error.contains(what) && error.lines().count() == 1,
            "{error}"
        );
        // The line itself and the model; tokenised as a whole it took 1,000 to 1,600.
        assert!(mib < 300, "{mib} MiB");
    }
}

#[test]
fn a_long_line_is_tokenised_in_parts() {
    let words = "Once upon a time there was a little girl. ".repeat(100_000);
    let model = stories();
    let (code, found, error, mib) =
        run(&["tokenize", "--count", "--model", model.to_str().unwrap()], words.into_bytes());
    assert_eq!(code, 0, "{error}");
    let count = |times: usize| -> u64 {
        let text = "Once upon a time there was a little girl. ".repeat(times);
        let mut command = elgen();
        let found = finish_with_input(command.args(["tokenize", "--count", "--model"]).arg(&model), text.as_bytes());
        found.expect(0).stdout.trim().parse().unwrap()
    };
    // A sentence more is the same number of tokens more, however many there are.
    let (one, two) = (count(1), count(2));
    assert_eq!(found.trim().parse::<u64>().unwrap(), one + 99_999 * (two - one));
    // 4 MiB of text: as a whole some 600 MiB.
    assert!(mib < 250, "{mib} MiB");
}

#[test]
fn the_limit_of_texts_can_be_set() {
    let model = stories();
    let tokenize = |limit: &str, input: &[u8]| {
        let mut command = elgen();
        command.args(["tokenize", "--count", "--max-text-bytes", limit, "--model"]).arg(&model);
        finish_with_input(&mut command, input)
    };
    tokenize("1KiB", &[b'a'; 1024]).expect(0);
    let refused = tokenize("1KiB", &[b'a'; 1025]).expect(1).stderr;
    assert!(refused.starts_with("error: <stdin>:1: the text has 1025 bytes"), "{refused}");
    assert!(refused.contains("1024 (--max-text-bytes)") && refused.lines().count() == 1, "{refused}");
    assert!(tokenize("0", b"a").expect(2).stderr.contains("--max-text-bytes"));
    assert!(tokenize("-1", b"a").expect(2).stderr.contains("--max-text-bytes"));
    assert!(tokenize("many", b"a").expect(2).stderr.contains("--max-text-bytes"));
}
