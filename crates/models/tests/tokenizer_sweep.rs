//! The keys of tokenizer_config.json, special_tokens_map.json and added_tokens.json against transformers: the same ids and
//! texts, or an error in both.
//!
//! `tools/make_tokenizer_sweep.py` describes the file of recorded answers.

mod loader_support;

use std::path::{Path, PathBuf};

use elgen_models::Tokenizer;
use loader_support::*;
use serde_json::{Map, Value, json};

/// What elgen refuses and transformers takes, by base, key, and a part of the value, each with the reason and how often it occurs.
/// docs/generation.md has these rows, and those that no case here needs.
const REFUSED: [(&str, &str, &str, &str, usize); 3] = [
    ("mbart", "src_lang", "xx", "a language that the vocabulary lacks would become the unknown token", 2),
    ("marian", "added_tokens_decoder", "-1", "no model has a row for a negative id", 1),
    ("marian", "added_tokens.json", "-1", "no model has a row for a negative id", 1),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn fnv(bytes: &[u8]) -> String {
    let step = |value: u64, byte: &u8| (value ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    format!("{:016x}", bytes.iter().fold(0xCBF2_9CE4_8422_2325, step))
}

/// Writes the files of a base into `dir`.
fn build(dir: &Path, files: &Map<String, Value>) {
    for (name, source) in files {
        let source = source.as_str().unwrap();
        let Some((file, part)) = source.split_once('#') else {
            std::fs::copy(fixtures().join("tokenizers").join(source), dir.join(name)).unwrap();
            continue;
        };
        let model = &read(&fixtures().join("tokenizers").join(file).join("tokenizer.json"))["model"];
        let pair = |pair: &Value| match pair {
            Value::String(line) => line.clone(),
            pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        };
        let content = match part {
            "vocab" => model["vocab"].to_string(),
            _ => {
                let lines: Vec<String> = model["merges"].as_array().unwrap().iter().map(pair).collect();
                format!("#version: 0.2\n{}\n", lines.join("\n"))
            }
        };
        write(dir, name, content);
    }
}

/// What elgen makes of the texts, in the form that was recorded.
fn answer(dir: &Path, texts: &[&str], ids: &[u32]) -> Result<String, String> {
    let text = |error: elgen_models::ModelError| error.to_string();
    let tokenizer = Tokenizer::open(dir).map_err(text)?;
    let mut result = Vec::new();
    for sample in texts {
        let full = tokenizer.encode(sample).map_err(text)?;
        result.push(json!([
            full,
            tokenizer.encode_plain(sample).map_err(text)?,
            tokenizer.encode_labels(sample).map_err(text)?,
            tokenizer.decode(&full, true).map_err(text)?,
            tokenizer.decode(&full, false).map_err(text)?,
        ]));
    }
    let known: Vec<u32> = ids.iter().copied().filter(|id| tokenizer.id_to_token(*id).is_some()).collect();
    result.push(json!([tokenizer.decode(&known, true).map_err(text)?, tokenizer.decode(&known, false).map_err(text)?]));
    Ok(Value::Array(result).to_string())
}

#[test]
fn every_key_gives_the_ids_of_transformers_or_an_error_in_both() {
    let recorded = read(&fixtures().join("sweep_tokenizer.json"));
    let texts: Vec<&str> = recorded["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let bases = recorded["bases"].as_object().unwrap();
    let mut built = std::collections::HashMap::new();
    for (name, base) in bases {
        let dir = tempfile::tempdir().unwrap();
        build(dir.path(), base["files"].as_object().unwrap());
        write(dir.path(), "config.json", json!({"model_type": base["model_type"]}).to_string());
        let ids: Vec<u32> = base["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        built.insert(name.as_str(), (dir, ids));
    }
    let cases = recorded["cases"].as_array().unwrap();
    assert!(cases.len() > 700);
    let mut refused = [0; REFUSED.len()];
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let name = case[0].as_str().unwrap();
        let (dir, ids) = &built[name];
        let mut config = bases[name]["config"].as_object().unwrap().clone();
        config.extend(case[1].as_object().unwrap().clone());
        write(dir.path(), "tokenizer_config.json", Value::Object(config).to_string());
        for (file, content) in [("special_tokens_map.json", &case[2]), ("added_tokens.json", &case[3])] {
            match content {
                Value::Number(_) => drop(std::fs::remove_file(dir.path().join(file))),
                content => write(dir.path(), file, content.to_string()),
            }
        }
        let found = answer(dir.path(), &texts, ids);
        let same = match &found {
            Ok(text) => fnv(text.as_bytes()) == case[4],
            Err(_) => case[4] == "error",
        };
        let row = REFUSED.iter().position(|(base, key, value, _, _)| {
            let given = if *key == "added_tokens.json" { &case[3] } else { &case[1][*key] };
            name.starts_with(base) && given.to_string().contains(value)
        });
        match row {
            Some(row) if found.is_err() && case[4] != "error" => refused[row] += 1,
            _ if same => {}
            _ => wrong.push(format!("{number}: {case}\n    elgen: {found:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    assert_eq!(refused, REFUSED.map(|(.., count)| count));
}
