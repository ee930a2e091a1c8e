//! Mean and deviation.

use serde::{Deserialize, Serialize};

/// Mean and sample standard deviation of repeated measurements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The arithmetic mean.
    pub mean: f64,
    /// With n - 1 in the denominator; 0 for a single value.
    pub deviation: f64,
}

impl Spread {
    /// Of these values; zeros if there are none.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        if values.is_empty() {
            return Self::default();
        }
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|x| (x - mean).powi(2)).sum();
        Self { mean, deviation: if n > 1.0 { (squares / (n - 1.0)).sqrt() } else { 0.0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_sample_deviation() {
        assert_eq!(Spread::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).mean, 5.0);
        assert!(
            (Spread::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).deviation - (32.0f64 / 7.0).sqrt()).abs() < 1e-12
        );
        assert_eq!(Spread::of(&[3.5]), Spread { mean: 3.5, deviation: 0.0 });
        assert_eq!(Spread::of(&[]), Spread::default());
    }
}
