//! `attend.wgsl` against its twin: multi-head attention over ranges of keys, as encoders and prompts use it.

use elgen_attention::{Attend, KeyRanges, PositionBias, Shape, attend};
use elgen_tensor::{Class, DType, Device, TensorError};
use elgen_tests::harness::{
    HeadRows, assert_same_bits, compare, compare_within, devices, numbers, poisoned, ranges, read_raw, stored, upload,
    values,
};
use elgen_tests::twin;
use proptest::prelude::*;

/// Slots of the slab: more than the keys of any row.
const SLOTS: usize = 211;

#[derive(Clone, Debug)]
struct Case {
    heads: usize,
    /// Width of one head.
    dim: usize,
    dtype: DType,
    /// Keys of each query row.
    counts: Vec<usize>,
    /// Query rows before the first that is computed.
    first: usize,
    /// Quads before queries, keys and values begin.
    lead: usize,
    /// Common part of all scores, and how far they spread around it.
    shift: f32,
    spread: f32,
    /// With a bias for distances up to this.
    reach: Option<usize>,
    seed: u64,
}

/// A query row's places: its physical row and the slots of its keys.
struct Places {
    physical: Vec<u32>,
    slots: Vec<Vec<u32>>,
}

impl Case {
    fn width(&self) -> usize {
        self.dim.next_multiple_of(4)
    }

    fn kv_columns(&self) -> usize {
        self.heads * self.width()
    }

    fn rows(&self) -> usize {
        self.first + self.counts.len()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Rows of `cols` values in heads of `dim` that are padded with zeros to whole quads, behind `lead` quads of nonsense.
    fn spread_heads(&self, seed: u64, rows: usize, heads: usize, factor: f32, constant: f32) -> Vec<f32> {
        HeadRows { heads, dim: self.dim, lead: self.lead }.values(seed, rows, factor, constant)
    }

    /// Queries whose first column, met by a key's first column of 1, gives every score `shift`; the others spread scores by about `spread`.
    fn queries(&self) -> Vec<f32> {
        let factor = 3.0 * self.spread / (self.dim as f32).sqrt() / self.scale();
        self.spread_heads(self.seed ^ 1, self.rows(), self.heads, factor, self.shift / self.scale())
    }

    fn keys(&self) -> Vec<f32> {
        self.spread_heads(self.seed ^ 2, SLOTS, self.heads, 1.0, 1.0)
    }

    fn values(&self) -> Vec<f32> {
        self.spread_heads(self.seed ^ 3, SLOTS, self.heads, 1.0, -0.5)
    }

    /// Slab rows: keys and values side by side.
    fn slab(&self) -> Vec<f32> {
        let (k, v) = (self.keys(), self.values());
        let ld = 4 * self.lead + self.kv_columns();
        k.chunks(ld).zip(v.chunks(ld)).flat_map(|(k, v)| [k, v].concat()).collect()
    }

    /// `[heads, 2 * reach + 1]`.
    fn bias(&self, reach: usize) -> Vec<f32> {
        values(self.seed ^ 99, self.heads * (2 * reach + 1)).into_iter().map(|x| 2.0 * x).collect()
    }

    fn places(&self) -> Places {
        let order = |seed: u64, n: usize| {
            let keys = values(seed, n);
            let mut order: Vec<u32> = (0..n as u32).collect();
            order.sort_by(|a, b| keys[*a as usize].total_cmp(&keys[*b as usize]));
            order
        };
        let physical = order(self.seed ^ 4, self.rows() + 2)[..self.rows()].to_vec();
        let counts = std::iter::repeat_n(&0, self.first).chain(&self.counts);
        let slots = counts
            .enumerate()
            .map(|(i, count)| {
                // Every second range begins in front of its query, so that distances have both signs.
                let start = if i % 2 == 0 { 0 } else { (self.seed as usize + 13 * i) % (SLOTS - count) };
                (start as u32..(start + count) as u32).collect()
            })
            .collect();
        Places { physical, slots }
    }

    fn twin(&self) -> Vec<f64> {
        let (lead, columns) = (4 * self.lead, self.heads * self.width());
        let (q, k, v) =
            (stored(&self.queries(), DType::F32), stored(&self.keys(), self.dtype), stored(&self.values(), self.dtype));
        let places = self.places();
        let (k, v): (Vec<&[f64]>, Vec<&[f64]>) =
            (k.chunks(lead + self.kv_columns()).collect(), v.chunks(lead + self.kv_columns()).collect());
        let mut out = Vec::new();
        for (i, (row, slots)) in q.chunks(lead + columns).zip(&places.slots).enumerate().skip(self.first) {
            let keys: Vec<&[f64]> = slots.iter().map(|s| &k[*s as usize][lead..]).collect();
            let values: Vec<&[f64]> = slots.iter().map(|s| &v[*s as usize][lead..]).collect();
            // The query is key row `i` itself.
            let distance = |key: usize| i64::from(slots[key]) - i as i64;
            let bias = |head: usize, key: usize| {
                let entry = |reach| twin::distance_bias(&self.bias(reach), reach, head, distance(key));
                self.reach.map_or(0.0, entry)
            };
            let scale = f64::from(self.scale());
            out.extend(twin::attend_biased(&row[lead..], &keys, &values, self.heads, false, scale, bias));
        }
        out
    }

    /// Runs query rows `only` (by number within `counts`) in one dispatch; returns their contexts.
    fn run(&self, device: &Device, only: std::ops::Range<usize>) -> Vec<f32> {
        let (lead, columns, places) = (4 * self.lead, self.heads * self.width(), self.places());
        let q = upload(device, self.rows(), lead + columns, &self.queries());
        let slab_columns = 2 * (lead + columns);
        let slab = device.tensor_from("slab", Class::Cache, SLOTS, slab_columns, self.dtype, &self.slab()).unwrap();
        let out = poisoned(device, self.rows() + 1, columns, DType::F32);
        let shape = Shape::new(columns, self.heads, self.dim, self.scale());
        let bias = self.reach.map(|reach| {
            let table = self.bias(reach);
            PositionBias::new(&device.into(), "bias", self.heads, reach, |head, distance| {
                table[head * (2 * reach + 1) + (distance + reach as i64) as usize]
            })
            .unwrap()
        });
        let product = Attend {
            shape,
            bias: bias.as_ref(),
            q: (&q, lead),
            k: (&slab, lead),
            v: (&slab, 2 * lead + columns),
            out: &out,
            first: (self.first + only.start) as u32,
            count: only.len() as u32,
        };
        let mut rec = device.recorder();
        let capacity = self.rows() + 2;
        let mut pairs = vec![[u32::MAX; 2]; capacity];
        for (row, slots) in places.physical.iter().zip(&places.slots) {
            pairs[*row as usize] = [slots.first().copied().unwrap_or(3), slots.len() as u32];
        }
        let (index, ranges) = (numbers(device, &places.physical), ranges(device, &pairs));
        attend(&mut rec, KeyRanges { index: index.view(), ranges: ranges.view() }, product).unwrap();
        rec.submit().unwrap();
        let live = (self.first + only.start) * columns..(self.first + only.end) * columns;
        let raw = read_raw(device, &out);
        for (i, x) in raw.iter().enumerate() {
            if !live.contains(&i) {
                assert!(x.is_nan(), "{self:?}: element {i} outside of the dispatched rows was written");
            } else if (i % columns) % self.width() >= self.dim {
                assert_eq!(*x, 0.0, "{self:?}: pad of element {i}");
            }
        }
        raw[live].to_vec()
    }
}

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::F16)]
}

fn counts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop::sample::select(vec![0usize, 1, 2, 63, 64, 65, 130, 200]), 1..=4)
}

/// (shift, spread) of scores: plain, and far beyond what exp can take without the running maximum.
fn scores() -> impl Strategy<Value = (f32, f32)> {
    prop::sample::select(vec![
        (0.0, 1.0),
        (0.0, 1.0),
        (0.0, 40.0),
        (80.0, 2.0),
        (-80.0, 2.0),
        (80.0, 20.0),
        (-80.0, 20.0),
    ])
}

fn reach() -> impl Strategy<Value = Option<usize>> {
    prop::sample::select(vec![None, Some(0), Some(1), Some(30), Some(128), Some(300)])
}

fn mha() -> impl Strategy<Value = Case> {
    let widths = prop::sample::select(vec![1usize, 4, 8, 10, 12, 64, 100, 260]);
    let heads = prop::sample::select(vec![1usize, 2, 3, 5, 8, 16]);
    (heads, widths, dtype(), counts(), 0..=2usize, 0..=2usize, scores(), reach(), any::<u64>()).prop_map(
        |(heads, dim, dtype, counts, first, lead, (shift, spread), reach, seed)| Case {
            heads,
            dim,
            dtype,
            counts,
            first,
            lead,
            shift,
            spread,
            reach,
            seed,
        },
    )
}

fn matches(case: &Case) -> Result<(), TestCaseError> {
    let want = case.twin();
    // An f32 sum that starts with a score of 80 rounds each further term at that magnitude; without the running maximum it would be infinite or 0 / 0.
    let tolerance = if case.shift == 0.0 { 1e-4 } else { 5e-4 };
    for variant in devices() {
        let got = case.run(&variant.device, 0..case.counts.len());
        if let Err(message) = compare_within(&got, &want, tolerance) {
            prop_assert!(false, "{}: {message}", variant.name);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn multi_head_attention_matches_its_twin(case in mha()) {
        matches(&case)?;
    }
}

/// The cases that a random run could miss: every key count at the edges of a chunk, every head count.
#[test]
fn every_head_count() {
    for (i, heads) in [1usize, 2, 3, 5, 8, 16].into_iter().enumerate() {
        for dtype in [DType::F32, DType::F16] {
            let case = Case {
                heads,
                dim: 30,
                dtype,
                counts: vec![0, 1, 63, 64, 65, 130, 200],
                first: i % 3,
                lead: 1,
                shift: 0.0,
                spread: 3.0,
                reach: (i % 2 == usize::from(dtype == DType::F16)).then_some(3),
                seed: 40 + i as u64,
            };
            let device = &devices()[i % devices().len()].device;
            let got = case.run(device, 0..7);
            compare(&got, &case.twin()).unwrap_or_else(|e| panic!("{case:?}: {e}"));
            assert!(got[..heads * 32].iter().all(|x| *x == 0.0), "a row without keys has a zero context");
        }
    }
}

/// More quads of columns than a workgroup has invocations.
#[test]
fn a_wide_head() {
    let case = Case {
        heads: 2,
        dim: 516,
        dtype: DType::F32,
        counts: vec![70, 3],
        first: 0,
        lead: 0,
        shift: 0.0,
        spread: 3.0,
        reach: None,
        seed: 5,
    };
    for variant in &devices()[..2] {
        let got = case.run(&variant.device, 0..2);
        compare(&got, &case.twin()).unwrap_or_else(|e| panic!("{}, {case:?}: {e}", variant.name));
    }
}

#[test]
fn other_rows_do_not_change_a_bit() {
    for (reach, dtype) in [(None, DType::F32), (Some(50), DType::F32), (None, DType::F16), (Some(50), DType::F16)] {
        let case = Case {
            heads: 5,
            dim: 44,
            dtype,
            counts: vec![65, 1, 200, 0, 64, 130],
            first: 2,
            lead: 0,
            shift: 0.0,
            spread: 4.0,
            reach,
            seed: 9,
        };
        for variant in devices() {
            let all = case.run(&variant.device, 0..6);
            for only in [0..1, 1..2, 2..3, 4..5, 5..6, 1..4] {
                let columns = 5 * 44;
                let alone = case.run(&variant.device, only.clone());
                let what = format!("{}, {case:?}, rows {only:?}", variant.name);
                assert_same_bits(&alone, &all[only.start * columns..only.end * columns], &what);
            }
        }
    }
}

#[test]
fn more_rows_than_one_dispatch_holds() {
    let device = &devices()[2].device;
    let n = 65535 + 300;
    let q = upload(device, n, 4, &vec![1.0; 4 * n]);
    let kv = upload(device, 3, 4, &[1., 0., 0., 0., 2., 0., 0., 0., 3., 0., 0., 0.]);
    let out = poisoned(device, n, 4, DType::F32);
    let index = numbers(device, &(0..n as u32).collect::<Vec<_>>());
    let ranges = ranges(device, &(0..n as u32).map(|i| [i % 3, 1]).collect::<Vec<_>>());
    let shape = Shape::new(4, 1, 4, 0.5);
    let product =
        Attend { shape, q: (&q, 0), k: (&kv, 0), v: (&kv, 0), bias: None, out: &out, first: 0, count: n as u32 };
    let mut rec = device.recorder();
    attend(&mut rec, KeyRanges { index: index.view(), ranges: ranges.view() }, product).unwrap();
    rec.submit().unwrap();
    let raw = read_raw(device, &out);
    let wrong = raw.chunks(4).enumerate().find(|(i, row)| row[0] != (i % 3 + 1) as f32);
    assert_eq!(wrong, None);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let (q, kv, out) =
        (upload(device, 2, 12, &[0.0; 24]), upload(device, 3, 16, &[0.0; 48]), poisoned(device, 2, 8, DType::F32));
    let half = device.tensor("half", Class::Cache, 3, 16, DType::F16).unwrap();
    let (index, ranges) = (numbers(device, &[0, 1, 0, 0]), ranges(device, &[[0, 1], [0, 0]]));
    let shape = Shape::new(8, 2, 4, 1.0);
    let good = Attend { shape, q: (&q, 4), k: (&kv, 0), v: (&kv, 8), bias: None, out: &out, first: 0, count: 2 };
    let bias = PositionBias::new(&device.into(), "bias", 3, 4, |_, _| 0.0).unwrap();
    let mut rec = device.recorder();
    let mut run = |a: Attend<'_>| attend(&mut rec, KeyRanges { index: index.view(), ranges: ranges.view() }, a);
    assert!(run(good).is_ok());
    let bad = [
        ("rows", Attend { first: 1, ..good }),
        ("query columns", Attend { q: (&q, 8), ..good }),
        ("query column within a quad", Attend { q: (&q, 2), ..good }),
        ("value columns", Attend { v: (&kv, 12), ..good }),
        ("two dtypes", Attend { v: (&half, 0), ..good }),
        ("half queries", Attend { q: (&half, 0), ..good }),
        ("out columns", Attend { shape: Shape { num_heads: 3, ..shape }, q: (&q, 0), v: (&kv, 0), ..good }),
        ("a bias of other heads", Attend { bias: Some(&bias), ..good }),
    ];
    for (what, a) in bad {
        assert!(matches!(run(a), Err(TensorError::Shape { op: "attend", .. })), "{what}");
    }
}

#[test]
fn heads_wider_than_workgroup_memory_are_an_error() {
    let device = &devices()[0].device;
    let d = device.capabilities().workgroup_bytes as usize / 4;
    let (q, kv, out) =
        (upload(device, 1, d, &vec![0.0; d]), upload(device, 1, d, &vec![0.0; d]), poisoned(device, 1, d, DType::F32));
    let (index, ranges) = (numbers(device, &[0]), ranges(device, &[[0, 1]]));
    let shape = Shape::new(d, 1, d, 1.0);
    let product = Attend { shape, q: (&q, 0), k: (&kv, 0), v: (&kv, 0), bias: None, out: &out, first: 0, count: 1 };
    let error =
        attend(&mut device.recorder(), KeyRanges { index: index.view(), ranges: ranges.view() }, product).unwrap_err();
    assert!(error.to_string().contains(&format!("heads of width {d}")), "{error}");
}
