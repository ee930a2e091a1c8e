//! Logits processors and warpers (§4), in the order in which they run.
//!
//! Greedy search and sampling apply them to the raw logits, beam search to the log-softmax of them; nothing is renormalised
//! afterwards. Processors are allowed to leave a row of −inf (a token both forced and suppressed).

use crate::config::{GenerationConfig, Lengths};

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

fn max_of(scores: &[f32]) -> f32 {
    scores.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Applies rows 4 to 15 of §4 to the scores of the token that follows `tokens`, the first `prompt_len` of which are the
/// prompt.
pub fn process(config: &GenerationConfig, lengths: Lengths, tokens: &[u32], prompt_len: usize, scores: &mut [f32]) {
    edit(config, lengths, tokens, prompt_len, scores);
    force(config, lengths, tokens, prompt_len, scores);
}

/// The part of [`process`] before row 10, the place of users' constraints.
pub fn edit(config: &GenerationConfig, lengths: Lengths, tokens: &[u32], prompt_len: usize, scores: &mut [f32]) {
    if config.repetition_penalty != 1.0 {
        penalise_repetition(config.repetition_penalty, tokens, scores);
    }
    if config.no_repeat_ngram_size > 0 {
        ban_repeated_ngrams(config.no_repeat_ngram_size, tokens, scores);
    }
    ban_words(&config.bad_words_ids, tokens, scores);
    if tokens.len() < lengths.min_length {
        suppress(&config.eos_token_id, scores);
    }
    if tokens.len().saturating_sub(prompt_len) < lengths.min_new_tokens {
        suppress(&config.eos_token_id, scores);
    }
}

/// The part of [`process`] behind row 10.
pub fn force(config: &GenerationConfig, lengths: Lengths, tokens: &[u32], prompt_len: usize, scores: &mut [f32]) {
    if let Some(bos) = config.forced_bos_token_id
        && tokens.len() == 1
    {
        force_ids(&[bos], scores);
    }
    if !config.forced_eos_token_id.is_empty() && tokens.len() + 1 == lengths.max_length {
        force_ids(&config.forced_eos_token_id, scores);
    }
    suppress(&config.suppress_tokens, scores);
    // A forced BOS takes the first place behind a start token, so the text begins one later.
    let begin = prompt_len + usize::from(prompt_len == 1 && config.forced_bos_token_id.is_some());
    if tokens.len() == begin {
        suppress(&config.begin_suppress_tokens, scores);
    }
}

/// Row 4: each id of the sequence, once: a negative score is multiplied by the penalty, another divided by it.
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
pub fn force_ids(ids: &[u32], scores: &mut [f32]) {
    scores.fill(f32::NEG_INFINITY);
    for &id in ids {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = 0.0;
        }
    }
}

/// Applies rows 17 to 20 of §4, which only sampling uses: temperature, top-k, top-p, each on the result of the one before
/// and none leaving fewer than [`GenerationConfig::min_tokens_to_keep`] tokens.
pub fn warp(config: &GenerationConfig, scores: &mut [f32]) {
    if config.temperature != 1.0 {
        for score in scores.iter_mut() {
            *score /= config.temperature;
        }
    }
    if config.top_k > 0 {
        let key = top_k_key(config.top_k.max(config.min_tokens_to_keep()), scores);
        keep_from(key, scores);
    }
    if config.top_p < 1.0 {
        // The best score always stays.
        let key = match config.min_tokens_to_keep() {
            1 => top_p_key(config.top_p, scores),
            keep => top_p_key(config.top_p, scores).min(top_k_key(keep, scores)),
        };
        keep_from(key, scores);
    }
}

/// The smallest [`ordered_key`] that top-k keeps: that of the `k`-th largest score, so scores that tie with it stay.
#[must_use]
pub fn top_k_key(k: usize, scores: &[f32]) -> u32 {
    let mut keys: Vec<u32> = scores.iter().copied().map(ordered_key).collect();
    if k == 0 || k >= keys.len() {
        return 0;
    }
    let (_, &mut key, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    key
}

/// The smallest [`ordered_key`] that top-p keeps.
///
/// With `mass(key)` the probability of all scores whose key is at most `key`, it is the smallest key that occurs with
/// `mass(key) > 1 − p`, and the largest one if there is none. So equal scores stay or go together (Hugging Face, sorting
/// them in no defined order, may part them), and since `mass` grows with the key, bisection over keys finds the threshold
/// without sorting. `1 − p` is rounded to f32, as are the masses; near a threshold the last bits of a sum decide, and a
/// device that sums in another order may decide differently.
#[must_use]
pub fn top_p_key(p: f64, scores: &[f32]) -> u32 {
    let max = max_of(scores);
    let limit = (1.0 - p) as f32;
    let mut weighted: Vec<(u32, f64)> =
        scores.iter().map(|&score| (ordered_key(score), f64::from((score - max).exp()))).collect();
    weighted.retain(|(_, weight)| !weight.is_nan());
    weighted.sort_unstable_by_key(|&(key, _)| key);
    let total: f64 = weighted.iter().map(|(_, weight)| weight).sum();
    let mut below = 0.0;
    for group in weighted.chunk_by(|a, b| a.0 == b.0) {
        below += group.iter().map(|(_, weight)| weight).sum::<f64>();
        if (below / total) as f32 > limit {
            return group[0].0;
        }
    }
    weighted.last().map_or(0, |&(key, _)| key)
}

/// Gives −inf to every score whose [`ordered_key`] is below `key`.
pub fn keep_from(key: u32, scores: &mut [f32]) {
    for score in scores {
        if ordered_key(*score) < key {
            *score = f32::NEG_INFINITY;
        }
    }
}
