//! Greedy search and sampling under the eyes of the host: it runs users' processors, applies stop criteria and reports the
//! tokens of each step. What a step appended comes with the read that tells which sentences are open.

use elgen_tensor::{Arena, Buffer, Class, Readback, Recorder, Rows, Tensor};

use super::host::logits_bytes;
use super::results::Trace;
use super::state::trace_bytes;
use super::{DeviceSearch, Found, NewToken, Result, Sentence, select};
use crate::config::GenerationConfig;
use crate::error::NotFinite;
use crate::hypothesis::{FinishReason, Hypothesis};

/// One row: a sample of a sentence, or its greedy text.
struct Sequence {
    /// Prompt included.
    tokens: Vec<u32>,
    logprobs: Vec<f32>,
    end: Option<FinishReason>,
    /// Its scores were not finite.
    failed: bool,
}

impl Sequence {
    fn is_over(&self) -> bool {
        self.failed || self.end.is_some()
    }
}

/// The sequences of a batch, and what a step is read with.
pub(super) struct HostRows {
    sequences: Vec<Sequence>,
    /// `[row of the batch]`: [`Trace`] of the step.
    step: Buffer,
    step_readback: Readback,
    /// Logits for users' processors.
    logits: Option<Readback>,
}

impl HostRows {
    /// Allocates or counts what the steps of `max_rows` rows are read with, and their uploads.
    pub(super) fn build(arena: &Arena, config: &GenerationConfig, max_rows: usize, logits: bool) -> Result<Self> {
        let (step, bytes) = (trace_bytes(max_rows, 1), logits_bytes(config, max_rows));
        if logits {
            arena.will_upload(bytes);
        }
        Ok(Self {
            sequences: Vec::new(),
            step: arena.buffer("new tokens", Class::Activations, step)?,
            step_readback: arena.readback("new tokens", step)?,
            logits: if logits { Some(arena.readback("logits", bytes)?) } else { None },
        })
    }

    /// Whether it reads logits.
    pub(super) fn reads_logits(&self) -> bool {
        self.logits.is_some()
    }

    pub(super) fn begin(&mut self, starts: &[Sentence], width: usize) {
        let rows = starts.iter().flat_map(|start| std::iter::repeat_n(&start.prompt, width));
        let start =
            |prompt: &Vec<u32>| Sequence { tokens: prompt.clone(), logprobs: Vec::new(), end: None, failed: false };
        self.sequences = rows.map(start).collect();
    }

    /// Takes a sentence no further.
    pub(super) fn cancel(&mut self, sentence: usize, width: usize) {
        for row in self.sequences.iter_mut().skip(sentence * width).take(width) {
            row.end.get_or_insert(FinishReason::Cancelled);
        }
    }

    pub(super) fn finish(&self, starts: &[Sentence], width: usize) -> Vec<Found> {
        let sentences = self.sequences.chunks(width).zip(starts);
        sentences
            .map(|(rows, start)| {
                let hypothesis = |row: &Sequence| Hypothesis {
                    token_ids: row.tokens[start.prompt.len()..].to_vec(),
                    token_logprobs: row.logprobs.clone(),
                    score: row.logprobs.iter().sum(),
                    finish_reason: row.end.unwrap_or(FinishReason::Cancelled),
                };
                if rows.iter().any(|row| row.failed) {
                    return Err(NotFinite);
                }
                Ok(rows.iter().map(hypothesis).collect())
            })
            .collect()
    }
}

impl DeviceSearch {
    /// [`DeviceSearch::step`] with sequences on the host.
    pub(super) fn step_rows(
        &mut self,
        host: &mut HostRows,
        rec: &mut Recorder,
        rows: &mut Rows,
        logits: &Tensor,
    ) -> Result<()> {
        if let Some(readback) = &host.logits {
            let bytes = logits_bytes(&self.config, rows.count());
            let mut scores: Vec<f32> =
                rec.submit_and_see(readback, &logits.buffer, bytes, bytemuck::pod_collect_to_vec)?;
            for (row, scores) in rows.active_rows().iter().zip(scores.chunks_mut(logits.ld())) {
                let sequence = &host.sequences[*row as usize];
                if !sequence.is_over() {
                    let task = self.task(*row as usize / self.width());
                    let scores = &mut scores[..self.config.vocab_size];
                    task.process(*row as usize % self.width(), &[&sequence.tokens], scores)?;
                }
            }
            rec.write(&logits.buffer, 0, bytemuck::cast_slice(&scores))?;
        } else if self.processes {
            self.process(rec, rows, logits)?;
        }
        self.run_processors(rec, rows, logits)?;
        self.warp(rec, rows, logits)?;
        select::select(rec, self, rows, logits)?;
        let all = self.batch_rows();
        rec.copy(&self.buffers.trace, trace_bytes(all, self.steps), &host.step, 0, trace_bytes(all, 1))?;
        let entries: Vec<Trace> =
            rec.submit_and_see(&host.step_readback, &host.step, trace_bytes(all, 1), bytemuck::pod_collect_to_vec)?;
        for row in rows.active_rows().iter().map(|row| *row as usize) {
            let sequence = &mut host.sequences[row];
            if sequence.is_over() {
                continue;
            }
            let (sentence, sample, entry) = (row / self.width(), row % self.width(), entries[row]);
            if !entry.logprob.is_finite() {
                sequence.failed = true;
                continue;
            }
            sequence.tokens.push(entry.token);
            sequence.logprobs.push(entry.logprob);
            sequence.end = self.task(sentence).end(sample, &sequence.tokens);
            if self.report_tokens {
                self.new_tokens.push(NewToken { sentence, row: sample, token: entry.token, logprob: entry.logprob });
            }
        }
        let width = self.width();
        self.done.clear();
        self.done.extend(host.sequences.chunks(width).map(|rows| rows.iter().all(Sequence::is_over)));
        // What ended is not computed on; the last rows of a batch stay, for a batch has at least one.
        if !self.done.iter().all(|done| *done) {
            rows.retain(rec, |row| !host.sequences[row as usize].is_over())?;
        }
        Ok(())
    }
}
