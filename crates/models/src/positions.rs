//! Sinusoidal position tables (Vaswani et al. 2017, arXiv 1706.03762, section 3.5) in the column order of Marian and Pegasus.

use elgen_tensor::{MatrixSource, SourceError, WeightFormat};

/// A table `[rows, d]`: with `angle(p, i) = p / 10000^(2i/d)`, row `p` holds `sin(angle(p, i))` in columns `i < ceil(d / 2)` and then
/// `cos(angle(p, i))` for `i < floor(d / 2)`. Computed in f64, rounded once.
pub(crate) struct Sinusoidal {
    pub(crate) rows: usize,
    pub(crate) d: usize,
}

impl Sinusoidal {
    fn value(&self, position: usize, column: usize) -> f32 {
        let half = self.d.div_ceil(2);
        let (i, is_cos) = if column < half { (column, false) } else { (column - half, true) };
        let angle = position as f64 / 10_000_f64.powf(2.0 * i as f64 / self.d as f64);
        (if is_cos { angle.cos() } else { angle.sin() }) as f32
    }
}

impl MatrixSource for Sinusoidal {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.d
    }

    fn read(&self, first: usize, out: &mut [f32], _: WeightFormat) -> Result<(), SourceError> {
        for (r, row) in out.chunks_mut(self.d.max(1)).enumerate() {
            for (c, value) in row.iter_mut().enumerate() {
                *value = self.value(first + r, c);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: usize, d: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * d];
        Sinusoidal { rows, d }.read(0, &mut out, WeightFormat::F32).expect("it never fails");
        out
    }

    #[test]
    fn sines_then_cosines() {
        // Position 1: angles 1 and 1 / 10000^(2/4) = 0.01.
        let (one, hundredth) = (1_f64, 0.01_f64);
        let row = [one.sin() as f32, hundredth.sin() as f32, one.cos() as f32, hundredth.cos() as f32];
        assert_eq!(table(2, 4), [&[0.0, 0.0, 1.0, 1.0][..], &row].concat());
    }

    #[test]
    fn an_odd_width_has_one_sine_more() {
        let d = 5;
        let angle = |i: f64| 3.0 / 10_000_f64.powf(2.0 * i / 5.0);
        let row = [angle(0.0).sin(), angle(1.0).sin(), angle(2.0).sin(), angle(0.0).cos(), angle(1.0).cos()];
        assert_eq!(table(4, d)[3 * d..], row.map(|x| x as f32));
    }

    #[test]
    fn a_window_starts_where_it_is_asked_to() {
        let all = table(9, 6);
        let mut part = vec![0.0; 2 * 6];
        Sinusoidal { rows: 9, d: 6 }.read(7, &mut part, WeightFormat::F32).expect("it never fails");
        assert_eq!(part, all[7 * 6..]);
    }
}
