//! Numbers that overflow, as the command line tells them: weights at load, scores by record.

mod common;

use std::{fs, path::Path};

use common::*;
use serde_json::Value;
use tempfile::TempDir;

/// A copy of a small model whose F32 matrices have another value, where `place` gives it for (name, element, elements).
fn spoilt(model: &str, place: impl Fn(&str, usize, usize) -> Option<f32>) -> TempDir {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(model);
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "generation_config.json"] {
        fs::copy(from.join(name), dir.path().join(name)).unwrap();
    }
    let mut file = fs::read(from.join("model.safetensors")).unwrap();
    let size = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&file[8..8 + size]).unwrap();
    for (name, begin, end) in tensors(&header) {
        if header[&name]["shape"].as_array().unwrap().len() != 2 {
            continue;
        }
        let elements = (end - begin) as usize / 4;
        for element in 0..elements {
            if let Some(value) = place(&name, element, elements) {
                let at = 8 + size + begin as usize + 4 * element;
                file[at..at + 4].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    fs::write(dir.path().join("model.safetensors"), file).unwrap();
    dir
}

/// `elgen COMMAND` on JSON lines.
fn run(command: &str, model: &Path, input: &str, flags: &[&str]) -> Finished {
    let mut elgen = elgen();
    elgen.args([command, "--attention", "mha", "--input-format", "jsonl", "--format", "jsonl", "--model"]).arg(model);
    finish_with_input(elgen.args(flags), input.as_bytes())
}

const TENSOR: &str = "model.encoder.layers.0.fc1.weight";

#[test]
fn a_weight_that_f16_cannot_hold_is_named_with_the_flag_that_helps() {
    let model =
        spoilt("bart-base-like", |name, element, elements| (name == TENSOR && element + 1 == elements).then_some(1e5));
    let input = "{\"input_ids\":[5,6,7],\"target_ids\":[5]}\n";
    let told = [TENSOR, "100000", "f16", "--dtype f32", "model.safetensors"];
    run("generate", model.path(), "{\"input_ids\":[5,6,7]}\n", &["--dtype", "f16"]).expect_error(1, &told);
    run("score", model.path(), input, &["--dtype", "f16"]).expect_error(1, &told);
    let found =
        run("generate", model.path(), "{\"input_ids\":[5,6,7]}\n", &["--dtype", "f32", "--max-new-tokens", "3"]);
    let record: Value = serde_json::from_str(found.expect(0).lines()[0]).unwrap();
    assert!(record["sequences"][0]["score"].is_number(), "{record}");
}

#[test]
fn records_whose_scores_are_not_finite_fail_and_say_what_to_try() {
    let model = spoilt("bart-base-like", |_, element, _| Some(if element % 3 == 0 { -3e38 } else { 3e38 }));
    let input = "{\"id\":\"a\",\"input_ids\":[5,6,7]}\n{\"id\":\"b\",\"input_ids\":[8]}\n";
    for flags in [&["--num-beams", "1"][..], &["--num-beams", "2"], &["--do-sample", "--num-beams", "1"]] {
        let found = run("generate", model.path(), input, flags).expect(1);
        assert_eq!(found.lines().len(), 2, "{found:?}");
        for (line, id) in found.lines().iter().zip(["a", "b"]) {
            let record: Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["id"], id);
            let error = record["error"].as_str().unwrap();
            assert!(error.starts_with("scores are not finite") && error.contains("--dtype f32"), "{error}");
            assert!(record.get("sequences").is_none() && !line.contains("null"), "{line}");
        }
        assert_eq!(found.stderr.matches("scores are not finite").count(), 2, "{found:?}");
    }
    let input = "{\"id\":\"a\",\"input_ids\":[5,6,7],\"target_ids\":[5,6]}\n";
    let found = run("score", model.path(), input, &[]).expect(1);
    let record: Value = serde_json::from_str(found.lines()[0]).unwrap();
    assert!(record["error"].as_str().unwrap().contains("scores are not finite"), "{record}");
    assert!(!found.stdout.contains("null") && !found.stdout.contains("NaN"), "{found:?}");
}
