//! Multinomial sampling (§5).

use super::random::{self, Stream};
use super::{Step, greedy, processors};
use crate::config::{GenerationConfig, Lengths};
use crate::error::TwinError;
use crate::hooks::SequenceView;
use crate::hypothesis::Hypothesis;

pub(super) fn generate(
    config: &GenerationConfig,
    lengths: Lengths,
    start: SequenceView<'_>,
    step: &mut Step<'_>,
) -> Result<Vec<Hypothesis>, TwinError> {
    (0..config.num_return_sequences)
        .map(|sequence| {
            let stream = Stream { seed: config.seed, ordinal: start.ordinal, sequence: sequence as u32 };
            greedy::extend(config, lengths, SequenceView { row: sequence, ..start }, step, &mut |scores, new| {
                processors::warp(config, config.min_tokens_to_keep(), scores);
                processors::renormalize(config, scores);
                random::draw(scores, stream, new as u32)
            })
        })
        .collect()
}
