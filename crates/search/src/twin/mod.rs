//! The definition of search, written to be read: on the CPU, one sentence at a time, full sequences instead of caches.
//!
//! What a batch on a device returns for a sentence is what [`generate`] returns for it. Section numbers are those of
//! docs/generation.md: the semantics of Hugging Face `generate()` 5.23, and of 4.55 for diverse beam search. Three rules
//! hold everywhere:
//!
//! * **Arithmetic is f32** (§10), sums over a vocabulary excepted: those are accumulated in f64 and rounded, which is what
//!   any order of f32 summation approximates. A device may differ from them in the last bits.
//! * **Scores are ordered by [`processors::ordered_key`]**: as floats, with −0 equal to 0 and NaN below everything.
//! * **Ties go to the lower index**: the lower token id, and among beams the lower beam before the lower id.
//!
//! Where the host must take part in a search on a device (users' processors, stop criteria with beams, diverse beams), it
//! runs this code.

pub(crate) mod beam;
mod greedy;
pub(crate) mod groups;
pub mod processors;
pub mod random;
mod sampling;
pub(crate) mod task;
mod toy;
mod trace;
mod warpers;

pub use toy::ToyModel;
pub use trace::{TraceEntry, backtrack};

use crate::config::{GenerationConfig, Lengths, Mode};
use crate::error::TwinError;
use crate::hooks::Hooks;
use crate::hypothesis::Hypothesis;
use task::Task;

/// A sequence whose next token is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The whole decoder sequence, prompt included.
    pub tokens: &'a [u32],
}

/// The model as the twin sees it: for each row, the logits of the token that follows, one per id of the vocabulary.
pub type TwinStep<'a> = dyn FnMut(&[Row<'_>]) -> Vec<Vec<f32>> + 'a;

/// What a sentence starts from.
#[derive(Debug, Clone, Copy)]
pub struct TwinInput<'a> {
    /// The sentence's number among all inputs of a run, which makes its random numbers its own whatever the batch.
    pub ordinal: u64,
    /// The decoder's prompt: the start token of an encoder-decoder, the text of a decoder-only model.
    pub prompt: &'a [u32],
    /// Encoder input ids; the prompt of a decoder-only model.
    pub source: &'a [u32],
}

/// Generates the sequences of one sentence without hooks; the prompt stands for its source. See [`generate_with`].
///
/// # Errors
/// As [`generate_with`].
pub fn generate(
    config: &GenerationConfig,
    lengths: Lengths,
    prompt: &[u32],
    ordinal: u64,
    step: &mut TwinStep<'_>,
) -> Result<Vec<Hypothesis>, TwinError> {
    generate_with(config, lengths, TwinInput { ordinal, prompt, source: prompt }, &Hooks::default(), step)
}

/// Generates the sequences of one sentence: `num_return_sequences` hypotheses, for beam search the best first.
///
/// # Errors
/// Options that cannot be run, the prompt is empty or fills `lengths`, `step` gives rows or logits of the wrong number, a hook failed or needs a device.
pub fn generate_with(
    config: &GenerationConfig,
    lengths: Lengths,
    input: TwinInput<'_>,
    hooks: &Hooks,
    step: &mut TwinStep<'_>,
) -> Result<Vec<Hypothesis>, TwinError> {
    let TwinInput { ordinal, prompt, source } = input;
    config.check_fields()?;
    if prompt.is_empty() || prompt.len() >= lengths.max_length {
        return Err(TwinError::Prompt { prompt_len: prompt.len(), max_length: lengths.max_length });
    }
    if let Some(processor) = hooks.device_processors.first() {
        return Err(TwinError::DeviceProcessor { name: processor.name().to_owned() });
    }
    let task = Task { config, lengths, ordinal, source, prompt_len: prompt.len(), hooks };
    match config.mode {
        Mode::Greedy => greedy::generate(&task, prompt, step),
        Mode::Sample => sampling::generate(&task, prompt, step),
        Mode::Beam | Mode::BeamSample | Mode::DiverseBeam => beam::generate(&task, prompt, step),
    }
}

/// Runs the model and checks that it kept the contract.
fn run_step(config: &GenerationConfig, rows: &[Row<'_>], step: &mut TwinStep<'_>) -> Result<Vec<Vec<f32>>, TwinError> {
    let logits = step(rows);
    if logits.len() != rows.len() {
        return Err(TwinError::StepRows { expected: rows.len(), found: logits.len() });
    }
    match logits.iter().find(|row| row.len() != config.vocab_size) {
        Some(row) => Err(TwinError::StepVocabulary { expected: config.vocab_size, found: row.len() }),
        None => Ok(logits),
    }
}
