//! Beam search and beam sampling (§6), and what diverse beam search shares with them: a sentence's state, and the ranking
//! of continuations from logits.

use std::ops::Range;

use super::groups::Groups;
use super::processors::{candidate_key, log_softmax};
use super::task::Task;
use super::{Row, TwinStep, run_step};
use crate::config::{GenerationConfig, Lengths, Mode};
use crate::error::{NotFinite, TwinError};
use crate::hypothesis::{FinishReason, Hypothesis};
use crate::options::EarlyStopping;

/// Added to a score in f32 to take it out of a competition (§10). Floats are 64 apart there, so the score itself vanishes.
pub(crate) const MASKED: f32 = -1.0e9;

/// A running hypothesis.
#[derive(Clone)]
pub(crate) struct Beam {
    /// Prompt included.
    pub(crate) tokens: Vec<u32>,
    pub(crate) token_logprobs: Vec<f32>,
    /// Sum of the log-probabilities.
    pub(crate) score: f32,
    /// Which beam of the step before it continues.
    pub(crate) parent: usize,
    /// Whether the last step appended a token.
    pub(crate) grew: bool,
}

/// A continuation of a running beam.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) beam: usize,
    pub(crate) token: u32,
    pub(crate) logprob: f32,
    /// With the beam's score.
    pub(crate) score: f32,
}

impl Beam {
    pub(super) fn continued(beams: &[Self], candidate: Candidate) -> Self {
        let mut beam = beams[candidate.beam].clone();
        beam.tokens.push(candidate.token);
        beam.token_logprobs.push(candidate.logprob);
        Self { score: candidate.score, parent: candidate.beam, grew: true, ..beam }
    }

    /// The beams of the first step: copies of the prompt would yield the same candidates, so only every `stride`-th may
    /// compete.
    pub(super) fn first(prompt: &[u32], count: usize, stride: usize) -> Vec<Self> {
        (0..count)
            .map(|parent| Self {
                tokens: prompt.to_vec(),
                token_logprobs: Vec::new(),
                score: if parent % stride == 0 { 0.0 } else { MASKED },
                parent,
                grew: false,
            })
            .collect()
    }
}

/// What a beam step wants to know: the best `count` continuations of some running beams, in the order of their rank.
pub(crate) struct Ask<'a> {
    pub(crate) running: &'a [Beam],
    pub(crate) beams: Range<usize>,
    pub(crate) count: usize,
    /// Tokens that earlier groups of the sentence chose in this step.
    pub(crate) chosen: &'a [u32],
}

/// Answers an [`Ask`]: from logits ([`rank_logits`]), or from what a device has found.
pub(crate) type Rank<'a> = dyn FnMut(&Ask<'_>) -> Result<Vec<Candidate>, TwinError> + 'a;

/// The search of one sentence between two steps of the model.
pub(crate) enum Search {
    Plain(Plain),
    Groups(Groups),
}

impl Search {
    pub(crate) fn new(config: &GenerationConfig, prompt: &[u32]) -> Self {
        match config.mode {
            Mode::DiverseBeam => Self::Groups(Groups::new(config, prompt)),
            _ => Self::Plain(Plain::new(config, prompt)),
        }
    }

    /// The running beams, one per row of the sentence.
    pub(crate) fn running(&self) -> &[Beam] {
        match self {
            Self::Plain(search) => &search.running,
            Self::Groups(search) => &search.running,
        }
    }

    /// Takes the sentence one token further; true once it is done.
    pub(crate) fn step(&mut self, task: &Task<'_>, rank: &mut Rank<'_>) -> Result<bool, TwinError> {
        match self {
            Self::Plain(search) => search.step(task, rank),
            Self::Groups(search) => search.step(task, rank),
        }
    }

    /// The best hypotheses if the search ends here, as if all running ones did: no more than there are.
    pub(crate) fn so_far(&self, task: &Task<'_>) -> Vec<Hypothesis> {
        match self {
            Self::Plain(search) => search.so_far(task),
            Self::Groups(search) => search.so_far(task),
        }
    }

    /// The best `num_return_sequences` hypotheses of a sentence that is done.
    pub(crate) fn finish(&self, config: &GenerationConfig, prompt_len: usize) -> Vec<Hypothesis> {
        match self {
            Self::Plain(search) => search.finish(config, prompt_len),
            Self::Groups(search) => search.finish(config, prompt_len),
        }
    }
}

pub(super) fn generate(task: &Task<'_>, prompt: &[u32], step: &mut TwinStep<'_>) -> Result<Vec<Hypothesis>, TwinError> {
    let mut search = Search::new(task.config, prompt);
    loop {
        let rows: Vec<Row<'_>> = search.running().iter().map(|beam| Row { tokens: &beam.tokens }).collect();
        let logits = run_step(task.config, &rows, step)?;
        let rows: Vec<&[f32]> = logits.iter().map(Vec::as_slice).collect();
        if search.step(task, &mut |ask| rank_logits(task, &rows, ask))? {
            return Ok(finite(search.finish(task.config, prompt.len()))?);
        }
    }
}

/// What a sentence returns, if all of it is finite.
pub(crate) fn finite(hypotheses: Vec<Hypothesis>) -> Result<Vec<Hypothesis>, NotFinite> {
    let is_finite = |one: &Hypothesis| one.score.is_finite() && one.token_logprobs.iter().all(|x| x.is_finite());
    if hypotheses.iter().all(is_finite) { Ok(hypotheses) } else { Err(NotFinite) }
}

/// Steps 1 and 2: the best continuations by log-probability and score, or the first ones drawn. `rows`: the logits of all
/// beams of the sentence, which are not longer than the vocabulary.
///
/// Drawing K times without replacement from `softmax(scores)` is taking the K largest `score − ln(e)` with an independent
/// exponential `e` each, in order. Hugging Face fails if fewer than K scores have a probability above 0; here the others
/// follow.
pub(crate) fn rank_logits(task: &Task<'_>, rows: &[&[f32]], ask: &Ask<'_>) -> Result<Vec<Candidate>, TwinError> {
    let config = task.config;
    let (beams, vocab) = (&ask.running[ask.beams.clone()], config.vocab_size);
    let mut logprobs = rows[ask.beams.clone()].concat();
    for row in logprobs.chunks_mut(vocab) {
        log_softmax(row);
        for (token, amount) in hamming(config.diversity_penalty, ask.chosen) {
            if let Some(score) = row.get_mut(token as usize) {
                *score -= amount;
            }
        }
    }
    let sequences: Vec<&[u32]> = beams.iter().map(|beam| beam.tokens.as_slice()).collect();
    task.process(ask.beams.start, &sequences, &mut logprobs)?;
    logprobs.chunks_mut(vocab).for_each(|row| task.warp(row));
    let score = |index: usize| logprobs[index] + beams[index / vocab].score;
    let mut keys: Vec<f32> = (0..logprobs.len()).map(score).collect();
    if config.mode.samples() {
        let mut noise = vec![0.0; vocab];
        for (b, (beam, row)) in beams.iter().zip(keys.chunks_mut(vocab)).enumerate() {
            task.noise(ask.beams.start + b, beam.tokens.len() - task.prompt_len, &mut noise);
            row.iter_mut().zip(&noise).for_each(|(key, e)| *key -= e.ln());
        }
    }
    let ranked = top(ask.count, &keys).into_iter().map(|index| Candidate {
        beam: ask.beams.start + index / vocab,
        token: (index % vocab) as u32,
        logprob: logprobs[index],
        score: score(index),
    });
    Ok(ranked.collect())
}

/// Hamming diversity (§9): each distinct token of `chosen` with what it costs, in f32 like the reference.
pub(crate) fn hamming(penalty: f64, chosen: &[u32]) -> Vec<(u32, f32)> {
    let mut counted: Vec<(u32, f32)> = Vec::new();
    for token in chosen {
        match counted.iter_mut().find(|(seen, _)| seen == token) {
            Some((_, count)) => *count += 1.0,
            None => counted.push((*token, 1.0)),
        }
    }
    counted.iter_mut().for_each(|(_, count)| *count *= penalty as f32);
    counted
}

/// The indices of the `count` largest scores, NaN before all, best first, the lower index first on ties.
pub(crate) fn top(count: usize, scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let rank = |&index: &usize| (std::cmp::Reverse(candidate_key(scores[index])), index);
    if count < order.len() {
        order.select_nth_unstable_by_key(count, rank);
        order.truncate(count);
    }
    order.sort_unstable_by_key(rank);
    order
}

/// A candidate of [`Plain`].
struct Continuation {
    beam: Beam,
    /// Why it ended, if it did.
    end: Option<FinishReason>,
}

#[derive(Clone)]
struct Slot {
    beam: Beam,
    /// The score with the length penalty.
    score: f32,
    end: Option<FinishReason>,
    done: bool,
}

/// Hugging Face's beam search since 4.50.
pub(crate) struct Plain {
    running: Vec<Beam>,
    slots: Vec<Slot>,
}

impl Plain {
    fn new(config: &GenerationConfig, prompt: &[u32]) -> Self {
        let running = Beam::first(prompt, config.num_beams, config.num_beams);
        let slots = running.iter().map(|beam| Slot { beam: beam.clone(), score: MASKED, end: None, done: false });
        Self { slots: slots.collect(), running }
    }

    fn step(&mut self, task: &Task<'_>, rank: &mut Rank<'_>) -> Result<bool, TwinError> {
        let config = task.config;
        let ask =
            Ask { running: &self.running, beams: 0..config.num_beams, count: config.num_candidates(), chosen: &[] };
        let candidates = rank(&ask)?;
        // NaN ranks above all. With nothing left but −inf, only what is finished can be returned.
        let best = candidates.first().map_or(f32::NEG_INFINITY, |candidate| candidate.score);
        if !best.is_finite() && (best != f32::NEG_INFINITY || !self.slots.iter().any(|slot| slot.done)) {
            return Err(NotFinite.into());
        }
        let candidates: Vec<Continuation> = candidates
            .into_iter()
            .map(|candidate| {
                let beam = Beam::continued(&self.running, candidate);
                Continuation { end: task.end(candidate.beam, &beam.tokens), beam }
            })
            .collect();
        self.slots = best_slots(config, task.prompt_len, std::mem::take(&mut self.slots), &candidates);
        let all_hit = candidates.iter().all(|candidate| candidate.end.is_some());
        self.running = best_running(config.num_beams, candidates);

        let full = config.early_stopping == EarlyStopping::True && self.slots.iter().all(|slot| slot.done);
        Ok(all_hit || full || !can_improve(config, task.lengths, task.prompt_len, &self.running[0], &self.slots))
    }

    fn so_far(&self, task: &Task<'_>) -> Vec<Hypothesis> {
        let running = self.running.iter().filter(|beam| beam.grew);
        let running = running.map(|beam| Running {
            score: beam.score,
            new_tokens: beam.tokens.len() - task.prompt_len,
            sequence: beam,
        });
        let finished = self.slots.iter().filter(|slot| slot.done).map(|slot| (slot.score, &slot.beam));
        let hypothesis = |(score, beam): (f32, &Beam)| Hypothesis {
            token_ids: beam.tokens[task.prompt_len..].to_vec(),
            token_logprobs: beam.token_logprobs.clone(),
            score,
            finish_reason: FinishReason::Cancelled,
        };
        best_so_far(task.config, finished, running).into_iter().map(hypothesis).collect()
    }

    fn finish(&self, config: &GenerationConfig, prompt_len: usize) -> Vec<Hypothesis> {
        let best = self.slots.iter().take(config.num_return_sequences);
        best.map(|slot| Hypothesis {
            token_ids: slot.beam.tokens[prompt_len..].to_vec(),
            token_logprobs: slot.beam.token_logprobs.clone(),
            score: slot.score,
            finish_reason: slot.end.unwrap_or(FinishReason::Length),
        })
        .collect()
    }
}

/// A running hypothesis of a search that is cut short.
pub(crate) struct Running<S> {
    pub(crate) score: f32,
    pub(crate) new_tokens: usize,
    pub(crate) sequence: S,
}

/// Step 5 at an early end: the best finished hypotheses and running ones, as if these had all reached their length. Those that were taken out
/// of the competition are left out, and so is what is not finite.
pub(crate) fn best_so_far<S>(
    config: &GenerationConfig,
    finished: impl Iterator<Item = (f32, S)>,
    running: impl Iterator<Item = Running<S>>,
) -> Vec<(f32, S)> {
    let counts = |one: &Running<S>| one.score.is_finite() && one.score > MASKED / 2.0;
    let ended =
        running.filter(counts).map(|one| (penalised(one.score, one.new_tokens, config.length_penalty), one.sequence));
    let mut all: Vec<(f32, S)> = finished.chain(ended).collect();
    // Stable: on ties the finished ones stay in front.
    all.sort_by_key(|(score, _)| std::cmp::Reverse(candidate_key(*score)));
    all.truncate(config.num_return_sequences);
    all
}

/// Step 4: the best candidates that did not end. If there are too few, ended ones fill the places with masked scores.
fn best_running(num_beams: usize, candidates: Vec<Continuation>) -> Vec<Beam> {
    let continued: Vec<Beam> = candidates
        .into_iter()
        .map(|candidate| {
            let mask = if candidate.end.is_some() { MASKED } else { 0.0 };
            Beam { score: candidate.beam.score + mask, ..candidate.beam }
        })
        .collect();
    let scores: Vec<f32> = continued.iter().map(|beam| beam.score).collect();
    top(num_beams, &scores).into_iter().map(|index| continued[index].clone()).collect()
}

/// Step 5: the best of the finished slots and the candidates. One that ended but ranks behind `num_beams` is not accepted.
///
/// Hugging Face masks all candidates of a sentence that has stopped, because it computes on until the whole batch has
/// stopped. Here, as on the device, a sentence leaves when it stops (step 8).
fn best_slots(
    config: &GenerationConfig,
    prompt_len: usize,
    slots: Vec<Slot>,
    candidates: &[Continuation],
) -> Vec<Slot> {
    let mut merged = slots;
    for (rank, candidate) in candidates.iter().enumerate() {
        let done = candidate.end.is_some() && rank < config.num_beams;
        let new_tokens = candidate.beam.tokens.len() - prompt_len;
        let mask = if done { 0.0 } else { MASKED };
        let score = penalised(candidate.beam.score, new_tokens, config.length_penalty) + mask;
        merged.push(Slot { beam: candidate.beam.clone(), score, end: candidate.end, done });
    }
    let scores: Vec<f32> = merged.iter().map(|slot| slot.score).collect();
    top(config.num_beams, &scores).into_iter().map(|index| merged[index].clone()).collect()
}

/// Step 7: whether the best running beam could still beat the worst finished slot.
fn can_improve(config: &GenerationConfig, lengths: Lengths, prompt_len: usize, best: &Beam, slots: &[Slot]) -> bool {
    let length = if config.early_stopping == EarlyStopping::Never && config.length_penalty > 0.0 {
        lengths.max_length - prompt_len
    } else {
        best.tokens.len() - prompt_len
    };
    let best = penalised(best.score, length, config.length_penalty);
    let worst = slots.iter().map(|slot| slot.score).fold(f32::INFINITY, f32::min);
    slots.iter().any(|slot| best > if slot.done { worst } else { MASKED })
}

/// `score / length ^ length_penalty`: the power in f64, rounded, then one division in f32 (§10).
pub(crate) fn penalised(score: f32, length: usize, length_penalty: f64) -> f32 {
    score / (length as f64).powf(length_penalty) as f32
}
