//! Diverse beam search (§9): groups of beams, searched one behind the other in every step, of which each avoids the tokens
//! that the earlier ones chose.
//!
//! This is `group_beam_search` of Hugging Face transformers 4.55 with its older beam search (§6): each group keeps a heap
//! of finished hypotheses. Heap scores are f64, as there.

use super::beam::{Ask, Beam, Rank};
use super::task::Task;
use crate::config::GenerationConfig;
use crate::error::{NotFinite, TwinError};
use crate::hypothesis::{FinishReason, Hypothesis};
use crate::options::EarlyStopping;

#[derive(Clone)]
struct Finished {
    /// The score with the length penalty.
    score: f64,
    beam: Beam,
    reason: FinishReason,
}

/// A group's finished hypotheses.
#[derive(Clone)]
struct Heap {
    finished: Vec<Finished>,
    /// Of the finished ones, once there are any.
    worst: f64,
    done: bool,
}

impl Heap {
    /// A heap holds as many as the group has beams. What comes later must be better than the worst, which makes room; of
    /// several worst ones the first.
    fn add(&mut self, size: usize, new: Finished) {
        if self.finished.len() >= size && new.score <= self.worst {
            return;
        }
        self.finished.push(new);
        if self.finished.len() > size {
            let worst = |heap: &Self| {
                let scores = heap.finished.iter().enumerate();
                scores.min_by(|a, b| a.1.score.total_cmp(&b.1.score)).map_or((0, 0.0), |(at, one)| (at, one.score))
            };
            self.finished.remove(worst(self).0);
            self.worst = worst(self).1;
        } else {
            self.worst = self.finished.iter().map(|one| one.score).fold(self.worst, f64::min);
        }
    }

    /// Whether nothing that is still running can enter. `best`: the best candidate of the step, ended ones included.
    fn is_settled(&self, task: &Task<'_>, size: usize, best: f64, length: usize) -> bool {
        let config = task.config;
        if self.finished.len() < size {
            return false;
        }
        let length = match config.early_stopping {
            EarlyStopping::True => return true,
            EarlyStopping::Never if config.length_penalty > 0.0 => task.lengths.max_length - task.prompt_len,
            EarlyStopping::Never | EarlyStopping::False => length,
        };
        self.worst >= penalised(best, length, config.length_penalty)
    }
}

/// The state of a sentence.
pub(crate) struct Groups {
    pub(super) running: Vec<Beam>,
    heaps: Vec<Heap>,
}

impl Groups {
    pub(super) fn new(config: &GenerationConfig, prompt: &[u32]) -> Self {
        let size = config.num_beams / config.num_beam_groups;
        let heap = Heap { finished: Vec::new(), worst: 1e9, done: false };
        Self { running: Beam::first(prompt, config.num_beams, size), heaps: vec![heap; config.num_beam_groups] }
    }

    pub(super) fn step(&mut self, task: &Task<'_>, rank: &mut Rank<'_>) -> Result<bool, TwinError> {
        let config = task.config;
        let size = config.num_beams / config.num_beam_groups;
        let new_tokens = self.running.iter().map(|beam| beam.tokens.len()).max().unwrap_or(0) + 1 - task.prompt_len;
        let mut chosen: Vec<u32> = Vec::with_capacity(config.num_beams);
        let mut next: Vec<Beam> = Vec::with_capacity(config.num_beams);
        let mut alive = false;
        for (group, heap) in self.heaps.iter_mut().enumerate() {
            let beams = group * size..(group + 1) * size;
            if heap.done {
                // The reference lets a finished group go on with pads, which count as its choice.
                chosen.extend(std::iter::repeat_n(config.pad_token_id, size).flatten());
                next.extend(beams.map(|b| Beam { parent: b, grew: false, ..self.running[b].clone() }));
                continue;
            }
            let count = config.num_candidates() / config.num_beam_groups;
            let candidates = rank(&Ask { running: &self.running, beams: beams.clone(), count, chosen: &chosen })?;
            // NaN ranks above all.
            let best = candidates.first().map_or(f32::NEG_INFINITY, |candidate| candidate.score);
            if best.is_nan() || best == f32::INFINITY {
                return Err(NotFinite.into());
            }
            alive |= best.is_finite();
            for (place, candidate) in candidates.iter().enumerate() {
                let beam = Beam::continued(&self.running, *candidate);
                if !config.is_eos(candidate.token) {
                    chosen.push(candidate.token);
                    next.push(beam);
                } else if place < size {
                    heap.add(size, Finished::new(config, beam, new_tokens, FinishReason::Eos));
                }
                if next.len() == beams.end {
                    break;
                }
            }
            let best = candidates.iter().map(|candidate| f64::from(candidate.score)).fold(f64::NEG_INFINITY, f64::max);
            heap.done = heap.is_settled(task, size, best, new_tokens);
        }
        self.running = next;
        if !alive && self.heaps.iter().all(|heap| heap.finished.iter().all(|one| !one.score.is_finite())) {
            return Err(NotFinite.into());
        }
        let at_end = task.prompt_len + new_tokens >= task.lengths.max_length;
        if self.heaps.iter().all(|heap| heap.done) {
            return Ok(true);
        }
        let mut open = self.running.iter().enumerate().filter(|(_, beam)| beam.grew);
        let stopped = !task.hooks.stop_criteria.is_empty() && open.all(|(row, beam)| task.stops(row, &beam.tokens));
        if stopped || at_end {
            let reason = if stopped { FinishReason::Stop } else { FinishReason::Length };
            self.close(config, size, new_tokens, reason);
        }
        Ok(stopped || at_end)
    }

    /// The search is over: running beams of groups that are not done compete with what they finished.
    fn close(&mut self, config: &GenerationConfig, size: usize, new_tokens: usize, reason: FinishReason) {
        for (heap, beams) in self.heaps.iter_mut().zip(self.running.chunks(size)) {
            if !heap.done {
                for beam in beams {
                    heap.add(size, Finished::new(config, beam.clone(), new_tokens, reason));
                }
            }
        }
    }

    /// [`super::beam::Search::so_far`].
    pub(super) fn so_far(&self, task: &Task<'_>) -> Vec<Hypothesis> {
        let (config, size) = (task.config, task.config.num_beams / task.config.num_beam_groups);
        let grown = self.running.iter().filter(|beam| beam.grew).map(|beam| beam.tokens.len()).max();
        let mut ended = Self { running: self.running.clone(), heaps: self.heaps.clone() };
        if let Some(length) = grown {
            ended.close(config, size, length - task.prompt_len, FinishReason::Cancelled);
        }
        let all = ended.finish(config, task.prompt_len).into_iter();
        let counts = |one: &Hypothesis| one.score.is_finite() && !one.token_ids.is_empty();
        all.filter(counts).map(|one| Hypothesis { finish_reason: FinishReason::Cancelled, ..one }).collect()
    }

    /// The best of all heaps; of equal ones the last, as the reference pops them off a sorted list.
    pub(super) fn finish(&self, config: &GenerationConfig, prompt_len: usize) -> Vec<Hypothesis> {
        let mut all: Vec<&Finished> = self.heaps.iter().flat_map(|heap| &heap.finished).collect();
        all.sort_by(|a, b| a.score.total_cmp(&b.score));
        let best = all.into_iter().rev().take(config.num_return_sequences);
        best.map(|one| Hypothesis {
            token_ids: one.beam.tokens[prompt_len..].to_vec(),
            token_logprobs: one.beam.token_logprobs.clone(),
            score: one.score as f32,
            finish_reason: one.reason,
        })
        .collect()
    }
}

impl Finished {
    fn new(config: &GenerationConfig, mut beam: Beam, new_tokens: usize, reason: FinishReason) -> Self {
        if reason == FinishReason::Eos
            && let (Some(last), Some(eos)) = (beam.tokens.last_mut(), config.eos_token_id.first())
        {
            // The reference stores a hypothesis without its EOS and puts the first EOS id there in the end.
            *last = *eos;
        }
        Self { score: penalised(f64::from(beam.score), new_tokens, config.length_penalty), beam, reason }
    }
}

fn penalised(score: f64, length: usize, length_penalty: f64) -> f64 {
    score / (length as f64).powf(length_penalty)
}
