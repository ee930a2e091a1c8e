//! `align.wgsl` against its twin: probabilities averaged over heads, and log-sum-exp, for MHA's keys and for EL's hidden states.

use elgen_attention::{Align, Probabilities, Shape, align};
use elgen_tensor::{Class, DType, Device};
use elgen_tests::harness::{
    self, HeadRows, assert_same_bits, compare_within, devices, poisoned, read_raw, stored, table, upload,
};
use elgen_tests::twin;
use proptest::prelude::*;

/// Slots of the cache: more than the keys of any row.
const SLOTS: usize = 211;

#[derive(Clone, Debug)]
struct Case {
    heads: usize,
    /// Width of one head (MHA) or of the hidden states (EL).
    dim: usize,
    shared: bool,
    dtype: DType,
    /// Keys of each query row.
    counts: Vec<usize>,
    /// Query rows before the first that is computed.
    first: usize,
    /// Quads before queries and keys begin.
    lead: usize,
    /// Columns of the output beyond the longest row.
    slack: usize,
    log_sum_exp: bool,
    /// Common part of all scores, and how far they spread around it.
    shift: f32,
    spread: f32,
    seed: u64,
}

/// What a run wrote for the dispatched rows.
struct Found {
    mean: Vec<f32>,
    log_sum_exp: Vec<f32>,
}

impl Case {
    fn width(&self) -> usize {
        self.dim.next_multiple_of(4)
    }

    fn columns(&self) -> usize {
        (self.counts.iter().copied().max().unwrap_or(0) + self.slack).max(1)
    }

    fn rows(&self) -> usize {
        self.first + self.counts.len()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Rows of heads that are padded with zeros to whole quads, behind `lead` quads of nonsense. The first column of each head is `constant`.
    fn spread_heads(&self, seed: u64, rows: usize, heads: usize, factor: f32, constant: f32) -> Vec<f32> {
        HeadRows { heads, dim: self.dim, lead: self.lead }.values(seed, rows, factor, constant)
    }

    /// A query's first column, met by a key's first column of 1, gives every score `shift`; the others spread scores by about `spread`.
    fn queries(&self) -> Vec<f32> {
        let factor = 3.0 * self.spread / (self.dim as f32).sqrt() / self.scale();
        self.spread_heads(self.seed ^ 1, self.rows(), self.heads, factor, self.shift / self.scale())
    }

    fn keys(&self) -> Vec<f32> {
        self.spread_heads(self.seed ^ 2, SLOTS, if self.shared { 1 } else { self.heads }, 1.0, 1.0)
    }

    /// Per query row its row number, and by row number (first slot, count); row numbers are in no order.
    fn places(&self) -> (Vec<u32>, Vec<[u32; 2]>) {
        let (n, turn) = (self.rows() as u32, self.seed as u32 % 5);
        let numbers: Vec<u32> = (0..n).map(|i| (n - 1 - i + turn) % n + 1).collect();
        let mut ranges = vec![[u32::MAX; 2]; n as usize + 2];
        for (i, number) in numbers.iter().enumerate() {
            let count = i.checked_sub(self.first).map_or(3, |i| self.counts[i]);
            ranges[*number as usize] = [((self.seed as usize + 13 * i) % (SLOTS - count)) as u32, count as u32];
        }
        (numbers, ranges)
    }

    /// Mean probabilities, zeros behind a row's keys, and log-sum-exps.
    fn twin(&self) -> (Vec<f64>, Vec<f64>) {
        let lead = 4 * self.lead;
        let key_columns = lead + if self.shared { self.width() } else { self.heads * self.width() };
        let (q, k) = (stored(&self.queries(), DType::F32), stored(&self.keys(), self.dtype));
        let k: Vec<&[f64]> = k.chunks(key_columns).map(|row| &row[lead..]).collect();
        let (numbers, ranges) = self.places();
        let (mut mean, mut log_sum_exp) = (Vec::new(), Vec::new());
        for (row, number) in q.chunks(lead + self.heads * self.width()).zip(numbers).skip(self.first) {
            let [start, count] = ranges[number as usize].map(|x| x as usize);
            let scale = f64::from(self.scale());
            let (mut own, lse) = twin::align(&row[lead..], &k[start..start + count], self.heads, self.shared, scale);
            own.resize(self.columns(), 0.0);
            mean.extend(own);
            log_sum_exp.extend(lse);
        }
        (mean, log_sum_exp)
    }

    /// Runs query rows `only` (by number within `counts`).
    fn run(&self, device: &Device, only: std::ops::Range<usize>) -> Found {
        let (lead, heads) = (4 * self.lead, self.heads);
        let q = upload(device, self.rows(), lead + heads * self.width(), &self.queries());
        let key_columns = lead + if self.shared { self.width() } else { heads * self.width() };
        let keys = device.tensor_from("keys", Class::Cache, SLOTS, key_columns, self.dtype, &self.keys()).unwrap();
        let (d_model, head_dim) = if self.shared { (self.dim, 4) } else { (heads * self.width(), self.dim) };
        let shape = Shape::new(d_model, heads, head_dim, self.scale());
        let (numbers, ranges) = self.places();
        let (index, ranges) = (table(device, &numbers), harness::ranges(device, &ranges));
        let mean = poisoned(device, self.rows() + 1, self.columns(), DType::F32);
        let log_sum_exp = poisoned(device, self.rows() + 1, heads, DType::F32);
        let out = Probabilities { mean: &mean, log_sum_exp: self.log_sum_exp.then_some(&log_sum_exp) };
        let rows = Align {
            shape,
            shared: self.shared,
            q: (&q, lead),
            k: (&keys, lead),
            first: (self.first + only.start) as u32,
            count: only.len() as u32,
        };
        let mut rec = device.recorder();
        align(&mut rec, index.view(), ranges.view(), rows, &out).unwrap();
        rec.submit().unwrap();
        let live = self.first + only.start..self.first + only.end;
        let part = |tensor: &elgen_tensor::Tensor, written: bool, pads: bool| {
            let mut found = Vec::new();
            for (i, row) in read_raw(device, tensor).chunks(tensor.ld()).enumerate() {
                if !written || !live.contains(&i) {
                    assert!(row.iter().all(|x| x.is_nan()), "{self:?}: row {i} was not dispatched and was written");
                    continue;
                }
                assert!(!pads || row[tensor.cols..].iter().all(|x| *x == 0.0), "{self:?}: pads of row {i}");
                found.extend(&row[..tensor.cols]);
            }
            found
        };
        Found { mean: part(&mean, true, true), log_sum_exp: part(&log_sum_exp, self.log_sum_exp, false) }
    }

    fn check(&self, device: &Device) -> Result<(), String> {
        let (mean, log_sum_exp) = self.twin();
        let got = self.run(device, 0..self.counts.len());
        // An f32 sum that starts with a score of 80 rounds each further term at that magnitude.
        let tolerance = if self.shift == 0.0 { 1e-4 } else { 5e-4 };
        compare_within(&got.mean, &mean, tolerance).map_err(|e| format!("probabilities: {e}"))?;
        for ((row, count), start) in got.mean.chunks(self.columns()).zip(&self.counts).zip(0..) {
            let sum: f32 = row.iter().sum();
            let wanted = if *count == 0 { 0.0 } else { 1.0 };
            if (sum - wanted).abs() > 1e-5 || row[*count..].iter().any(|x| *x != 0.0) {
                return Err(format!("row {start} of {count} keys sums to {sum}"));
            }
        }
        if self.log_sum_exp {
            let wanted: Vec<f64> = log_sum_exp.iter().map(|x| x.max(f64::from(f32::MIN))).collect();
            for (i, (g, w)) in got.log_sum_exp.iter().zip(&wanted).enumerate() {
                let fits = (f64::from(*g) - w).abs() <= 1e-4 * w.abs().max(1.0);
                if !fits {
                    return Err(format!("log-sum-exp {i}: {g} is not {w}"));
                }
            }
        }
        Ok(())
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let counts = prop::sample::select(vec![0usize, 1, 2, 63, 64, 65, 130, 200]);
    let scores = prop::sample::select(vec![(0.0, 1.0), (0.0, 1.0), (0.0, 40.0), (80.0, 2.0), (-80.0, 20.0)]);
    let places = (0..=2usize, 0..=2usize, 0..=5usize);
    let shape = (prop::sample::select(vec![1usize, 2, 3, 5, 8, 16]), any::<bool>()).prop_flat_map(|(heads, shared)| {
        let dims = if shared { vec![4usize, 30, 64, 250] } else { vec![1usize, 4, 10, 12, 64] };
        (Just(heads), Just(shared), prop::sample::select(dims))
    });
    let dtype = prop_oneof![Just(DType::F32), Just(DType::F16)];
    let counts = prop::collection::vec(counts, 1..=4);
    (shape, dtype, counts, places, any::<bool>(), scores, any::<u64>()).prop_map(
        |((heads, shared, dim), dtype, counts, (first, lead, slack), log_sum_exp, (shift, spread), seed)| Case {
            heads,
            dim,
            shared,
            dtype,
            counts,
            first,
            lead,
            slack,
            log_sum_exp,
            shift,
            spread,
            seed: seed >> 1,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn probabilities_match_their_twin(case in cases()) {
        for variant in devices() {
            if let Err(message) = case.check(&variant.device) {
                prop_assert!(false, "{}: {message}", variant.name);
            }
        }
    }
}

fn ragged(heads: usize, shared: bool, dtype: DType) -> Case {
    Case {
        heads,
        dim: 30,
        shared,
        dtype,
        counts: vec![0, 1, 63, 64, 65, 130, 200],
        first: 1,
        lead: 1,
        slack: 1,
        log_sum_exp: true,
        shift: 0.0,
        spread: 3.0,
        seed: 40 + heads as u64,
    }
}

/// What a random run could miss: every key count at the edges of a stride, for every head count.
#[test]
fn every_head_count_at_the_edges() {
    for (i, heads) in [1usize, 2, 3, 5, 8, 16].into_iter().enumerate() {
        for shared in [false, true] {
            let case = ragged(heads, shared, if i % 2 == 0 { DType::F32 } else { DType::F16 });
            let variant = &devices()[(i + usize::from(shared)) % devices().len()];
            case.check(&variant.device).unwrap_or_else(|e| panic!("{}, {case:?}: {e}", variant.name));
        }
    }
}

#[test]
fn other_rows_do_not_change_a_bit() {
    for (shared, dtype) in [(false, DType::F32), (true, DType::F16)] {
        let case = ragged(5, shared, dtype);
        for variant in devices() {
            let all = case.run(&variant.device, 0..7);
            for only in [1..2, 2..3, 4..5, 3..7] {
                let alone = case.run(&variant.device, only.clone());
                let what = format!("{}, shared {shared}, rows {only:?}", variant.name);
                let columns = case.columns();
                assert_same_bits(&alone.mean, &all.mean[only.start * columns..only.end * columns], &what);
                assert_same_bits(&alone.log_sum_exp, &all.log_sum_exp[only.start * 5..only.end * 5], &what);
            }
        }
    }
}

/// A range that is longer than an output row is refused.
#[test]
fn a_row_is_never_left() {
    let device = &devices()[2].device;
    let (q, k) = (upload(device, 1, 4, &[1.0; 4]), upload(device, 30, 4, &[0.5; 120]));
    let (index, ranges) = (table(device, &[0_u32]), harness::ranges(device, &[[0, 30]]));
    let mean = poisoned(device, 2, 8, DType::F32);
    let shape = Shape::new(4, 1, 4, 1.0);
    let rows = Align { shape, shared: false, q: (&q, 0), k: (&k, 0), first: 0, count: 1 };
    let mut rec = device.recorder();
    let out = Probabilities { mean: &mean, log_sum_exp: None };
    let error = align(&mut rec, index.view(), ranges.view(), rows, &out).unwrap_err().to_string();
    assert!(error.contains("up to 30 keys") && error.contains("probabilities [2, 8]"), "{error}");
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let tensor = |rows: usize, cols: usize| upload(device, rows, cols, &vec![0.0; rows * cols]);
    let (q, k, mean, lse) = (tensor(3, 16), tensor(9, 16), tensor(3, 9), tensor(3, 2));
    let (narrow, f16) = (tensor(3, 12), poisoned(device, 3, 16, DType::F16));
    let (index, ranges) = (table(device, &[0_u32; 8]), harness::ranges(device, &[[0, 0]; 4]));
    let (index, ranges) = (index.view(), ranges.view());
    let shape = Shape::new(16, 2, 8, 1.0);
    let plain = Align { shape, shared: false, q: (&q, 0), k: (&k, 0), first: 0, count: 3 };
    let out = Probabilities { mean: &mean, log_sum_exp: Some(&lse) };
    assert!(align(&mut device.recorder(), index, ranges, plain, &out).is_ok());
    for (what, broken, out) in [
        ("a row too many", Align { count: 4, ..plain }, out),
        ("rows behind the last", Align { first: 2, count: 2, ..plain }, out),
        ("queries of 12 columns", Align { q: (&narrow, 0), ..plain }, out),
        ("queries from an odd column", Align { q: (&q, 2), ..plain }, out),
        ("keys from column 4", Align { k: (&k, 4), ..plain }, out),
        ("queries of EL are wider", Align { shared: true, ..plain }, out),
        ("f16 queries", Align { q: (&f16, 0), ..plain }, out),
        ("an f16 result", plain, Probabilities { mean: &f16, ..out }),
        ("log-sum-exp of 9 heads", plain, Probabilities { log_sum_exp: Some(&mean), ..out }),
    ] {
        let error = align(&mut device.recorder(), index, ranges, broken, &out).expect_err(what).to_string();
        assert!(error.contains("align") && error.contains("2 heads"), "{what}: {error}");
    }
}
