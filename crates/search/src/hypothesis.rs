//! What a search returns.

use serde::{Deserialize, Serialize};

/// Why a hypothesis ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FinishReason {
    /// Its last token is one of `eos_token_id`.
    Eos,
    /// It reached `max_length` (or `max_new_tokens`).
    Length,
    /// A stop string or a stop criterion ended it.
    Stop,
    /// The search was cancelled before the sentence was done, or the deadline of its request passed; this is what there was by then. In
    /// beam search all sequences of such a sentence say so, finished ones too: the order among them was not settled.
    Cancelled,
}

/// One returned sequence of one sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The new ids: behind the prompt or the decoder start token, up to and including the EOS that ended them.
    pub token_ids: Vec<u32>,
    /// For each new id, its log-probability after the processors. Beam search, which masks after the log-softmax, does not
    /// renormalise (Hugging Face's transition scores); greedy and sampling do, the score they sum to being ours.
    pub token_logprobs: Vec<f32>,
    /// Beam search: `sequences_scores`, the summed log-probability over `length ^ length_penalty`. Otherwise the plain sum.
    pub score: f32,
    /// Why it ended.
    pub finish_reason: FinishReason,
}
