//! `--progress` and `--stream`.

mod common;

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use common::{demo, finish, generate, quick, stories};
use serde_json::Value;

#[test]
fn streamed_texts_are_the_texts() {
    let flags = ["--quiet", "--num-beams=1", "--max-new-tokens=9"];
    let texts = ["I was born in 1979.", "", "The thief stubbed his toe."];
    let plain = finish(generate(&demo()).args(flags).args(texts)).expect(0);
    let streamed = finish(generate(&demo()).args(flags).args(texts).arg("--stream")).expect(0);
    assert_eq!(streamed.stdout, plain.stdout);

    let flags = ["--quiet", "--do-sample", "--seed=3", "--max-new-tokens=9"];
    let texts = ["Once upon a time", "The dog"];
    let plain = finish(generate(&stories()).args(flags).args(texts)).expect(0);
    let streamed = finish(generate(&stories()).args(flags).args(texts).args(["--stream", "--output=-"])).expect(0);
    assert_eq!(streamed.stdout, plain.stdout);
}

#[test]
fn streamed_json_lines_are_tokens_and_then_the_record() {
    let flags = ["--quiet", "--num-beams=1", "--max-new-tokens=6", "--format=jsonl", "--token-logprobs"];
    let mut command = generate(&demo());
    let finished = finish(command.args(flags).args(["--stream", "I was born.", "No."])).expect(0);
    let lines: Vec<Value> = finished.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut tokens: Vec<(Value, Value)> = Vec::new();
    let mut records = 0;
    for line in &lines {
        assert_eq!(line["id"], records, "{line}");
        let Some(sequence) = line.get("sequences").map(|sequences| &sequences[0]) else {
            assert!(line["text"].is_string());
            tokens.push((line["token_id"].clone(), line["logprob"].clone()));
            continue;
        };
        let (ids, logprobs): (Vec<_>, Vec<_>) = tokens.drain(..).unzip();
        assert!(!ids.is_empty());
        assert_eq!((&sequence["token_ids"], &sequence["token_logprobs"]), (&ids.into(), &logprobs.into()));
        records += 1;
    }
    assert_eq!(records, 2);
}

#[test]
fn what_cannot_be_streamed() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out.txt");
    for (flags, parts) in [
        (&[][..], &["--stream: not with beam search", "num_beams is 4", "give --num-beams 1"][..]),
        (&["--num-beams=2"], &["--stream: not with beam search", "--num-beams is 2"]),
        (
            &["--num-beams=1", "--do-sample", "--n-best=3"],
            &["--stream: writes one text for each input", "--num-return-sequences is 3"],
        ),
        (&["--num-beams=1", "--with-scores"], &["--stream: not with --with-scores", "--format jsonl"]),
    ] {
        finish(generate(&demo()).args(["--quiet", "--stream", "x"]).args(flags)).expect_error(2, parts);
    }
    finish(quick().args(["--stream", "x", "--output"]).arg(&output))
        .expect_error(2, &["--stream: writes to stdout; not with --output FILE"]);
    assert!(!output.exists());
}

#[test]
fn a_closed_pipe_ends_a_stream_quietly() {
    let texts = vec!["I was born in 1979."; 60];
    let mut child = quick().arg("--stream").args(texts).spawn().unwrap();
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut first).unwrap();
    drop(stdout);
    let finished = common::finish_child(child).expect(0);
    assert_eq!(finished.stderr, "");
}

#[test]
fn progress_where_stderr_is_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.txt"), dir.path().join("out.txt"));
    fs::write(&input, "Hello.\n\nNo.").unwrap();
    let run = |flags: &[&str]| {
        let mut command = quick();
        finish(command.args(flags).arg("--input").arg(&input).arg("--output").arg(&output)).expect(0).stderr
    };
    assert_eq!(run(&[]), "");
    assert_eq!(run(&["--progress", "auto"]), "");
    assert_eq!(run(&["--progress", "never"]), "");
    let told = run(&["--progress", "always"]);
    assert!(told.starts_with("progress: 3/3 records (100 %), ") && told.lines().count() == 1, "{told}");
}

/// Runs the program under `script`, which gives it a terminal; `None` where there is no such program.
#[cfg(target_os = "linux")]
fn on_a_terminal(arguments: &str) -> Option<String> {
    let command = format!("{} {arguments}", env!("CARGO_BIN_EXE_elgen"));
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = script.spawn().ok()?;
    let mut shown = String::new();
    child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    assert!(child.wait().unwrap().success(), "{shown}");
    Some(shown)
}

#[cfg(target_os = "linux")]
#[test]
fn a_bar_where_stderr_is_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.txt"), dir.path().join("out.txt"));
    fs::write(&input, "Hello.\nNo.\nWhere is he?\nI was born.\n").unwrap();
    let files = format!("--input {} --output {}", input.display(), output.display());
    let quick = "--num-beams 1 --max-new-tokens 5 --batch-size 1";
    let run = |flags: &str| on_a_terminal(&format!("generate --model {} {quick} {files} {flags}", demo().display()));
    let Some(shown) = run("") else {
        println!("skipped: the program `script` cannot be run");
        return;
    };
    assert!(shown.contains("0/4 records (0 %)"), "{shown:?}");
    // The bar is drawn at intervals; every state it shows counts records that are done.
    assert!((1..=4).any(|done| shown.contains(&format!("{done}/4 records ({} %), ", done * 25))), "{shown:?}");
    for flags in ["--progress never", "--quiet"] {
        assert!(!run(flags).unwrap().contains("records"), "{flags}");
    }
}
