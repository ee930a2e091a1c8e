//! Warpers (§4 rows 17 to 24), which only sampling uses: each keeps some scores and gives −inf to the others.
//!
//! NaN stays NaN: what is not finite must not look like a score that a warper took away.
//!
//! What stays is always described by a threshold, so that equal scores stay or go together; Hugging Face, sorting in no
//! defined order, may part them where `keep` scores must stay. `top_h` alone parts them: the lower id stays.

use super::processors::{max_of, ordered_key};
use crate::config::GenerationConfig;

/// Best scores that `top_h` looks at.
pub const TOP_H_SCORES: usize = 100;

/// Applies rows 17 to 24 of §4: temperature, top-h, top-k, top-p, min-p, typical-p, epsilon and eta cutoff, each on the
/// result of the one before. Each leaves at least the `keep` best (typical-p: most typical) scores, top-h excepted.
pub fn warp(config: &GenerationConfig, keep: usize, scores: &mut [f32]) {
    if config.temperature != 1.0 {
        for score in scores.iter_mut() {
            *score /= config.temperature;
        }
    }
    if let Some(part) = config.top_h {
        keep_top_h(part, scores);
    }
    if config.top_k > 0 {
        let key = top_k_key(config.top_k.max(keep), scores);
        keep_from(key, scores);
    }
    if config.top_p < 1.0 {
        let key = top_p_key(config.top_p, scores).min(best_keys(keep, scores));
        keep_from(key, scores);
    }
    if config.min_p > 0.0 {
        let least = config.min_p as f32;
        keep_weights(|weight, _| weight >= least, keep, scores);
    }
    if config.typical_p < 1.0 {
        keep_typical(config.typical_p, keep, scores);
    }
    if config.epsilon_cutoff > 0.0 {
        let least = config.epsilon_cutoff as f32;
        keep_weights(|weight, sum| weight / sum >= least, keep, scores);
    }
    if config.eta_cutoff > 0.0 {
        let least = eta(config.eta_cutoff, scores);
        keep_weights(|weight, sum| weight / sum >= least, keep, scores);
    }
}

/// The key of the `keep`-th largest score; scores from there on must stay.
fn best_keys(keep: usize, scores: &[f32]) -> u32 {
    top_k_key(keep.max(1), scores)
}

/// Keeps the scores whose weight `exp(score − max)` satisfies `stays` (the second argument is the sum of all weights), and
/// the `keep` largest. Rows 21, 23 and 24.
fn keep_weights(stays: impl Fn(f32, f32) -> bool, keep: usize, scores: &mut [f32]) {
    let Some((max, sum)) = weights(scores) else { return };
    let key = best_keys(keep, scores);
    for score in scores {
        if !score.is_nan() && ordered_key(*score) < key && !stays((*score - max).exp(), sum) {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// The largest score and the sum of the weights `exp(score − max)`; `None` for a row of −inf.
fn weights(scores: &[f32]) -> Option<(f32, f32)> {
    let max = max_of(scores);
    let sum: f64 = scores.iter().map(|score| f64::from((score - max).exp())).filter(|weight| !weight.is_nan()).sum();
    (max > f32::NEG_INFINITY).then_some((max, sum as f32))
}

/// The entropy of `softmax(scores)` in nats.
fn entropy(scores: &[f32], max: f32, sum: f32) -> f32 {
    let finite = scores.iter().filter(|score| score.is_finite());
    let terms = finite.map(|score| f64::from((score - max).exp()) * f64::from(score - max));
    sum.ln() - (terms.sum::<f64>() / f64::from(sum)) as f32
}

/// The probability that row 24 asks for: `min(e, √e · exp(−entropy))`.
fn eta(epsilon: f64, scores: &[f32]) -> f32 {
    let epsilon = epsilon as f32;
    match weights(scores) {
        Some((max, sum)) => epsilon.min(epsilon.sqrt() * (-entropy(scores, max, sum)).exp()),
        None => epsilon,
    }
}

/// Row 22. A score's distance is `|−ln p − entropy|`. Kept are those up to the smallest distance `d` for which the scores
/// with distances up to `d` have the probability `mass`, and the `keep` smallest distances.
fn keep_typical(mass: f64, keep: usize, scores: &mut [f32]) {
    let Some((max, sum)) = weights(scores) else { return };
    let (ln_sum, entropy) = (sum.ln(), entropy(scores, max, sum));
    let distance = |score: f32| (-(score - max - ln_sum) - entropy).abs();
    let mut order: Vec<(f32, f64)> =
        scores.iter().map(|&score| (distance(score), f64::from((score - max).exp()))).collect();
    order.retain(|(distance, _)| !distance.is_nan());
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let limit = f64::from(mass as f32) * order.iter().map(|(_, weight)| weight).sum::<f64>();
    let mut below = 0.0;
    let reached = order.iter().position(|(_, weight)| {
        below += weight;
        below >= limit
    });
    let last = reached.unwrap_or(order.len().saturating_sub(1)).max(keep.min(order.len()).saturating_sub(1));
    let farthest = order.get(last).map_or(f32::INFINITY, |&(distance, _)| distance);
    for score in scores {
        if distance(*score) > farthest {
            *score = f32::NEG_INFINITY;
        }
    }
}

/// Row 18. Of the [`TOP_H_SCORES`] best scores, lower ids first on ties, keeps the first, and further ones in order as long
/// as their terms `−p ln p` sum to no more than `part` of the entropy of all of them, `p` being the softmax of those scores.
fn keep_top_h(part: f64, scores: &mut [f32]) {
    let Some((max, _)) = weights(scores) else { return };
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by_key(|&id| std::cmp::Reverse(ordered_key(scores[id])));
    let best = &order[..order.len().min(TOP_H_SCORES)];
    let weight = |id: &usize| f64::from((scores[*id] - max).exp());
    let sum: f64 = best.iter().map(weight).sum();
    let term = |id: &usize| match weight(id) / sum {
        p if p > 0.0 => -p * p.ln(),
        _ => 0.0,
    };
    let limit = part * best.iter().map(term).sum::<f64>();
    let mut total = 0.0;
    let kept = best.iter().take_while(|id| {
        total += term(id);
        total as f32 <= limit as f32 && weight(id) > 0.0
    });
    let kept = kept.count().max(1);
    for id in order.drain(kept..) {
        if !scores[id].is_nan() {
            scores[id] = f32::NEG_INFINITY;
        }
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

/// Gives −inf to every score whose [`ordered_key`] is below `key`, NaN excepted.
pub fn keep_from(key: u32, scores: &mut [f32]) {
    for score in scores {
        if !score.is_nan() && ordered_key(*score) < key {
            *score = f32::NEG_INFINITY;
        }
    }
}
