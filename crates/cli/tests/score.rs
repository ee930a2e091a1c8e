//! `elgen score`: formats, whole texts, saved runs and their comparison, and what goes wrong.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{ModelCopy, demo, elgen, finish, finish_with_input, stories, tiny};
use serde_json::{Value, json};

fn score(model: &Path) -> Command {
    let mut command = elgen();
    command.arg("score").arg("--model").arg(model);
    command
}

fn write(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

const SOURCES: &str = "I was born in 1979.\n\nWhere are you?\n";
const TARGETS: &str = "Je suis né en 1979.\n\nOù êtes-vous ?\n";

#[test]
fn pairs_of_lines_and_of_json_have_the_same_scores() {
    let dir = tempfile::tempdir().unwrap();
    let (sources, targets) = (write(&dir, "src", SOURCES), write(&dir, "ref", TARGETS));
    let stats = dir.path().join("stats.json");
    let mut command = score(&demo());
    command.arg("--input").arg(&sources).arg("--targets").arg(&targets).arg("--stats-json").arg(&stats);
    let text = finish(&mut command).expect(0);
    let lines = text.lines();
    assert_eq!((lines.len(), lines[1]), (3, ""));
    assert!(text.stderr.contains("2 records, ") && text.stderr.contains("PPL = "), "{text:#?}");
    assert!(text.stderr.contains(" +/- "), "{text:#?}");

    let records = [
        json!({"id": "a", "text": "I was born in 1979.", "target": "Je suis né en 1979."}),
        json!({"text": "Where are you?", "target": "Où êtes-vous ?"}),
    ];
    let records: String = records.iter().map(|record| format!("{record}\n")).collect();
    let mut command = score(&demo());
    command.args(["--input-format", "jsonl", "--format", "jsonl", "--top-ids", "--quiet"]);
    let json = finish_with_input(&mut command, records.as_bytes()).expect(0);
    assert_eq!(json.stderr, "");
    let found = json_lines(&json.stdout);
    assert_eq!((&found[0]["id"], &found[1]["id"]), (&json!("a"), &json!(1)));
    let mut sum = 0.0;
    for (record, line) in found.iter().zip([lines[0], lines[2]]) {
        let columns: Vec<f64> = line.split('\t').map(|column| column.parse().unwrap()).collect();
        let ids = record["token_ids"].as_array().unwrap();
        // Labels: with the special tokens around them.
        assert!(ids[0] == 0 && ids[ids.len() - 1] == 2, "{record}");
        assert_eq!((record["tokens"].as_u64(), columns[1]), (Some(ids.len() as u64), ids.len() as f64));
        for field in ["token_logprobs", "top_ids", "top_logprobs"] {
            assert_eq!(record[field].as_array().unwrap().len(), ids.len(), "{field}");
        }
        let logprobs: f64 = record["token_logprobs"].as_array().unwrap().iter().map(number).sum();
        assert!((logprobs - number(&record["sum_logprob"])).abs() < 1e-4 && logprobs < 0.0);
        assert!((logprobs - columns[0]).abs() < 1e-4, "{line}");
        let mean = logprobs / ids.len() as f64;
        assert!((number(&record["mean_logprob"]) - mean).abs() < 1e-5);
        assert!(
            (number(&record["perplexity"]) - (-mean).exp()).abs() < 1e-3 && (columns[2] - (-mean).exp()).abs() < 1e-3
        );
        sum += logprobs;
    }
    let stats = read_json(&stats);
    assert!((number(&stats["score"]["sum_logprob"]) - sum).abs() < 1e-3, "{stats}");
    assert_eq!((&stats["score"]["records"], &stats["failed"]), (&json!(2), &json!(0)));
    assert!(stats["attention"]["self"] == "mha" && stats.get("comparison").is_none(), "{stats}");

    let mut command = score(&demo());
    command.arg("--input").arg(&sources).arg("--targets").arg(&targets).args(["--token-scores", "--quiet"]);
    let tokens = finish(&mut command).expect(0);
    let parts: Vec<&str> = tokens.lines()[0].split(" ||| ").collect();
    assert!(parts.len() == 3 && parts[1].starts_with("<s> Je") && parts[1].ends_with(" </s>"), "{tokens:#?}");
    assert_eq!(parts[1].split(' ').count(), parts[2].split(' ').count());
    assert_eq!(tokens.lines()[1], "");
}

#[test]
fn ids_have_transformers_scores() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let recorded = read_json(&fixtures.join("scores.json"));
    let case = recorded["cases"].as_array().unwrap().iter().find(|case| case["model"] == "t5-base-like").unwrap();
    let record = json!({"input_ids": case["source"], "target_ids": case["target"]}).to_string();
    let mut command = score(&fixtures.join("t5-base-like"));
    command.args(["--input-format=jsonl", "--format=jsonl", "--attention=el", "--dtype=f32", "--quiet", "--top-ids"]);
    let found = &json_lines(&finish_with_input(&mut command, record.as_bytes()).expect(0).stdout)[0];
    assert_eq!((&found["token_ids"], &found["top_ids"]), (&case["target"], &case["top_ids"]));
    let logprobs = |value: &Value| value["token_logprobs"].as_array().unwrap().iter().map(number).collect::<Vec<_>>();
    for (got, want) in logprobs(found).into_iter().zip(logprobs(case)) {
        assert!((got - want).abs() <= 1e-4 * want.abs().max(1.0), "{got} is not {want}");
    }
}

#[test]
fn decoder_only_models_score_whole_texts() {
    let text = "Once upon a time there was a girl.";
    let dir = tempfile::tempdir().unwrap();
    let file = write(&dir, "texts", &format!("{text}\n\nThe dog ran.\n"));
    let run = |arguments: &[&str]| {
        let mut command = score(&stories());
        finish(command.arg("--input").arg(&file).args(["--format=jsonl", "--quiet"]).args(arguments)).expect(0)
    };
    let behind_bos = json_lines(&run(&[]).stdout);
    assert_eq!(behind_bos.len(), 3);
    assert_eq!((&behind_bos[1]["tokens"], behind_bos[1].get("perplexity")), (&json!(0), None));
    let given = json_lines(&run(&["--no-bos"]).stdout);
    let ids = behind_bos[0]["token_ids"].as_array().unwrap();
    assert_eq!(given[0]["token_ids"].as_array().unwrap(), &ids[1..]);

    // Line ends are part of a whole file; a window that holds it all changes nothing but the first tokens.
    let whole = json_lines(&run(&["--whole-file"]).stdout);
    assert_eq!(whole.len(), 1);
    assert!(whole[0]["tokens"].as_u64() > behind_bos[0]["tokens"].as_u64());
    assert_eq!(&whole[0]["token_ids"].as_array().unwrap()[..ids.len()], ids);
    let windows = json_lines(&run(&["--whole-file", "--max-length=8", "--stride=4"]).stdout);
    assert_eq!(windows[0]["token_ids"], whole[0]["token_ids"]);
    assert_ne!(windows[0]["sum_logprob"], whole[0]["sum_logprob"]);
    assert_eq!(windows[0]["token_logprobs"][3], whole[0]["token_logprobs"][3]);

    // A prompt and a target, and a target alone.
    let records =
        "{\"text\": \"Once upon a time\", \"target\": \" there was a girl.\"}\n{\"target\": \"The dog ran.\"}\n";
    let mut command = score(&stories());
    command.args(["--input-format=jsonl", "--format=jsonl", "--quiet"]);
    let found = json_lines(&finish_with_input(&mut command, records.as_bytes()).expect(0).stdout);
    let target = found[0]["token_ids"].as_array().unwrap();
    assert_eq!(target, &ids[ids.len() - target.len()..]);
    assert_eq!(found[1]["token_ids"], behind_bos[2]["token_ids"]);
    assert!((number(&found[1]["sum_logprob"]) - number(&behind_bos[2]["sum_logprob"])).abs() < 1e-3);
}

/// Records of ids for the tiny model.
fn records(seed: u64) -> String {
    let ids = |n: u64, m: u64| -> Vec<u64> { (0..n).map(|i| 4 + (i * i + m * i + seed) % 80).collect() };
    let record =
        |n: u64| json!({"id": format!("r{n}"), "input_ids": ids(2 + n % 5, n), "target_ids": ids(1 + n % 7, n)});
    (0..40).map(|n| format!("{}\n", record(n))).collect()
}

#[test]
fn a_run_is_compared_with_a_saved_one() {
    let dir = tempfile::tempdir().unwrap();
    let input = write(&dir, "pairs.jsonl", &records(1));
    let (saved, stats) = (dir.path().join("mha.run"), dir.path().join("stats.json"));
    let run = |model: &Path, input: &Path, arguments: &[&str]| {
        let mut command = score(model);
        command.arg("--input").arg(input).args(["--batch-size=7", "--dtype=f32"]).args(arguments);
        finish(&mut command)
    };
    run(&tiny(), &input, &["--attention=mha", "--save-run", saved.to_str().unwrap()]).expect(0);
    let tokens: u64 = (0..40).map(|n| 1 + n % 7).sum();
    let size = fs::metadata(&saved).unwrap().len();
    let rows = tokens * (96 * 4 + 4);
    assert!(size > rows && size < rows + 8192, "{size}");

    let compare: Vec<&str> = vec!["--compare-run", saved.to_str().unwrap(), "--stats-json", stats.to_str().unwrap()];
    let found = run(&tiny(), &input, &[&compare[..], &["--attention=el"]].concat()).expect(0);
    assert!(found.stderr.contains("(mha, f32): 40 records, ") && found.stderr.contains("KL divergence"), "{found:#?}");
    assert!(found.stderr.contains("top-1 agreement 100.0000 %"), "{found:#?}");
    let comparison = &read_json(&stats)["comparison"];
    assert!(number(&comparison["max_kl"]) < 1e-6 && comparison["top1_agreement"] == 1.0, "{comparison}");
    assert_eq!(comparison["this"]["tokens"], tokens);
    let off = number(&comparison["saved"]["perplexity"]) - number(&comparison["this"]["perplexity"]);
    assert!(off.abs() < 1e-3, "{comparison}");

    // Other records, another order, other files of the model, a damaged run.
    let refused = |model: &Path, text: &str, parts: &[&str]| {
        let other = write(&dir, "other.jsonl", text);
        let finished = run(model, &other, &[&compare[..2], &["--quiet"]].concat()).expect(1);
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:#?}");
        assert!(parts.iter().all(|part| finished.stderr.contains(part)), "{finished:#?}");
    };
    refused(&tiny(), &records(2), &["is a run of something else", "the target of record 0 (id \"r0\")"]);
    let lines = records(1);
    let shorter: String = lines.lines().take(39).map(|line| format!("{line}\n")).collect();
    refused(&tiny(), &shorter, &["it has 40 records, the input 39"]);
    refused(&tiny(), &format!("{lines}{lines}"), &["it has 40 records, the input more"]);
    refused(&tiny(), &lines.replace("\"r3\"", "\"x3\""), &["record 3 has the id \"r3\" there, \"x3\" here"]);

    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(tiny()).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let config = fs::read_to_string(copy.path().join("config.json")).unwrap();
    fs::write(copy.path().join("config.json"), format!("{config} ")).unwrap();
    refused(copy.path(), &lines, &["mha.run is a run of something else: the model was ", "--other-model"]);
    run(copy.path(), &input, &[&compare[..], &["--other-model"]].concat()).expect(0);
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/marian-odd-f16-sharded");
    refused(&other, &lines, &["its vocabulary has 96 ids, this model's 90"]);

    let whole = fs::read(&saved).unwrap();
    fs::write(&saved, &whole[..whole.len() / 2]).unwrap();
    refused(&tiny(), &lines, &["mha.run: the saved run is incomplete"]);
    let mut bytes = whole.clone();
    bytes[whole.len() / 2] ^= 1;
    fs::write(&saved, &bytes).unwrap();
    refused(&tiny(), &lines, &["mha.run: the saved run is damaged: the checksum of row "]);
    fs::write(&saved, &lines).unwrap();
    refused(&tiny(), &lines, &["mha.run: not a saved run"]);
}

#[test]
fn records_that_fail_leave_the_others_alone() {
    let long: Vec<u32> = vec![5; 2000];
    let records = [
        json!({"input_ids": [5, 6], "target_ids": [7, 8]}).to_string(),
        json!({"input_ids": [5, 6]}).to_string(),
        "{\"input_ids\": [5".to_owned(),
        json!({"input_ids": [5, 6], "target_ids": [7, 4096]}).to_string(),
        json!({"input_ids": long, "target_ids": [7]}).to_string(),
        json!({"input_ids": [5, 6], "target_ids": []}).to_string(),
        json!({"input_ids": [5], "target": "x", "target_ids": [3]}).to_string(),
        json!({"target_ids": [5]}).to_string(),
    ]
    .join("\n");
    let mut command = score(&tiny());
    command.args(["--input-format=jsonl", "--format=jsonl"]);
    let finished = finish_with_input(&mut command, records.as_bytes()).expect(1);
    let found = json_lines(&finished.stdout);
    assert_eq!((found.len(), found[0]["tokens"].as_u64()), (8, Some(2)));
    for (record, wanted) in [
        (1, "the target is missing"),
        (2, "invalid JSON"),
        (3, "4096"),
        (4, "2000 tokens"),
        (5, "`target_ids` is empty"),
        (6, "either `target` or `target_ids`"),
        (7, "the input has no tokens"),
    ] {
        assert!(found[record]["error"].as_str().unwrap().contains(wanted), "{}", found[record]);
        let place = format!("error: <stdin>:{}: ", record + 1);
        assert!(finished.stderr.lines().any(|line| line.starts_with(&place) && line.contains(wanted)), "{finished:#?}");
    }
    assert!(finished.stderr.contains("1 records (7 failed), 2 tokens"), "{finished:#?}");
}

#[test]
fn what_cannot_be_scored_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (sources, targets) = (write(&dir, "src", SOURCES), write(&dir, "ref", "Je suis né en 1979.\n"));
    let (sources, targets) = (sources.to_str().unwrap(), targets.to_str().unwrap());
    let refused = |model: &Path, code: i32, arguments: &[&str], parts: &[&str]| {
        finish(score(model).args(arguments)).expect_error(code, parts);
    };
    refused(&demo(), 1, &["--input", sources, "--targets", targets], &["src has 3 lines, ", "ref has 1"]);
    refused(&demo(), 2, &["--input", sources], &["--targets FILE", "`target`"]);
    refused(&demo(), 2, &["--input", sources, "--targets", targets, "--output", targets], &["--targets"]);
    let records = write(&dir, "x.jsonl", "");
    let records = records.to_str().unwrap();
    refused(&demo(), 2, &["--input", records, "--targets", targets], &["--targets: goes with a text input"]);
    refused(&demo(), 2, &["--input", sources, "--targets", sources, "--stride=4"], &["--stride: is for decoder-only"]);
    refused(&demo(), 2, &["--input", sources, "--save-run", "-"], &["--save-run -: give a file"]);
    refused(&stories(), 2, &["--max-length=100000"], &["--max-length 100000: the model has positions for "]);
    refused(&stories(), 2, &["--max-length=8", "--stride=9"], &["--stride 9: is more than a window"]);
    refused(&stories(), 2, &["--max-length=1"], &["--max-length 1"]);
    refused(&stories(), 2, &["--whole-file", "--input-format=jsonl"], &["--whole-file: takes a text"]);
    refused(&tiny(), 2, &["--input", sources, "--targets", sources], &["has no tokenizer", "input_ids"]);
    refused(&stories(), 1, &["--compare-run", "no.run"], &["cannot read no.run"]);
    // Line counts are only known at the end where one input is a stream.
    let mut command = score(&demo());
    command.args(["--targets", targets, "--quiet"]);
    finish_with_input(&mut command, SOURCES.as_bytes()).expect_error(1, &["<stdin> has 3 lines, ", "ref has 1"]);

    let copy = ModelCopy::new();
    copy.remove("tokenizer.json");
    refused(copy.path(), 2, &["--input", sources, "--targets", sources], &["has no tokenizer"]);
}
