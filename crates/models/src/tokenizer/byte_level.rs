//! Byte-level BPE, as GPT-2 and BART were published, from `vocab.json` and `merges.txt` or from the vocabulary of a tokenizer.json.

use std::path::Path;

use serde_json::Value;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, Vocab};

use super::guarded;
use super::settings::{Form, Rules, Settings};
use crate::error::{ModelError, TokenizerError, excerpt};
use crate::json;

/// From `vocab.json` and `merges.txt`, each with its content.
pub(super) fn from_files(
    (vocab_file, vocab): (&Path, &str),
    (merges_file, merges): (&Path, &str),
    settings: &Settings,
) -> Result<(tokenizers::Tokenizer, Rules), ModelError> {
    let unusable = |reason| ModelError::from(TokenizerError::File { file: vocab_file.into(), reason });
    let vocab = parse_vocab(vocab_file, vocab)?;
    let merges = parse_merges(merges_file, merges, &vocab)?;
    let model = guarded(|| BPE::builder().vocab_and_merges(vocab, merges).build()).map_err(unusable)?;
    let rules = settings.rules(Form::Files { single: None })?;
    Ok((with_class_rules(model, &rules), rules))
}

/// From the vocabulary and the merges of a tokenizer.json, as the class builds it: of the file's other parts only the template
/// stays.
pub(super) fn rebuild(inner: &tokenizers::Tokenizer, rules: &Rules) -> Result<tokenizers::Tokenizer, String> {
    let model = match inner.get_model() {
        ModelWrapper::BPE(model) => {
            let mut model = model.clone();
            model.dropout = None;
            model.unk_token = None;
            model.continuing_subword_prefix = None;
            model.end_of_word_suffix = None;
            model.fuse_unk = false;
            model.byte_fallback = false;
            model.ignore_merges = false;
            model
        }
        _ => {
            let vocab: Vocab = inner.get_vocab(false).into_iter().collect();
            guarded(|| BPE::builder().vocab_and_merges(vocab, Vec::new()).build())?
        }
    };
    let mut built = with_class_rules(model, rules);
    built.with_post_processor(inner.get_post_processor().cloned());
    Ok(built)
}

fn with_class_rules(model: BPE, rules: &Rules) -> tokenizers::Tokenizer {
    let mut inner = tokenizers::Tokenizer::new(model);
    inner.with_pre_tokenizer(Some(ByteLevel::new(rules.options.add_prefix_space, true, true)));
    inner.with_decoder(Some(ByteLevel::default()));
    inner
}

/// Ids by token.
pub(super) fn parse_vocab(file: &Path, text: &str) -> Result<Vocab, ModelError> {
    let map = json::parse_object(file, text)?;
    let mut vocab = Vocab::with_capacity(map.len());
    for (token, id) in map {
        match id.as_u64().map(u32::try_from) {
            Some(Ok(number)) => vocab.insert(token, number),
            _ => {
                let reason = format!("token `{}` has the id {}", excerpt(&token), excerpt(&Value::to_string(&id)));
                return Err(ModelError::from(TokenizerError::File { file: file.into(), reason }));
            }
        };
    }
    Ok(vocab)
}

/// The merges by rank. Checked here, line by line, because the BPE builder takes their consistency for granted.
fn parse_merges(file: &Path, text: &str, vocab: &Vocab) -> Result<Vec<(String, String)>, ModelError> {
    let mut merges = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with("#version") || line.is_empty() {
            continue;
        }
        let bad = |reason: String| {
            ModelError::from(TokenizerError::File { file: file.into(), reason: format!("line {number}: {reason}") })
        };
        let Some((left, right)) = line.split_once(' ').filter(|(_, right)| !right.contains(' ')) else {
            return Err(bad(format!("`{}` is not a pair of tokens", excerpt(line))));
        };
        let joined = format!("{left}{right}");
        if let Some(unknown) = [left, right, &joined].into_iter().find(|token| !vocab.contains_key(*token)) {
            return Err(bad(format!("token `{}` is not in the vocabulary", excerpt(unknown))));
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}
