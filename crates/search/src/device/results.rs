//! From the device's trace and finished slots to hypotheses.

use bytemuck::{Pod, Zeroable};

use super::settings::{MASKED, NONE};
use super::{Result, Sentence};
use crate::config::GenerationConfig;
use crate::hypothesis::{FinishReason, Hypothesis};
use crate::twin::{TraceEntry, backtrack};

/// What one row did in one step; mirrors `Trace` in the shaders.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Trace {
    pub(super) token: u32,
    /// Beam of the step before, within the sentence.
    pub(super) parent: u32,
    pub(super) logprob: f32,
}

/// A finished hypothesis; mirrors `Slot` in `beam_step.wgsl`. Its last token stands here and not in the trace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Slot {
    /// With the length penalty.
    pub(super) score: f32,
    /// The number of the last token, from 0; `NONE` if nothing was put here.
    pub(super) step: u32,
    /// Beam of the step before that the last token continues.
    pub(super) parent: u32,
    pub(super) token: u32,
    pub(super) logprob: f32,
    pub(super) done: u32,
}

impl Slot {
    pub(super) const EMPTY: Self = Self { score: MASKED, step: NONE, parent: 0, token: 0, logprob: 0.0, done: 0 };
}

/// The best `num_return_sequences` slots of each sentence. `rows`: rows of the batch, the stride of the trace.
pub(super) fn beams(
    config: &GenerationConfig,
    trace: &[Trace],
    rows: usize,
    slots: &[Slot],
) -> Result<Vec<Vec<Hypothesis>>> {
    let width = config.num_beams;
    let mut sentences = Vec::with_capacity(rows / width);
    for (sentence, slots) in slots.chunks(width).enumerate() {
        // The two columns of the sentence's trace: the same parents, once with the tokens and once with the
        // log-probabilities.
        let own = || trace.chunks(rows).flat_map(|step| &step[sentence * width..(sentence + 1) * width]);
        let tokens: Vec<TraceEntry> = own().map(|t| TraceEntry { token: t.token, parent: t.parent }).collect();
        let logprobs: Vec<TraceEntry> =
            own().map(|t| TraceEntry { token: t.logprob.to_bits(), parent: t.parent }).collect();
        let mut found = Vec::with_capacity(config.num_return_sequences);
        for slot in &slots[..config.num_return_sequences] {
            let (mut token_ids, mut bits) = (Vec::new(), Vec::new());
            if slot.step != NONE {
                if slot.step > 0 {
                    let (step, row) = (slot.step as usize - 1, slot.parent as usize);
                    token_ids = backtrack(&tokens, width, step, row)?;
                    bits = backtrack(&logprobs, width, step, row)?;
                }
                token_ids.push(slot.token);
                bits.push(slot.logprob.to_bits());
            }
            let token_logprobs = bits.into_iter().map(f32::from_bits).collect();
            found.push(hypothesis(config, token_ids, token_logprobs, slot.score));
        }
        sentences.push(found);
    }
    Ok(sentences)
}

/// The sequences of greedy search and sampling, each in its own column of the trace.
pub(super) fn appended(
    config: &GenerationConfig,
    starts: &[Sentence],
    trace: &[Trace],
    rows: usize,
) -> Vec<Vec<Hypothesis>> {
    let width = config.rows_per_sentence();
    let sequence = |row: usize, new: usize| {
        let (mut token_ids, mut token_logprobs) = (Vec::new(), Vec::new());
        let mut score = 0.0;
        for entry in trace.iter().skip(row).step_by(rows).take(new) {
            token_ids.push(entry.token);
            token_logprobs.push(entry.logprob);
            score += entry.logprob;
            if config.is_eos(entry.token) {
                break;
            }
        }
        hypothesis(config, token_ids, token_logprobs, score)
    };
    let sentences = starts.iter().enumerate();
    sentences
        .map(|(s, start)| {
            let new = start.lengths.max_length.saturating_sub(start.prompt.len());
            (s * width..(s + 1) * width).map(|row| sequence(row, new)).collect()
        })
        .collect()
}

fn hypothesis(config: &GenerationConfig, token_ids: Vec<u32>, token_logprobs: Vec<f32>, score: f32) -> Hypothesis {
    let finish_reason = match token_ids.last() {
        Some(&token) if config.is_eos(token) => FinishReason::Eos,
        _ => FinishReason::Length,
    };
    Hypothesis { token_ids, token_logprobs, score, finish_reason }
}
