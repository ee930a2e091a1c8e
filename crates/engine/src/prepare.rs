//! From requests to sentences: tokens, truncation, lengths. Each request fails alone.

use elgen_models::{ModelConfig, Tokenizer};
use elgen_search::{GenerationConfig, Lengths};

use crate::error::EngineError;
use crate::types::{Input, Request, RunOptions};

/// A request that can run.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// Index into the caller's requests.
    pub(crate) request: usize,
    pub(crate) ordinal: u64,
    /// Encoder input; empty for decoder-only models.
    pub(crate) source: Vec<u32>,
    /// Decoder prompt.
    pub(crate) prompt: Vec<u32>,
    pub(crate) lengths: Lengths,
    pub(crate) prompt_tokens: usize,
    pub(crate) truncated: bool,
}

impl Prepared {
    /// Ids that may be generated.
    pub(crate) fn max_new(&self) -> usize {
        self.lengths.max_length - self.prompt.len()
    }

    /// The ids that processors of the source look at: for a decoder-only model the prompt (generation.md 4).
    pub(crate) fn source_ids(&self) -> &[u32] {
        if self.source.is_empty() { &self.prompt } else { &self.source }
    }
}

/// Encodes, checks and cuts one request.
pub(crate) fn prepare(
    index: usize,
    request: &Request,
    model: &ModelConfig,
    tokenizer: Option<&Tokenizer>,
    config: &GenerationConfig,
    run: &RunOptions,
) -> Result<Prepared, EngineError> {
    let mut ids = match &request.input {
        Input::Ids(ids) => ids.clone(),
        Input::Text(text) => tokenizer.ok_or(EngineError::NoTokenizer)?.encode(text)?,
    };
    let encoder_decoder = model.family().is_encoder_decoder();
    if ids.is_empty() && !encoder_decoder {
        // generate() without input begins with BOS (generation.md 3).
        ids.extend(config.bos_token_id);
    }
    if ids.is_empty() {
        return Err(EngineError::EmptyInput);
    }
    model.check_token_ids(&ids)?;

    // A decoder-only prompt must leave a position for a new token.
    let positions = model.max_positions().map_or(usize::MAX, |n| if encoder_decoder { n } else { n.saturating_sub(1) });
    let mut limit = run.max_source_length.unwrap_or(usize::MAX);
    if run.truncate {
        limit = limit.min(positions);
        // A decoder-only prompt shares the positions with what is to be generated.
        while !encoder_decoder && limit > 1 && config.lengths(limit).is_err() {
            limit -= 1;
        }
    }
    let truncated = ids.len() > limit;
    if truncated {
        let ends = ids.last().is_some_and(|id| config.is_eos(*id));
        truncate(&mut ids, limit.max(1), encoder_decoder && ends);
    }
    if ids.len() > positions {
        return Err(EngineError::InputTooLong { tokens: ids.len(), limit: positions });
    }
    let prompt_tokens = ids.len();
    let (source, prompt) = match (encoder_decoder, config.decoder_start_token_id) {
        (true, Some(start)) => (ids, vec![start]),
        _ => (Vec::new(), ids),
    };
    let lengths = config.lengths(prompt.len())?;
    Ok(Prepared { request: index, ordinal: request.ordinal, source, prompt, lengths, prompt_tokens, truncated })
}

/// Keeps the first `limit` ids; a final EOS that the encoder expects stays the last one.
fn truncate(ids: &mut Vec<u32>, limit: usize, keep_last: bool) {
    let last = ids[ids.len() - 1];
    ids.truncate(limit);
    if keep_last && let Some(end) = ids.last_mut() {
        *end = last;
    }
}
