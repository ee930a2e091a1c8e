//! From the device's trace and finished slots to hypotheses.

use bytemuck::{Pod, Zeroable};

use super::settings::{MASKED, NONE};
use super::{Found, Result, Running, Sentence};
use crate::config::GenerationConfig;
use crate::hypothesis::{FinishReason, Hypothesis};
use crate::twin::beam::{self, best_so_far, finite};
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

/// What the device wrote in a batch of beam search.
pub(super) struct Beams<'a> {
    pub(super) trace: &'a [Trace],
    /// Rows of the batch, the stride of the trace.
    pub(super) rows: usize,
    /// Steps of the batch.
    pub(super) steps: usize,
    /// `[row]`
    pub(super) slots: &'a [Slot],
    /// `[row]`
    pub(super) running: &'a [Running],
}

/// The best `num_return_sequences` hypotheses of each sentence: slots where it is done, else the best so far.
pub(super) fn beams(config: &GenerationConfig, batch: &Beams<'_>, done: &[bool]) -> Result<Vec<Found>> {
    let width = config.num_beams;
    let mut sentences = Vec::with_capacity(done.len());
    for (sentence, done) in done.iter().enumerate() {
        let own = sentence * width..(sentence + 1) * width;
        let (slots, running) = (&batch.slots[own.clone()], &batch.running[own.clone()]);
        // The two columns of the sentence's trace: the same parents, once with the tokens and once with the
        // log-probabilities.
        let entries = || batch.trace.chunks(batch.rows).flat_map(|step| &step[own.clone()]);
        let columns = Columns {
            tokens: entries().map(|t| TraceEntry { token: t.token, parent: t.parent }).collect(),
            logprobs: entries().map(|t| TraceEntry { token: t.logprob.to_bits(), parent: t.parent }).collect(),
            width,
        };
        sentences.push(if *done {
            let best = slots[..config.num_return_sequences].iter();
            let found = best.map(|slot| {
                let (token_ids, token_logprobs) = columns.of_slot(slot)?;
                Ok(hypothesis(config, token_ids, token_logprobs, slot.score))
            });
            finite(found.collect::<Result<_>>()?)
        } else {
            let finished = slots.iter().filter(|slot| slot.done == 1).map(|slot| (slot.score, columns.of_slot(slot)));
            let grown = running.iter().enumerate().filter(|(_, row)| row.grows == 1);
            let grown = grown.map(|(place, row)| beam::Running {
                score: row.score,
                new_tokens: batch.steps,
                sequence: columns.sequence(batch.steps - 1, place),
            });
            let best = best_so_far(config, finished, grown).into_iter().map(|(score, sequence)| {
                let (token_ids, token_logprobs) = sequence?;
                Ok(Hypothesis { token_ids, token_logprobs, score, finish_reason: FinishReason::Cancelled })
            });
            Ok(best.collect::<Result<_>>()?)
        });
    }
    Ok(sentences)
}

/// The trace of one sentence.
struct Columns {
    tokens: Vec<TraceEntry>,
    logprobs: Vec<TraceEntry>,
    width: usize,
}

impl Columns {
    /// Ids and log-probabilities of the row `row` behind step `step`.
    fn sequence(&self, step: usize, row: usize) -> Result<(Vec<u32>, Vec<f32>)> {
        let bits = backtrack(&self.logprobs, self.width, step, row)?;
        Ok((backtrack(&self.tokens, self.width, step, row)?, bits.into_iter().map(f32::from_bits).collect()))
    }

    /// Those of a slot.
    fn of_slot(&self, slot: &Slot) -> Result<(Vec<u32>, Vec<f32>)> {
        let (mut ids, mut logprobs) = match slot.step {
            NONE => return Ok((Vec::new(), Vec::new())),
            0 => (Vec::new(), Vec::new()),
            step => self.sequence(step as usize - 1, slot.parent as usize)?,
        };
        ids.push(slot.token);
        logprobs.push(slot.logprob);
        Ok((ids, logprobs))
    }
}

/// The sequences of greedy search and sampling, each in its own column of the trace.
pub(super) fn appended(config: &GenerationConfig, starts: &[Sentence], trace: &[Trace], rows: usize) -> Vec<Found> {
    let width = config.rows_per_sentence();
    let sequence = |row: usize, new: usize| {
        let (mut token_ids, mut token_logprobs) = (Vec::new(), Vec::new());
        let mut score = 0.0;
        for entry in trace.iter().skip(row).step_by(rows).take(new) {
            token_ids.push(entry.token);
            token_logprobs.push(entry.logprob);
            score += entry.logprob;
            if config.is_eos(entry.token) || !entry.logprob.is_finite() {
                break;
            }
        }
        let reached = token_ids.len() == new;
        let found = hypothesis(config, token_ids, token_logprobs, score);
        match found.finish_reason {
            FinishReason::Length if !reached => Hypothesis { finish_reason: FinishReason::Cancelled, ..found },
            _ => found,
        }
    };
    let sentences = starts.iter().enumerate();
    sentences
        .map(|(s, start)| {
            let new = start.lengths.max_length.saturating_sub(start.prompt.len());
            finite((s * width..(s + 1) * width).map(|row| sequence(row, new)).collect())
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
