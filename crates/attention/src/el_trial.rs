//! The known problem that the EL kernel on cooperative matrices must solve before it is used on a device.

use elgen_tensor::{Class, DType, Device, Range, RowState, Rows, Segment, Table, Tensor, TensorError, padded};

use crate::block::CrossQueries;
use crate::el_attend::{ElAttend, ElQueries, el_attend};
use crate::el_attend_coop::Plan;
use crate::shape::Shape;

/// Lets the kernel for hidden states of `d_model` columns solve a known problem, once per device. If it cannot, the device has no cooperative matrices from then
/// on and the portable kernel does everything.
///
/// # Errors
/// Memory, or a lost device.
pub(crate) fn try_out(device: &Device, d_model: usize, dtype: DType) -> Result<(), TensorError> {
    match Plan::new(&device.capabilities(), padded(d_model)) {
        Some(plan) if dtype == DType::F16 => device
            .try_cooperative(&format!("el_attend_coop {d_model} {plan:?}"), || Trial::new(plan, d_model).run(device)),
        _ => Ok(()),
    }
}

/// Two rows of a sentence, with two chunks of keys and a part of a third.
struct Trial {
    shape: Shape,
    keys: usize,
    q: Vec<f32>,
    x: Vec<f32>,
}

impl Trial {
    const QUERY_ROWS: usize = 2;

    fn new(plan: Plan, d_model: usize) -> Self {
        // Eleven heads: the second tile of query rows is not full.
        let shape = Shape::new(d_model, 11, 4, 1.0);
        let keys = 2 * plan.edge as usize + 3;
        let wave = |i: usize, step: f64| (i as f64 * step).sin() as f32;
        let factor = 4.0 / (d_model as f32).sqrt();
        Self {
            shape,
            keys,
            q: (0..Self::QUERY_ROWS * shape.num_heads * d_model).map(|i| wave(i, 0.7) * factor).collect(),
            x: (0..keys * d_model).map(|i| (wave(i, 1.3) * 64.0).round() / 64.0).collect(),
        }
    }

    /// softmax(q' X^T) X in 64 bits, without the pads of rows.
    fn answer(&self) -> Vec<f64> {
        let d = self.shape.d_model;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let context = |q: &[f32]| {
            let scores: Vec<f64> = self.x.chunks(d).map(|x| dot(q, x)).collect();
            let peak = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - peak).exp()).collect();
            let total: f64 = weights.iter().sum();
            let column = |c: usize| weights.iter().zip(self.x.chunks(d)).map(|(w, x)| w * f64::from(x[c])).sum::<f64>();
            (0..d).map(|c| column(c) / total).collect::<Vec<f64>>()
        };
        self.q.chunks(d).flat_map(context).collect()
    }

    /// What is wrong with the kernel's answer, keys in a range and through a slot table.
    fn run(&self, device: &Device) -> Result<Option<String>, TensorError> {
        let (rows, columns) = (Self::QUERY_ROWS, self.shape.num_heads * padded(self.shape.d_model));
        let activation = |what: &str| device.tensor(what, Class::Activations, rows, columns, DType::F32);
        let (q, out) = (activation("trial queries")?, activation("trial contexts")?);
        device.write_rows(&q, 0, &padded_rows(&self.q, self.shape.d_model))?;
        let x = device.tensor_from(
            "trial states",
            Class::Activations,
            self.keys,
            self.shape.d_model,
            DType::F16,
            &self.x,
        )?;
        let keys = self.keys as u32;
        let index = Table::of(device, "trial rows", &[0, 0])?;
        let ranges = Table::of(device, "trial ranges", &[Range::new(0, keys)])?;
        let groups = Table::of(device, "trial groups", &[Range::new(0, rows as u32)])?;
        let mut tables = Rows::new(device, rows, self.keys)?;
        tables.set_active(device, vec![0, 1], &[0, 0])?;
        let slots: Vec<u32> = (0..2 * keys).map(|i| i % keys).collect();
        tables.place(device, &[RowState::default().with_length(keys); 2], None, Some(&slots))?;
        let segment = Segment { slab: 0, first: 0, count: 2, first_group: 0, groups: 1, widest_group: 2 };
        let product = ElAttend { shape: self.shape, q: &q, x: &x, bias: None, out: &out, splits: None, segment };
        let segments = [segment];
        let (index, ranges, groups) = (index.view(), ranges.view(), groups.view());
        let queries = CrossQueries { index, ranges, groups, segments: &segments, count: rows };
        let ways = [ElQueries::Groups(queries), ElQueries::Slots(&tables)];
        for queries in ways {
            let mut rec = device.recorder();
            el_attend(&mut rec, queries, product)?;
            rec.submit()?;
            if let Some(wrong) = self.judge(device, &out)? {
                return Ok(Some(wrong));
            }
        }
        Ok(None)
    }

    fn judge(&self, device: &Device, out: &Tensor) -> Result<Option<String>, TensorError> {
        let want = padded_rows(&self.answer(), self.shape.d_model);
        let got = device.read_tensor(out)?;
        // Written so that a NaN is wrong.
        let fits = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= 1e-3;
        let misses = got.iter().zip(&want).filter(|pair| !fits(*pair)).count();
        let wrong = || format!("{misses} of {} numbers of a known problem are wrong", want.len());
        Ok((misses > 0 || got.len() != want.len()).then(wrong))
    }
}

/// Rows of `width` numbers, padded with zeros to whole quads.
fn padded_rows<T: Copy + Default>(values: &[T], width: usize) -> Vec<T> {
    let pads = padded(width) - width;
    values.chunks(width).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(T::default(), pads))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trial_notices_a_wrong_number() {
        let device = elgen_tensor::Capabilities {
            shader_f16: true,
            subgroup: true,
            immediates: true,
            max_binding_bytes: 1 << 30,
            max_buffer_bytes: 1 << 30,
            workgroup_bytes: 32 << 10,
            workgroup_invocations: 1024,
            subgroup_sizes: (8, 8),
            cooperative: Some(8),
            software: false,
        };
        let plan = Plan::new(&device, 30).unwrap();
        let trial = Trial::new(plan, 30);
        let answer = trial.answer();
        assert_eq!(answer.len(), 2 * 11 * 30);
        let spread = |row: &[f64]| row.iter().fold(0f64, |m, x| m.max(x.abs()));
        assert!(answer.chunks(30).all(|row| spread(row) > 0.01), "an answer of zeros would pass");
        assert_eq!(padded_rows(&[1, 2, 3, 4, 5, 6], 3), [1, 2, 3, 0, 4, 5, 6, 0]);
    }
}
