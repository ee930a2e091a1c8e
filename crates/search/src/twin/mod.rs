//! The definition of search, written to be read: on the CPU, one sentence at a time, full sequences instead of caches.
//!
//! What a batch on a device returns for a sentence is what [`generate`] returns for it. Section numbers are those of
//! the generation semantics of Hugging Face `generate()` 5.23. Three rules hold everywhere:
//!
//! * **Arithmetic is f32** (§10), sums over a vocabulary excepted: those are accumulated in f64 and rounded, which is what
//!   any order of f32 summation approximates. A device may differ from them in the last bits.
//! * **Scores are ordered by [`processors::ordered_key`]**: as floats, with −0 equal to 0 and NaN below everything.
//! * **Ties go to the lower index**: the lower token id, and among beams the lower beam before the lower id.

mod beam;
mod greedy;
pub mod processors;
pub mod random;
mod sampling;
mod toy;
mod trace;
mod warpers;

pub use toy::ToyModel;
pub use trace::{TraceEntry, backtrack};

use crate::config::{GenerationConfig, Lengths, Mode};
use crate::error::TwinError;
use crate::hooks::SequenceView;
use crate::hypothesis::{FinishReason, Hypothesis};

/// A sequence whose next token is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The whole decoder sequence, prompt included.
    pub tokens: &'a [u32],
}

/// The model as the twin sees it: for each row, the logits of the token that follows, one per id of the vocabulary.
pub type Step<'a> = dyn FnMut(&[Row<'_>]) -> Vec<Vec<f32>> + 'a;

/// Generates the sequences of one sentence.
///
/// `prompt` is the decoder's: the start token of an encoder-decoder, the text of a decoder-only model. `source` is what
/// processors of the source look at: an encoder's input, or the prompt once more. `ordinal` is the sentence's number
/// among all inputs of a run, which makes its random numbers its own whatever the batch. Returns `num_return_sequences`
/// hypotheses, for beam search the best first.
///
/// # Errors
/// The prompt is empty or fills `lengths`, or `step` gives rows or logits of the wrong number.
pub fn generate(
    config: &GenerationConfig,
    lengths: Lengths,
    prompt: &[u32],
    source: &[u32],
    ordinal: u64,
    step: &mut Step<'_>,
) -> Result<Vec<Hypothesis>, TwinError> {
    if prompt.is_empty() || prompt.len() >= lengths.max_length {
        return Err(TwinError::Prompt { prompt_len: prompt.len(), max_length: lengths.max_length });
    }
    let start = SequenceView { ordinal, row: 0, source, prompt_len: prompt.len(), token_ids: prompt };
    match config.mode {
        Mode::Greedy => greedy::generate(config, lengths, start, step),
        Mode::Sample => sampling::generate(config, lengths, start, step),
        Mode::Beam => beam::generate(config, lengths, start, step),
    }
}

/// Runs the model and checks that it kept the contract.
fn run_step(config: &GenerationConfig, rows: &[Row<'_>], step: &mut Step<'_>) -> Result<Vec<Vec<f32>>, TwinError> {
    let logits = step(rows);
    if logits.len() != rows.len() {
        return Err(TwinError::StepRows { expected: rows.len(), found: logits.len() });
    }
    match logits.iter().find(|row| row.len() != config.vocab_size) {
        Some(row) => Err(TwinError::StepVocabulary { expected: config.vocab_size, found: row.len() }),
        None => Ok(logits),
    }
}

fn finish_reason(config: &GenerationConfig, tokens: &[u32]) -> FinishReason {
    match tokens.last() {
        Some(&token) if config.is_eos(token) => FinishReason::Eos,
        _ => FinishReason::Length,
    }
}
