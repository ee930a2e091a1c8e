//! `elgen bench`: rows, formats, interruption, and memory that runs out.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{elgen, finish, tiny};
use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str = r#"{"model_type": "bart", "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 500, "max_position_embeddings": 64}"#;

/// A folder with a config.
fn folder() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tiny.json");
    fs::write(&config, CONFIG).unwrap();
    (dir, config)
}

/// `elgen bench` with random weights and short rows.
fn bench(config: &Path, flags: &[&str]) -> std::process::Command {
    let mut command = elgen();
    command.args(["bench", "--random-weights", "--dtype", "f32", "--source-length", "12", "--max-new-tokens", "5"]);
    command.args(["--repetitions", "1", "--quiet", "--config"]).arg(config).args(flags);
    command
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn kinds_give_equal_hashes_and_el_caches_less() {
    let (_dir, config) = folder();
    let flags = ["--batch-size", "1,3", "--num-beams", "1,3", "--format", "json"];
    let report = json(&finish(&mut bench(&config, &flags)).expect(0).stdout);
    let rows = report["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &report["complete"], &report["planned"]), (20, &Value::Bool(true), &Value::from(20)));
    assert!(!report["device"].as_str().unwrap().is_empty() && report["software_adapter"].is_boolean());
    for row in rows {
        assert_eq!(row["status"], "ok", "{row}");
        let cost = &row["cost"];
        let same = |other: &&Value| ["num_beams", "batch_asked"].iter().all(|key| other[*key] == row[*key]);
        for other in rows.iter().filter(same) {
            assert_eq!(other["cost"]["output_hash"], cost["output_hash"], "{row} {other}");
        }
        let (batch, samples) = (cost["batch"].as_f64().unwrap(), cost["samples_per_second"]["mean"].as_f64().unwrap());
        let tokens = cost["tokens_per_second"]["mean"].as_f64().unwrap();
        assert!(batch > 0.0 && (tokens - 5.0 * samples).abs() < 1e-6 * tokens, "{row}");
        assert_eq!(cost["steps"], 5);
        for key in
            ["encode_ms", "first_token_ms", "step_ms", "dispatches_per_step", "gigabytes_per_second", "teraflops"]
        {
            assert!(cost[key].as_f64().unwrap() > 0.0, "{key}: {row}");
        }
        let peak = &cost["peak_bytes"];
        let parts: u64 =
            ["weights", "cache", "activations", "staging"].iter().map(|c| peak[*c].as_u64().unwrap()).sum();
        let total = peak["total"].as_u64().unwrap();
        assert!(total <= parts && peak["weights"].as_u64().unwrap() > 4 * 64 * 500, "{row}");
    }
    let cache = |kind: &str| {
        let found = |row: &&Value| row["attention"] == kind && row["num_beams"] == 3 && row["batch_asked"] == "3";
        rows.iter().find(found).unwrap()["cost"]["peak_bytes"]["cache"].as_u64().unwrap()
    };
    assert!(cache("el") < cache("mha") && cache("mha") < cache("mha-replicated"));
    let hashes: std::collections::HashSet<_> =
        rows.iter().map(|row| row["cost"]["output_hash"].as_str().unwrap()).collect();
    assert_eq!(hashes.len(), 4, "beams and batches differ in what they generate");
}

#[test]
fn formats_hold_the_same_rows() {
    let (dir, config) = folder();
    let flags = ["--attention", "mha,el", "--batch-size", "2", "--num-beams", "2"];
    let plot = dir.path().join("plot.svg");
    let table = finish(bench(&config, &flags).arg("--plot").arg(&plot)).expect(0);
    for part in ["device: ", "samples/s", "mha", "el", "tiny", "±"] {
        assert!(table.stdout.contains(part), "{part}: {table:#?}");
    }
    assert_eq!(table.stderr, "");
    let svg = fs::read_to_string(&plot).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.matches("<rect").count() == 2,
        "{svg}"
    );
    let report = dir.path().join("report.json");
    finish(bench(&config, &flags).args(["--format", "json", "--output"]).arg(&report)).expect(0);
    let again = |format: &str| finish(elgen().args(["bench", "--format", format, "--from"]).arg(&report)).expect(0);
    let markdown = again("md");
    let lines: Vec<&str> = markdown.stdout.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(lines.len(), 4);
    assert!(lines.iter().all(|line| line.matches('|').count() == lines[0].matches('|').count()), "{markdown:#?}");
    let csv = again("csv");
    let lines = csv.lines();
    assert_eq!((lines.len(), lines[0].starts_with("preset,model,attention")), (3, true), "{csv:#?}");
    assert!(lines[2].contains(",el,f32,2,2,12,5,"), "{csv:#?}");
    // Adapters have commas in their names: those between quotes are no separators.
    let columns = |line: &str| line.split('"').step_by(2).map(|part| part.matches(',').count()).sum::<usize>();
    assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{csv:#?}");
    assert_eq!(json(&again("json").stdout), json(&fs::read_to_string(&report).unwrap()));
    finish(elgen().args(["bench", "--from"]).arg(&plot)).expect_error(1, &["plot.svg", "report"]);
}

#[test]
fn a_run_goes_on_where_its_time_ended() {
    let (dir, config) = folder();
    let flags = ["--attention", "mha,el", "--batch-size", "1,2", "--num-beams", "1"];
    for (format, name) in [("json", "out.json"), ("csv", "out.csv")] {
        let output = dir.path().join(name);
        let state = if format == "json" { output.clone() } else { dir.path().join(format!("{name}.elgen-bench")) };
        let run = |more: &[&str]| {
            finish(bench(&config, &flags).args(["--format", format, "--output"]).arg(&output).args(more)).expect(0)
        };
        // No time at all: nothing is measured, and nothing is lost.
        assert_eq!(run(&["--time-budget", "0"]).stdout, "");
        assert_eq!(json(&fs::read_to_string(&state).unwrap())["rows"].as_array().unwrap().len(), 0);
        run(&[]);
        let whole = fs::read_to_string(&output).unwrap();
        assert_eq!(state == output, state.exists(), "what it went on from is gone");
        if format == "csv" {
            assert_eq!(whole.lines().count(), 5);
            continue;
        }
        // Cut to two rows: those stay as they are, the others come back.
        let mut cut = json(&whole);
        cut["rows"].as_array_mut().unwrap().truncate(2);
        cut["complete"] = Value::Bool(false);
        fs::write(&output, cut.to_string()).unwrap();
        run(&[]);
        let again = json(&fs::read_to_string(&output).unwrap());
        assert_eq!(again["rows"].as_array().unwrap().len(), 4);
        assert_eq!(again["rows"][1], cut["rows"][1]);
        assert_eq!(again["rows"][3]["cost"]["output_hash"], json(&whole)["rows"][3]["cost"]["output_hash"]);
        // Other rows, another seed: not the same run.
        for (other, said) in [(["--seed", "1"], "seed was 0, is 1"), (["--dtype", "f16"], "other rows")] {
            let mut command = bench(&config, &flags);
            command.args(["--format", format, "--output"]).arg(&output);
            let mut words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            if other[0] == "--dtype" {
                words.retain(|word| word != "f32" && word != "--dtype");
            }
            finish(elgen().args(words).args(other)).expect_error(1, &["out.json", said]);
        }
        assert_eq!(json(&fs::read_to_string(&output).unwrap()), again, "a refusal leaves the file");
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn what_does_not_fit_is_a_row() {
    let (_dir, config) = folder();
    let flags = ["--attention", "mha,el", "--num-beams", "4", "--format", "json", "--memory-limit", "3MiB"];
    let report = json(&finish(bench(&config, &flags).args(["--batch-size", "1000,max"])).expect(0).stdout);
    let rows = report["rows"].as_array().unwrap();
    let status: Vec<_> = rows.iter().map(|row| row["status"].as_str().unwrap()).collect();
    assert_eq!(status, ["oom", "ok", "oom", "ok"], "{report}");
    assert!(rows[0]["message"].as_str().unwrap().contains("the memory limit is 3.0 MiB"), "{report}");
    let largest = |row: &Value| row["cost"]["batch"].as_u64().unwrap();
    assert!(largest(&rows[1]) < largest(&rows[3]), "{report}");
    assert!(rows[3]["cost"]["peak_bytes"]["total"].as_u64().unwrap() <= 3 << 20);
    // The weights alone are too much.
    let table = finish(&mut bench(&config, &["--attention", "el", "--memory-limit", "100KiB", "--batch-size", "max"]))
        .expect(0);
    assert!(table.stdout.contains("OOM"), "{table:#?}");
}

#[test]
fn a_row_that_fails_does_not_end_the_run() {
    let (_dir, config) = folder();
    let command = bench(&config, &["--attention", "el", "--batch-size", "1", "--num-beams", "1", "--format", "json"]);
    let mut words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    words.iter_mut().filter(|word| *word == "12").for_each(|word| *word = "65,12".into());
    let report = json(&finish(elgen().args(words)).expect(1).stdout);
    assert_eq!(
        (&report["rows"][0]["status"], &report["rows"][1]["status"]),
        (&"error".into(), &"ok".into()),
        "{report}"
    );
    assert!(report["rows"][0]["message"].as_str().unwrap().contains("64"), "{report}");
}

#[test]
fn presets_run_at_reduced_width_and_say_what_is_ours() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("presets.json");
    let mut command = elgen();
    command.arg("bench");
    for preset in ["squad-qg", "xsum", "cnndm", "gpt2-cnndm"] {
        command.args(["--preset", preset]);
    }
    command.args(["--scale", "32", "--source-length", "8", "--max-new-tokens", "2", "--batch-size", "1"]);
    command.args([
        "--repetitions",
        "1",
        "--attention",
        "el",
        "--dtype",
        "f32",
        "--quiet",
        "--format",
        "json",
        "--output",
    ]);
    finish(command.arg(&output)).expect(0);
    let report = json(&fs::read_to_string(&output).unwrap());
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["preset"].as_str().unwrap()).collect();
    assert_eq!(names, ["squad-qg", "xsum", "cnndm", "gpt2-cnndm", "gpt2-cnndm"]);
    let beams: Vec<_> = rows.iter().map(|row| row["num_beams"].as_u64().unwrap()).collect();
    assert_eq!(beams, [4, 6, 4, 4, 4]);
    assert!(rows.iter().all(|row| row["status"] == "ok"), "{report}");
    assert_eq!(rows[2]["options"]["length_penalty"], 2.0);
    assert_eq!(rows[1]["options"]["no_repeat_ngram_size"], 3);
    let named = |ours: &Value| ours["preset"] == "gpt2-cnndm" && ours["column"] == "new";
    assert!(report["ours"].as_array().unwrap().iter().any(named), "{report}");
    for format in ["csv", "md", "table"] {
        let found = finish(elgen().args(["bench", "--format", format, "--from"]).arg(&output)).expect(0).stdout;
        // CNN/DM has no choice of ours but those of this command line.
        assert!(found.contains("ours") && found.matches("model source new batch").count() == 5, "{format}: {found}");
        assert!(format == "csv" || found.contains("ours, new of squad-qg: not found"), "{format}: {found}");
    }
}

#[test]
fn lengths_of_real_texts() {
    let (dir, config) = folder();
    let file = dir.path().join("lengths.jsonl");
    fs::write(&file, "{\"input_ids\": [4, 5, 6]}\n\n{\"text\": \"five words are in here\", \"id\": 7}\n").unwrap();
    let mut command = elgen();
    command.args(["bench", "--max-new-tokens", "4", "--repetitions", "1", "--quiet", "--attention", "mha,el"]);
    command
        .args(["--batch-size", "3", "--num-beams", "2", "--dtype", "f32", "--format", "json", "--config"])
        .arg(&config);
    let report = json(&finish(command.arg("--lengths-from").arg(&file)).expect(0).stdout);
    assert!(report["rows"][0]["lengths_from"].as_str().unwrap().contains("2 records of 4.0 words"), "{report}");
    assert_eq!(report["rows"][0]["cost"]["output_hash"], report["rows"][1]["cost"]["output_hash"]);
    let apart = json(&finish(command.arg("--weights=f16")).expect(0).stdout);
    assert_eq!((&report["rows"][0]["dtype"], &apart["rows"][0]["dtype"]), (&"f32".into(), &"f16/f32".into()));
    let weights = |report: &Value| report["rows"][0]["cost"]["peak_bytes"]["weights"].as_u64().unwrap();
    assert!(weights(&apart) < weights(&report));
    fs::write(&file, "{\"texts\": 1}\n").unwrap();
    finish(&mut command).expect_error(1, &["lengths.jsonl", "line 1", "input_ids"]);
}

#[test]
fn a_model_directory_is_measured_too() {
    let mut command = elgen();
    command.args([
        "bench",
        "--max-new-tokens",
        "3",
        "--source-length",
        "5",
        "--repetitions",
        "2",
        "--quiet",
        "--format",
        "json",
    ]);
    command
        .args(["--batch-size", "2", "--num-beams", "2", "--attention", "mha,el", "--dtype", "f32", "--model"])
        .arg(tiny());
    let report = json(&finish(&mut command).expect(0).stdout);
    assert_eq!(report["rows"][0]["model"], "bart-one-head");
    assert_eq!(report["rows"][0]["cost"]["repetitions"], 2);
    assert_eq!(report["rows"][0]["cost"]["output_hash"], report["rows"][1]["cost"]["output_hash"]);
}

#[test]
fn wrong_usage() {
    finish(elgen().arg("bench")).expect_error(2, &["--model", "--config", "--preset"]);
    finish(elgen().args(["bench", "--config", "no-such.json"])).expect_error(1, &["no-such.json"]);
    finish(elgen().args(["bench", "--config", "bart-large", "--scale", "7"])).expect_error(1, &["bart-large"]);
    let code = |flags: &[&str]| finish(elgen().arg("bench").args(flags)).code;
    assert_eq!(code(&["--preset", "wmt"]), Some(2));
    assert_eq!(code(&["--random-weights"]), Some(2));
    assert_eq!(code(&["--config", "gpt2", "--batch-size", "0"]), Some(2));
}
