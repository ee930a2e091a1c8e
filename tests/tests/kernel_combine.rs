//! `combine.wgsl` against its twin.

use elgen_tensor::ops::{Partials, combine};
use elgen_tensor::{DType, TensorError};
use elgen_tests::harness::{assert_same_bits, compare, devices, poisoned, read_raw, upload, values};
use elgen_tests::twin;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    /// Splits that are merged, and those that the buffers hold.
    splits: usize,
    room: usize,
    heads: usize,
    width: usize,
    first: usize,
    count: usize,
    /// Query rows of the buffers beyond the last that is merged.
    behind: usize,
    /// How far the maxima of splits lie apart.
    spread: f32,
    seed: u64,
}

impl Case {
    fn rows(&self) -> usize {
        self.first + self.count + self.behind
    }

    /// (maximum, sum) by split, row and head: about every third split of a head has no keys.
    fn stats(&self) -> Vec<[f32; 2]> {
        let v = values(self.seed, 2 * self.room * self.rows() * self.heads);
        v.chunks(2).map(|v| if v[1] < -0.3 { [-3e38, 0.0] } else { [v[0] * self.spread, 1.4 + v[1]] }).collect()
    }

    /// By split, row and column; what a split without keys left is NaN.
    fn contexts(&self) -> Vec<f32> {
        let mut v = values(self.seed ^ 1, self.room * self.rows() * self.heads * self.width);
        for (head, stat) in v.chunks_mut(self.width).zip(self.stats()) {
            if stat[1] == 0.0 {
                head.fill(f32::NAN);
            }
        }
        v
    }

    fn twin(&self) -> Vec<f64> {
        let (stats, contexts) = (self.stats(), self.contexts());
        let contexts: Vec<Vec<f64>> =
            contexts.chunks(self.width).map(|c| c.iter().map(|x| f64::from(*x)).collect()).collect();
        let at = |split: usize, row: usize, head: usize| (split * self.rows() + row) * self.heads + head;
        let mut out = Vec::new();
        for row in self.first..self.first + self.count {
            for head in 0..self.heads {
                let parts: Vec<(f64, f64, &[f64])> = (0..self.splits)
                    .map(|s| at(s, row, head))
                    .map(|i| (f64::from(stats[i][0]), f64::from(stats[i][1]), contexts[i].as_slice()))
                    .collect();
                out.extend(twin::combine(&parts));
            }
        }
        out
    }

    fn run(&self, device: &elgen_tensor::Device) -> Vec<f32> {
        let columns = self.heads * self.width;
        let mut partials = Partials::new(device, self.rows(), self.room, self.heads, columns).unwrap();
        partials.contexts = upload(device, self.room * self.rows(), columns, &self.contexts());
        device.write(&partials.stats, 0, bytemuck::cast_slice(&self.stats())).unwrap();
        let out = poisoned(device, self.rows(), columns, DType::F32);
        let mut rec = device.recorder();
        let (first, count) = (self.first as u32, self.count as u32);
        combine(&mut rec, &partials, self.splits, (self.heads, self.width), &out, first, count).unwrap();
        rec.submit().unwrap();
        let raw = read_raw(device, &out);
        let live = self.first * columns..(self.first + self.count) * columns;
        assert!((0..raw.len()).all(|i| live.contains(&i) || raw[i].is_nan()), "{self:?}: other rows were written");
        raw[live].to_vec()
    }
}

fn case() -> impl Strategy<Value = Case> {
    let widths = prop::sample::select(vec![4usize, 8, 64, 260, 1024]);
    let spreads = prop::sample::select(vec![1.0f32, 10.0, 90.0, 300.0]);
    (1..=5usize, 0..=2usize, 1..=5usize, widths, 0..=2usize, 1..=4usize, 0..=2usize, spreads, any::<u64>()).prop_map(
        |(splits, more, heads, width, first, count, behind, spread, seed)| Case {
            splits,
            room: splits + more,
            heads,
            width,
            first,
            count,
            behind,
            spread,
            seed,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn merged_splits_match_their_twin(case in case()) {
        let want = case.twin();
        for variant in devices() {
            if let Err(message) = compare(&case.run(&variant.device), &want) {
                prop_assert!(false, "{}: {message}", variant.name);
            }
        }
    }
}

/// What a workgroup writes that has all keys of a row: its context times `1 / sum`.
#[test]
fn a_row_with_one_live_split_is_only_divided() {
    let case = Case { splits: 3, room: 3, heads: 1, width: 64, first: 0, count: 1, behind: 0, spread: 5.0, seed: 3 };
    for (variant, live) in devices().iter().zip([0, 1, 2, 1]) {
        let device = &variant.device;
        let partials = Partials::new(device, 1, 3, 1, 64).unwrap();
        let context: Vec<f32> = values(case.seed, 64);
        let mut stats = [[-3e38f32, 0.0]; 3];
        stats[live] = [17.25, 3.0];
        device.write(&partials.contexts.buffer, live as u64 * 256, bytemuck::cast_slice(&context)).unwrap();
        device.write(&partials.stats, 0, bytemuck::cast_slice(&stats)).unwrap();
        let out = poisoned(device, 1, 64, DType::F32);
        let mut rec = device.recorder();
        combine(&mut rec, &partials, 3, (1, 64), &out, 0, 1).unwrap();
        rec.submit().unwrap();
        let want: Vec<f32> = context.iter().map(|x| x * (1.0 / 3.0f32)).collect();
        assert_same_bits(&read_raw(device, &out), &want, &variant.name);
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let partials = Partials::new(device, 4, 2, 2, 16).unwrap();
    let out = poisoned(device, 4, 16, DType::F32);
    let half = device.tensor("half", elgen_tensor::Class::Activations, 4, 16, DType::F16).unwrap();
    let mut rec = device.recorder();
    assert!(combine(&mut rec, &partials, 2, (2, 8), &out, 1, 3).is_ok());
    let bad = [
        ("splits", 3, (2, 8), &out, 0, 4),
        ("columns", 2, (2, 12), &out, 0, 4),
        ("heads of broken quads", 2, (2, 6), &out, 0, 4),
        ("more heads than sums", 2, (3, 4), &out, 0, 4),
        ("rows", 2, (2, 8), &out, 2, 3),
        ("half contexts", 2, (2, 8), &half, 0, 4),
    ];
    for (what, splits, shape, out, first, count) in bad {
        let result = combine(&mut rec, &partials, splits, shape, out, first, count);
        assert!(matches!(result, Err(TensorError::Shape { op: "combine", .. })), "{what}");
    }
}
