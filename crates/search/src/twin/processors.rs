//! Logits processors (§4), in the order in which they run, and what they share with the warpers.
//!
//! Greedy search and sampling apply them to the raw logits, beam search to the log-softmax of them; nothing is renormalised
//! afterwards unless `renormalize_logits` asks for it. Processors are allowed to leave a row of −inf (a token both forced
//! and suppressed).

use crate::config::{GenerationConfig, Lengths};
use crate::hooks::SequenceView;
use crate::options::ExponentialDecay;

pub use super::warpers::*;

/// Maps a float to an integer that orders like it, for comparisons, bisection and radix selection without floats.
///
/// −0 and 0 have one key, and NaN has the lowest key of all, so that it is never chosen over a number.
#[must_use]
pub fn ordered_key(value: f32) -> u32 {
    const SIGN: u32 = 1 << 31;
    let bits = value.to_bits();
    match bits {
        SIGN => SIGN,
        _ if bits & !SIGN > 0x7f80_0000 => 0,
        _ if bits & SIGN != 0 => !bits,
        _ => bits | SIGN,
    }
}

/// [`ordered_key`] with NaN above everything, infinities included: beam search ranks by it, so that a NaN among its scores is the first
/// that it sees and never one that it passes over.
#[must_use]
pub fn candidate_key(value: f32) -> u32 {
    if value.is_nan() { u32::MAX - 1 } else { ordered_key(value) }
}

/// The index of the largest score, the lowest on ties. Zero for an empty slice.
#[must_use]
pub fn argmax(scores: &[f32]) -> usize {
    let mut best = 0;
    for (index, &score) in scores.iter().enumerate() {
        if ordered_key(score) > ordered_key(scores[best]) {
            best = index;
        }
    }
    best
}

/// `x − max − ln Σ exp(x − max)`, in this order and in f32 but for the sum (§10). A row of −inf stays as it is.
pub fn log_softmax(scores: &mut [f32]) {
    let max = max_of(scores);
    if max == f32::NEG_INFINITY {
        return;
    }
    let sum: f64 = scores.iter().map(|&score| f64::from((score - max).exp())).sum();
    let ln_sum = (sum as f32).ln();
    for score in scores {
        *score = *score - max - ln_sum;
    }
}

pub(super) fn max_of(scores: &[f32]) -> f32 {
    scores.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Applies rows 2 to 15 of §4 to the scores of the token that follows `sequence`.
pub fn process(config: &GenerationConfig, lengths: Lengths, sequence: &SequenceView<'_>, scores: &mut [f32]) {
    process_first(config, lengths, sequence, scores);
    process_last(config, lengths, sequence, scores);
}

/// Rows 2 to 9: biases, penalties, bans and minimum lengths, all that comes before [`Constrain`](crate::hooks::Stage).
pub fn process_first(config: &GenerationConfig, lengths: Lengths, sequence: &SequenceView<'_>, scores: &mut [f32]) {
    let SequenceView { token_ids: tokens, source, prompt_len, .. } = *sequence;
    bias_sequences(&config.sequence_bias, tokens, scores);
    if config.encoder_repetition_penalty != 1.0 {
        penalise_repetition((1.0 / config.encoder_repetition_penalty) as f32, source, scores);
    }
    if config.repetition_penalty != 1.0 {
        penalise_repetition(config.repetition_penalty, tokens, scores);
    }
    if config.no_repeat_ngram_size > 0 {
        ban_repeated_ngrams(config.no_repeat_ngram_size, tokens, scores);
    }
    if config.encoder_no_repeat_ngram_size > 0 {
        ban_ngrams_of(source, config.encoder_no_repeat_ngram_size, tokens, scores);
    }
    ban_words(&config.bad_words_ids, tokens, scores);
    if tokens.len() < lengths.min_length {
        suppress(&config.eos_token_id, scores);
    }
    if tokens.len().saturating_sub(prompt_len) < lengths.min_new_tokens {
        suppress(&config.eos_token_id, scores);
    }
}

/// Rows 11 to 15: forcing, repair, decay and suppression.
pub fn process_last(config: &GenerationConfig, lengths: Lengths, sequence: &SequenceView<'_>, scores: &mut [f32]) {
    let SequenceView { token_ids: tokens, prompt_len, .. } = *sequence;
    if let Some(bos) = config.forced_bos_token_id
        && tokens.len() == 1
    {
        force(&[bos], scores);
    }
    if !config.forced_eos_token_id.is_empty() && tokens.len() + 1 == lengths.max_length {
        force(&config.forced_eos_token_id, scores);
    }
    if config.remove_invalid_values {
        remove_invalid(scores);
    }
    if let Some(decay) = config.exponential_decay_length_penalty {
        grow_eos(decay, &config.eos_token_id, tokens.len().saturating_sub(prompt_len), scores);
    }
    suppress(&config.suppress_tokens, scores);
    // A forced BOS takes the first place behind a start token, so the text begins one later.
    let begin = prompt_len.saturating_add(usize::from(prompt_len == 1 && config.forced_bos_token_id.is_some()));
    if tokens.len() == begin {
        suppress(&config.begin_suppress_tokens, scores);
    }
}

/// Row 2: adds to the last id of each sequence whose other ids end `tokens` its bias. Biases of one id are summed before
/// they are added, those of sequences of one id first.
pub fn bias_sequences(biases: &[(Vec<u32>, f32)], tokens: &[u32], scores: &mut [f32]) {
    let mut sums: Vec<(u32, f32)> = Vec::new();
    for alone in [true, false] {
        for (ids, bias) in biases.iter().filter(|(ids, _)| (ids.len() == 1) == alone) {
            let Some((last, _)) = ids.split_last().filter(|(_, before)| tokens.ends_with(before)) else { continue };
            match sums.iter_mut().find(|(id, _)| id == last) {
                Some((_, sum)) => *sum += bias,
                None => sums.push((*last, *bias)),
            }
        }
    }
    for (id, sum) in sums {
        if let Some(score) = scores.get_mut(id as usize) {
            *score += sum;
        }
    }
}

/// Rows 3 and 4: each id of `tokens`, once: a negative score is multiplied by the penalty, another divided by it. Row 3
/// has the source's ids and the inverse penalty.
pub fn penalise_repetition(penalty: f32, tokens: &[u32], scores: &mut [f32]) {
    for (index, &token) in tokens.iter().enumerate() {
        if !tokens[..index].contains(&token)
            && let Some(score) = scores.get_mut(token as usize)
        {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

/// Row 5: bans each id that followed an earlier occurrence of the sequence's last `size − 1` ids. Size 1 bans every id
/// that occurred.
pub fn ban_repeated_ngrams(size: usize, tokens: &[u32], scores: &mut [f32]) {
    if size == 0 || tokens.len() < size {
        return;
    }
    let prefix = &tokens[tokens.len() + 1 - size..];
    for ngram in tokens.windows(size) {
        if &ngram[..size - 1] == prefix {
            suppress(&ngram[size - 1..], scores);
        }
    }
}

/// Row 6: bans each id that follows an occurrence in `source` of the sequence's last `size − 1` ids. Size 1 bans every
/// id of the source.
pub fn ban_ngrams_of(source: &[u32], size: usize, tokens: &[u32], scores: &mut [f32]) {
    if size == 0 || tokens.len() + 1 < size {
        return;
    }
    let prefix = &tokens[tokens.len() + 1 - size..];
    for ngram in source.windows(size) {
        if &ngram[..size - 1] == prefix {
            suppress(&ngram[size - 1..], scores);
        }
    }
}

/// Row 7: bans the last id of each word whose other ids end the sequence; a word of one id always.
pub fn ban_words(words: &[Vec<u32>], tokens: &[u32], scores: &mut [f32]) {
    for word in words {
        if let Some((last, before)) = word.split_last()
            && tokens.ends_with(before)
        {
            suppress(&[*last], scores);
        }
    }
}

/// Rows 8, 9 and 15: the ids get −inf.
pub fn suppress(ids: &[u32], scores: &mut [f32]) {
    for &id in ids {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// Rows 11 and 12: the ids get 0, all others −inf.
pub fn force(ids: &[u32], scores: &mut [f32]) {
    scores.fill(f32::NEG_INFINITY);
    for &id in ids {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = 0.0;
        }
    }
}

/// Row 13: NaN becomes 0, an infinity the largest finite number of its sign.
pub fn remove_invalid(scores: &mut [f32]) {
    for score in scores {
        *score = if score.is_nan() { 0.0 } else { score.clamp(f32::MIN, f32::MAX) };
    }
}

/// Row 14: from [`ExponentialDecay::first`] new tokens on the ids' scores grow by a part of their size. Infinities stay.
pub fn grow_eos(decay: ExponentialDecay, ids: &[u32], new_tokens: usize, scores: &mut [f32]) {
    if new_tokens < decay.first() {
        return;
    }
    let growth = decay.growth(new_tokens);
    for &id in ids {
        if let Some(score) = scores.get_mut(id as usize).filter(|score| score.is_finite()) {
            *score += score.abs() * growth;
        }
    }
}

/// Row 26, behind everything else: the log-softmax of what is left.
pub fn renormalize(config: &GenerationConfig, scores: &mut [f32]) {
    if config.renormalize_logits {
        log_softmax(scores);
    }
}
