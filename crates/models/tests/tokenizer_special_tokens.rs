//! Special tokens by the files that name them, each file's form once, with the ids of transformers 5.23. The sweep in
//! `tokenizer_sweep.rs` has every form in every class.

mod loader_support;

use std::path::{Path, PathBuf};

use elgen_models::{LanguageTokens, Tokenizer};
use loader_support::*;
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tokenizers")
}

/// A directory with these files of the fixtures, and these JSON files.
fn directory(files: &[&str], values: &[(&str, Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in files {
        let file = fixtures().join(file);
        std::fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
    }
    for (name, value) in values {
        write(dir.path(), name, value.to_string());
    }
    dir
}

fn load(model_type: &str, files: &[&str], values: &[(&str, Value)]) -> Tokenizer {
    Tokenizer::load_for(directory(files, values).path(), model_type).unwrap().unwrap()
}

fn message(model_type: &str, files: &[&str], values: &[(&str, Value)]) -> String {
    Tokenizer::load_for(directory(files, values).path(), model_type).unwrap_err().to_string()
}

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
/// The published vocabulary, of 50,257 tokens.
const GPT2: [&str; 2] = ["gpt2/vocab.json", "gpt2/merges.txt"];
const MARIAN: [&str; 3] = ["marian/source.spm", "marian/target.spm", "marian/vocab.json"];
const FAIRSEQ: [&str; 1] = ["fairseq/sentencepiece.bpe.model"];

#[test]
fn special_tokens_map_goes_over_the_config_unless_that_lists_added_tokens() {
    let text = "terminal[EXT1]many";
    let plain = [23705, 282, 58, 13918, 16, 60, 21834];
    let special = [23705, 282, 50257, 21834];
    let map = |value: Value| (MAP, value);
    for list in ["additional_special_tokens", "extra_special_tokens"] {
        let tokenizer = load("gpt2", &GPT2, &[map(json!({list: ["[EXT1]"]}))]);
        assert_eq!(tokenizer.encode(text).unwrap(), special, "{list}");
        assert_eq!(tokenizer.decode(&special, true).unwrap(), "terminalmany");
    }
    let named = map(json!({"pad_token": "[EXT1]"}));
    for own in [json!({"pad_token": "[PAD]"}), json!({"pad_token": null}), json!({})] {
        let tokenizer = load("gpt2", &GPT2, &[(CONFIG, own), named.clone()]);
        assert_eq!(tokenizer.encode(text).unwrap(), special);
        assert_eq!(tokenizer.token_to_id("[PAD]"), None);
    }
    // Null in the map takes the config's token away.
    let tokenizer = load("gpt2", &GPT2, &[(CONFIG, json!({"pad_token": "[EXT1]"})), map(json!({"pad_token": null}))]);
    assert_eq!(tokenizer.encode(text).unwrap(), plain);
    // The map, and what is wrong with it, is not looked at.
    let lists = (CONFIG, json!({"added_tokens_decoder": {}}));
    let tokenizer = load("gpt2", &GPT2, &[lists, map(json!({"pad_token": 5}))]);
    assert_eq!(tokenizer.encode(text).unwrap(), plain);
    assert_names(&message("gpt2", &GPT2, &[map(json!({"pad_token": 5}))]), &[MAP, "pad_token = 5", "a token"]);
}

#[test]
fn split_special_tokens_makes_text_of_them() {
    let split = |more: Value| {
        let mut config = json!({"split_special_tokens": true});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        (CONFIG, config)
    };
    let tokenizer = load("gpt2", &GPT2, &[split(json!({}))]);
    assert_eq!(tokenizer.encode("a<|endoftext|>b").unwrap(), [64, 27, 91, 437, 1659, 5239, 91, 29, 65]);
    // The template's are still there.
    let tokenizer = load("gpt2", &GPT2, &[split(json!({"add_bos_token": true}))]);
    assert_eq!(tokenizer.encode("a").unwrap(), [50256, 64]);
    let tokenizer = load("marian", &MARIAN, &[split(json!({}))]);
    assert_eq!(tokenizer.encode("</s>").unwrap().iter().filter(|id| **id == 0).count(), 1);
    let generic = split(json!({"tokenizer_class": "PreTrainedTokenizerFast"}));
    let tokenizer = load("bart", &["bpe-json/tokenizer.json"], &[generic]);
    assert_eq!(tokenizer.encode_plain("</s>").unwrap().len(), 4);
    assert_names(
        &message("gpt2", &GPT2, &[(CONFIG, json!({"split_special_tokens": 1}))]),
        &["split_special_tokens = 1"],
    );
}

#[test]
fn named_and_listed_tokens_get_ids_of_their_own() {
    for config in [
        json!({"extra_special_tokens": {"image_token": "[EXT1]"}}),
        json!({"image_token": "[EXT1]"}),
        json!({"image_token": {"__type": "AddedToken", "content": "[EXT1]"}}),
        json!({"model_specific_special_tokens": {"image_token": "[EXT1]"}}),
        json!({"extra_special_tokens": ["[EXT1]"]}),
    ] {
        let tokenizer = load("gpt2", &GPT2, &[(CONFIG, config.clone())]);
        assert_eq!(tokenizer.encode("[EXT1]").unwrap(), [50257], "{config}");
        assert_eq!(tokenizer.decode(&[50257, 64], true).unwrap(), "a", "{config}");
    }
    let kept = json!({"__type": "AddedToken", "content": "[NEW]", "special": false});
    let tokenizer = load("gpt2", &GPT2, &[(CONFIG, json!({"extra_special_tokens": [kept]}))]);
    assert_eq!(tokenizer.decode(&[50257, 64], true).unwrap(), "[NEW]a");
}

#[test]
fn a_list_or_null_stands_in_place_of_the_classes_own_tokens() {
    let code = |config: Value| load("mbart", &FAIRSEQ, &[(CONFIG, config)]);
    for class in ["MBartTokenizer", "MBart50Tokenizer"] {
        let own = code(json!({"tokenizer_class": class}));
        let id = own.token_to_id("en_XX").unwrap();
        assert!(own.is_special(id));
        for list in [json!(["[EXT1]"]), Value::Null, json!([])] {
            let tokenizer = code(json!({"tokenizer_class": class, "extra_special_tokens": list}));
            assert!(!tokenizer.is_special(id), "{class} {list}");
            assert_ne!(tokenizer.encode_plain("en_XX").unwrap(), [id], "{class} {list}");
        }
    }
    let t5 = |config: Value| load("t5", &["unigram/spiece.model"], &[(CONFIG, config)]).encode("<extra_id_0>").unwrap();
    assert_eq!(t5(json!({})).len(), 2);
    assert_eq!(t5(json!({"additional_special_tokens": ["[EXT1]"]})).len(), 3);
}

#[test]
fn a_replaced_end_token_ends_texts() {
    let end = |model_type: &str, files: &[&str], class: &str| {
        let config = json!({"tokenizer_class": class, "eos_token": "<end>"});
        let mut tokenizer = load(model_type, files, &[(CONFIG, config)]);
        if files == FAIRSEQ {
            let found = tokenizer.set_languages(Some("de_DE"), Some("fr_XX")).unwrap();
            assert_ne!(found, LanguageTokens::default());
        }
        let names = |ids: Vec<u32>| ids.iter().map(|id| tokenizer.id_to_token(*id).unwrap()).collect::<Vec<_>>();
        (names(tokenizer.encode("a").unwrap()), names(tokenizer.encode_labels("a").unwrap()))
    };
    let (text, label) = end("t5", &["unigram/spiece.model"], "T5Tokenizer");
    assert_eq!((text, label), (vec!["▁a".into(), "<end>".into()], vec!["▁a".into(), "<end>".into()]));
    let (text, label) = end("mbart", &FAIRSEQ, "MBartTokenizer");
    assert_eq!(
        (text, label),
        (vec!["▁a".into(), "<end>".into(), "de_DE".into()], vec!["▁a".into(), "<end>".into(), "fr_XX".into()])
    );
    let (text, label) = end("mbart", &FAIRSEQ, "MBart50Tokenizer");
    assert_eq!(
        (text, label),
        (vec!["de_DE".into(), "▁a".into(), "<end>".into()], vec!["fr_XX".into(), "▁a".into(), "<end>".into()])
    );
}

#[test]
fn marian_honours_the_ids_of_added_tokens() {
    let token = |content: &str, special: bool| json!({"content": content, "special": special, "single_word": content == "foobar"});
    let config = json!({"added_tokens_decoder": {
        "64000": token("[EXT1]", false), "64010": token("<ls>", true), "64020": token("foobar", false), "12": token("[OVER]", false),
    }});
    let tokenizer = load("marian", &MARIAN, &[(CONFIG, config)]);
    assert_eq!(tokenizer.encode_plain("[EXT1]").unwrap(), [64000]);
    assert_eq!(tokenizer.decode(&[64000, 12], false).unwrap(), "[EXT1][OVER]");
    // Special by its own word alone, it has no part in what decoding passes over.
    assert_eq!(tokenizer.decode(&[64010], true).unwrap(), "<ls>");
    // Inside a word it is none, but the word is cut behind it.
    assert!(!tokenizer.encode_plain("xfoobary").unwrap().contains(&64020));
    assert!(tokenizer.encode_plain("x foobar y").unwrap().contains(&64020));
    for id in ["-1", "1.5", "x", "4294967296"] {
        let config = json!({"added_tokens_decoder": {id: token("[EXT1]", false)}});
        assert_names(&message("marian", &MARIAN, &[(CONFIG, config)]), &[CONFIG, id]);
    }
    let added = ("added_tokens.json", json!({"[EXT1]": 7.0}));
    assert_names(&message("marian", &MARIAN, &[added]), &["added_tokens.json", "`[EXT1]`", "7.0"]);
}

#[test]
fn null_is_not_absence_in_pegasus() {
    let first = |config: Value| load("pegasus", &["unigram/spiece.model"], &[(CONFIG, config)]).encode("a").unwrap()[0];
    let own = first(json!({}));
    assert_eq!(first(json!({"mask_token_sent": null})), own - 1);
    assert_eq!(first(json!({"mask_token_sent": null, "mask_token": null})), own - 2);
    assert_eq!(first(json!({"mask_token_sent": null, "offset": 0})), own - 102);
}

#[test]
fn settings_that_would_change_ids_are_refused_by_name() {
    for (config, names) in [
        (json!({"sp_model_kwargs": {"enable_sampling": true}}), ["sp_model_kwargs", "not supported"]),
        (json!({"fast_tokenizer_files": ["tokenizer.4.0.json"]}), ["fast_tokenizer_files", "not supported"]),
        (json!({"padding_side": "up"}), ["padding_side = `up`", "`left` or `right`"]),
        (json!({"model_max_length": "x"}), ["model_max_length = `x`", "a number"]),
    ] {
        assert_names(&message("marian", &MARIAN, &[(CONFIG, config)]), &[CONFIG, names[0], names[1]]);
    }
    for (config, names) in [
        (json!({"vocab": {"a": 0}}), ["vocab", "its own file"]),
        (json!({"tokenizer_object": {"a": 0}}), ["tokenizer_object", "only a program"]),
        (json!({"add_prefix_space": null}), ["add_prefix_space = null", "true or false"]),
        (json!({"init_inputs": ["x"]}), ["init_inputs", "an empty list"]),
        (json!({"tokenizer_class": 5}), ["tokenizer_class = 5", "a text"]),
    ] {
        assert_names(&message("gpt2", &GPT2, &[(CONFIG, config)]), &[CONFIG, names[0], names[1]]);
    }
}
