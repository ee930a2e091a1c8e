/// Attention probabilities of one query row over its keys, averaged over heads, and each head's log-sum-exp of its scores (minus infinity
/// without keys). `q`: `[heads * width]`; each key: `[heads * width]`, or `[width]` if the heads share it (EL-attention).
pub fn align(q: &[f64], keys: &[&[f64]], heads: usize, shared: bool, scale: f64) -> (Vec<f64>, Vec<f64>) {
    let width = q.len() / heads;
    let mut mean = vec![0.0; keys.len()];
    let mut log_sum_exp = Vec::with_capacity(heads);
    for h in 0..heads {
        let at = if shared { 0 } else { h * width };
        let dot =
            |key: &[f64]| q[h * width..][..width].iter().zip(&key[at..at + width]).map(|(a, b)| a * b).sum::<f64>();
        let scores: Vec<f64> = keys.iter().map(|key| scale * dot(key)).collect();
        let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_total = peak + scores.iter().map(|s| (s - peak).exp()).sum::<f64>().ln();
        log_sum_exp.push(if keys.is_empty() { f64::NEG_INFINITY } else { log_total });
        for (sum, score) in mean.iter_mut().zip(&scores) {
            *sum += (score - log_total).exp() / heads as f64;
        }
    }
    (mean, log_sum_exp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_and_two_heads_by_hand() {
        // Head 0 scores 0 and ln 3: weights 1/4 and 3/4. Head 1 scores both 5.
        let (a, b): ([f64; 2], [f64; 2]) = ([0.0, 5.0], [3f64.ln(), 5.0]);
        let (mean, lse) = align(&[2.0, 2.0], &[&a, &b], 2, false, 0.5);
        assert!((mean[0] - 0.375).abs() < 1e-12 && (mean[1] - 0.625).abs() < 1e-12, "{mean:?}");
        assert!((lse[0] - 4f64.ln()).abs() < 1e-12 && (lse[1] - 5.0 - 2f64.ln()).abs() < 1e-12, "{lse:?}");
        assert_eq!(align(&[1.0, 1.0], &[], 2, true, 1.0), (vec![], vec![f64::NEG_INFINITY; 2]));
    }
}
