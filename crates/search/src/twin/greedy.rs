//! Greedy search (§5), and the loop that it shares with sampling.

use super::task::Task;
use super::{Row, TwinStep, processors, run_step};
use crate::error::{NotFinite, TwinError};
use crate::hypothesis::Hypothesis;

pub(super) fn generate(task: &Task<'_>, prompt: &[u32], step: &mut TwinStep<'_>) -> Result<Vec<Hypothesis>, TwinError> {
    let found = extend(task, 0, prompt, step, &mut |scores, _| {
        task.warp(scores);
        processors::argmax(scores)
    })?;
    Ok(vec![found])
}

/// Appends the tokens that `choose` takes from the processed scores (its second argument counts them from 0), until
/// something ends the sequence. `row`: which sample of its sentence it is.
pub(super) fn extend(
    task: &Task<'_>,
    row: usize,
    prompt: &[u32],
    step: &mut TwinStep<'_>,
    choose: &mut dyn FnMut(&mut [f32], usize) -> usize,
) -> Result<Hypothesis, TwinError> {
    let mut tokens = prompt.to_vec();
    let mut token_logprobs = Vec::new();
    let mut score = 0.0;
    loop {
        let logits = run_step(task.config, &[Row { tokens: &tokens }], step)?;
        for mut scores in logits {
            task.process(row, &[&tokens], &mut scores)?;
            let token = choose(&mut scores, tokens.len() - prompt.len());
            processors::log_softmax(&mut scores);
            if !scores[token].is_finite() {
                return Err(NotFinite.into());
            }
            score += scores[token];
            token_logprobs.push(scores[token]);
            tokens.push(token as u32);
        }
        if let Some(finish_reason) = task.end(row, &tokens) {
            let token_ids = tokens.split_off(prompt.len());
            return Ok(Hypothesis { token_ids, token_logprobs, score, finish_reason });
        }
    }
}
