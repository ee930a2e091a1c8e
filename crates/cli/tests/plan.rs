//! `elgen plan`, against the EL-attention paper's memory table and hand calculations.

mod common;

use std::{fs, path::PathBuf};

use common::{demo, elgen, finish, stories};
use serde_json::Value;
use tempfile::TempDir;

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;

const BART_LARGE: &str = r#"{"model_type": "bart", "vocab_size": 50264, "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16, "decoder_attention_heads": 16, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "max_position_embeddings": 1024, "num_beams": 4, "max_length": 142, "min_length": 56, "no_repeat_ngram_size": 3, "length_penalty": 2.0, "early_stopping": true, "decoder_start_token_id": 2}"#;
const T5_BASE: &str = r#"{"model_type": "t5", "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "vocab_size": 32128, "decoder_start_token_id": 0, "pad_token_id": 0}"#;
const GPT2_XL: &str =
    r#"{"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25, "n_positions": 1024, "vocab_size": 50257}"#;

struct Config {
    dir: TempDir,
}

impl Config {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), text).unwrap();
        Self { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("config.json")
    }

    /// The plan as JSON, with 16 GiB unless the flags say otherwise.
    fn plan(&self, flags: &[&str]) -> Value {
        let mut command = elgen();
        command.arg("plan").arg("--config").arg(self.file()).args(["--format", "json"]).args(flags);
        if !flags.contains(&"--memory-limit") {
            command.args(["--memory-limit", "16GiB"]);
        }
        // No Vulkan driver is found here: none is needed.
        command.env("VK_ICD_FILENAMES", "/dev/null").env("VK_DRIVER_FILES", "/dev/null");
        let found = finish(&mut command).expect(0);
        assert_eq!(found.stderr, "");
        serde_json::from_str(&found.stdout).unwrap()
    }
}

fn kind<'a>(plan: &'a Value, attention: &str) -> &'a Value {
    plan["kinds"].as_array().unwrap().iter().find(|row| row["attention"] == attention).unwrap()
}

fn part(plan: &Value, attention: &str, name: &str) -> f64 {
    kind(plan, attention)["bytes"][name].as_u64().unwrap() as f64
}

fn largest(plan: &Value, attention: &str) -> u64 {
    kind(plan, attention)["largest_batch"].as_u64().unwrap()
}

/// docs/el-attention.md §3.4: BART-large, 4 beams, f16; GiB of the paper's baseline and of EL.
#[test]
fn the_papers_table_of_input_related_states() {
    let config = Config::new(BART_LARGE);
    let table = [
        (32, 256, 1.5, 0.02),
        (32, 1024, 6.0, 0.06),
        (64, 256, 3.0, 0.03),
        (64, 1024, 12.0, 0.13),
        (320, 256, 15.0, 0.15),
        (320, 1024, 60.0, 0.63),
    ];
    for (batch, source, mha, el) in table {
        let (batch, source) = (batch.to_string(), source.to_string());
        let plan = config.plan(&["--dtype", "f16", "--batch-size", &batch, "--source-length", &source]);
        let cross = |attention| part(&plan, attention, "cross_cache") / GIB;
        assert!((cross("mha-replicated") - mha).abs() < 1e-9, "{batch} x {source}: {}", cross("mha-replicated"));
        // The paper rounds 0.156 down.
        assert!((cross("el") - el).abs() < 0.0075, "{batch} x {source}: {}", cross("el"));
        assert!((cross("mha") * 4.0 - mha).abs() < 1e-9, "{batch} x {source}: {}", cross("mha"));
    }
}

/// §1.5: per sentence 192 + 26.2, 48 + 26.2 and 2 + 13.1 MiB.
#[test]
fn the_capacity_of_bart_large() {
    let plan = Config::new(BART_LARGE).plan(&["--dtype", "f16", "--max-new-tokens", "140"]);
    assert_eq!(plan["source_length"], 1024, "the position table is the default");
    assert_eq!((&plan["max_new_tokens"], &plan["rows_per_sentence"]), (&Value::from(140), &Value::from(4)));
    assert_eq!(plan["device"], Value::Null);
    let [layers, d, beams] = [12.0, 1024.0, 4.0];
    for (attention, cross, vectors) in [("mha-replicated", 192.0, 2.0), ("mha", 48.0, 2.0), ("el", 2.0, 1.0)] {
        assert_eq!(part(&plan, attention, "cross_cache"), cross * MIB, "{attention}");
        // The prompt is one slot, or one for each beam; the last of 140 new tokens is never fed.
        let prompt = if attention == "mha-replicated" { beams } else { 1.0 };
        let own = (prompt + beams * 139.0) * layers * vectors * d * 2.0;
        assert_eq!(part(&plan, attention, "self_cache"), own, "{attention}");
        assert!((own / MIB - vectors * 13.1).abs() < 0.2, "{attention}: {own}");
        // Beside its caches a sentence takes logits, tables and working tensors: 4 rows of 50264 logits are 0.8 MiB.
        let each = kind(&plan, attention)["bytes_per_sentence"].as_u64().unwrap() as f64;
        let caches = cross * MIB + own;
        assert!(each > caches + 0.76 * MIB && each < caches + 2.5 * MIB, "{attention}: {each} and {caches}");
        let total = part(&plan, attention, "total");
        let parts = ["weights", "self_cache", "cross_cache", "tables", "activations", "staging"];
        let sum: f64 = parts.iter().map(|name| part(&plan, attention, name)).sum();
        // Each part is its own peak; that of staging is the ring of loading, which is gone before the caches come.
        assert!(total <= sum && sum - total < 17.0 * MIB, "{attention}: {total} and {sum}");
        // 406 million parameters.
        assert!((part(&plan, attention, "weights") - 406e6 * 2.0).abs() < 3e6, "{attention}");
        let room = 16.0 * GIB - total;
        assert!((largest(&plan, attention) as f64 - 1.0 - room / each).abs() < 8.0, "{attention}: {plan}");
    }
    assert!(largest(&plan, "el") > 10 * largest(&plan, "mha-replicated"));
    assert_eq!(largest(&plan, "auto"), largest(&plan, "el"));
    assert!(kind(&plan, "auto")["reason"].as_str().unwrap().contains("no device class"));
}

#[test]
fn gpt2_xl_and_t5() {
    let plan = Config::new(GPT2_XL).plan(&[
        "--dtype",
        "f16",
        "--source-length",
        "512",
        "--num-beams",
        "4",
        "--max-new-tokens",
        "200",
    ]);
    assert_eq!((&plan["prompt_length"], &kind(&plan, "el")["cross"]), (&Value::from(512), &Value::Null));
    for (attention, slots, vectors) in
        [("mha-replicated", 4 * 711, 2), ("mha", 512 + 4 * 199, 2), ("el", 512 + 4 * 199, 1)]
    {
        let bytes = slots * 48 * vectors * 1600 * 2;
        assert_eq!(part(&plan, attention, "self_cache"), f64::from(bytes), "{attention}");
        assert_eq!(part(&plan, attention, "cross_cache"), 0.0);
        assert!((part(&plan, attention, "weights") - 1558e6 * 2.0).abs() < 5e6, "{plan}");
    }
    // T5 has no position table: 1024 source tokens; and no options of its own: 20 new tokens, one beam.
    let plan = Config::new(T5_BASE).plan(&[]);
    let told =
        ["source_length", "prompt_length", "max_new_tokens", "rows_per_sentence", "dtype"].map(|name| &plan[name]);
    assert_eq!(told, [&Value::from(1024), &Value::from(1), &Value::from(20), &Value::from(1), &Value::from("f32")]);
    assert_eq!(part(&plan, "mha", "cross_cache"), f64::from(1024 * 12 * 2 * 768 * 4));
    assert_eq!(part(&plan, "el", "cross_cache"), f64::from(1024 * 768 * 4));
    // 222.9 million parameters, and two tables of biases.
    assert!((part(&plan, "mha", "weights") - 222.9e6 * 4.0).abs() < 1e6, "{plan}");
}

#[test]
fn a_tight_limit_and_a_small_binding_are_told() {
    let config = Config::new(BART_LARGE);
    let plan = config.plan(&["--dtype", "f16", "--memory-limit", "900MiB"]);
    assert_eq!(kind(&plan, "mha-replicated")["largest_batch"], Value::Null);
    assert!(largest(&plan, "el") >= 1);
    let mut command = elgen();
    command.arg("plan").arg("--config").arg(config.file());
    command.args(["--dtype", "f16", "--memory-limit", "900MiB"]);
    let text = finish(&mut command).expect(0);
    let lines = text.lines();
    assert!(lines[0].contains("bart in f16, 1024 source and 141 new tokens, 4 beams, within 900.0 MiB"), "{text:#?}");
    assert!(lines[2].starts_with("attention") && lines[2].ends_with("largest batch"), "{text:#?}");
    assert!(lines[3].starts_with("mha-replicated") && lines[3].ends_with("none"), "{text:#?}");
    assert!(!text.stdout.contains('*'), "{text:#?}");
    // Where memory is not the limit, the star is explained below the table.
    let mut command = elgen();
    command.arg("plan").arg("--config").arg(config.file()).args(["--dtype=f16", "--memory-limit=900GiB"]);
    let text = finish(&mut command).expect(0);
    assert!(text.lines()[5].starts_with("el ") && text.lines()[5].ends_with('*'), "{text:#?}");
    assert_eq!(text.lines()[7], "* not for want of memory: a binding of most devices holds 2.0 GiB", "{text:#?}");
}

#[test]
fn weights_and_caches_are_planned_apart() {
    let config = Config::new(BART_LARGE);
    let plans =
        [&["--dtype=f32"][..], &["--dtype=f32", "--weights=f16"], &["--dtype=f32", "--cache=f16"], &["--dtype=f16"]];
    let [f32, weights, cache, f16] = plans.map(|flags| config.plan(flags));
    let named =
        |plan: &Value| ["dtype", "weights", "cache"].map(|name| plan[name].as_str().unwrap_or("none").to_owned());
    assert_eq!(named(&f32), ["f32"; 3]);
    assert_eq!(
        (named(&weights), named(&cache)),
        (["none", "f16", "f32"].map(Into::into), ["none", "f32", "f16"].map(Into::into))
    );
    for kind in ["mha", "el"] {
        for name in ["self_cache", "cross_cache"] {
            assert_eq!(part(&weights, kind, name), part(&f32, kind, name));
            assert_eq!(part(&cache, kind, name), part(&f16, kind, name));
        }
        assert_eq!(part(&weights, kind, "weights"), part(&f16, kind, "weights"));
        assert_eq!(part(&cache, kind, "weights"), part(&f32, kind, "weights"));
    }
    let mut command = elgen();
    command.arg("plan").arg("--config").arg(config.file()).args(["--dtype=f16", "--cache=f32", "--memory-limit=16GiB"]);
    let text = finish(&mut command).expect(0);
    assert!(text.lines()[0].starts_with("bart in f16 with caches in f32, 1024 source"), "{text:#?}");
}

/// A checkpoint in f16 runs in f32 on a software adapter, and is planned so; elsewhere in f16.
#[test]
fn the_dtype_is_that_of_generate() {
    let plan = |flags: &[&str]| -> Value {
        let mut command = elgen();
        command.arg("plan").arg("--model").arg(demo()).args(["--format", "json"]).args(flags);
        serde_json::from_str(&finish(&mut command).expect(0).stdout).unwrap()
    };
    assert_eq!(plan(&["--memory-limit", "1GiB"])["dtype"], "f16", "no device, no software adapter");
    let on_device = plan(&["--memory-limit", "1GiB", "--device", "0"]);
    let listed = finish(elgen().args(["devices", "--format", "json"])).expect(0).stdout;
    let devices: Value = serde_json::from_str(&listed).unwrap();
    let software = devices[0]["software"].as_bool().unwrap();
    assert_eq!(on_device["dtype"], if software { "f32" } else { "f16" }, "{on_device}");
    assert_eq!(plan(&["--memory-limit", "1GiB", "--device", "0", "--dtype", "f16"])["dtype"], "f16");
}

#[test]
fn the_plot_has_a_line_for_each_kind() {
    let config = Config::new(BART_LARGE);
    let path = config.dir.path().join("memory.svg");
    config.plan(&["--dtype", "f16", "--plot", path.to_str().unwrap()]);
    let svg = fs::read_to_string(&path).unwrap();
    let plan = config.plan(&["--dtype", "f16", "--plot", path.to_str().unwrap()]);
    let told = ["mha-replicated", "mha", "el"].map(|kind| format!("{kind}: {}", largest(&plan, kind)));
    let what = "bart in f16, 1024 source and 141 new tokens, 4 beams".to_owned();
    for text in told.into_iter().chain([what, "limit".to_owned(), "GiB".to_owned()]) {
        assert!(svg.contains(&format!(">{text}</text>")), "{text}: {svg}");
    }
    assert!(svg.matches("class=\"line s").count() == 6 && !svg.contains("NaN"), "{svg}");
    assert_eq!(svg.matches("<circle class=\"mark").count(), 3, "{svg}");
}

#[test]
fn wrong_usage_is_told() {
    let config = Config::new(BART_LARGE);
    let file = config.file();
    let run = |flags: &[&str]| {
        finish(elgen().arg("plan").arg("--config").arg(&file).args(["--memory-limit", "1GiB"]).args(flags))
    };
    run(&["--source-length", "1025"]).expect_error(2, &["--source-length 1025", "1024"]);
    run(&["--max-new-tokens", "5000"]).expect_error(2, &["--max-new-tokens", "1024"]);
    run(&["--plot", "/nowhere/x.svg"]).expect_error(1, &["/nowhere/x.svg"]);
    finish(elgen().arg("plan").arg("--config").arg(stories().join("tokenizer_config.json"))).expect(1);
    finish(elgen().arg("plan")).expect(2);
    // A model's directory serves as well, and its device's limits.
    let model = finish(elgen().arg("plan").arg("--model").arg(stories()).args(["--format", "json"])).expect(0);
    let plan: Value = serde_json::from_str(&model.stdout).unwrap();
    assert!(plan["device"].is_string() && largest(&plan, "mha") > 0, "{plan}");
}
