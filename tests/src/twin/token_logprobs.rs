/// For each row of `logits` `[ids.len(), vocab]`: the log-softmax at `ids[r]`, the index of the largest logit (the first of
/// equals), and the log-softmax there.
pub fn token_logprobs(logits: &[f64], vocab: usize, ids: &[u32]) -> Vec<(f64, u32, f64)> {
    logits
        .chunks(vocab)
        .zip(ids)
        .map(|(row, id)| {
            let top = (0..vocab).fold(0, |best, i| if row[i] > row[best] { i } else { best });
            let log_total = row.iter().map(|x| (x - row[top]).exp()).sum::<f64>().ln();
            (row[*id as usize] - row[top] - log_total, top as u32, -log_total)
        })
        .collect()
}
