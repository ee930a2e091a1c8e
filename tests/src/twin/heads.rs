/// `out[r, h, n] = sum_{k < width} q[r, h, k] w[h * width + k, n]`; `q`: `[rows, heads * width]`, `w`: `[heads * width, d]`.
pub fn heads_expand(q: &[f64], w: &[f64], heads: usize, width: usize, d: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for row in q.chunks(heads * width) {
        for h in 0..heads {
            for n in 0..d {
                out.push((h * width..(h + 1) * width).map(|k| row[k] * w[k * d + n]).sum());
            }
        }
    }
    out
}

/// `out[r, h * width + n] = sum_{k < d} c[r, h, k] w[h * width + n, k] + bias[h * width + n]`; `c`: `[rows, heads * d]`, `w`: `[heads * width, d]`.
pub fn heads_contract(c: &[f64], w: &[f64], bias: Option<&[f64]>, heads: usize, width: usize, d: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for row in c.chunks(heads * d) {
        for n in 0..heads * width {
            let h = n / width;
            let sum: f64 = (0..d).map(|k| row[h * d + k] * w[n * d + k]).sum();
            out.push(sum + bias.map_or(0.0, |b| b[n]));
        }
    }
    out
}
