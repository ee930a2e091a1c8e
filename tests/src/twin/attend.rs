/// Attention of one query row over its keys: `out[h] = sum_s softmax_s(scale * q[h] . k_s[h]) v_s[h]`, zero without keys.
/// `q`: `[heads * width]`; each key and value: `[heads * width]`, or `[width]` if the heads share them (EL-attention).
pub fn attend(q: &[f64], keys: &[&[f64]], values: &[&[f64]], heads: usize, shared: bool, scale: f64) -> Vec<f64> {
    attend_biased(q, keys, values, heads, shared, scale, |_, _| 0.0)
}

/// [`attend`] with `bias(head, key)` added to the scores.
pub fn attend_biased(
    q: &[f64],
    keys: &[&[f64]],
    values: &[&[f64]],
    heads: usize,
    shared: bool,
    scale: f64,
    bias: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let width = q.len() / heads;
    let mut out = Vec::with_capacity(q.len());
    for h in 0..heads {
        let query = &q[h * width..(h + 1) * width];
        let at = if shared { 0 } else { h * width };
        let scores: Vec<f64> = keys
            .iter()
            .enumerate()
            .map(|(s, key)| {
                scale * query.iter().zip(&key[at..at + width]).map(|(a, b)| a * b).sum::<f64>() + bias(h, s)
            })
            .collect();
        let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - peak).exp()).collect();
        let total: f64 = weights.iter().sum();
        let column = |c: usize| weights.iter().zip(values).map(|(w, value)| w * value[at + c]).sum::<f64>();
        out.extend((0..width).map(|c| if keys.is_empty() { 0.0 } else { column(c) / total }));
    }
    out
}

/// An entry of a table of biases `[heads, 2 * reach + 1]` by head and distance, key position minus query position; far ones have the last.
pub fn distance_bias(table: &[f32], reach: usize, head: usize, distance: i64) -> f64 {
    let reach = reach as i64;
    let column = distance.clamp(-reach, reach) + reach;
    f64::from(table[head * (2 * reach as usize + 1) + column as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_by_hand() {
        // Scores 0 and ln 3: weights 1/4 and 3/4.
        let (a, b): ([f64; 2], [f64; 2]) = ([0.0, 5.0], [3f64.ln(), 7.0]);
        let got = attend(&[2.0, 0.0], &[&a, &b], &[&[4.0, 0.0], &[8.0, 4.0]], 1, false, 0.5);
        assert!((got[0] - 7.0).abs() < 1e-12 && (got[1] - 3.0).abs() < 1e-12, "{got:?}");
        assert_eq!(attend(&[1.0, 1.0], &[], &[], 2, true, 1.0), [0.0, 0.0]);
        // The bias evens the scores out.
        let bias = |_: usize, key: usize| if key == 0 { 3f64.ln() } else { 0.0 };
        let got = attend_biased(&[2.0, 0.0], &[&a, &b], &[&[4.0, 0.0], &[8.0, 4.0]], 1, false, 0.5, bias);
        assert!((got[0] - 6.0).abs() < 1e-12 && (got[1] - 2.0).abs() < 1e-12, "{got:?}");
    }

    #[test]
    fn far_distances_share_the_last_bias() {
        let table = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!([-9, -1, 0, 1, 9].map(|r| distance_bias(&table, 1, 1, r)), [4.0, 4.0, 5.0, 6.0, 6.0]);
    }
}
