//! From requests to sentences: tokens, truncation, lengths. Each request fails alone.

use elgen_models::{ModelConfig, Tokenizer};
use elgen_search::{GenerationConfig, Lengths, OptionError, OptionProblem};

use crate::backoff::Item;
use crate::cancel::Stop;
use crate::error::EngineError;
use crate::options::RunOptions;
use crate::request::{Input, Request};

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
    pub(crate) stop: Stop,
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
    // What has more tokens than positions is refused, unless it is cut: a very long text need not be tokenised to its end for that.
    let is_cut = run.truncate || run.max_source_length.is_some();
    let mut ids = match (&request.input, tokenizer, model.max_positions().filter(|_| !is_cut)) {
        (Input::Text(text), Some(tokenizer), Some(limit)) => {
            tokenizer.encode_up_to(text, limit)?.ok_or(EngineError::TextTooLong { bytes: text.len(), limit })?
        }
        _ => encode(&request.input, tokenizer, Side::Source)?,
    };
    let prefix = request.prefix.as_ref().map_or(Ok(Vec::new()), |prefix| encode(prefix, tokenizer, Side::Prefix))?;
    let encoder_decoder = model.family().is_encoder_decoder;
    if ids.is_empty() && !encoder_decoder {
        // generate() without input begins with BOS (docs/generation.md §3).
        ids.extend(begin(config)?);
    }
    if ids.is_empty() {
        return Err(EngineError::EmptyInput);
    }
    model.check_token_ids(&ids)?;
    model.check_target_ids(&prefix)?;

    // A decoder-only prompt has its prefix behind it, which is never cut. A new token needs no position of its own: the last one is not fed.
    let behind = if encoder_decoder { 0 } else { prefix.len() };
    let positions = model.max_positions().map_or(usize::MAX, |positions| positions.saturating_sub(behind));
    let mut limit = run.max_source_length.unwrap_or(usize::MAX);
    if run.truncate {
        // No more than there is: where nothing else limits it, that is what the search below begins with.
        limit = limit.min(positions).min(ids.len());
        // A decoder-only prompt shares the positions with what is to be generated.
        while !encoder_decoder && limit > 1 && !config.leaves_room(limit + prefix.len()) {
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
    let own = &request.options;
    let stop = Stop::new(own.cancel.clone(), own.deadline.or(run.deadline));
    Ok(Prepared { request: index, ordinal: request.ordinal, source, prompt, lengths, cut_from, stop })
}

/// The id that stands for an empty prompt.
///
/// # Errors
/// The vocabulary does not hold it.
pub(crate) fn begin(config: &GenerationConfig) -> Result<Option<u32>, EngineError> {
    match config.bos_token_id {
        Some(id) if id as usize >= config.vocab_size => {
            let problem = OptionProblem::TokenOutsideVocabulary { id, vocab_size: config.vocab_size };
            Err(OptionError { option: "bos_token_id".into(), problem }.into())
        }
        found => Ok(found),
    }
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

#[cfg(test)]
mod tests {
    use elgen_search::{GenerationOptions, ModelLimits};

    use super::*;

    #[test]
    fn a_begin_id_outside_the_vocabulary_is_named_where_it_is_needed() {
        let limits = ModelLimits { vocab_size: 100, max_position_embeddings: None, is_encoder_decoder: false };
        let config = |bos| GenerationOptions { bos_token_id: bos, ..GenerationOptions::default() }.resolve(&limits);
        assert_eq!(begin(&config(Some(7)).unwrap().0).unwrap(), Some(7));
        assert_eq!(begin(&config(None).unwrap().0).unwrap(), None);
        let error = begin(&config(Some(u32::MAX)).unwrap().0).unwrap_err();
        assert_eq!(error.to_string(), "bos_token_id: token id -1 is outside the model's vocabulary of 100");
    }
}
