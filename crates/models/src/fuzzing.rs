//! The loaders on bytes instead of files, for the fuzz targets and tests. Not part of the interface.
//!
//! Each function does with `bytes` what loading does with a file, uses the result, and says whether it was accepted.

use std::{path::Path, sync::LazyLock};

use crate::{
    checkpoint::{header, parse_index},
    error::ModelError,
    family::ModelConfig,
    generation_defaults::GenerationDefaults,
    json,
    tokenizer::{Settings, Tokenizer, TokenizerClass},
};

/// A text for every tokenizer that was accepted.
const SAMPLE: &str = " The h\u{e9}ron's 3 eggs\n\u{4eca}\u{5929} \u{1f600} <s>";
/// The ids that a Marian model's pieces have here.
const MARIAN_VOCAB: &str =
    r#"{"</s>":0,"<unk>":1,"\u2581":2,"e":3,"s":4,"\u2581The":5,">>fra<<":6,"<0x0A>":7,"<pad>":8}"#;

/// Those of every tokenizer class, for a directory that has no settings.
static SETTINGS: LazyLock<Vec<(TokenizerClass, Settings)>> = LazyLock::new(|| {
    let load = |class| accepted(Settings::load("no/such/directory".as_ref(), class));
    TokenizerClass::ALL.into_iter().filter_map(|class| Some((class, load(class)?))).collect()
});

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Whether a result is one; an error has to be one line.
fn accepted<T>(result: Result<T, ModelError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(!error.to_string().contains('\n'), "more than one line: {error}");
            None
        }
    }
}

/// A whole safetensors file.
pub fn safetensors_header(bytes: &[u8]) -> bool {
    let Some((field, rest)) = bytes.split_first_chunk() else { return false };
    let parsed = header::length(*field, rest.len() as u64).and_then(|length| {
        let (text, data) = rest.split_at(length);
        header::entries(text, data.len() as u64)
    });
    match parsed {
        Ok(entries) => {
            for entry in entries {
                let inside = entry.range.start <= entry.range.end && entry.range.end <= bytes.len() as u64;
                assert!(inside, "{} lies outside the file", entry.name);
            }
            true
        }
        Err(problem) => {
            assert!(!problem.to_string().contains('\n'), "more than one line: {problem}");
            false
        }
    }
}

/// `model.safetensors.index.json`.
pub fn safetensors_index(bytes: &[u8]) -> bool {
    let Some(text) = text(bytes) else { return false };
    let Some(found) = accepted(parse_index("index.json".as_ref(), text)) else { return false };
    for file in found.values() {
        assert_eq!(Path::new("dir").join(file).parent(), Some("dir".as_ref()), "{file} leads elsewhere");
    }
    true
}

/// `config.json`, and the generation options that it may hold.
pub fn config(bytes: &[u8]) -> bool {
    let path = Path::new("config.json");
    let Some(map) = text(bytes).and_then(|text| accepted(json::parse_object(path, text))) else { return false };
    let Some(config) = accepted(ModelConfig::from_map(&map, path)) else { return false };
    assert!(config.parameters().is_ok_and(|parameters| parameters > 0));
    let _ = accepted(GenerationDefaults::from_model_config(&map, path.into(), config.family(), config.vocab_size()));
    true
}

/// `generation_config.json`.
pub fn generation_config(bytes: &[u8]) -> bool {
    let path = Path::new("generation_config.json");
    let Some(map) = text(bytes).and_then(|text| accepted(json::parse_object(path, text))) else { return false };
    let Some(found) = accepted(GenerationDefaults::from_generation_config(map, path.into(), 1000)) else {
        return false;
    };
    let Ok(options) = elgen_search::GenerationOptions::from_checkpoint(&found.options) else { return false };
    for is_encoder_decoder in [false, true] {
        let limits =
            elgen_search::ModelLimits { vocab_size: 1000, max_position_embeddings: Some(64), is_encoder_decoder };
        if let Ok((config, _)) = options.clone().resolve(&limits) {
            let _ = config.lengths(1);
        }
    }
    true
}

/// `tokenizer.json`.
pub fn tokenizer_json(bytes: &[u8]) -> bool {
    !classes_of_tokenizer_json(bytes).is_empty()
}

/// `vocab.json` and `merges.txt`, with a zero byte between them.
pub fn bpe_files(bytes: &[u8]) -> bool {
    !classes_of_bpe_files(bytes).is_empty()
}

/// A SentencePiece model: `spiece.model`, `sentencepiece.bpe.model`, or both sides of a Marian model.
pub fn sentencepiece(bytes: &[u8]) -> bool {
    !classes_of_sentencepiece(bytes).is_empty()
}

fn classes_of_tokenizer_json(bytes: &[u8]) -> Vec<TokenizerClass> {
    let Some(text) = text(bytes) else { return Vec::new() };
    use_tokenizers(|_, settings| Some(Tokenizer::from_tokenizer_json(text, "tokenizer.json".into(), settings)))
}

fn classes_of_bpe_files(bytes: &[u8]) -> Vec<TokenizerClass> {
    let Some((vocab, merges)) = text(bytes).and_then(|text| text.split_once('\0')) else { return Vec::new() };
    use_tokenizers(|class, settings| {
        matches!(class, TokenizerClass::Generic | TokenizerClass::Gpt2 | TokenizerClass::Roberta).then(|| {
            Tokenizer::from_bpe_texts(("vocab.json".as_ref(), vocab), ("merges.txt".as_ref(), merges), settings)
        })
    })
}

fn classes_of_sentencepiece(bytes: &[u8]) -> Vec<TokenizerClass> {
    use_tokenizers(|class, settings| match class {
        TokenizerClass::T5 | TokenizerClass::Pegasus | TokenizerClass::MBart | TokenizerClass::MBart50 => {
            Some(Tokenizer::from_spm(bytes, "spiece.model".into(), settings))
        }
        TokenizerClass::Marian => Some(Tokenizer::from_marian(bytes, MARIAN_VOCAB, "dir".as_ref(), settings)),
        _ => None,
    })
}

/// Loads by the settings of each class, where `load` has something for it, and uses what was accepted. Gives those classes.
fn use_tokenizers(
    load: impl Fn(TokenizerClass, &Settings) -> Option<Result<Tokenizer, ModelError>>,
) -> Vec<TokenizerClass> {
    let mut found = Vec::new();
    for (class, settings) in &*SETTINGS {
        if let Some(mut tokenizer) = load(*class, settings).and_then(accepted) {
            use_tokenizer(&mut tokenizer);
            found.push(*class);
        }
    }
    found
}

fn use_tokenizer(tokenizer: &mut Tokenizer) {
    if let Some(ids) = accepted(tokenizer.encode(SAMPLE)) {
        let _ = accepted(tokenizer.decode(&ids, true));
        let mut stream = tokenizer.stream(false);
        for id in ids {
            let _ = accepted(stream.push(id));
        }
        let _ = accepted(stream.flush());
    }
    let _ = accepted(tokenizer.decode(&[0, 1, 2, u32::MAX], false));
    for (source, target) in [("de_DE", "fr_XX"), ("eng", "fra")] {
        let _ = accepted(tokenizer.set_languages(Some(source), None));
        let _ = accepted(tokenizer.set_languages(None, Some(target)));
    }
    let _ = accepted(tokenizer.encode("The  eggs"));
    let _ = accepted(tokenizer.encode_labels(">>fra<< The eggs"));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The classes that accept a seed of the fuzz target `name`.
    fn seen(name: &str, classes: fn(&[u8]) -> Vec<TokenizerClass>) -> BTreeSet<TokenizerClass> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(name);
        let files = std::fs::read_dir(dir).expect("the seeds lie there");
        files.flat_map(|file| classes(&std::fs::read(file.expect("it lists").path()).expect("it reads"))).collect()
    }

    #[test]
    fn seeds_reach_every_tokenizer_class() {
        assert_eq!(seen("tokenizer_json", classes_of_tokenizer_json), TokenizerClass::ALL.into());
        assert_eq!(
            seen("bpe_files", classes_of_bpe_files),
            [TokenizerClass::Generic, TokenizerClass::Gpt2, TokenizerClass::Roberta].into()
        );
        let unigram = [
            TokenizerClass::T5,
            TokenizerClass::Pegasus,
            TokenizerClass::MBart,
            TokenizerClass::MBart50,
            TokenizerClass::Marian,
        ];
        assert_eq!(seen("sentencepiece", classes_of_sentencepiece), unigram.into());
    }
}
