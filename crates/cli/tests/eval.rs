//! `elgen eval` as a program: inputs, formats and refusals. The numbers themselves are tested in elgen-metrics.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{Finished, demo, elgen, finish, finish_with_input};
use serde_json::Value;
use tempfile::TempDir;

struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Files {
        Files { dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn eval(hypotheses: &Path, references: &[&Path], arguments: &[&str]) -> Finished {
    let mut command = elgen();
    command.arg("eval");
    for path in references {
        command.arg("--references").arg(path);
    }
    finish(command.args(arguments).arg(hypotheses))
}

fn report(hypotheses: &Path, references: &[&Path], arguments: &[&str]) -> Value {
    let finished = eval(hypotheses, references, &[arguments, &["--format", "json"]].concat()).expect(0);
    serde_json::from_str(&finished.stdout).unwrap()
}

#[test]
fn the_demo_scores_what_sacrebleu_and_rouge_score_say() {
    let files = Files::new();
    let table = fs::read_to_string(demo().join("test.tsv")).unwrap();
    let first: Vec<_> = table.lines().map(|line| line.split('\t').nth(1).unwrap()).collect();
    let all: Vec<_> = table
        .lines()
        .map(|line| serde_json::json!({"references": line.split('\t').skip(1).collect::<Vec<_>>()}).to_string())
        .collect();
    let first = files.write("first.txt", first.join("\n"));
    let all = files.write("all.jsonl", all.join("\n"));
    let hypotheses = demo().join("test.hyp");

    let finished = eval(&hypotheses, &[&all], &["--metric", "bleu"]).expect(0);
    assert_eq!(
        finished.stdout,
        "BLEU|nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0 = 49.32 \
         74.5/55.4/44.1/35.2 (BP = 0.980 ratio = 0.981 hyp_len = 7661 ref_len = 7813)\n"
    );
    let finished = eval(&hypotheses, &[&first], &["--metric", "ter"]).expect(0);
    assert_eq!(
        finished.stdout,
        "TER|nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:2.6.0 = 41.97 (2892 edits, 6891 words)\n"
    );
    let value = report(&hypotheses, &[&first], &["--metric", "ter"]);
    assert_eq!((&value["metrics"][0]["edits"], &value["metrics"][0]["name"]), (&2892.into(), &"TER".into()));
    let finished = eval(&hypotheses, &[&first], &["--metric", "chrf++,rouge,chrf,chrf", "--lowercase"]).expect(0);
    assert_eq!(finished.lines().len(), 6, "{finished:#?}");
    for (line, start) in finished.lines().iter().zip([
        "chrF2++|nrefs:1|case:lc|eff:yes|nc:6|nw:2|space:no|version:2.6.0 = ",
        "rouge1|stem:no = 0.",
        "rouge2|stem:no = 0.",
        "rougeL|stem:no = 0.",
        "rougeLsum|stem:no = 0.",
        "chrF2|nrefs:1|case:lc|",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
    let value = report(&hypotheses, &[&first, &first], &["--metric", "rouge,bleu", "--stemmer"]);
    assert_eq!(value["segments"], 1000);
    assert_eq!(value["metrics"][0]["signature"], "stem:yes");
    assert_eq!(value["metrics"][4]["signature"].as_str().unwrap().split('|').next(), Some("nrefs:2"));
    assert_eq!(value["metrics"][4]["hypothesis_tokens"], 7661);
}

#[test]
fn texts_and_records_give_the_same_scores() {
    let files = Files::new();
    let text = files.write("h.txt", "one two\\nthree\\\\four five\n\nsix seven eight nine");
    let records = files.write(
        "h.jsonl",
        concat!(
            r#"{"id":0,"sequences":[{"text":"one two\nthree\\four five","token_ids":[1]},{"text":"x"}],"prompt_tokens":1}"#,
            "\n\n",
            r#"{"id":1,"sequences":[],"prompt_tokens":0}"#,
            "\n",
            r#"{"text":"six seven eight nine"}"#,
            "\n"
        ),
    );
    let references = files.write(
        "r.jsonl",
        "{\"text\":\"one two\\nthree\\\\four five\"}\r\n{\"reference\":\"gone\"}\n{\"references\":[\"six seven\",\"eight nine ten\"]}",
    );
    let all = ["--metric", "bleu,chrf,chrf++,rouge"];
    let expected = report(&text, &[&references], &all);
    assert_eq!(report(&records, &[&references], &all), expected);
    // The newline makes two lines for rougeLsum.
    assert_eq!(expected["metrics"][6]["name"], "rougeLsum");
    let mut command = elgen();
    command
        .args(["eval", "--format", "json", "--hypotheses-format", "jsonl", "-r"])
        .arg(&references)
        .arg("-")
        .args(all);
    let piped = finish_with_input(&mut command, &fs::read(&records).unwrap()).expect(0);
    assert_eq!(serde_json::from_str::<Value>(&piped.stdout).unwrap(), expected);
    // Undone escapes matter.
    assert_ne!(report(&text, &[&references], &["--raw", "--metric", "bleu,chrf,chrf++,rouge"]), expected);
}

#[test]
fn failed_records_count_as_empty_and_are_told() {
    let files = Files::new();
    let records = files.write("h.jsonl", "{\"id\":0,\"error\":\"too long\"}\n{\"text\":\"a b c d\"}\n");
    let references = files.write("r.txt", "a b c d\na b c d\n");
    let finished = eval(&records, &[&references], &["--metric", "rouge"]).expect(0);
    assert!(finished.stderr.starts_with("warning: 1 failed record"), "{finished:#?}");
    assert!(finished.stdout.contains("rouge1|stem:no = 0.5000 (precision = 0.5000"), "{finished:#?}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let files = Files::new();
    let two = files.write("two.txt", "a\nb\n");
    let three = files.write("three.txt", "a\nb\nc\n");
    eval(&two, &[&two, &three], &[]).expect_error(1, &["2 hypotheses in", "two.txt", "3 references in", "three.txt"]);
    let empty = files.write("empty.txt", "");
    eval(&empty, &[&empty], &[]).expect_error(1, &["empty.txt", "no hypotheses"]);
    let bad = files.write("bad.txt", b"ok\nno\xff\n");
    eval(&bad, &[&two], &[]).expect_error(1, &["bad.txt:2", "UTF-8"]);
    eval(&files.dir.path().join("none"), &[&two], &[]).expect_error(1, &["cannot read", "none"]);
    for (line, what) in [
        ("{\"text\":1}", "expected a string"),
        ("[\"a\"]", "not a JSON object"),
        ("{\"id\":1}", "neither `sequences` nor `text`"),
        ("{\"sequences\":[{\"text\":null}]}", "null"),
        ("{\"text\":\"a\",\"sequences\":[]}", "not both"),
        ("{\"text\":\"a\"", "column"),
    ] {
        let records = files.write("h.jsonl", format!("{{\"text\":\"a\"}}\n{line}\n"));
        eval(&records, &[&two], &[]).expect_error(1, &["h.jsonl:2: ", what]);
    }
    for (line, what) in [
        ("{\"references\":[]}", "empty"),
        ("{\"text\":\"a\",\"reference\":\"b\"}", "give one of"),
        ("{}", "give one of"),
    ] {
        let records = files.write("r.jsonl", format!("{line}\n{{\"text\":\"a\"}}\n"));
        eval(&two, &[&records], &[]).expect_error(1, &["r.jsonl:1: ", what]);
    }
    let finished = eval(&two, &[&two], &["--metric", "meteor"]).expect(2);
    assert!(finished.stderr.contains("chrf++"), "{finished:#?}");
    assert!(eval(&two, &[], &[]).expect(2).stderr.contains("--references"));
}

#[test]
fn texts_that_are_too_long_to_compare_are_refused() {
    let files = Files::new();
    let text = files.write("text.txt", "a\na b c d\n");
    // Four words by the 64 columns that one line takes at least.
    eval(&text, &[&text], &["--metric", "rouge", "--max-word-pairs", "256"]).expect(0);
    eval(&text, &[&text], &["--metric", "rouge", "--max-word-pairs=255"])
        .expect_error(1, &["hypothesis 2: ", "256 pairs of words", "limit of 255", "--max-word-pairs"]);
    assert!(eval(&text, &[&text], &["--max-word-pairs=-1"]).expect(2).stderr.contains("--max-word-pairs"));
}
