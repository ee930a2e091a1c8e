//! What users plug into a search: their own logits processors, stop criteria and source of noise.
//!
//! They run on the host, but for [`DeviceProcessor`]s. A search without them never reads a row of scores back; one with them reads what they
//! need, which the statistics of a step show.
//!
//! ```
//! use std::sync::Arc;
//!
//! use elgen_search::hooks::{AllowedTokens, Hooks, SequenceView, StopCriterion};
//! use elgen_search::{GenerationOptions, ModelLimits, twin};
//!
//! /// Ends a sequence behind two equal tokens.
//! #[derive(Debug)]
//! struct Stutter;
//!
//! impl StopCriterion for Stutter {
//!     fn should_stop(&self, sequence: &SequenceView<'_>) -> bool {
//!         matches!(sequence.token_ids, [.., a, b] if a == b)
//!     }
//! }
//!
//! let hooks = Hooks {
//!     // Only even ids.
//!     processors: vec![Arc::new(AllowedTokens::new(|_, _| (0..50).step_by(2).collect()))],
//!     stop_criteria: vec![Arc::new(Stutter)],
//!     ..Hooks::default()
//! };
//! let model = twin::ToyModel { vocab: 50, seed: 7 };
//! let limits = ModelLimits { vocab_size: model.vocab, max_position_embeddings: None, is_encoder_decoder: false };
//! let asked = GenerationOptions { num_beams: Some(3), max_new_tokens: Some(10), ..Default::default() };
//! let (config, _) = asked.resolve(&limits)?;
//! let input = twin::TwinInput { ordinal: 0, prompt: &[2], source: &[2] };
//! let found = twin::generate_with(&config, config.lengths(1)?, input, &hooks, &mut |rows| {
//!     rows.iter().map(|row| model.logits(row.tokens)).collect()
//! })?;
//! assert!(found[0].token_ids.iter().all(|id| id % 2 == 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::sync::Arc;

pub use crate::device_processor::{DeviceProcessor, Effect};

/// A decoder sequence as a hook sees it.
#[derive(Debug, Clone, Copy)]
pub struct SequenceView<'a> {
    /// The input's number among all of a run.
    pub ordinal: u64,
    /// Which beam or sample of its sentence it is; for a candidate of beam search, which beam it continues.
    pub row: usize,
    /// Encoder input ids; the prompt of a decoder-only model.
    pub source: &'a [u32],
    /// Leading ids of `token_ids` that are the decoder's prompt.
    pub prompt_len: usize,
    /// The whole decoder sequence, prompt included.
    pub token_ids: &'a [u32],
}

/// Where a [`LogitsProcessor`] runs among the built-in ones (docs/generation.md §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// In the place of `prefix_allowed_tokens_fn` (row 10): behind bans and minimum lengths, before forcing.
    Constrain,
    /// In the place of a user's processors (row 16): behind all built-in processors, before the warpers of sampling.
    #[default]
    Last,
}

/// What a hook could not do. It ends the batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input {ordinal}: {message}")]
pub struct HookError {
    /// The input's number among all of a run.
    pub ordinal: u64,
    /// What is wrong, on one line.
    pub message: String,
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

    /// Changes the scores `[sequences, V]` of sequences that compete with each other: the beams of a sentence, those of a
    /// group in diverse beam search, or one sequence. This is what a search calls; it calls [`LogitsProcessor::process`]
    /// for each unless a processor must see them together or can fail.
    ///
    /// # Errors
    /// The processor's own; the batch fails with it.
    fn process_all(&self, sequences: &[SequenceView<'_>], scores: &mut [f32]) -> Result<(), HookError> {
        let vocab = scores.len() / sequences.len().max(1);
        for (sequence, row) in sequences.iter().zip(scores.chunks_mut(vocab.max(1))) {
            self.process(sequence, row);
        }
        Ok(())
    }
}

/// A user-written reason to stop.
///
/// It is asked about every sequence that has a new token which is no EOS. In beam search these are all candidates, in order
/// of rank, and one that stops is treated like one that ended; diverse beam search, as in Hugging Face 4.55, goes on until
/// all beams of a sentence stop at once, and then returns them with the finished ones.
pub trait StopCriterion: fmt::Debug + Send + Sync {
    /// Whether `sequence`, whose last id was just generated, ends here.
    fn should_stop(&self, sequence: &SequenceView<'_>) -> bool;
}

/// Exponentially distributed noise from outside, instead of the counter-based generator.
pub trait NoiseSource: fmt::Debug + Send + Sync {
    /// Fills `out` with the noise of new token number `step` of sample or beam `row` of input `ordinal`: a draw takes the
    /// token with the largest `p / e`. Values must be above 0.
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
    /// Logits processors that run on the device, in their order; not together with `processors`.
    pub device_processors: Vec<Arc<dyn DeviceProcessor>>,
}

impl Hooks {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processors.is_empty()
            && self.stop_criteria.is_empty()
            && self.noise.is_none()
            && self.device_processors.is_empty()
    }
}

/// From an input's ordinal and a decoder sequence to the ids that may follow.
type Allow = dyn Fn(u64, &[u32]) -> Vec<u32> + Send + Sync;

/// Hugging Face's `prefix_allowed_tokens_fn` (§4 row 10): a function tells which ids may follow a sequence, all others get
/// −inf. If that leaves no finite score to any beam of a sentence, the allowed ids get 0.
///
/// No allowed id at all is an error, and ids outside the vocabulary are ignored.
pub struct AllowedTokens {
    allow: Box<Allow>,
}

impl AllowedTokens {
    /// `allow` is given an input's ordinal and a decoder sequence, prompt included.
    pub fn new(allow: impl Fn(u64, &[u32]) -> Vec<u32> + Send + Sync + 'static) -> Self {
        Self { allow: Box::new(allow) }
    }
}

impl fmt::Debug for AllowedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AllowedTokens").finish_non_exhaustive()
    }
}

impl LogitsProcessor for AllowedTokens {
    fn stage(&self) -> Stage {
        Stage::Constrain
    }

    fn process(&self, sequence: &SequenceView<'_>, scores: &mut [f32]) {
        if self.process_all(std::slice::from_ref(sequence), scores).is_err() {
            scores.fill(f32::NEG_INFINITY);
        }
    }

    fn process_all(&self, sequences: &[SequenceView<'_>], scores: &mut [f32]) -> Result<(), HookError> {
        let vocab = (scores.len() / sequences.len().max(1)).max(1);
        let mut allowed = Vec::with_capacity(sequences.len());
        let mut satisfiable = false;
        for (sequence, row) in sequences.iter().zip(scores.chunks_mut(vocab)) {
            let ids = (self.allow)(sequence.ordinal, sequence.token_ids);
            if ids.is_empty() {
                let message = format!("no token is allowed behind the sequence {:?}", sequence.token_ids);
                return Err(HookError { ordinal: sequence.ordinal, message });
            }
            let kept: Vec<(u32, f32)> = ids.iter().filter_map(|&id| Some((id, *row.get(id as usize)?))).collect();
            row.fill(f32::NEG_INFINITY);
            for (id, score) in &kept {
                row[*id as usize] = *score;
                satisfiable |= *score != f32::NEG_INFINITY;
            }
            allowed.push(kept);
        }
        if !satisfiable {
            for (kept, row) in allowed.iter().zip(scores.chunks_mut(vocab)) {
                for (id, _) in kept {
                    row[*id as usize] = 0.0;
                }
            }
        }
        Ok(())
    }
}
