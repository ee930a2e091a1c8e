//! `el_attend_coop.wgsl` against its twin and against the portable kernel, on devices with cooperative matrices.
//!
//! Software drivers run both tile edges, whatever they list; other adapters the edge that they list. Where there are no cooperative matrices each test says so and
//! passes, unless `ELGEN_REQUIRE_COOP` is 1; `scripts/lavapipe-coopmat` runs these tests on a software driver that has them.

use elgen_attention::{
    CrossQueries, ElAttend, ElQueries, ElTile, PositionBias, SPLIT, Shape, el_attend, el_attend_tiled, el_uses_matrices,
};
use elgen_tensor::ops::{Partials, combine};
use elgen_tensor::{Class, DType, Device, Segment};
use elgen_tests::harness::{
    self, Variant, assert_same_bits, coop_devices, numbers, placed, poisoned, read_raw, stored, upload, values,
};
use elgen_tests::twin;
use proptest::prelude::*;

/// Slots of the slab.
const SLOTS: usize = 1300;

#[derive(Clone, Debug)]
struct Case {
    heads: usize,
    dim: usize,
    /// Keys through the slot table: each row by itself.
    slots: bool,
    /// (rows, keys) of each group. With `slots`, row `r` of a group has `r` keys less.
    groups: Vec<(usize, usize)>,
    /// How far scores spread.
    spread: f32,
    /// By how much scores grow from one slot to the next.
    ramp: f32,
    /// Added to four channels of X.
    outliers: f32,
    /// Factor on q', which the scale takes back.
    magnitude: f32,
    reach: Option<usize>,
    /// Positions that each row has beyond its live keys, as if an eviction policy had dropped so many; only through the slot table.
    dropped: usize,
    seed: u64,
}

const PLAIN: Case = Case {
    heads: 5,
    dim: 100,
    slots: false,
    groups: Vec::new(),
    spread: 3.0,
    ramp: 0.0,
    outliers: 0.0,
    magnitude: 1.0,
    reach: None,
    dropped: 0,
    seed: 1,
};

impl Case {
    fn width(&self) -> usize {
        self.dim.next_multiple_of(4)
    }

    fn columns(&self) -> usize {
        self.heads * self.width()
    }

    fn rows(&self) -> usize {
        self.groups.iter().map(|g| g.0).sum()
    }

    fn scale(&self) -> f32 {
        1.0 / self.magnitude
    }

    /// Rows of `dim` values, padded with zeros to whole quads.
    fn pad(&self, values: &[f32]) -> Vec<f32> {
        let pads = self.width() - self.dim;
        values.chunks(self.dim).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, pads))).collect()
    }

    /// The first channel of X counts the slots, so that the first one of q' is the ramp.
    fn queries(&self) -> Vec<f32> {
        let factor = 3.0 * self.spread / (self.dim as f32).sqrt();
        let mut v = values(self.seed ^ 1, self.rows() * self.heads * self.dim);
        for (pair, q) in v.chunks_mut(self.dim).enumerate() {
            // Pairs of a tile differ in size, so that each has its own power of two.
            let own = factor * [1.0, 0.2, 0.5][pair % 3];
            q.iter_mut().for_each(|x| *x *= own);
            // Else the outliers' part of a score would drown everything else.
            q.iter_mut().skip(1).take(4).for_each(|x| *x /= 1.0 + self.outliers);
            q[0] = 8.0 * self.ramp;
            q.iter_mut().for_each(|x| *x *= self.magnitude);
        }
        self.pad(&v)
    }

    fn x(&self) -> Vec<f32> {
        let mut v = values(self.seed ^ 2, SLOTS * self.dim);
        for (slot, row) in v.chunks_mut(self.dim).enumerate() {
            row.iter_mut().skip(1).take(4).for_each(|x| *x += self.outliers);
            row[0] = slot as f32 / 8.0;
        }
        self.pad(&v)
    }

    fn bias(&self, reach: usize) -> Vec<f32> {
        values(self.seed ^ 99, self.heads * (2 * reach + 1)).into_iter().map(|x| 2.0 * x).collect()
    }

    /// Slots of each query row's keys: in any order through the table, else a range.
    fn places(&self) -> Vec<Vec<u32>> {
        let shuffled = |seed: u64| {
            let keys = values(seed, SLOTS);
            let mut order: Vec<u32> = (0..SLOTS as u32).collect();
            order.sort_by(|a, b| keys[*a as usize].total_cmp(&keys[*b as usize]));
            order
        };
        let row = |g: usize, r: usize, keys: usize| match self.slots {
            true => shuffled(self.seed ^ (100 * g + r + 7) as u64)[..keys.saturating_sub(r)].to_vec(),
            false => {
                let start = (self.seed as usize % 97 + 13 * g) % (SLOTS - keys + 1);
                (start as u32..(start + keys) as u32).collect()
            }
        };
        self.groups.iter().enumerate().flat_map(|(g, &(rows, keys))| (0..rows).map(move |r| row(g, r, keys))).collect()
    }

    fn twin(&self) -> Vec<f64> {
        let (q, x) = (stored(&self.queries(), DType::F32), stored(&self.x(), DType::F16));
        let x: Vec<&[f64]> = x.chunks(self.width()).collect();
        let mut out = Vec::new();
        for (q, places) in q.chunks(self.columns()).zip(self.places()) {
            let keys: Vec<&[f64]> = places.iter().map(|s| x[*s as usize]).collect();
            let bias = |head: usize, key: usize| {
                // A key's index for its position, as the kernel has it.
                let distance = key as i64 - ((places.len() + self.dropped) as i64 - 1);
                self.reach.map_or(0.0, |reach| twin::distance_bias(&self.bias(reach), reach, head, distance))
            };
            out.extend(twin::attend_biased(q, &keys, &keys, self.heads, true, f64::from(self.scale()), bias));
        }
        out
    }

    /// The groups `only`, in one dispatch; `portable` forces the other kernel.
    fn run(&self, device: &Device, only: std::ops::Range<usize>, portable: bool) -> Vec<f32> {
        let (n, columns, places) = (self.rows(), self.columns(), self.places());
        let q = upload(device, n, columns, &self.queries());
        let x = device.tensor_from("x", Class::Cache, SLOTS, self.width(), DType::F16, &self.x()).unwrap();
        let out = poisoned(device, n + 1, columns, DType::F32);
        let shape = Shape::new(self.dim, self.heads, 4, self.scale());
        let bias = self.reach.map(|reach| {
            let table = self.bias(reach);
            PositionBias::new(&device.into(), "bias", self.heads, reach, |head, distance| {
                table[head * (2 * reach + 1) + (distance + reach as i64) as usize]
            })
            .unwrap()
        });
        let splits = places.iter().map(|p| p.len().div_ceil(SPLIT)).max().unwrap_or(1);
        let partials = (splits > 1).then(|| Partials::new(device, n, splits, self.heads, columns).unwrap());
        let rows_before = |g: usize| self.groups[..g].iter().map(|g| g.0 as u32).sum::<u32>();
        let (first, end) = (rows_before(only.start), rows_before(only.end));
        let segment = Segment {
            slab: 0,
            first,
            count: end - first,
            first_group: only.start as u32,
            groups: only.len() as u32,
            widest_group: self.groups[only].iter().map(|g| g.0 as u32).max().unwrap(),
        };
        let product = ElAttend {
            shape,
            q: &q,
            x: &x,
            bias: bias.as_ref(),
            out: &out,
            splits: partials.as_ref().map(|partials| (partials, splits)),
            segment,
        };
        let tables = placed(device, [n, SLOTS], (0..n as u32).collect(), (0..).zip(&places), self.dropped);
        let index = numbers(device, &(0..n as u32).collect::<Vec<_>>());
        let range = |p: &Vec<u32>| [p.first().copied().unwrap_or(5), p.len() as u32];
        let ranges = harness::ranges(device, &places.iter().map(range).collect::<Vec<_>>());
        let group = |g: usize| [rows_before(g), self.groups[g].0 as u32];
        let groups = harness::ranges(device, &(0..self.groups.len()).map(group).collect::<Vec<_>>());
        let segments = [segment];
        let queries = match self.slots {
            true => ElQueries::Slots(&tables),
            false => ElQueries::Groups(CrossQueries {
                groups: groups.view(),
                index: index.view(),
                ranges: ranges.view(),
                segments: &segments,
                count: n,
            }),
        };
        let mut rec = device.recorder();
        if portable {
            let tile = ElTile::choose(device, self.width(), self.heads).unwrap();
            el_attend_tiled(&mut rec, queries, product, Some(tile), None).unwrap();
        } else {
            assert!(el_uses_matrices(device, self.dim, DType::F16));
            el_attend(&mut rec, queries, product).unwrap();
        }
        if let Some((partials, splits)) = product.splits.filter(|(_, splits)| *splits > 1) {
            let heads = (self.heads, self.width());
            combine(&mut rec, partials, splits, heads, &out, segment.first, segment.count).unwrap();
        }
        rec.submit().unwrap();
        let raw = read_raw(device, &out);
        let live = first as usize * columns..end as usize * columns;
        for (i, x) in raw.iter().enumerate() {
            if !live.contains(&i) {
                assert!(x.is_nan(), "{self:?}: element {i} outside of the dispatched rows was written");
            } else if i % self.width() >= self.dim {
                assert_eq!(*x, 0.0, "{self:?}: pad of element {i}");
            }
        }
        raw[live].to_vec()
    }

    fn all(&self, device: &Device) -> Vec<f32> {
        self.run(device, 0..self.groups.len(), false)
    }
}

/// Root of the squared error, over that of the values; the first channel of X, which counts slots, stands apart.
fn error(case: &Case, got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let counts = |i: usize| i.is_multiple_of(case.width());
    let part = |counting: bool| {
        let chosen = || (0..got.len()).filter(move |i| counts(*i) == counting);
        let square: f64 = chosen().map(|i| (f64::from(got[i]) - want[i]).powi(2)).sum();
        let norm: f64 = chosen().map(|i| want[i].powi(2)).sum();
        if norm == 0.0 { square.sqrt() } else { (square / norm).sqrt() }
    };
    part(true).max(part(false))
}

fn groups() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let keys = prop::sample::select(vec![0usize, 1, 7, 8, 15, 16, 17, 33, 100, 511, 512, 513, 1100]);
    prop::collection::vec((1..=6usize, keys), 1..=3)
}

fn cases() -> impl Strategy<Value = Case> {
    let heads = prop::sample::select(vec![1usize, 2, 3, 5, 8, 16, 17]);
    let reach = prop::sample::select(vec![None, None, Some(0), Some(30)]);
    let scores =
        prop::sample::select(vec![(1.0f32, 0.0f32), (3.0, 0.0), (40.0, 0.0), (1.0, 0.2), (1.0, -0.2), (1.0, 1.0)]);
    let magnitude = prop::sample::select(vec![1.0f32, 1.0, 1e7, 1e-7]);
    (heads, prop::sample::select(vec![30usize, 100]), any::<bool>(), groups(), scores, magnitude, reach, any::<u64>())
        .prop_map(|(heads, dim, slots, groups, (spread, ramp), magnitude, reach, seed)| {
            let reach = reach.filter(|_| slots);
            Case { heads, dim, slots, groups, spread, ramp, magnitude, reach, seed, ..PLAIN }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn coop_matches_its_twin(case in cases()) {
        for Variant { name, device } in coop_devices() {
            let e = error(&case, &case.all(device), &case.twin());
            // f32 sums of scores that spread by 40 round at that magnitude.
            let bar = if case.spread > 10.0 || case.ramp != 0.0 { 1e-4 } else { 5e-6 };
            prop_assert!(e <= bar, "{name}: error {e:e}");
        }
    }
}

/// A row attends to its live keys alone, however many positions it has; its query stands at the last position all the same.
#[test]
fn coop_keys_are_the_live_ones_and_distances_those_of_positions() {
    for Variant { name, device } in coop_devices() {
        for (groups, reach) in [(&[(2, 1100), (1, 0)][..], None), (&[(3, 40), (1, 0), (1, 5)], Some(30))] {
            let whole = Case { slots: true, groups: groups.to_vec(), reach, ..PLAIN };
            let case = Case { dropped: 20, ..whole.clone() };
            let got = case.all(device);
            let e = error(&case, &got, &case.twin());
            assert!(e < 5e-6, "{name}, {case:?}: {e:e}");
            if reach.is_none() {
                assert_same_bits(&got, &whole.all(device), &format!("{name}, {case:?}"));
            }
        }
    }
}

/// With a single f16 for q' and P the first of these would be 3e-4.
#[test]
fn coop_is_as_exact_as_the_portable_kernel() {
    let all =
        [(0.0, 1.0, 0.0), (60.0, 1.0, 0.0), (300.0, 1.0, 0.0), (0.0, 1e7, 0.0), (0.0, 1e-7, 0.0), (0.0, 1.0, 0.2)];
    for Variant { name, device } in coop_devices() {
        for (outliers, magnitude, ramp) in all {
            let case = Case { heads: 16, dim: 260, groups: vec![(2, 300)], outliers, magnitude, ramp, ..PLAIN };
            let want = case.twin();
            let matrices = error(&case, &case.all(device), &want);
            let portable = error(&case, &case.run(device, 0..1, true), &want);
            let what = format!("{name}, outliers {outliers}, magnitude {magnitude:e}, ramp {ramp}");
            eprintln!("{what}: matrices {matrices:.2e}, portable {portable:.2e}");
            // Large scores show that q' has 22 bits instead of 24.
            assert!(matrices <= 2.0 * portable + 5e-7, "{what}: {matrices:e}, portable {portable:e}");
        }
    }
}

#[test]
fn coop_tile_and_batch_mates_do_not_change_a_bit() {
    for Variant { name, device } in coop_devices() {
        let short = [(3, 40), (1, 17), (6, 300), (1, 0)];
        // The last ones have several key splits, which all count without a ramp.
        let long = [(2, 1100), (1, 0), (1, 100)];
        for (slots, ramp, groups) in [(false, 0.1, &short[..]), (true, 0.1, &short[..]), (false, 0.0, &long[..])] {
            let case = Case { slots, groups: groups.to_vec(), ramp, reach: slots.then_some(30), ..PLAIN };
            let all = case.all(device);
            let e = error(&case, &all, &case.twin());
            assert!(e < 1e-4, "{name}, {case:?}: {e:e}");
            let mut at = 0;
            for (g, (_, keys)) in groups.iter().enumerate() {
                let alone = case.run(device, g..g + 1, false);
                assert_same_bits(&alone, &all[at..at + alone.len()], &format!("{name}, {case:?}, group {g}"));
                assert!(*keys > 0 || alone.iter().all(|x| *x == 0.0), "a row without keys has a zero context");
                at += alone.len();
            }
        }
        // One row of a group of six, as a group of its own.
        let mates = Case { groups: vec![(6, 50)], ..PLAIN };
        let alone = Case { groups: vec![(1, 50)], ..PLAIN };
        let columns = mates.columns();
        assert_same_bits(&alone.all(device), &mates.all(device)[..columns], "the first of six rows");
    }
}

/// On a device of its own: it ends without cooperative matrices.
#[test]
fn coop_kernels_that_fail_their_trial_are_not_used() {
    let Some(variant) = coop_devices().first() else { return };
    let device = harness::open_like(&variant.device);
    let case = Case { groups: vec![(2, 20)], ..PLAIN };
    let mut tried = 0;
    for _ in 0..2 {
        device
            .try_cooperative("right", || {
                tried += 1;
                Ok(None)
            })
            .unwrap();
    }
    assert_eq!((tried, device.cooperative_fault()), (1, None));
    assert!(el_uses_matrices(&device, case.dim, DType::F16) && !el_uses_matrices(&device, case.dim, DType::F32));
    device.try_cooperative("wrong", || Ok(Some("12 of 13 numbers".into()))).unwrap();
    assert_eq!(device.cooperative_fault(), Some("wrong: 12 of 13 numbers"));
    assert!(device.capabilities().cooperative.is_none() && !el_uses_matrices(&device, case.dim, DType::F16));
    device.try_cooperative("late", || unreachable!("nothing is tried any more")).unwrap();
    let e = error(&case, &case.run(&device, 0..1, true), &case.twin());
    assert!(e < 5e-6, "the portable kernel goes on: {e:e}");
}
