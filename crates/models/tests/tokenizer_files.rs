//! Languages of multilingual tokenizers, and what is said about missing and damaged files.

mod loader_support;

use std::path::{Path, PathBuf};

use elgen_models::{LanguageTokens, Tokenizer};
use loader_support::*;
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tokenizers")
}

fn copy(dir: &Path, files: &[&str]) {
    for file in files {
        let file = fixtures().join(file);
        std::fs::copy(&file, dir.join(file.file_name().unwrap())).unwrap();
    }
}

fn mbart(config: Value) -> Tokenizer {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), &["fairseq/sentencepiece.bpe.model"]);
    write(dir.path(), "tokenizer_config.json", config.to_string());
    Tokenizer::load_for(dir.path(), "mbart").unwrap().unwrap()
}

fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text).unwrap().into_iter().map(|id| tokenizer.id_to_token(id).unwrap()).collect()
}

fn labels(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode_labels(text).unwrap().into_iter().map(|id| tokenizer.id_to_token(id).unwrap()).collect()
}

#[test]
fn mbart_puts_the_source_behind_the_text_and_starts_with_the_target() {
    let mut tokenizer = mbart(json!({}));
    assert_eq!(tokens(&tokenizer, "a"), ["▁a", "</s>", "en_XX"]);
    let found = tokenizer.set_languages(Some("de_DE"), Some("ro_RO")).unwrap();
    assert_eq!(tokens(&tokenizer, "a"), ["▁a", "</s>", "de_DE"]);
    let target = tokenizer.token_to_id("ro_RO");
    assert!(target.is_some());
    assert_eq!(found, LanguageTokens { decoder_start_token_id: target, forced_bos_token_id: None });
    assert_eq!(labels(&tokenizer, "a"), ["▁a", "</s>", "ro_RO"]);
    assert_eq!(tokenizer.set_languages(None, None).unwrap(), LanguageTokens::default());
    assert_eq!(tokens(&tokenizer, "a"), ["▁a", "</s>", "de_DE"]);
}

#[test]
fn mbart50_puts_the_source_before_the_text_and_forces_the_target() {
    let mut tokenizer = mbart(json!({"tokenizer_class": "MBart50TokenizerFast"}));
    let found = tokenizer.set_languages(Some("sl_SI"), Some("fr_XX")).unwrap();
    assert_eq!(tokens(&tokenizer, "a"), ["sl_SI", "▁a", "</s>"]);
    let target = tokenizer.token_to_id("fr_XX");
    assert_eq!(found, LanguageTokens { decoder_start_token_id: None, forced_bos_token_id: target });
    assert_eq!(labels(&tokenizer, "a"), ["fr_XX", "▁a", "</s>"]);
}

#[test]
fn the_class_may_be_named_in_the_model_config() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), &["fairseq/sentencepiece.bpe.model"]);
    write(dir.path(), "config.json", r#"{"model_type": "mbart", "tokenizer_class": "MBart50Tokenizer"}"#);
    assert_eq!(tokens(&Tokenizer::open(dir.path()).unwrap(), "a"), ["en_XX", "▁a", "</s>"]);
}

#[test]
fn marian_puts_the_target_before_the_text() {
    let mut tokenizer = Tokenizer::load_for(fixtures().join("marian"), "marian").unwrap().unwrap();
    let plain = tokens(&tokenizer, "Hello");
    for name in ["fra", ">>fra<<"] {
        assert_eq!(tokenizer.set_languages(None, Some(name)).unwrap(), LanguageTokens::default());
        assert_eq!(tokens(&tokenizer, "Hello"), [&[">>fra<<".to_owned()], &plain[..]].concat());
    }
    // A code in the text wins.
    assert_eq!(tokens(&tokenizer, ">>mlg<< Hello")[0], ">>mlg<<");
    tokenizer.set_languages(Some("eng"), Some("mlg")).unwrap();
    assert_eq!(tokens(&tokenizer, "Hello")[0], ">>mlg<<");
}

#[test]
fn languages_that_a_tokenizer_lacks() {
    let error = |tokenizer: &mut Tokenizer, source: Option<&str>, target: Option<&str>| {
        tokenizer.set_languages(source, target).unwrap_err().to_string()
    };
    let mut mbart = mbart(json!({}));
    assert_names(&error(&mut mbart, Some("xx"), None), &["source language `xx`", "ar_AR, cs_CZ", "25 in all"]);
    assert_names(&error(&mut mbart, Some("fr_XX"), Some("ro")), &["target language `ro`", "did you mean ro_RO"]);
    // The failing call changed nothing.
    assert_eq!(tokens(&mbart, "a"), ["▁a", "</s>", "en_XX"]);

    let mut marian = Tokenizer::load_for(fixtures().join("marian"), "marian").unwrap().unwrap();
    assert_names(&error(&mut marian, None, Some("deu")), &["target language `deu`", "fra, mlg"]);
    assert_names(&error(&mut marian, Some("fra"), None), &["source language `fra`", "eng"]);
    let mut separate = Tokenizer::load_for(fixtures().join("marian-separate"), "marian").unwrap().unwrap();
    assert_names(&error(&mut separate, None, Some("de")), &["target language `de`", "it has fr"]);
    separate.set_languages(Some("en"), Some("fr")).unwrap();

    let mut gpt2 = Tokenizer::load_for(fixtures().join("bpe-files"), "gpt2").unwrap().unwrap();
    assert_names(&error(&mut gpt2, None, Some("fr")), &["target language `fr`", "no languages"]);
    let config = json!({"src_lang": "tlh"});
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), &["fairseq/sentencepiece.bpe.model"]);
    write(dir.path(), "tokenizer_config.json", config.to_string());
    let message = Tokenizer::load_for(dir.path(), "mbart").unwrap_err().to_string();
    assert_names(&message, &["sentencepiece.bpe.model", "`tlh` has no id"]);
}

#[test]
fn missing_files_are_named_with_what_was_looked_for() {
    let error = |model_type: &str, files: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        copy(dir.path(), files);
        write(dir.path(), "config.json", json!({"model_type": model_type}).to_string());
        Tokenizer::open(dir.path()).unwrap_err().to_string()
    };
    assert_names(
        &error("marian", &["marian/vocab.json"]),
        &["source.spm not found", "target.spm", "there is vocab.json"],
    );
    let two = ["marian/source.spm", "marian/vocab.json"];
    assert_names(&error("marian", &two), &["target.spm not found", "there is source.spm, vocab.json"]);
    let separate = ["source.spm", "target.spm", "vocab.json", "tokenizer_config.json"]
        .map(|file| format!("marian-separate/{file}"));
    assert_names(&error("marian", &separate.each_ref().map(String::as_str)), &["target_vocab.json not found"]);
    assert_names(&error("marian", &[]), &["source.spm, target.spm and vocab.json not found"]);
    assert_names(&error("t5", &[]), &["tokenizer.json or spiece.model not found"]);
    assert_names(&error("t5", &["bpe-files/vocab.json"]), &["tokenizer.json or spiece.model not found"]);
    assert_names(&error("mbart", &[]), &["tokenizer.json or sentencepiece.bpe.model not found"]);
    assert_names(&error("gpt2", &[]), &["tokenizer.json, or vocab.json and merges.txt not found"]);
    assert_names(&error("gpt2", &["bpe-files/vocab.json"]), &["merges.txt not found", "there is vocab.json"]);
}

#[test]
fn damaged_sentencepiece_models_are_errors_and_no_panics() {
    let whole = std::fs::read(fixtures().join("unigram/spiece.model")).unwrap();
    let error = |bytes: &[u8], model_type: &str| {
        let dir = tempfile::tempdir().unwrap();
        copy(dir.path(), &["marian/target.spm", "marian/vocab.json"]);
        let name = if model_type == "marian" { "source.spm" } else { "spiece.model" };
        write(dir.path(), name, bytes);
        Tokenizer::load_for(dir.path(), model_type).map(|_| ()).map_err(|error| error.to_string())
    };
    for model_type in ["t5", "pegasus", "marian"] {
        let name = if model_type == "marian" { "source.spm" } else { "spiece.model" };
        assert_names(&error(b"", model_type).unwrap_err(), &[name, "has no pieces"]);
        assert_names(&error(b"\xff\xff\xff\xff", model_type).unwrap_err(), &[name, "damaged SentencePiece model"]);
        let cut = error(&whole[..whole.len() / 2], model_type).unwrap_err();
        assert_names(&cut, &[name, "damaged SentencePiece model"]);
        let pointer = b"version https://git-lfs.github.com/spec/v1\n";
        assert_names(&error(pointer, model_type).unwrap_err(), &[name, "LFS"]);
        // Any flipped byte gives a tokenizer or an error.
        for place in (0..whole.len()).step_by(97) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x55;
            let _ = error(&bytes, model_type);
        }
    }
    // pieces { piece: "a" } trainer_spec { model_type: BPE } normalizer_spec { }
    let bpe = b"\x0a\x03\x0a\x01a\x12\x02\x18\x02\x1a\x00";
    assert_names(&error(bpe, "marian").unwrap_err(), &["source.spm", "type BPE", "unigram"]);
    // pieces { piece: "a" } trainer_spec { } normalizer_spec { precompiled_charsmap: "\xff\xff\xff\x7f" }
    let charsmap = b"\x0a\x03\x0a\x01a\x12\x00\x1a\x06\x12\x04\xff\xff\xff\x7f";
    for (model_type, name) in [("marian", "source.spm"), ("t5", "spiece.model"), ("pegasus", "spiece.model")] {
        assert_names(&error(charsmap, model_type).unwrap_err(), &[name, "character map is cut off"]);
    }
}

#[test]
fn damaged_character_maps_in_tokenizer_json_are_found_before_anything_is_allocated() {
    let unigram = json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]]});
    let dir = tempfile::tempdir().unwrap();
    // A trie of 4 GiB, half of a length, no base64, and a trie of three bytes.
    for (map, reason) in [
        ("/////w==", "character map is cut off"),
        ("AAA=", "character map is cut off"),
        ("?", "not base64"),
        ("AwAAAAAAAA==", "4-byte units"),
    ] {
        let step = json!({"type": "Precompiled", "precompiled_charsmap": map});
        let steps = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, step.clone()]});
        for normalizer in [step, steps] {
            let text = json!({"version": "1.0", "normalizer": normalizer, "model": unigram}).to_string();
            write(dir.path(), "tokenizer.json", text);
            let message = Tokenizer::load_for(dir.path(), "t5").unwrap_err().to_string();
            assert_names(&message, &["tokenizer.json", reason]);
        }
    }
}

#[test]
fn a_marian_vocabulary_needs_its_unknown_token() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), &["marian/source.spm", "marian/target.spm"]);
    write(dir.path(), "vocab.json", r#"{"</s>": 0, "a": 1}"#);
    let message = Tokenizer::load_for(dir.path(), "marian").unwrap_err().to_string();
    assert_names(&message, &["vocab.json", "`<unk>` has no id"]);
}
