//! What a run is given, one by one, and what it gives back.

use serde::Serialize;

/// One input of a generation run.
#[derive(Clone, Debug, PartialEq)]
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
}

impl Request {
    /// A request without a prefix.
    pub fn new(ordinal: u64, input: impl Into<Input>) -> Self {
        Self { ordinal, input: input.into(), prefix: None }
    }
}

/// The source of a request: encoder input, or the prompt of a decoder-only model.
#[derive(Clone, Debug, PartialEq)]
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
    /// `[new ids][source ids]`, if it was asked for ([`RunOptions::alignment`]): the cross-attention weights, averaged over heads, of
    /// the position that predicts each new id. A row sums to 1.
    pub alignment: Option<Vec<Vec<f32>>>,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// An end-of-sequence id was produced.
    Eos,
    /// The maximum length was reached.
    Length,
    /// A stop string or a stop criterion ended it.
    Stop,
    /// The run was cancelled before the request was done; this is what there was by then. In beam search all sequences of such a request say
    /// so, finished ones too: the order among them was not settled.
    Cancelled,
}
