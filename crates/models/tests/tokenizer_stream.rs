//! Text streams: what they give together, and when.

use std::path::{Path, PathBuf};

use elgen_models::Tokenizer;
use proptest::prelude::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tokenizers")
}

/// Byte-level BPE, Metaspace, SentencePiece and byte fallback; two of them once more with spaces cleaned up.
fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
    let load = |name: &str, model_type: &str| Tokenizer::load_for(fixtures().join(name), model_type).unwrap().unwrap();
    let cleaned = |name: &str, files: &[&str], model_type: &str, key: &str| {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::copy(fixtures().join(name).join(file), dir.path().join(file)).unwrap();
        }
        let config = format!(r#"{{"clean_up_tokenization_spaces": true, "{key}": true}}"#);
        std::fs::write(dir.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::load_for(dir.path(), model_type).unwrap().unwrap()
    };
    let long = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
    vec![
        ("bpe-files", load("bpe-files", "gpt2")),
        ("t5-json", load("t5-json", "t5")),
        ("marian", load("marian", "marian")),
        ("marian-separate", load("marian-separate", "marian")),
        ("byte-fallback", load("byte-fallback", "")),
        ("bpe-files cleaned up", cleaned("bpe-files", &["vocab.json", "merges.txt"], "gpt2", long)),
        ("t5-json cleaned up", cleaned("t5-json", &["tokenizer.json"], "t5", "add_prefix_space")),
    ]
}

/// The parts that a stream gives for `ids`, the flush last.
fn parts(tokenizer: &Tokenizer, ids: &[u32], skip: bool) -> Vec<String> {
    let mut stream = tokenizer.stream(skip);
    let mut parts: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    parts.push(stream.flush().unwrap());
    parts
}

fn assert_whole(name: &str, tokenizer: &Tokenizer, ids: &[u32]) {
    for skip in [true, false] {
        let whole = tokenizer.decode(ids, skip).unwrap();
        assert_eq!(parts(tokenizer, ids, skip).concat(), whole, "{name}, skip {skip}: {ids:?}");
    }
}

#[test]
fn all_recorded_texts_come_out_whole() {
    let texts = std::fs::read_to_string(fixtures().join("parity/texts.json")).unwrap();
    let texts: Vec<serde_json::Value> = serde_json::from_str(&texts).unwrap();
    for (name, tokenizer) in tokenizers() {
        for text in texts.iter().filter_map(serde_json::Value::as_str) {
            assert_whole(name, &tokenizer, &tokenizer.encode(text).unwrap());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any ids, so halves of characters, lone bytes and special tokens in odd places too.
    #[test]
    fn any_ids_come_out_whole(ids in prop::collection::vec(0_u32..700, 0..40)) {
        thread_local!(static ALL: Vec<(&'static str, Tokenizer)> = tokenizers());
        ALL.with(|all| all.iter().for_each(|(name, tokenizer)| assert_whole(name, tokenizer, &ids)));
    }

    /// Mostly what the rules look at: spaces, line ends, punctuation, ideographs, apostrophes.
    #[test]
    fn texts_of_edges_come_out_whole(text in "[ab .,?!'nmstvre\n好é▁]{0,40}") {
        thread_local!(static ALL: Vec<(&'static str, Tokenizer)> = tokenizers());
        ALL.with(|all| all.iter().for_each(|(name, tokenizer)| {
            assert_whole(name, tokenizer, &tokenizer.encode(&text).unwrap());
        }));
    }
}

#[test]
fn words_wait_for_their_end_and_lines_do_not() {
    let all = tokenizers();
    let gpt2 = &all[0].1;
    let shown = |text: &str| {
        let ids = gpt2.encode(text).unwrap();
        let parts = parts(gpt2, &ids, true);
        (parts[..ids.len()].concat(), parts[ids.len()].clone())
    };
    assert_eq!(shown("Hello world"), ("Hello ".to_owned(), "world".to_owned()));
    assert_eq!(shown("Hello world\n"), ("Hello world\n".to_owned(), String::new()));
    assert_eq!(shown("one\n two three"), ("one\n two ".to_owned(), "three".to_owned()));
    assert_eq!(shown("世界"), ("世界".to_owned(), String::new()));
    assert_eq!(shown("é"), (String::new(), "é".to_owned()));
}

#[test]
fn halves_of_characters_are_never_shown() {
    for (name, tokenizer) in tokenizers() {
        let ids = tokenizer.encode("世 😀 é 界").unwrap();
        // A vocabulary that spells them all gives no replacement character at any step.
        if tokenizer.decode(&ids, true).unwrap().contains("😀") {
            assert!(parts(&tokenizer, &ids, true).iter().all(|part| !part.contains('\u{fffd}')), "{name}");
        }
    }
}

#[test]
fn a_flushed_stream_is_as_new() {
    let all = tokenizers();
    let t5 = &all[1].1;
    let ids = t5.encode("I was born").unwrap();
    let mut stream = t5.stream(true);
    for _ in 0..2 {
        let shown: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        assert_eq!(shown + &stream.flush().unwrap(), "I was born");
    }
}
