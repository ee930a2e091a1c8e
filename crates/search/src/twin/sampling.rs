//! Multinomial sampling (§5).

use super::task::Task;
use super::{TwinStep, greedy, random};
use crate::error::TwinError;
use crate::hypothesis::Hypothesis;

pub(super) fn generate(task: &Task<'_>, prompt: &[u32], step: &mut TwinStep<'_>) -> Result<Vec<Hypothesis>, TwinError> {
    let mut noise = vec![0.0; task.config.vocab_size];
    (0..task.config.num_return_sequences)
        .map(|row| {
            greedy::extend(task, row, prompt, step, &mut |scores, new| {
                task.warp(scores);
                task.noise(row, new, &mut noise);
                random::choose(scores, &noise)
            })
        })
        .collect()
}
