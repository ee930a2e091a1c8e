//! Tokenizers against transformers: ids and decoded text of the same 245 texts, for every kind of tokenizer.
//!
//! `tools/make_tokenizer_fixtures.py` describes the files.

mod loader_support;

use std::path::{Path, PathBuf};

use elgen_models::Tokenizer;
use loader_support::*;
use serde_json::{Map, Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tokenizers")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn texts() -> Vec<String> {
    let spell = |text: &Value| match text {
        Value::String(text) => text.clone(),
        other => {
            let count = other["repeat"][1].as_u64().unwrap() as usize;
            other["repeat"][0].as_str().unwrap().repeat(count)
        }
    };
    read(&fixtures().join("parity/texts.json")).as_array().unwrap().iter().map(spell).collect()
}

fn fnv(bytes: impl IntoIterator<Item = u8>) -> String {
    let step = |value: u64, byte: u8| (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    format!("{:016x}", bytes.into_iter().fold(0xCBF2_9CE4_8422_2325, step))
}

fn assert_ids(ids: &[u32], expected: &Value, text: &str) {
    let digest = || json!([ids.len(), fnv(ids.iter().flat_map(|id| id.to_le_bytes()))]);
    let is_digest = expected[1].is_string();
    let actual = if is_digest { digest() } else { json!(ids) };
    let text: String = text.chars().take(80).collect();
    assert_eq!(&actual, expected, "ids of {text:?}");
}

fn assert_text(decoded: &str, expected: &Value, same: &str, of: &str) {
    let of: String = of.chars().take(80).collect();
    match expected {
        Value::String(text) => assert_eq!(decoded, text, "decoded {of:?}"),
        Value::Object(_) => assert_eq!(
            &json!({"fnv": fnv(decoded.bytes()), "bytes": decoded.len()}),
            expected,
            "decoded {of:?}: {:?}",
            decoded.chars().take(100).collect::<String>()
        ),
        _ => assert_eq!(decoded, same, "decoded {of:?}"),
    }
}

/// Compares with the recorded case `name`; returns how many texts it holds.
fn matches(name: &str, tokenizer: &Tokenizer) -> usize {
    let reference = read(&fixtures().join("parity").join(format!("{name}.json")));
    let cases = reference["cases"].as_array().unwrap();
    for (text, case) in texts().iter().zip(cases) {
        let ids = tokenizer.encode(text).unwrap();
        assert_ids(&ids, &case[0], text);
        if let (Some(plain), Some(all)) = (case.get(1), case.get(2)) {
            let decoded = tokenizer.decode(&ids, true).unwrap();
            assert_text(&decoded, plain, text, text);
            assert_text(&tokenizer.decode(&ids, false).unwrap(), all, &decoded, text);
        }
    }
    cases.len()
}

/// A directory of copies of fixture files, with a config.json of this model type and perhaps a tokenizer_config.json.
fn directory(model_type: &str, files: &[&str], config: Option<Value>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let file = fixtures().join(file);
        std::fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    write(dir.path(), "config.json", json!({"model_type": model_type}).to_string());
    if let Some(config) = config {
        write(dir.path(), "tokenizer_config.json", config.to_string());
    }
    dir
}

fn open(model_type: &str, files: &[&str], config: Option<Value>) -> Tokenizer {
    Tokenizer::open(directory(model_type, files, config).path()).unwrap()
}

const BPE_FILES: [&str; 2] = ["bpe-files/vocab.json", "bpe-files/merges.txt"];

#[test]
fn byte_level_bpe() {
    assert_eq!(matches("gpt2-small", &open("gpt2", &BPE_FILES, None)), 245);
    // Recorded with the file as it is; BART's own class would add its mask token.
    let generic = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
    let bart = open("bart", &["bpe-json/tokenizer.json"], Some(generic));
    assert_eq!(matches("bart-small", &bart), 245);
    let config = json!({
        "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>", "add_bos_token": true,
        "tokenizer_class": "GPT2Tokenizer",
    });
    assert_eq!(matches("opt-small", &open("opt", &BPE_FILES, Some(config))), 60);
}

#[test]
fn unigram_from_both_forms() {
    let config = read(&fixtures().join("t5-json/tokenizer_config.json"));
    assert_eq!(matches("t5", &open("t5", &["t5-json/tokenizer.json"], Some(config))), 245);
    assert_eq!(matches("t5", &open("t5", &["t5-json/tokenizer.json"], None)), 245);
    assert_eq!(matches("t5", &open("t5", &["unigram/spiece.model"], None)), 245);
    assert_eq!(matches("pegasus", &open("pegasus", &["unigram/spiece.model"], None)), 245);
}

#[test]
fn mbart_with_its_source_language() {
    let files = ["fairseq/sentencepiece.bpe.model"];
    let config = json!({"src_lang": "fr_XX", "tgt_lang": "ro_RO"});
    assert_eq!(matches("mbart", &open("mbart", &files, Some(config))), 245);
    let config = json!({"tokenizer_class": "MBart50Tokenizer", "src_lang": "fr_XX"});
    assert_eq!(matches("mbart50", &open("mbart", &files, Some(config))), 245);
}

#[test]
fn marian_with_one_and_with_two_vocabularies() {
    let files = ["source.spm", "target.spm", "vocab.json", "tokenizer_config.json"];
    let load = |name: &str, more: &[&str]| {
        let files: Vec<String> = files.iter().chain(more).map(|file| format!("{name}/{file}")).collect();
        open("marian", &files.iter().map(String::as_str).collect::<Vec<_>>(), None)
    };
    assert_eq!(matches("marian", &load("marian", &[])), 245);

    let separate = load("marian-separate", &["target_vocab.json"]);
    assert_eq!(matches("marian-separate", &separate), 245);
    let reference = read(&fixtures().join("parity/marian-separate-target.json"));
    let short: Vec<String> = texts().into_iter().filter(|text| text.chars().count() < 80).collect();
    let cases = reference["cases"].as_array().unwrap();
    assert_eq!(short.len(), cases.len());
    for (text, case) in short.iter().zip(cases) {
        let mut ids = separate.encode_target(text).unwrap();
        ids.push(separate.token_to_id("</s>").unwrap());
        assert_ids(&ids, &case[0], text);
        assert_eq!(separate.decode(&ids, true).unwrap(), case[1].as_str().unwrap(), "{text:?}");
        assert_eq!(separate.decode(&ids, false).unwrap(), case[2].as_str().unwrap(), "{text:?}");
    }
}

#[test]
fn byte_tokens_for_what_no_piece_spells() {
    assert_eq!(matches("byte-fallback", &open("llama", &["byte-fallback/tokenizer.json"], None)), 245);
}

#[test]
fn token_bytes_are_those_of_stop_string_criteria() {
    let reference = read(&fixtures().join("parity/token_bytes.json"));
    let marian = ["marian/source.spm", "marian/target.spm", "marian/vocab.json"];
    for (name, tokenizer) in [
        ("gpt2-small", open("gpt2", &BPE_FILES, None)),
        ("t5", open("t5", &["unigram/spiece.model"], None)),
        ("marian", open("marian", &marian, None)),
        ("byte-fallback", open("llama", &["byte-fallback/tokenizer.json"], None)),
    ] {
        let tokens = reference[name].as_array().unwrap();
        assert!(tokens.len() > 260);
        for token in tokens {
            let id = token[0].as_u64().unwrap() as u32;
            let bytes = tokenizer.token_bytes(id).unwrap().unwrap();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, token[1].as_str().unwrap(), "{name} {id} {:?}", tokenizer.id_to_token(id));
        }
        assert_eq!(tokenizer.token_bytes(1_000_000).unwrap(), None);
    }
}

/// The folder of published tokenizers, if this machine has it.
fn published(name: &str) -> Option<PathBuf> {
    let data = std::env::var_os("ELGEN_DATA");
    let dir = data.map(|data| Path::new(&data).join("tokenizers").join(name)).filter(|dir| dir.is_dir());
    if dir.is_none() {
        eprintln!("skipped: ELGEN_DATA does not hold tokenizers/{name}");
    }
    dir
}

#[test]
fn the_published_gpt2_and_bart() {
    let dir = directory("gpt2", &["gpt2/vocab.json", "gpt2/merges.txt"], None);
    assert_eq!(matches("gpt2", &Tokenizer::open(dir.path()).unwrap()), 245);

    // BART has GPT-2's entries in the order of fairseq's dictionary.
    let Some(source) = published("gpt2-bpe") else { return };
    let encoder = read(&fixtures().join("gpt2/vocab.json"));
    let by_id: std::collections::HashMap<String, &String> =
        encoder.as_object().unwrap().iter().map(|(token, id)| (id.to_string(), token)).collect();
    let dictionary = std::fs::read_to_string(source.join("bart_fairseq_dict.txt")).unwrap();
    let entries = dictionary.lines().map(|line| line.split(' ').next().unwrap());
    let named = entries.map(|name| by_id.get(name).map_or(name, |token| token.as_str()));
    let tokens = ["<s>", "<pad>", "</s>", "<unk>"].into_iter().chain(named).chain(["<mask>"]);
    let vocab: Map<String, Value> = (0..).zip(tokens).map(|(id, token)| (token.to_owned(), json!(id))).collect();
    write(dir.path(), "vocab.json", Value::Object(vocab).to_string());
    write(dir.path(), "config.json", r#"{"model_type": "bart"}"#);
    assert_eq!(matches("bart", &Tokenizer::open(dir.path()).unwrap()), 245);
}

#[test]
fn the_published_marian() {
    let Some(dir) = published("marian-opus-mt-en-mg") else { return };
    assert_eq!(matches("marian-en-mg", &Tokenizer::open(dir).unwrap()), 245);
}
