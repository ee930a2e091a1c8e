/// `out[r] = (x[r] - mean) / sqrt(variance + eps) * weight + bias`, with the biased variance.
pub fn layer_norm(x: &[f64], weight: &[f64], bias: &[f64], eps: f64) -> Vec<f64> {
    let n = weight.len();
    x.chunks(n)
        .flat_map(|row| {
            let mean = row.iter().sum::<f64>() / n as f64;
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n as f64;
            let scale = 1.0 / (variance + eps).sqrt();
            row.iter().zip(weight).zip(bias).map(|((v, w), b)| (v - mean) * scale * w + b).collect::<Vec<_>>()
        })
        .collect()
}

/// `out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight`.
pub fn rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let n = weight.len();
    x.chunks(n)
        .flat_map(|row| {
            let scale = 1.0 / (row.iter().map(|v| v * v).sum::<f64>() / n as f64 + eps).sqrt();
            row.iter().zip(weight).map(move |(v, w)| v * scale * w)
        })
        .collect()
}
