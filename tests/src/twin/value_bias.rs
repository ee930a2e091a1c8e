/// `x[r, n] += bias[n]` for the rows `r` that attend to any key; `keys`: how many each has.
pub fn value_bias(x: &mut [f64], bias: &[f64], keys: &[u32]) {
    for (row, _) in x.chunks_mut(bias.len()).zip(keys).filter(|(_, keys)| **keys > 0) {
        row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    }
}
