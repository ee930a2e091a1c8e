//! Byte-level BPE from `vocab.json` and `merges.txt`, as GPT-2 and BART were published.

use std::path::Path;

use serde_json::Value;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::processors::roberta::RobertaProcessing;

use super::class::Class;
use super::guarded;
use super::settings::Settings;
use crate::config::json;
use crate::error::{ModelError, excerpt};

/// From `vocab.json` and `merges.txt`, each with its content.
pub(super) fn build(
    (vocab_file, vocab): (&Path, &str),
    (merges_file, merges): (&Path, &str),
    settings: &Settings,
) -> Result<tokenizers::Tokenizer, ModelError> {
    let unusable = |reason| ModelError::TokenizerFile { file: vocab_file.into(), reason };
    let vocab = parse_vocab(vocab_file, vocab)?;
    let merges = parse_merges(merges_file, merges, &vocab)?;
    let model = guarded(|| BPE::builder().vocab_and_merges(vocab, merges).build()).map_err(unusable)?;
    let mut inner = tokenizers::Tokenizer::new(model);
    inner.with_pre_tokenizer(Some(ByteLevel::new(settings.add_prefix_space, true, true)));
    inner.with_decoder(Some(ByteLevel::default()));
    guarded(|| settings.add_tokens_and_defaults(&mut inner, Vec::new())).map_err(unusable)?;
    if settings.class == Class::Roberta {
        let token = |role: &str| {
            let token =
                settings.role(role).ok_or_else(|| unusable(format!("the config leaves {role} without a token")))?;
            let id =
                inner.token_to_id(token).ok_or_else(|| unusable(format!("token `{}` has no id", excerpt(token))))?;
            Ok::<_, ModelError>((token.to_owned(), id))
        };
        let template = RobertaProcessing::new(token("sep_token")?, token("cls_token")?);
        inner.with_post_processor(Some(template.add_prefix_space(settings.add_prefix_space)));
    } else if settings.replaces_template {
        super::set_template(&mut inner, settings.template_bos.as_slice(), settings.template_eos.as_slice())
            .map_err(unusable)?;
    }
    Ok(inner)
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
                return Err(ModelError::TokenizerFile { file: file.into(), reason });
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
        let bad = |reason: String| ModelError::TokenizerFile {
            file: file.into(),
            reason: format!("line {number}: {reason}"),
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
