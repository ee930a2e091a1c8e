//! What users plug into a search: their own logits processors, stop criteria and source of noise.
//!
//! They run on the host. A search without them never reads a row of scores back; one with them reads what they need, which
//! the statistics of a step show.

use std::fmt;
use std::sync::Arc;

/// A decoder sequence as a hook sees it.
#[derive(Debug, Clone, Copy)]
pub struct SequenceView<'a> {
    /// The input's number among all of a run.
    pub ordinal: u64,
    /// Which beam or sample of its sentence it is.
    pub row: usize,
    /// Encoder input ids; the prompt of a decoder-only model.
    pub source: &'a [u32],
    /// Leading ids of `token_ids` that are the decoder's prompt.
    pub prompt_len: usize,
    /// The whole decoder sequence, prompt included.
    pub token_ids: &'a [u32],
}

/// Where a [`LogitsProcessor`] runs among the built-in ones (generation semantics §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// In the place of `prefix_allowed_tokens_fn` (row 10): behind bans and minimum lengths, before forcing.
    Constrain,
    /// In the place of a user's processors (row 16): behind all built-in processors, before the warpers of sampling.
    #[default]
    Last,
}

/// A user-written logits processor.
pub trait LogitsProcessor: fmt::Debug + Send + Sync {
    /// Where it runs.
    fn stage(&self) -> Stage {
        Stage::Last
    }

    /// Changes the scores of the token that follows `sequence`, one per id of the vocabulary: logits in greedy search and
    /// sampling, log-probabilities in beam search.
    fn process(&self, sequence: &SequenceView<'_>, scores: &mut [f32]);
}

/// A user-written reason to stop.
pub trait StopCriterion: fmt::Debug + Send + Sync {
    /// Whether `sequence`, whose last id was just generated, ends here.
    fn should_stop(&self, sequence: &SequenceView<'_>) -> bool;
}

/// Exponentially distributed noise from outside, instead of the counter-based generator.
pub trait NoiseSource: fmt::Debug + Send + Sync {
    /// Fills `out` with the noise of new token number `step` of sample or beam `row` of input `ordinal`: a draw takes the
    /// token with the largest `p / e`.
    fn exponential(&self, ordinal: u64, row: usize, step: usize, out: &mut [f32]);
}

/// What users plugged in; empty by default.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Logits processors, in the order in which those of a [`Stage`] run.
    pub processors: Vec<Arc<dyn LogitsProcessor>>,
    /// A sequence ends as soon as one of these says so.
    pub stop_criteria: Vec<Arc<dyn StopCriterion>>,
    /// Noise of sampling.
    pub noise: Option<Arc<dyn NoiseSource>>,
}

impl Hooks {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processors.is_empty() && self.stop_criteria.is_empty() && self.noise.is_none()
    }
}
