/// The context of one head from its key splits, each as (maximum score, sum of weights, weighted sum of values): zeros where no split has keys.
pub fn combine(splits: &[(f64, f64, &[f64])]) -> Vec<f64> {
    let live = || splits.iter().filter(|(_, sum, _)| *sum > 0.0);
    let peak = live().map(|(max, ..)| *max).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = live().map(|(max, sum, _)| sum * (max - peak).exp()).sum();
    let column = |c: usize| live().map(|(max, _, context)| context[c] * (max - peak).exp()).sum::<f64>() / total;
    let width = splits.first().map_or(0, |(.., context)| context.len());
    (0..width).map(|c| if total > 0.0 { column(c) } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::combine;
    use crate::twin::attend;

    #[test]
    fn splits_of_a_row_give_what_all_its_keys_give() {
        let keys: Vec<[f64; 2]> = (0..5).map(|i| [f64::from(i) - 2.0, f64::from(i * i) / 7.0]).collect();
        let query = [0.7, -1.3];
        let split = |range: std::ops::Range<usize>| {
            let score = |key: &[f64; 2]| query[0] * key[0] + query[1] * key[1];
            let peak = keys[range.clone()].iter().map(score).fold(f64::MIN, f64::max);
            let mut context = vec![0.0; 2];
            let mut sum = 0.0;
            for key in &keys[range] {
                let weight = (score(key) - peak).exp();
                sum += weight;
                context.iter_mut().zip(key).for_each(|(c, k)| *c += weight * k);
            }
            (peak, sum, context)
        };
        let parts = [split(0..2), split(2..5)];
        let mut parts: Vec<(f64, f64, &[f64])> = parts.iter().map(|(m, s, c)| (*m, *s, c.as_slice())).collect();
        let all: Vec<&[f64]> = keys.iter().map(<[f64; 2]>::as_slice).collect();
        let want = attend(&query, &all, &all, 1, true, 1.0);
        let nothing = [f64::NAN; 2];
        parts.push((-3e38, 0.0, &nothing));
        let got = combine(&parts);
        assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?} {want:?}");
        assert_eq!(combine(&parts[2..]), [0.0, 0.0]);
    }
}
