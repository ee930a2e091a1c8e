use elgen_tensor::ops::Activation;

/// `out[r, n] = activation(sum_k x[r, k] w[n, k] + bias[n]) + residual[r, n]`; `x`: `[rows, k]`, `w`: `[n, k]`.
pub fn linear(
    x: &[f64],
    w: &[f64],
    k: usize,
    bias: Option<&[f64]>,
    activation: Activation,
    residual: Option<&[f64]>,
) -> Vec<f64> {
    let n = w.len() / k;
    let mut out = Vec::with_capacity(x.len() / k * n);
    for row in x.chunks(k) {
        for (column, weights) in w.chunks(k).enumerate() {
            let sum: f64 = row.iter().zip(weights).map(|(a, b)| a * b).sum();
            let value = activate(activation, sum + bias.map_or(0.0, |b| b[column]));
            out.push(value + residual.map_or(0.0, |r| r[out.len()]));
        }
    }
    out
}

/// `out[r, n] = activation(sum_k x[r, k] w[n, k] + bias[n]) * gate[r, n]`; `x`: `[rows, k]`, `w`: `[n, k]`.
pub fn linear_gated(
    x: &[f64],
    w: &[f64],
    k: usize,
    bias: Option<&[f64]>,
    activation: Activation,
    gate: &[f64],
) -> Vec<f64> {
    linear(x, w, k, bias, activation, None).iter().zip(gate).map(|(a, b)| a * b).collect()
}

/// The activation functions.
pub fn activate(activation: Activation, x: f64) -> f64 {
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    match activation {
        Activation::None => x,
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::Silu => x * sigmoid(x),
    }
}

/// The error function by its series `2/sqrt(pi) exp(-x^2) sum_n 2^n x^(2n+1) / (2n+1)!!`, whose terms all have one sign.
pub fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_at_known_points() {
        // Abramowitz and Stegun, table 7.1.
        for (x, want) in [
            (0.0, 0.0),
            (0.5, 0.5204998778),
            (1.0, 0.8427007929),
            (2.0, 0.9953222650),
            (-1.0, -0.8427007929),
            (9.0, 1.0),
        ] {
            assert!((erf(x) - want).abs() < 1e-10, "{x}");
        }
    }

    #[test]
    fn activations_at_known_points() {
        // PyTorch 2: gelu, gelu(approximate="tanh"), silu at 1.
        for (activation, want) in
            [(Activation::Gelu, 0.841344746), (Activation::GeluTanh, 0.841191990), (Activation::Silu, 0.731058579)]
        {
            assert!((activate(activation, 1.0) - want).abs() < 1e-8, "{activation:?}");
        }
        for activation in Activation::ALL {
            assert_eq!(activate(activation, 0.0), 0.0, "{activation:?}");
        }
    }
}
