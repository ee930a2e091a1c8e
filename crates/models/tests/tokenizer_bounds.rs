//! Tokenizer files that make little text into much work: refused when they are loaded, or with texts that are too long for them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use elgen_models::{ModelError, Tokenizer, TokenizerError};
use serde_json::{Value, json};

/// A directory with this tokenizer.json.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str, tokenizer: &Value) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tokenizer_bounds").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
        Self(dir)
    }

    fn load(&self) -> Result<Tokenizer, ModelError> {
        Tokenizer::open(&self.0)
    }
}

fn word_level(normalizer: &Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": normalizer, "pre_tokenizer": null,
        "post_processor": null, "decoder": null,
        "added_tokens": [{
            "id": 1, "content": "a", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false
        }],
        "model": { "type": "WordLevel", "vocab": { "<unk>": 0, "a": 1 }, "unk_token": "<unk>" },
    })
}

fn unigram(pieces: impl IntoIterator<Item = String>) -> Value {
    let vocab: Vec<Value> =
        [json!(["<unk>", 0.0])].into_iter().chain(pieces.into_iter().map(|p| json!([p, -1.0]))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": null, "added_tokens": [],
        "model": { "type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false },
    })
}

/// What loading says, which must not take long.
fn refused(name: &str, tokenizer: &Value) -> String {
    let dir = Dir::new(name, tokenizer);
    let started = Instant::now();
    let error = dir.load().unwrap_err().to_string();
    assert!(started.elapsed() < Duration::from_secs(10), "{name}: {:?}", started.elapsed());
    assert!(error.contains("tokenizer.json: not a usable tokenizer: ") && error.lines().count() == 1, "{error}");
    error
}

#[test]
fn normalisers_that_explode_are_refused_at_load() {
    let replace = json!({ "type": "Replace", "pattern": { "String": "a" }, "content": "a".repeat(1000) });
    let thrice = json!({ "type": "Sequence", "normalizers": [replace.clone(), replace.clone(), replace.clone()] });
    let error = refused("replace-thrice", &word_level(&thrice));
    assert!(error.contains("can make a text 1000000 times as long; up to 1000 times is supported"), "{error}");
    let prepend = json!({ "type": "Prepend", "prepend": "a".repeat(10 << 20) });
    let error = refused("prepend", &word_level(&prepend));
    assert!(error.contains("puts 10485760 bytes before a text; up to 1000 are supported"), "{error}");
    let regex = json!({ "type": "Replace", "pattern": { "Regex": "x*" }, "content": "a".repeat(5000) });
    assert!(refused("regex", &word_level(&regex)).contains("5001 times as long"));

    // What grows less bounds the texts: sixteen times the usual length in all.
    let tokenizer = Dir::new("replace-once", &word_level(&replace)).load().unwrap();
    assert!(tokenizer.encode("a").is_ok());
    let error = tokenizer.encode(&"b".repeat(100_000)).unwrap_err();
    assert!(
        matches!(error, ModelError::Tokenizer(TokenizerError::TextTooLong { bytes: 100_000, limit: 33_554 })),
        "{error}"
    );
}

#[test]
fn pieces_that_are_too_long_are_refused_at_load() {
    let error = refused("long-piece", &unigram(["a".to_owned(), "b".repeat(1 << 20)]));
    assert!(error.contains("a piece of 1048576 bytes; a Unigram model may have up to 1024"), "{error}");
}

#[test]
fn pieces_that_begin_one_another_bound_the_texts() {
    let tokenizer = Dir::new("chain", &unigram((1..=999).map(|n| "a".repeat(n)))).load().unwrap();
    let started = Instant::now();
    assert_eq!(tokenizer.encode(&"a".repeat(2000)).unwrap().len(), 3);
    let error = tokenizer.encode(&"a".repeat(200_000)).unwrap_err();
    assert!(
        matches!(error, ModelError::Tokenizer(TokenizerError::TextTooLong { bytes: 200_000, limit: 8598 })),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn a_tokenizer_that_takes_texts_as_a_whole_has_a_limit() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tokenizers/marian");
    let mut tokenizer = Tokenizer::load_for(fixtures, "marian").unwrap().unwrap();
    let text = "word ".repeat(1000);
    let ids = tokenizer.encode(&text).unwrap();
    tokenizer.set_max_text_bytes(4999);
    for error in [tokenizer.encode(&text), tokenizer.encode_target(&text), tokenizer.encode_labels(&text)] {
        assert!(
            matches!(error, Err(ModelError::Tokenizer(TokenizerError::TextTooLong { bytes: 5000, .. }))),
            "{error:?}"
        );
    }
    tokenizer.set_max_text_bytes(1 << 20);
    assert_eq!(tokenizer.encode(&text).unwrap(), ids);
}
