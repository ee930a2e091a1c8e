//! Model directories that cannot be loaded: one line that names the file, exit code 1, nothing written.

mod common;

use std::fs;

use common::{ModelCopy, QUICK, demo, elgen, finish, generate, tensors};
use serde_json::json;

const WEIGHTS: &str = "model.safetensors";
/// A tensor that every BART checkpoint holds.
const TENSOR: &str = "model.encoder.layers.0.fc1.weight";

#[test]
fn a_missing_directory() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("bart");
    finish(generate(&missing).arg("x")).expect_error(1, &["model directory", "bart", "No such file or directory"]);
    finish(elgen().arg("inspect").arg(&missing)).expect_error(1, &["model directory", "bart"]);
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    finish(generate(&file).arg("x")).expect_error(1, &["file", "not a directory"]);
}

#[test]
fn a_name_on_the_hub() {
    // What happens with the hub at hand is tested in hub.rs.
    let cache = tempfile::tempdir().unwrap();
    let mut command = elgen();
    command.args(["generate", "--offline", "--model", "facebook/bart-base", "x"]).env("HF_HUB_CACHE", cache.path());
    finish(&mut command).expect_error(1, &["facebook/bart-base: offline", "lacks its config.json"]);
}

#[test]
fn missing_files() {
    for file in ["config.json", WEIGHTS] {
        let model = ModelCopy::new();
        model.remove(file);
        model.expect_refused(&[file, "not found"]);
    }
    let model = ModelCopy::new();
    for file in ["config.json", WEIGHTS, "generation_config.json", "tokenizer.json"] {
        model.remove(file);
    }
    model.expect_refused(&["config.json"]);
}

#[test]
fn weights_in_another_format_only() {
    let model = ModelCopy::new();
    fs::rename(model.file(WEIGHTS), model.file("pytorch_model.bin")).unwrap();
    model.expect_refused(&[
        "model.safetensors or model.safetensors.index.json not found",
        "there is pytorch_model.bin, which has to be converted",
    ]);
}

#[test]
fn half_a_tokenizer() {
    let model = ModelCopy::new();
    model.remove("tokenizer.json");
    fs::write(model.file("vocab.json"), "{}").unwrap();
    model.expect_refused(&["merges.txt not found", "there is vocab.json, which needs it"]);
}

#[test]
fn an_unsupported_family() {
    let model = ModelCopy::new();
    model.edit_json("config.json", |config| {
        config.insert("model_type".into(), json!("mamba"));
    });
    model.expect_refused(&["config.json", "model_type", "mamba", "bart", "gpt2"]);
}

#[test]
fn broken_json() {
    for file in ["config.json", "generation_config.json", "tokenizer.json"] {
        let model = ModelCopy::new();
        fs::write(model.file(file), "{\"vocab_size\": 80").unwrap();
        model.expect_refused(&[file]);
    }
}

#[test]
fn absurd_and_contradictory_configs() {
    for (key, value) in [
        ("d_model", json!(4_000_000_000_u64)),
        ("d_model", json!(-256)),
        ("d_model", json!("wide")),
        ("encoder_layers", json!(1_000_000_000)),
        ("encoder_attention_heads", json!(0)),
        ("decoder_attention_heads", json!(3)),
        ("vocab_size", json!(u64::MAX)),
        ("vocab_size", json!("many")),
        ("max_position_embeddings", json!(1e30)),
    ] {
        let model = ModelCopy::new();
        model.edit_json("config.json", |config| {
            config.insert(key.into(), value);
        });
        model.expect_refused(&["config.json", key]);
    }
}

#[test]
fn a_config_that_contradicts_the_tensors() {
    for (key, value) in [("d_model", 512), ("vocab_size", 8001), ("encoder_ffn_dim", 1024), ("decoder_layers", 3)] {
        let model = ModelCopy::new();
        model.edit_json("config.json", |config| {
            config.insert(key.into(), json!(value));
        });
        model.expect_refused(&[WEIGHTS, "tensor `"]);
    }
}

#[test]
fn absurd_generation_defaults() {
    let model = ModelCopy::new();
    model.edit_json("generation_config.json", |config| {
        config.insert("decoder_start_token_id".into(), json!(8_000_000));
    });
    model.expect_refused(&["decoder_start_token_id", "8000000"]);
}

#[test]
fn a_git_lfs_pointer() {
    let model = ModelCopy::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4665f2b9a4\nsize 13216776\n";
    fs::write(model.file(WEIGHTS), pointer).unwrap();
    model.expect_refused(&[WEIGHTS, "LFS pointer"]);
}

#[test]
fn truncated_weights() {
    for keep in [0, 7, 8, 100, 1_000_000, 13_216_775] {
        let model = ModelCopy::new();
        model.edit_weight_bytes(|bytes| bytes.truncate(keep));
        model.expect_refused(&[WEIGHTS]);
    }
}

#[test]
fn a_header_that_is_longer_than_the_file() {
    for length in [13_216_776_u64, 1 << 40, u64::MAX] {
        let model = ModelCopy::new();
        model.edit_weight_bytes(|bytes| bytes[..8].copy_from_slice(&length.to_le_bytes()));
        model.expect_refused(&[WEIGHTS, "header"]);
    }
}

#[test]
fn offsets_that_overlap_or_leave_the_file() {
    let overlapping = ModelCopy::new();
    overlapping.edit_weights(|header, _| {
        let found = tensors(header);
        let pair = found.windows(2).find(|pair| pair[0].2 - pair[0].1 == pair[1].2 - pair[1].1).unwrap();
        header[&pair[1].0]["data_offsets"] = json!([pair[0].1, pair[0].2]);
    });
    overlapping.expect_refused(&[WEIGHTS]);

    let outside = ModelCopy::new();
    outside.edit_weights(|header, data| {
        let (name, begin, end) = tensors(header).pop().unwrap();
        let behind = data.len() as u64;
        header[&name]["data_offsets"] = json!([behind, behind + end - begin]);
    });
    outside.expect_refused(&[WEIGHTS]);

    let backwards = ModelCopy::new();
    backwards.edit_weights(|header, _| {
        let (name, begin, end) = tensors(header).swap_remove(3);
        header[&name]["data_offsets"] = json!([end, begin]);
    });
    backwards.expect_refused(&[WEIGHTS]);
}

#[test]
fn a_missing_tensor() {
    let model = ModelCopy::new();
    model.edit_weights(|header, _| {
        let mut entry = header.remove(TENSOR).unwrap();
        entry["dtype"] = entry["dtype"].take();
        header.insert("some.other.name".into(), entry);
    });
    model.expect_refused(&[WEIGHTS, TENSOR, "missing"]);
}

#[test]
fn a_wrong_shape() {
    let model = ModelCopy::new();
    model.edit_weights(|header, _| header[TENSOR]["shape"] = json!([256, 768]));
    model.expect_refused(&[WEIGHTS, TENSOR, "[256, 768]", "[768, 256]"]);
}

#[test]
fn weights_that_are_not_finite() {
    // f16 bits of NaN and of infinity.
    for (bits, tensor) in [(0x7E00_u16, TENSOR), (0x7C00, "model.decoder.layers.1.fc2.bias")] {
        let model = ModelCopy::new();
        model.edit_weights(|header, data| {
            let begin = header[tensor]["data_offsets"][0].as_u64().unwrap() as usize;
            data[begin + 10..begin + 12].copy_from_slice(&bits.to_le_bytes());
        });
        model.expect_refused(&[WEIGHTS, tensor, "finite"]);
    }
}

#[test]
fn a_model_without_tokenizer_takes_ids_and_gives_ids() {
    let model = ModelCopy::new();
    model.remove("tokenizer.json");
    finish(generate(model.path()).arg("x")).expect_error(2, &["no tokenizer", "--input-format jsonl"]);
    let input = model.file("in.jsonl");
    fs::write(&input, "{\"input_ids\": [0, 60, 2]}\n{\"text\": \"x\"}\n").unwrap();
    finish(generate(model.path()).arg("--input").arg(&input)).expect_error(2, &["no tokenizer", "--format jsonl"]);
    let mut command = generate(model.path());
    let finished = finish(command.args(QUICK).args(["--format", "jsonl", "--input"]).arg(&input)).expect(1);
    assert_eq!(finished.lines().len(), 2);
    assert!(finished.lines()[0].contains("\"text\":null"), "{finished:#?}");
    assert!(finished.lines()[1].starts_with("{\"id\":1,\"error\":"), "{finished:#?}");
    assert!(finished.stderr.contains("in.jsonl:2: "), "{finished:#?}");
}

#[test]
fn an_output_that_exists_survives_a_model_that_does_not_load() {
    let model = ModelCopy::new();
    model.remove(WEIGHTS);
    let output = model.file("output.txt");
    fs::write(&output, "kept\n").unwrap();
    finish(generate(model.path()).arg("x").arg("--output").arg(&output)).expect(1);
    assert_eq!(fs::read_to_string(&output).unwrap(), "kept\n");
    // So it does with options that the model refuses.
    finish(generate(&demo()).args(["x", "--num-beams", "0", "--output"]).arg(&output))
        .expect_error(2, &["--num-beams"]);
    assert_eq!(fs::read_to_string(&output).unwrap(), "kept\n");
}
