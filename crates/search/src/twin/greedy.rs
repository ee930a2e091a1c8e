//! Greedy search (§5), and the loop that it shares with sampling.

use super::{Row, Step, finish_reason, processors, run_step};
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
    let found = extend(config, lengths, start, step, &mut |scores, _| {
        processors::renormalize(config, scores);
        processors::argmax(scores)
    })?;
    Ok(vec![found])
}

/// Appends the tokens that `choose` takes from the processed scores (its second argument counts them from 0), until an EOS
/// or the longest length.
pub(super) fn extend(
    config: &GenerationConfig,
    lengths: Lengths,
    start: SequenceView<'_>,
    step: &mut Step<'_>,
    choose: &mut dyn FnMut(&mut [f32], usize) -> usize,
) -> Result<Hypothesis, TwinError> {
    let mut tokens = start.token_ids.to_vec();
    let mut token_logprobs = Vec::new();
    let mut score = 0.0;
    loop {
        let logits = run_step(config, &[Row { tokens: &tokens }], step)?;
        for mut scores in logits {
            processors::process(config, lengths, &SequenceView { token_ids: &tokens, ..start }, &mut scores);
            let token = choose(&mut scores, tokens.len() - start.prompt_len);
            processors::log_softmax(&mut scores);
            score += scores[token];
            token_logprobs.push(scores[token]);
            tokens.push(token as u32);
        }
        if finish_reason(config, &tokens) == crate::FinishReason::Eos || tokens.len() >= lengths.max_length {
            break;
        }
    }
    let token_ids = tokens.split_off(start.prompt_len);
    let finish_reason = finish_reason(config, &token_ids);
    Ok(Hypothesis { token_ids, token_logprobs, score, finish_reason })
}
