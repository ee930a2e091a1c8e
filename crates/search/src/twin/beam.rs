//! Beam search (§6).

use super::processors::{log_softmax, ordered_key, process, renormalize};
use super::{Row, Step, finish_reason, run_step};
use crate::config::{GenerationConfig, Lengths};
use crate::error::TwinError;
use crate::hooks::SequenceView;
use crate::hypothesis::Hypothesis;
use crate::options::EarlyStopping;

/// Added to a score in f32 to take it out of a competition (§10). Floats are 64 apart there, so the score itself vanishes.
const MASKED: f32 = -1.0e9;

#[derive(Clone)]
struct Beam {
    /// Prompt included.
    tokens: Vec<u32>,
    token_logprobs: Vec<f32>,
    /// Sum of the log-probabilities.
    score: f32,
}

struct Candidate {
    beam: Beam,
    /// It ended, by EOS or by length.
    hit: bool,
}

#[derive(Clone)]
struct Slot {
    beam: Beam,
    /// The score with the length penalty.
    score: f32,
    done: bool,
}

pub(super) fn generate(
    config: &GenerationConfig,
    lengths: Lengths,
    start: SequenceView<'_>,
    step: &mut Step<'_>,
) -> Result<Vec<Hypothesis>, TwinError> {
    let prompt = start.token_ids;
    let first = Beam { tokens: prompt.to_vec(), token_logprobs: Vec::new(), score: 0.0 };
    // Copies of the prompt would yield the same candidates, so only the first may compete in the first step.
    let mut running = vec![Beam { score: MASKED, ..first.clone() }; config.num_beams];
    running[0].score = 0.0;
    let mut slots = vec![Slot { beam: first, score: MASKED, done: false }; config.num_beams];
    loop {
        let candidates = candidates(config, lengths, start, &running, step)?;
        slots = best_slots(config, prompt.len(), slots, &candidates);
        let all_hit = candidates.iter().all(|candidate| candidate.hit);
        running = best_running(config.num_beams, candidates);

        let full = config.early_stopping == EarlyStopping::True && slots.iter().all(|slot| slot.done);
        if all_hit || full || !can_improve(config, lengths, prompt.len(), &running[0], &slots) {
            break;
        }
    }
    slots.truncate(config.num_return_sequences);
    Ok(slots.into_iter().map(|slot| hypothesis(config, prompt.len(), slot)).collect())
}

/// Steps 1 to 3: the K best continuations of all beams, best first.
fn candidates(
    config: &GenerationConfig,
    lengths: Lengths,
    start: SequenceView<'_>,
    running: &[Beam],
    step: &mut Step<'_>,
) -> Result<Vec<Candidate>, TwinError> {
    let rows: Vec<Row<'_>> = running.iter().map(|beam| Row { tokens: &beam.tokens }).collect();
    let mut logprobs = run_step(config, &rows, step)?;
    let mut scores = Vec::with_capacity(running.len() * config.vocab_size);
    for (number, (beam, row)) in running.iter().zip(&mut logprobs).enumerate() {
        log_softmax(row);
        process(config, lengths, &SequenceView { row: number, token_ids: &beam.tokens, ..start }, row);
        renormalize(config, row);
        scores.extend(row.iter().map(|logprob| logprob + beam.score));
    }
    let ranked = top(config.num_candidates(), &scores).into_iter().map(|index| {
        let (parent, token) = (index / config.vocab_size, index % config.vocab_size);
        let mut beam = running[parent].clone();
        beam.score = scores[index];
        beam.tokens.push(token as u32);
        beam.token_logprobs.push(logprobs[parent][token]);
        let hit = config.is_eos(token as u32) || beam.tokens.len() >= lengths.max_length;
        Candidate { beam, hit }
    });
    Ok(ranked.collect())
}

/// Step 4: the best candidates that did not end. If there are too few, ended ones fill the places with masked scores.
fn best_running(num_beams: usize, candidates: Vec<Candidate>) -> Vec<Beam> {
    let continued: Vec<Beam> = candidates
        .into_iter()
        .map(|candidate| {
            let mask = if candidate.hit { MASKED } else { 0.0 };
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
fn best_slots(config: &GenerationConfig, prompt_len: usize, slots: Vec<Slot>, candidates: &[Candidate]) -> Vec<Slot> {
    let mut merged = slots;
    for (rank, candidate) in candidates.iter().enumerate() {
        let done = candidate.hit && rank < config.num_beams;
        let new_tokens = candidate.beam.tokens.len() - prompt_len;
        let mask = if done { 0.0 } else { MASKED };
        let score = penalised(candidate.beam.score, new_tokens, config.length_penalty) + mask;
        merged.push(Slot { beam: candidate.beam.clone(), score, done });
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
fn penalised(score: f32, length: usize, length_penalty: f64) -> f32 {
    score / (length as f64).powf(length_penalty) as f32
}

/// The indices of the `count` largest scores, best first, the lower index first on ties.
fn top(count: usize, scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(ordered_key(scores[index])));
    order.truncate(count);
    order
}

fn hypothesis(config: &GenerationConfig, prompt_len: usize, slot: Slot) -> Hypothesis {
    let mut tokens = slot.beam.tokens;
    let token_ids = tokens.split_off(prompt_len);
    let finish_reason = finish_reason(config, &token_ids);
    Hypothesis { token_ids, token_logprobs: slot.beam.token_logprobs, score: slot.score, finish_reason }
}
