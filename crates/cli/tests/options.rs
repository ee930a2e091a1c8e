//! Where generation options come from: flags, `--set`, `--generation-config`, the checkpoint; and `--print-config`, which
//! tells. No test here loads weights.

mod common;

use std::{fs, path::PathBuf};

use common::{ModelCopy, finish, generate};
use serde_json::{Value, json};

/// A small model of the repository's fixtures.
fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

/// The rows of `--print-config --format jsonl` for a fixture.
fn printed(model: &str, flags: &[&str]) -> Vec<Value> {
    let finished =
        finish(generate(&fixture(model)).args(["--print-config", "--format", "jsonl"]).args(flags)).expect(0);
    finished.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Value and source of an option.
fn row(rows: &[Value], option: &str) -> (Value, String) {
    let row = rows.iter().find(|row| row["option"] == option).unwrap_or_else(|| panic!("no {option} in {rows:?}"));
    (row["value"].clone(), row["source"].as_str().unwrap().to_owned())
}

#[test]
fn every_source_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.json");
    let mine =
        json!({"num_beams": 7, "length_penalty": 3.0, "top_k": 9, "min_length": null, "transformers_version": "5"});
    fs::write(&file, mine.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let rows = printed(
        "bart-base-like",
        &[
            "--num-beams=2",
            "--generation-config",
            file,
            "--set",
            "num_beams=5",
            "--set=length_penalty=2",
            "--set=early-stopping=never",
            "--do-sample=false",
        ],
    );
    let is = |option: &str, value: Value, source: &str| assert_eq!(row(&rows, option), (value, source.to_owned()));
    is("num_beams", json!(2), "flag");
    is("length_penalty", json!(2.0), "--set");
    is("early_stopping", json!("never"), "--set");
    is("top_k", json!(9), "--generation-config");
    is("no_repeat_ngram_size", json!(3), "generation_config.json");
    is("max_length", json!(20), "generation_config.json");
    is("top_p", json!(1.0), "Hugging Face default");
    is("min_length", json!(0), "Hugging Face default");
    is("seed", json!(0), "elgen default");
    assert!(rows.iter().all(|row| row["option"] != "max_new_tokens"), "max_length is the limit");
}

#[test]
fn config_json_and_the_class_speak_where_there_is_no_generation_config() {
    let rows = printed("bart-alias-noconfig", &[]);
    assert_eq!(row(&rows, "num_beams"), (json!(3), "config.json".to_owned()));
    let rows = printed("gpt2-noprefix-noconfig", &[]);
    assert_eq!(row(&rows, "no_repeat_ngram_size"), (json!(3), "config.json".to_owned()));
    assert_eq!(row(&rows, "max_new_tokens"), (json!(20), "Hugging Face default".to_owned()));

    let model = ModelCopy::new();
    model.remove("generation_config.json");
    model.remove("model.safetensors");
    model.edit_json("config.json", |fields| {
        fields.remove("forced_eos_token_id");
    });
    let finished = finish(generate(model.path()).args(["--print-config", "--format=jsonl"])).expect(0);
    let rows: Vec<Value> = finished.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(row(&rows, "forced_eos_token_id"), (json!([2]), "class default".to_owned()));
}

#[test]
fn the_table_is_aligned_and_nothing_else_is_written() {
    let finished = finish(generate(&fixture("bart-base-like")).args(["--print-config", "--num-beams", "3"])).expect(0);
    assert_eq!(finished.stderr, "");
    let lines = finished.lines();
    let column = lines[0].find("generation_config.json").or(lines[0].find("flag")).expect("a source");
    for line in &lines {
        assert!(line.as_bytes()[column - 1] == b' ' && line.as_bytes()[column] != b' ', "{line:?} in {lines:#?}");
    }
    assert!(lines.iter().any(|line| line.split_whitespace().eq(["num_beams", "3", "flag"])), "{lines:#?}");
}

#[test]
fn errors_name_what_was_typed() {
    let refused = |flags: &[&str], code: i32, parts: &[&str]| {
        finish(generate(&fixture("bart-base-like")).arg("--print-config").args(flags)).expect_error(code, parts);
    };
    refused(&["--min-p", "1.5", "--do-sample", "--num-beams=1"], 2, &["--min-p: must be between 0 and 1, got 1.5"]);
    refused(&["--set", "min_p=2", "--do-sample", "--num-beams=1"], 2, &["--set min_p: must be between 0 and 1, got 2"]);
    refused(&["--set", "num_beams=few"], 2, &["--set num_beams: expected a non-negative integer, got \"few\""]);
    refused(
        &["--set", "nun_beams=4"],
        2,
        &["--set nun_beams: no generation option has this name (did you mean num_beams?)"],
    );
    refused(&["--set", "temprature=1"], 2, &["(did you mean temperature?)"]);
    refused(&["--set", "max-new-token=4"], 2, &["--set max_new_token: ", "(did you mean max_new_tokens?)"]);
    refused(&["--set", "flavour=4"], 2, &["--set flavour: no generation option has this name"]);
    refused(
        &["--set", "penalty_alpha=0.6", "--num-beams=1"],
        2,
        &["--set penalty_alpha: 0.6 (contrastive search) is not"],
    );
    refused(
        &["--num-beam-groups=3", "--diversity-penalty=1"],
        2,
        &["--num-beam-groups: 3 does not divide num_beams (4)"],
    );
    refused(&["--sequence-bias", "[[[5,960],1.0]]"], 2, &["--sequence-bias: token id 960 is outside"]);
    refused(&["--stop", ""], 2, &["--stop: must be texts of at least one character"]);
    refused(&["--generation-config", "/nonexistent/g.json"], 1, &["cannot read /nonexistent/g.json"]);

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mine.json");
    let path = file.to_str().unwrap();
    fs::write(&file, r#"{"repetition_penalty": 0}"#).unwrap();
    let told = format!("repetition_penalty in {path}: must be a number above 0, got 0");
    refused(&["--generation-config", path], 2, &[&told]);
    fs::write(&file, r#"{"top_k": "many"}"#).unwrap();
    refused(&["--generation-config", path], 2, &[path, "top_k: expected a non-negative integer, got \"many\""]);
    fs::write(&file, "[1]").unwrap();
    refused(&["--generation-config", path], 2, &[path]);
}

#[test]
fn idle_options_of_the_user_are_told() {
    let finished = finish(generate(&fixture("bart-base-like")).args([
        "--print-config",
        "--typical-p=0.5",
        "--set=top_h=0.4",
        "--num-beams=1",
    ]))
    .expect(0);
    let mut told: Vec<_> = finished.stderr.lines().collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "warning: --set top_h: has no effect without --do-sample",
            "warning: --typical-p: has no effect without --do-sample"
        ]
    );
}

/// mBART begins with the target language, mBART-50 is forced to; a flag still wins.
#[test]
fn languages_decide_how_a_text_begins() {
    let dir = tempfile::tempdir().unwrap();
    let name = "sentencepiece.bpe.model";
    fs::copy(fixture("tokenizers/fairseq").join(name), dir.path().join(name)).unwrap();
    let config = json!({"model_type": "mbart", "vocab_size": 2000, "d_model": 8, "encoder_attention_heads": 2, "decoder_attention_heads": 2});
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let rows = |class: &str, flags: &[&str]| -> Vec<Value> {
        fs::write(dir.path().join("tokenizer_config.json"), json!({"tokenizer_class": class}).to_string()).unwrap();
        let languages = ["--print-config", "--format", "jsonl", "--src-lang", "en_XX", "--tgt-lang", "ro_RO"];
        let finished = finish(generate(dir.path()).args(languages).args(flags)).expect(0);
        finished.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // The ids that transformers' tokenizers give ro_RO with this vocabulary.
    let romanian = (json!(1220), "--tgt-lang".to_owned());
    assert_eq!(row(&rows("MBartTokenizer", &[]), "decoder_start_token_id"), romanian);
    let fifty = rows("MBart50Tokenizer", &["--decoder-start-token-id=2"]);
    assert_eq!(row(&fifty, "forced_bos_token_id"), romanian);
    let typed = rows("MBartTokenizer", &["--decoder-start-token-id=7"]);
    assert_eq!(row(&typed, "decoder_start_token_id"), (json!(7), "flag".to_owned()));

    finish(generate(dir.path()).args(["--src-lang", "xx", "text"]))
        .expect_error(2, &["--src-lang xx", "not a language of the tokenizer", "ar_AR"]);
}
