//! Tokenizers: equal to the recorded references, and the settings and errors of their files.

mod loader_support;

use std::path::{Path, PathBuf};

use elgen_models::TokenizerClass;
use elgen_models::tokenizer::Tokenizer;
use loader_support::*;
use serde_json::{Value, json};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn load(dir: &Path, class: TokenizerClass) -> Tokenizer {
    Tokenizer::load(dir, class).unwrap().unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn matches_reference(name: &str, class: TokenizerClass) {
    let dir = repository().join("tests/fixtures/tokenizers").join(name);
    let tokenizer = load(&dir, class);
    let text = std::fs::read_to_string(dir.join("reference.json")).unwrap();
    let reference: Value = serde_json::from_str(&text).unwrap();
    let cases = reference["cases"].as_array().unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let expected = ids(&case["ids"]);
        assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text:?}");
        assert_eq!(tokenizer.encode_plain(text).unwrap(), ids(&case["ids_without_specials"]), "{text:?}");
        assert_eq!(tokenizer.decode(&expected, true).unwrap(), case["decoded"].as_str().unwrap(), "{text:?}");
    }
}

#[test]
fn gpt2_from_vocab_and_merges_equals_the_reference() {
    matches_reference("bpe-files", TokenizerClass::Gpt2);
}

#[test]
fn bart_from_tokenizer_json_equals_the_reference() {
    matches_reference("bpe-json", TokenizerClass::Roberta);
}

#[test]
fn bart_from_vocab_and_merges_equals_its_tokenizer_json() {
    // The same tokenizer in two files: the template and the special tokens then come from the family.
    let fixture = repository().join("tests/fixtures/tokenizers/bpe-json");
    let single: Value =
        serde_json::from_str(&std::fs::read_to_string(fixture.join("tokenizer.json")).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "vocab.json", single["model"]["vocab"].to_string());
    let line = |pair: &Value| match pair {
        Value::String(line) => line.clone(),
        pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
    };
    let lines: Vec<String> = single["model"]["merges"].as_array().unwrap().iter().map(line).collect();
    write(dir.path(), "merges.txt", format!("#version: 0.2\n{}\n", lines.join("\n")));
    let (a, b) = (load(&fixture, TokenizerClass::Roberta), load(dir.path(), TokenizerClass::Roberta));
    for text in ["", "Hello, world!", " a  b\n", "naïve 🙂", "x<s>y</s>z"] {
        assert_eq!(a.encode(text).unwrap(), b.encode(text).unwrap(), "{text:?}");
    }
}

#[test]
fn the_demo_tokenizer_round_trips() {
    let tokenizer = load(&repository().join("demo/bart-eng-fra"), TokenizerClass::Roberta);
    assert_eq!(tokenizer.vocab_size(), 8000);
    for text in ["I'm sure you'll say we've done it.", "Où est la bibliothèque ?", "🙂 日本語", ""] {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!((ids[0], *ids.last().unwrap()), (0, 2));
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), format!("<s>{text}</s>"));
    }
    assert_eq!(tokenizer.token_to_id("</s>"), Some(2));
    assert_eq!(tokenizer.id_to_token(1).as_deref(), Some("<pad>"));
}

#[test]
fn ids_without_a_token_decode_as_nothing() {
    let tokenizer = load(&repository().join("demo/bart-eng-fra"), TokenizerClass::Roberta);
    let mut ids = tokenizer.encode("one two").unwrap();
    ids.insert(2, 8000);
    ids.push(u32::MAX);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "one two");
    assert_eq!(tokenizer.decode(&[], false).unwrap(), "");
    assert_eq!(tokenizer.id_to_token(8000), None);
    // A byte that is no character of its own.
    let byte = tokenizer.token_to_id("Ã").unwrap();
    assert_eq!(tokenizer.decode(&[byte], true).unwrap(), "\u{fffd}");
}

/// A byte-level tokenizer over the letters a, b, c and the space, with the merge `a b` and these special tokens.
fn small_dir(special: &[&str]) -> tempfile::TempDir {
    let mut vocab = serde_json::Map::new();
    for token in ["a", "b", "c", "Ġ", "ab", "."].iter().chain(special) {
        let id = vocab.len();
        vocab.insert((*token).to_owned(), json!(id));
    }
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "vocab.json", Value::Object(vocab).to_string());
    write(dir.path(), "merges.txt", "#version: 0.2\na b\n");
    dir
}

#[test]
fn families_give_their_templates_to_bpe_files() {
    let dir = small_dir(&["<s>", "</s>", "<pad>", "<unk>", "<mask>"]);
    assert_eq!(load(dir.path(), TokenizerClass::Roberta).encode("abc<mask>").unwrap(), [6, 4, 2, 10, 7]);
    let dir = small_dir(&["<|endoftext|>"]);
    let tokenizer = load(dir.path(), TokenizerClass::Gpt2);
    assert_eq!(tokenizer.encode("abc<|endoftext|>").unwrap(), [4, 2, 6]);
    assert_eq!(tokenizer.decode(&[4, 2, 6], true).unwrap(), "abc");
    assert_eq!(tokenizer.decode(&[4, 2, 6], false).unwrap(), "abc<|endoftext|>");
}

#[test]
fn special_tokens_that_the_vocabulary_lacks_get_the_next_ids() {
    let dir = small_dir(&["<s>", "</s>"]);
    write(dir.path(), "tokenizer_config.json", json!({"mask_token": null, "unk_token": "</s>"}).to_string());
    let tokenizer = load(dir.path(), TokenizerClass::Roberta);
    assert_eq!(tokenizer.token_to_id("<pad>"), Some(8));
    assert_eq!(tokenizer.token_to_id("<mask>"), None);
    assert_eq!(tokenizer.vocab_size(), 9);
}

#[test]
fn tokenizer_config_is_honoured() {
    let special = ["<|endoftext|>", "<x>"];
    let with = |config: Value| {
        let dir = small_dir(&special);
        write(dir.path(), "tokenizer_config.json", config.to_string());
        load(dir.path(), TokenizerClass::Gpt2)
    };
    assert_eq!(with(json!({})).encode("a").unwrap(), [0]);
    assert_eq!(with(json!({"add_prefix_space": true})).encode("a").unwrap(), [3, 0]);
    assert_eq!(with(json!({"add_bos_token": true})).encode("a").unwrap(), [6, 0]);
    assert_eq!(with(json!({"add_bos_token": false})).encode("a").unwrap(), [0]);
    let both = json!({"add_bos_token": true, "add_eos_token": true, "bos_token": {"__type": "AddedToken", "content": "<x>", "lstrip": true}});
    assert_eq!(with(both).encode("a").unwrap(), [7, 0, 6]);
    let added = json!({"added_tokens_decoder": {"7": {"content": "<x>", "lstrip": true, "special": false, "normalized": false}}});
    let tokenizer = with(added);
    assert_eq!(tokenizer.encode("a <x>").unwrap(), [0, 7]);
    assert_eq!(tokenizer.decode(&[0, 7], true).unwrap(), "a<x>");
    // On BPE the clean-up eats spaces of the text; it needs the long key.
    let ids = [0, 3, 5];
    assert_eq!(with(json!({"clean_up_tokenization_spaces": true})).decode(&ids, true).unwrap(), "a .");
    let forced = json!({
        "clean_up_tokenization_spaces": true, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": true,
    });
    assert_eq!(with(forced).decode(&ids, true).unwrap(), "a.");
}

#[test]
fn older_companion_files_are_read() {
    let dir = small_dir(&["<|endoftext|>"]);
    write(dir.path(), "special_tokens_map.json", json!({"pad_token": "<p>"}).to_string());
    write(dir.path(), "added_tokens.json", json!({"<y>": 8, "<p>": 7}).to_string());
    let tokenizer = load(dir.path(), TokenizerClass::Gpt2);
    assert_eq!((tokenizer.token_to_id("<p>"), tokenizer.token_to_id("<y>")), (Some(7), Some(8)));
    assert_eq!(tokenizer.decode(&[0, 7, 8], true).unwrap(), "a<y>");
}

#[test]
fn a_tokenizer_json_is_never_cut_or_padded_and_keeps_its_class_rules() {
    let single = |prefix_space: bool| {
        json!({
            "version": "1.0", "truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 1, "pad_type_id": 0, "pad_token": "b"},
            "added_tokens": [], "normalizer": null, "post_processor": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": prefix_space, "trim_offsets": true, "use_regex": true},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "<e>": 3}, "merges": []},
        })
    };
    let encode = |prefix_space: bool, config: Value| {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "tokenizer.json", single(prefix_space).to_string());
        write(dir.path(), "tokenizer_config.json", config.to_string());
        load(dir.path(), TokenizerClass::Gpt2).encode("ab<e>").unwrap()
    };
    assert_eq!(encode(false, json!({"eos_token": "<e>"})), [0, 1, 3]);
    // GPT-2's class splits texts by its own rules, whatever the file says.
    assert_eq!(encode(true, json!({"eos_token": "<e>"})), [0, 1, 3]);
    assert_eq!(encode(false, json!({"eos_token": "<e>", "add_prefix_space": true})), [2, 0, 1, 3]);
    assert_eq!(encode(true, json!({"eos_token": "<e>", "add_prefix_space": false})), [0, 1, 3]);
    assert_eq!(encode(true, json!({"eos_token": "<e>", "tokenizer_class": "GPT2TokenizerFast"})), [0, 1, 3]);
    let generic = json!({"eos_token": "<e>", "tokenizer_class": "TokenizersBackend", "add_prefix_space": false});
    assert_eq!(encode(true, generic), [2, 0, 1, 3]);
}

#[test]
fn no_tokenizer_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Tokenizer::load(dir.path(), TokenizerClass::Roberta).unwrap().is_none());
}

#[test]
fn errors_name_the_file() {
    let error = |files: &[(&str, &str)]| {
        let dir = small_dir(&["<|endoftext|>"]);
        for (name, content) in files {
            write(dir.path(), name, content);
        }
        Tokenizer::load(dir.path(), TokenizerClass::Gpt2).unwrap_err().to_string()
    };
    assert_names(&error(&[("merges.txt", "a b\nab c\n")]), &["merges.txt", "line 2", "`abc`", "vocabulary"]);
    assert_names(&error(&[("merges.txt", "a b c\n")]), &["merges.txt", "line 1", "`a b c`"]);
    assert_names(&error(&[("merges.txt", "a z\n")]), &["merges.txt", "`z`"]);
    assert_names(&error(&[("vocab.json", r#"{"a": -1}"#)]), &["vocab.json", "`a`", "-1"]);
    assert_names(&error(&[("vocab.json", r#"{"a": "#)]), &["vocab.json", "invalid JSON"]);
    assert_names(&error(&[("tokenizer.json", "{}")]), &["tokenizer.json", "not a usable tokenizer"]);
    assert_names(
        &error(&[("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n")]),
        &["tokenizer.json", "LFS"],
    );
    assert_names(&error(&[("tokenizer_config.json", r#"{"bos_token": 5}"#)]), &["tokenizer_config.json", "bos_token"]);
    assert_names(&error(&[("tokenizer_config.json", r#"{"add_prefix_space": 5}"#)]), &["add_prefix_space = 5"]);
    assert_names(&error(&[("added_tokens.json", r#"{"x": ["y"]}"#)]), &["added_tokens.json", "`x`"]);
    let bos = r#"{"add_bos_token": true, "tokenizer_class": "TokenizersBackend", "bos_token": "<nowhere>"}"#;
    // A named token that the vocabulary lacks is added, so this one works.
    let dir = small_dir(&[]);
    write(dir.path(), "tokenizer_config.json", bos);
    assert_eq!(load(dir.path(), TokenizerClass::Gpt2).encode("a").unwrap()[1..], [0]);

    let dir = small_dir(&[]);
    std::fs::remove_file(dir.path().join("merges.txt")).unwrap();
    let message = Tokenizer::load(dir.path(), TokenizerClass::Gpt2).unwrap_err().to_string();
    assert_names(&message, &["merges.txt not found", "vocab.json"]);
}

#[test]
fn a_contradictory_tokenizer_json_is_an_error_and_no_panic() {
    // The merge of the two longest tokens is longer than any token: the BPE builder indexes out of its buffer.
    let dir = tempfile::tempdir().unwrap();
    let single = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"aaaa": 0, "bbbb": 1}, "merges": [["aaaa", "bbbb"]]},
    });
    write(dir.path(), "tokenizer.json", single.to_string());
    let message = Tokenizer::load(dir.path(), TokenizerClass::Gpt2).unwrap_err().to_string();
    assert_names(&message, &["tokenizer.json", "not a usable tokenizer"]);
}

#[test]
fn an_error_that_quotes_a_line_end_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "tokenizer.json", r#"{"version": "1.0\nx"}"#);
    let message = Tokenizer::load(dir.path(), TokenizerClass::Gpt2).unwrap_err().to_string();
    assert_names(&message, &["tokenizer.json", "Unknown tokenizer version '1.0 x'"]);
}
