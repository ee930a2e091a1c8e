//! From requests to sentences: tokens, truncation, lengths. Each request fails alone.

use elgen_models::{ModelConfig, Tokenizer};
use elgen_search::{GenerationConfig, Lengths};

use crate::backoff::Item;
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
    /// Ids of the source before it was cut, if it was.
    pub(crate) cut_from: Option<usize>,
}

impl Prepared {
    /// Ids that may be generated.
    pub(crate) fn max_new(&self) -> usize {
        self.lengths.max_length - self.prompt.len()
    }

    /// The ids that processors of the source look at: for a decoder-only model the prompt (docs/generation.md §4).
    pub(crate) fn source_ids(&self) -> &[u32] {
        if self.source.is_empty() { &self.prompt } else { &self.source }
    }
}

impl Item for Prepared {
    /// Ids of the encoder input or of the prompt.
    fn input_len(&self) -> usize {
        self.source_ids().len()
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
    let mut ids = encode(&request.input, tokenizer, Side::Source)?;
    let prefix = request.prefix.as_ref().map_or(Ok(Vec::new()), |prefix| encode(prefix, tokenizer, Side::Prefix))?;
    let encoder_decoder = model.family().is_encoder_decoder();
    if ids.is_empty() && !encoder_decoder {
        // generate() without input begins with BOS (docs/generation.md §3).
        ids.extend(config.bos_token_id);
    }
    if ids.is_empty() {
        return Err(EngineError::EmptyInput);
    }
    model.check_token_ids(&ids)?;
    model.check_target_ids(&prefix)?;

    // A decoder-only prompt must leave a position for a new token, and its prefix is never cut.
    let behind = if encoder_decoder { 0 } else { 1 + prefix.len() };
    let positions = model.max_positions().map_or(usize::MAX, |positions| positions.saturating_sub(behind));
    let mut limit = run.max_source_length.unwrap_or(usize::MAX);
    if run.truncate {
        limit = limit.min(positions);
        // A decoder-only prompt shares the positions with what is to be generated.
        while !encoder_decoder && limit > 1 && config.lengths(limit + prefix.len()).is_err() {
            limit -= 1;
        }
    }
    let cut_from = (ids.len() > limit).then_some(ids.len());
    if cut_from.is_some() {
        let ends = ids.last().is_some_and(|id| config.is_eos(*id));
        truncate(&mut ids, limit.max(1), encoder_decoder && ends);
    }
    if ids.len() > positions {
        return Err(EngineError::InputTooLong { tokens: ids.len(), limit: positions });
    }
    let (source, prompt) = match (encoder_decoder, config.decoder_start_token_id) {
        (true, Some(start)) => (ids, with_start(start, prefix)),
        _ => {
            ids.extend(prefix);
            (Vec::new(), ids)
        }
    };
    let lengths = config.lengths(prompt.len())?;
    Ok(Prepared { request: index, ordinal: request.ordinal, source, prompt, lengths, cut_from })
}

/// What a text is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Side {
    /// The input, with the special tokens of the tokenizer's template.
    Source,
    /// The beginning of what a decoder writes, without special tokens.
    Prefix,
    /// All that an encoder-decoder's decoder writes, with the special tokens that a trained one adds.
    Labels,
}

/// The ids of an input.
pub(crate) fn encode(input: &Input, tokenizer: Option<&Tokenizer>, side: Side) -> Result<Vec<u32>, EngineError> {
    let text = match input {
        Input::Ids(ids) => return Ok(ids.clone()),
        Input::Text(text) => text,
    };
    let tokenizer = tokenizer.ok_or(EngineError::NoTokenizer)?;
    Ok(match side {
        Side::Source => tokenizer.encode(text)?,
        Side::Prefix => tokenizer.encode_target(text)?,
        Side::Labels => tokenizer.encode_labels(text)?,
    })
}

/// The start token and `ids`; it is not doubled where they begin with it (docs/generation.md §3).
pub(crate) fn with_start(start: u32, mut ids: Vec<u32>) -> Vec<u32> {
    if ids.first() != Some(&start) {
        ids.insert(0, start);
    }
    ids
}

/// Keeps the first `limit` ids; a final EOS that the encoder expects stays the last one.
pub(crate) fn truncate(ids: &mut Vec<u32>, limit: usize, keep_last: bool) {
    let last = ids[ids.len() - 1];
    ids.truncate(limit);
    if keep_last && let Some(end) = ids.last_mut() {
        *end = last;
    }
}
