//! Parts of a checkpoint that a run does not need do not decide whether it runs: ids that never come, lengths beyond the positions, tokenizers
//! where the input is ids.

mod common;

use std::fs;
use std::path::Path;

use common::*;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A fixture's model, without what was recorded with it.
fn copy(name: &str) -> TempDir {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(source.join(file), dir.path().join(file)).unwrap();
    }
    dir
}

fn edit(dir: &TempDir, file: &str, key: &str, value: Value) {
    let path = dir.path().join(file);
    let mut map: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    map[key] = value;
    fs::write(path, map.to_string()).unwrap();
}

/// Runs one list of ids.
fn run(dir: &TempDir, ids: &[u32], flags: &[&str]) -> Finished {
    let mut command = generate(dir.path());
    command.args(["--input-format", "jsonl", "--format", "jsonl", "--attention", "mha"]).args(flags);
    command.stdin(std::process::Stdio::piped());
    finish_with_input(&mut command, format!("{{\"input_ids\": {ids:?}}}\n").as_bytes())
}

#[test]
fn ids_that_never_come_may_be_anything() {
    let plain = run(&copy("gpt2-base-like"), &[5, 6, 7], &["--eos-token-id", ""]).expect(0).stdout;
    let dir = copy("gpt2-base-like");
    for file in ["config.json", "generation_config.json"] {
        edit(&dir, file, "eos_token_id", json!([96, -1, 1_u64 << 40]));
        edit(&dir, file, "pad_token_id", json!(96));
        edit(&dir, file, "bos_token_id", json!(-1));
    }
    assert_eq!(run(&dir, &[5, 6, 7], &[]).expect(0).stdout, plain);
    finish(elgen().arg("inspect").arg(dir.path())).expect(0);
    finish(elgen().args(["plan", "--memory-limit", "1GiB", "--model"]).arg(dir.path())).expect(0);
    let typed = run(&copy("gpt2-base-like"), &[5, 6, 7], &["--eos-token-id", "99999"]).expect(0);
    assert_eq!(typed.stdout, plain);
    let warning = "warning: --eos-token-id: token id 99999 is outside the model's vocabulary of 96 and never comes";
    assert!(typed.stderr.contains(warning), "{typed:#?}");
}

#[test]
fn an_id_that_is_embedded_must_exist() {
    let dir = copy("bart-base-like");
    edit(&dir, "generation_config.json", "decoder_start_token_id", json!(96));
    run(&dir, &[5, 6], &[]).expect_error(1, &["generation options: decoder_start_token_id", "token id 96"]);
    let dir = copy("bart-base-like");
    edit(&dir, "config.json", "pad_token_id", json!(96));
    run(&dir, &[5, 6], &[]).expect_error(1, &["config.json", "pad_token_id = 96", "vocabulary of 96"]);
}

#[test]
fn lengths_end_one_behind_the_positions() {
    let dir = copy("gpt2-base-like");
    let ids: Vec<u32> = (0..48).map(|i| i * 7 % 90 + 3).collect();
    let tokens = |finished: Finished| -> usize {
        let found: Value = serde_json::from_str(finished.expect(0).lines()[0]).unwrap();
        found["sequences"][0]["token_ids"].as_array().unwrap().len()
    };
    let endless = ["--eos-token-id", "", "--quiet"];
    assert_eq!(tokens(run(&dir, &ids, &[&["--max-new-tokens", "1"], &endless[..]].concat())), 1);
    assert_eq!(tokens(run(&dir, &ids[..5], &[&["--max-new-tokens", "44"], &endless[..]].concat())), 44);
    let long = run(&dir, &ids[..5], &[&["--max-new-tokens", "45"], &endless[..]].concat()).expect(1);
    assert!(long.stdout.contains("50") && long.stdout.contains("48 positions allow 49"), "{long:#?}");
    run(&dir, &ids[..5], &["--max-new-tokens", "49", "--quiet"]).expect_error(2, &["--max-new-tokens", "49", "48"]);

    // What the checkpoint asks for is cut, and told.
    let dir = copy("bart-base-like");
    edit(&dir, "generation_config.json", "max_length", json!(200));
    let cut = run(&dir, &ids[..5], &["--eos-token-id", "", "--forced-eos-token-id", "", "--num-beams", "1"]);
    let warning = "warning: max_length: the checkpoint asks for 200, which is cut to the 49 that its positions allow";
    assert!(cut.stderr.contains(warning), "{cut:#?}");
    assert_eq!(tokens(cut), 48);
}

#[test]
fn a_tokenizer_that_cannot_be_loaded_matters_to_texts_alone() {
    let damaged = |dir: &TempDir| fs::write(dir.path().join("tokenizer.json"), "{\"model\"").unwrap();
    let half = |dir: &TempDir| fs::write(dir.path().join("vocab.json"), "{}").unwrap();
    let unknown = |dir: &TempDir| {
        damaged(dir);
        fs::write(dir.path().join("tokenizer_config.json"), "{\"tokenizer_class\": \"NoSuchTokenizer\"}").unwrap();
    };
    type Spoil<'a> = &'a dyn Fn(&TempDir);
    let cases: [(&str, Spoil<'_>, &str); 5] = [
        ("gpt2-base-like", &damaged, "tokenizer.json"),
        ("gpt2-base-like", &half, "merges.txt not found"),
        ("bart-base-like", &unknown, "tokenizer"),
        ("marian-shared", &half, "source.spm not found"),
        ("t5-base-like", &|dir| fs::write(dir.path().join("spiece.model"), "x").unwrap(), "spiece.model"),
    ];
    for (model, spoil, reason) in cases {
        let dir = copy(model);
        let plain = run(&dir, &[5, 6, 7], &["--max-new-tokens", "4"]).expect(0).stdout;
        spoil(&dir);
        let found = run(&dir, &[5, 6, 7], &["--max-new-tokens", "4"]).expect(0);
        assert_eq!(found.stdout, plain, "{model}");
        assert!(found.stderr.contains("going on without a tokenizer") && found.stderr.contains(reason), "{found:#?}");
        finish(generate(dir.path()).args(QUICK).arg("a text")).expect_error(1, &[reason]);
    }
    let dir = copy("gpt2-base-like");
    damaged(&dir);
    let mut command = generate(dir.path());
    command.args(QUICK).args(["--input-format", "jsonl", "--format", "jsonl"]).stdin(std::process::Stdio::piped());
    let mixed = finish_with_input(&mut command, b"{\"text\": \"a\"}\n{\"input_ids\": [5]}\n").expect(1);
    assert!(mixed.lines()[0].contains("tokenizer.json") && mixed.lines()[1].contains("token_ids"), "{mixed:#?}");
    let inspected = finish(elgen().args(["inspect", "--format", "json"]).arg(dir.path())).expect(0).stdout;
    assert!(inspected.contains("\"tokenizer\": false") && inspected.contains("\"tokenizer_error\": "), "{inspected}");
}
