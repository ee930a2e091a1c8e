//! What a run is given, one by one, and what it gives back.

use std::sync::Arc;
use std::time::Instant;

use elgen_search::{FinishReason, GenerationConfig, Hooks};

use crate::cancel::CancelToken;

/// One input of a generation run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// The number of this input within the whole run: it seeds the random numbers of its samples, so a result does not depend
    /// on how inputs are batched.
    pub ordinal: u64,
    /// The source text or ids.
    pub input: Input,
    /// Ids that the output is made to begin with. Encoder-decoder models: they follow the decoder start token (which is not
    /// doubled if they begin with it). Decoder-only models: they follow the input. A text is encoded without special tokens.
    /// The prefix is part of the decoder's prompt: it is not in the results, and `max_length` counts it.
    pub prefix: Option<Input>,
    /// What is this request's own.
    pub options: RequestOptions,
}

impl Request {
    /// A request without a prefix and options of its own.
    pub fn new(ordinal: u64, input: impl Into<Input>) -> Self {
        Self { ordinal, input: input.into(), prefix: None, options: RequestOptions::default() }
    }

    /// The same with ids, or a text, that the output is made to begin with.
    pub fn with_prefix(self, prefix: impl Into<Input>) -> Self {
        Self { prefix: Some(prefix.into()), ..self }
    }

    /// The same with options of its own.
    pub fn with_options(self, options: RequestOptions) -> Self {
        Self { options, ..self }
    }
}

/// What a request has of its own; what it leaves open is the run's. Requests with equal `config` and `hooks` share batches.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RequestOptions {
    /// Generation options instead of the run's. Where they do not fit the model or the run, the request fails alone.
    pub config: Option<Arc<GenerationConfig>>,
    /// Logits processors, stop criteria and noise instead of the run's ([`crate::RunOptions::hooks`]).
    pub hooks: Option<Arc<Hooks>>,
    /// Ends this request after the current step, as [`crate::RunOptions::cancel`] ends all: it gets what there is
    /// ([`FinishReason::Cancelled`]), or [`crate::EngineError::Cancelled`] if it had no token yet. The others of its batch go on.
    pub cancel: CancelToken,
    /// Ends this request in the same way after the step in which this moment passes; `None`: [`crate::RunOptions::deadline`].
    pub deadline: Option<Instant>,
}

impl RequestOptions {
    /// The same with these generation options.
    pub fn with_config(self, config: impl Into<Arc<GenerationConfig>>) -> Self {
        Self { config: Some(config.into()), ..self }
    }

    /// The same with these hooks.
    pub fn with_hooks(self, hooks: impl Into<Arc<Hooks>>) -> Self {
        Self { hooks: Some(hooks.into()), ..self }
    }

    /// The same with a switch that ends the request.
    pub fn with_cancel(self, cancel: CancelToken) -> Self {
        Self { cancel, ..self }
    }

    /// The same with a moment that ends the request.
    pub fn with_deadline(self, deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..self }
    }
}

/// The source of a request: encoder input, or the prompt of a decoder-only model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Input {
    /// Text, encoded by the model's tokenizer with its special tokens.
    Text(String),
    /// Token ids, taken as they are.
    Ids(Vec<u32>),
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u32>> for Input {
    fn from(ids: Vec<u32>) -> Self {
        Self::Ids(ids)
    }
}

/// The result of one request.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Generation {
    /// `num_return_sequences` hypotheses, best first (samples: in draw order).
    pub sequences: Vec<Sequence>,
    /// Number of input ids after truncation; for a decoder-only model those of the prefix too.
    pub prompt_tokens: usize,
    /// True if the source was cut to fit.
    pub truncated: bool,
}

/// One generated sequence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Sequence {
    /// The new ids: after the decoder start token or the prompt, and after the prefix, up to and including EOS.
    pub token_ids: Vec<u32>,
    /// For each new id, its log-probability after the processors.
    pub token_logprobs: Vec<f32>,
    /// The decoded text without special tokens; `None` for a model without a tokenizer.
    pub text: Option<String>,
    /// Beam modes: Hugging Face's `sequences_scores`; otherwise the sum of the new tokens' log-probabilities.
    pub score: f32,
    /// Why the sequence ended.
    pub finish_reason: FinishReason,
    /// `[new ids][source ids]`, if it was asked for ([`crate::RunOptions::alignment`]): the cross-attention weights, averaged over heads, of
    /// the position that predicts each new id. A row sums to 1.
    pub alignment: Option<Vec<Vec<f32>>>,
}

impl Generation {
    /// Sequences of an input of `prompt_tokens` ids that was not cut.
    pub fn new(sequences: Vec<Sequence>, prompt_tokens: usize) -> Self {
        Self { sequences, prompt_tokens, truncated: false }
    }
}

impl Sequence {
    /// A sequence without a text and an alignment.
    pub fn new(token_ids: Vec<u32>, token_logprobs: Vec<f32>, score: f32, finish_reason: FinishReason) -> Self {
        Self { token_ids, token_logprobs, text: None, score, finish_reason, alignment: None }
    }

    /// The same with its text.
    pub fn with_text(self, text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), ..self }
    }
}
