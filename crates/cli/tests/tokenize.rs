//! `elgen tokenize`: ids, tokens, counts and texts, and what goes wrong with them. Needs no device.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use common::{demo, elgen, finish, finish_child, finish_with_input, generate};
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tokenizers")
}

fn tokenize(model: &Path) -> Command {
    let mut command = elgen();
    command.arg("tokenize").arg("--model").arg(model);
    command
}

/// A directory with the model_type and the files of a fixture.
fn directory(model_type: &str, files: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let file = fixtures().join(file);
        fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    fs::write(dir.path().join("config.json"), json!({"model_type": model_type}).to_string()).unwrap();
    dir
}

#[test]
fn texts_become_ids_and_ids_become_texts() {
    let finished = finish(tokenize(&demo()).args(["I was born in 1979.", ""])).expect(0);
    assert_eq!(finished.stderr, "");
    let ids = finished.lines();
    assert_eq!(ids.len(), 2);
    assert!(ids[0].starts_with("0 ") && ids[0].ends_with(" 2"), "{finished:#?}");
    assert_eq!(ids[1], "0 2");

    let decoded = finish(tokenize(&demo()).args(["--decode", ids[0]])).expect(0);
    assert_eq!(decoded.lines(), ["<s>I was born in 1979.</s>"]);
    let plain =
        finish(tokenize(&demo()).args(["--decode", "--no-special-tokens", &ids[0].replace(' ', ",")])).expect(0);
    assert_eq!(plain.lines(), ["I was born in 1979."]);

    let bare = finish(tokenize(&demo()).args(["--no-special-tokens", "I was born in 1979."])).expect(0);
    assert_eq!(format!("0 {} 2", bare.lines()[0]), ids[0]);
    let count = finish(tokenize(&demo()).args(["--count", "I was born in 1979.", ""])).expect(0);
    assert_eq!(count.lines(), [ids[0].split(' ').count().to_string().as_str(), "2"]);
    let tokens = finish(tokenize(&demo()).args(["--tokens", "I was"])).expect(0);
    assert_eq!(tokens.lines(), ["<s> I Ġwas </s>"]);
}

#[test]
fn lines_of_files_and_of_stdin() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.txt");
    fs::write(&input, "I was\r\n\nbad \u{1}\n").unwrap();
    let from_file = finish(tokenize(&demo()).arg("--input").arg(&input)).expect(0);
    let from_stdin = finish_with_input(tokenize(&demo()).args(["--input", "-"]), b"I was\n\nbad \x01\n").expect(0);
    assert_eq!(from_file.stdout, from_stdin.stdout);
    assert_eq!(from_file.lines().len(), 3);
    // A text of two lines is one line of output, and comes back.
    let ids =
        finish_with_input(tokenize(&demo()).args(["--input-format", "jsonl"]), br#"{"text": "a\nb\\"}"#).expect(0);
    let text = finish_with_input(tokenize(&demo()).args(["--decode", "--no-special-tokens"]), ids.stdout.as_bytes());
    assert_eq!(text.expect(0).stdout, "a\\nb\\\\\n");
}

#[test]
fn records_keep_their_ids() {
    let input = concat!(
        r#"{"id": "first", "text": "I was"}"#,
        "\n\n",
        r#"{"input_ids": [0, 2, 7999999]}"#,
        "\n",
        r#"{"id": 3, "text": 5}"#,
        "\n",
    );
    let mut command = tokenize(&demo());
    command.args(["--input-format", "jsonl", "--format", "jsonl"]);
    let finished = finish_with_input(&mut command, input.as_bytes()).expect(1);
    let lines: Vec<Value> = finished.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0]["id"], &lines[0]["tokens"]), (&json!("first"), &json!(["<s>", "I", "Ġwas", "</s>"])));
    assert_eq!(lines[0]["ids"].as_array().unwrap().len(), 4);
    assert_eq!(lines[0].get("text"), None);
    assert_eq!(
        lines[1],
        json!({"id": 1, "ids": [0, 2, 7_999_999], "tokens": ["<s>", "</s>", null], "text": "<s></s>"})
    );
    assert_eq!(lines[2]["id"], 3);
    assert!(lines[2]["error"].as_str().unwrap().contains("`text`"), "{finished:#?}");
    assert!(finished.stderr.starts_with("error: <stdin>:4: `text`"), "{finished:#?}");

    let mut command = tokenize(&demo());
    let counted = finish(command.args(["--count", "--format", "jsonl", "I was"])).expect(0);
    assert_eq!(counted.lines(), [r#"{"id":0,"count":4}"#]);
}

#[test]
fn lines_that_fail_are_named_and_leave_the_others_alone() {
    let finished = finish_with_input(tokenize(&demo()).arg("--decode"), b"0 2\n0 x\n\n0 2\n").expect(1);
    assert_eq!(finished.stdout, "<s></s>\n\n\n<s></s>\n");
    assert_eq!(finished.stderr, "error: <stdin>:2: `x` is no token id\n");
    let finished = finish_with_input(&mut tokenize(&demo()), b"a\n\xff\n").expect(1);
    assert_eq!(finished.lines().len(), 2);
    assert_eq!(finished.stderr, "error: <stdin>:2: invalid UTF-8 at byte 1\n");
    finish(tokenize(&demo()).args(["--decode", "-1"])).expect(2);
    let finished = finish(tokenize(&demo()).args(["--decode", "--", "-1"])).expect(1);
    assert_eq!(finished.stderr, "error: argument 1: `-1` is no token id\n");
}

#[test]
fn a_closed_pipe_is_quiet() {
    let mut child = tokenize(&demo()).stdin(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        while stdin.write_all(b"I was born in 1979.\n").is_ok() {}
    });
    let finished = finish_child(child).expect(0);
    assert_eq!(finished.stderr, "");
    writer.join().unwrap();
}

#[test]
fn languages() {
    let mbart = directory("mbart", &["fairseq/sentencepiece.bpe.model"]);
    let finished = finish(tokenize(mbart.path()).args(["--tokens", "--src-lang", "ro_RO", "a"])).expect(0);
    assert_eq!(finished.lines(), ["▁a </s> ro_RO"]);
    let wrong = finish(tokenize(mbart.path()).args(["--src-lang", "ro", "a"]));
    wrong.expect_error(2, &["--src-lang ro", "did you mean ro_RO"]);
    let marian = directory("marian", &["marian/source.spm", "marian/target.spm", "marian/vocab.json"]);
    let finished = finish(tokenize(marian.path()).args(["--tokens", "--tgt-lang", "fra", "Hello"])).expect(0);
    assert!(finished.stdout.starts_with(">>fra<< "), "{finished:#?}");
    let wrong = finish(tokenize(marian.path()).args(["--tgt-lang", "deu", "a"]));
    wrong.expect_error(2, &["--tgt-lang deu", "fra, mlg"]);
    // `generate` says so before it loads any weights.
    for flag in ["--src-lang", "--tgt-lang"] {
        let wrong = finish(generate(&demo()).args([flag, "fr_XX", "a"]));
        wrong.expect_error(2, &[flag, "fr_XX", "no languages to choose from"]);
    }
}

#[test]
fn directories_that_hold_no_usable_tokenizer() {
    let empty = directory("t5", &[]);
    finish(tokenize(empty.path()).arg("a")).expect_error(1, &["tokenizer.json or spiece.model not found"]);
    let half = directory("marian", &["marian/vocab.json"]);
    finish(tokenize(half.path()).arg("a")).expect_error(1, &["source.spm not found", "there is vocab.json"]);
    let damaged = directory("t5", &[]);
    fs::write(damaged.path().join("spiece.model"), b"\xff\xff").unwrap();
    finish(tokenize(damaged.path()).arg("a")).expect_error(1, &["spiece.model", "damaged SentencePiece model"]);
    finish(tokenize(Path::new("/nonexistent/model")).arg("a")).expect_error(1, &["/nonexistent/model"]);
    finish(tokenize(&demo()).args(["--decode", "--tokens", "1"])).expect(2);
}
