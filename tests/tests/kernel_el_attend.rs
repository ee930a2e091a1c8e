//! `el_attend.wgsl` against its twin: tiles of query rows over hidden states that they share, through the slot table or in ranges, whole or in key splits.

use elgen_attention::{
    CrossQueries, ElAttend, ElQueries, ElTile, PositionBias, SPLIT, Shape, el_attend, el_attend_tiled,
};
use elgen_tensor::ops::{Partials, combine};
use elgen_tensor::{Class, DType, Device, Grouping, Segment, TensorError};
use elgen_tests::harness::{
    HeadRows, assert_same_bits, compare, compare_within, devices, numbers, placed, poisoned, ranges, read_raw, stored,
    table, upload, values,
};
use elgen_tests::twin;
use proptest::prelude::*;

/// Slots of the slab: more than the keys of any row.
const SLOTS: usize = 211;
/// Row stride of the slot table.
const TABLE: usize = 303;

#[derive(Clone, Debug)]
struct Case {
    heads: usize,
    dim: usize,
    /// Through the slot table, each row by itself; else each group has one range.
    slots: bool,
    dtype: DType,
    /// (rows, keys) of each group; of each row, if the slot table is used.
    groups: Vec<(usize, usize)>,
    /// Query rows before the first that is computed.
    first: usize,
    /// Common part of all scores, and how far they spread around it.
    shift: f32,
    spread: f32,
    /// (rows, quads) of a tile; `None`: the kernel's own choice.
    tile: Option<(u32, u32)>,
    subgroup: bool,
    /// Keys of a split, and splits that are dispatched: 1 leaves `combine` out.
    split: usize,
    splits: usize,
    /// With a bias for distances up to this.
    reach: Option<usize>,
    /// Positions that each row has beyond its live keys, as if an eviction policy had dropped so many; only through the slot table.
    dropped: usize,
    seed: u64,
}

impl Case {
    fn plain(heads: usize, dim: usize, slots: bool, groups: &[(usize, usize)]) -> Self {
        Self {
            heads,
            dim,
            slots,
            dtype: DType::F32,
            groups: groups.to_vec(),
            first: 0,
            shift: 0.0,
            spread: 3.0,
            tile: None,
            subgroup: false,
            split: SPLIT,
            splits: 1,
            reach: None,
            dropped: 0,
            seed: 5,
        }
    }

    fn width(&self) -> usize {
        self.dim.next_multiple_of(4)
    }

    fn columns(&self) -> usize {
        self.heads * self.width()
    }

    /// Keys of each query row that is computed.
    fn counts(&self) -> Vec<usize> {
        self.groups.iter().flat_map(|(rows, keys)| std::iter::repeat_n(*keys, *rows)).collect()
    }

    fn rows(&self) -> usize {
        self.first + self.counts().len()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Rows of `heads` times `dim` values, each head padded with zeros to whole quads and beginning with `constant`.
    fn spread_heads(&self, seed: u64, rows: usize, heads: usize, factor: f32, constant: f32) -> Vec<f32> {
        HeadRows { heads, dim: self.dim, lead: 0 }.values(seed, rows, factor, constant)
    }

    /// Queries whose first column, met by a key's first column of 1, gives every score `shift`; the others spread scores by about `spread`.
    fn queries(&self) -> Vec<f32> {
        let factor = 3.0 * self.spread / (self.dim as f32).sqrt() / self.scale();
        self.spread_heads(self.seed ^ 1, self.rows(), self.heads, factor, self.shift / self.scale())
    }

    fn hidden(&self) -> Vec<f32> {
        self.spread_heads(self.seed ^ 2, SLOTS, 1, 1.0, 1.0)
    }

    /// `[heads, 2 * reach + 1]`.
    fn bias(&self, reach: usize) -> Vec<f32> {
        values(self.seed ^ 99, self.heads * (2 * reach + 1)).into_iter().map(|x| 2.0 * x).collect()
    }

    fn order(seed: u64, n: usize) -> Vec<u32> {
        let keys = values(seed, n);
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_by(|a, b| keys[*a as usize].total_cmp(&keys[*b as usize]));
        order
    }

    /// The physical row of each query row.
    fn physical(&self) -> Vec<u32> {
        Self::order(self.seed ^ 4, self.rows() + 2)[..self.rows()].to_vec()
    }

    /// The slots of the keys of each query row that is computed.
    fn places(&self) -> Vec<Vec<u32>> {
        let mut places = Vec::new();
        for (group, (rows, keys)) in self.groups.iter().enumerate() {
            let start = (self.seed as usize + 13 * group) % (SLOTS - keys);
            for row in 0..*rows {
                places.push(match self.slots {
                    true => Self::order(self.seed ^ (5 + 16 * group as u64 + row as u64), SLOTS)[..*keys].to_vec(),
                    false => (start as u32..(start + keys) as u32).collect(),
                });
            }
        }
        places
    }

    fn twin(&self) -> Vec<f64> {
        let (q, x) = (stored(&self.queries(), DType::F32), stored(&self.hidden(), self.dtype));
        let x: Vec<&[f64]> = x.chunks(self.width()).collect();
        let bias = self.reach.map(|reach| (reach, self.bias(reach)));
        let mut out = Vec::new();
        for (row, slots) in q.chunks(self.columns()).skip(self.first).zip(self.places()) {
            let keys: Vec<&[f64]> = slots.iter().map(|s| x[*s as usize]).collect();
            let bias = |head: usize, key: usize| {
                // A key's index for its position, as the kernel has it.
                let distance = key as i64 - ((slots.len() + self.dropped) as i64 - 1);
                bias.as_ref().map_or(0.0, |(reach, table)| twin::distance_bias(table, *reach, head, distance))
            };
            out.extend(twin::attend_biased(row, &keys, &keys, self.heads, true, f64::from(self.scale()), bias));
        }
        out
    }

    /// Contexts of the query rows of the groups `only`, in one dispatch.
    fn run(&self, device: &Device, only: std::ops::Range<usize>) -> Vec<f32> {
        let (columns, physical, places) = (self.columns(), self.physical(), self.places());
        let q = upload(device, self.rows(), columns, &self.queries());
        let x = device.tensor_from("slab", Class::Cache, SLOTS, self.width(), self.dtype, &self.hidden()).unwrap();
        let out = poisoned(device, self.rows() + 1, columns, DType::F32);
        let shape = Shape::new(self.dim, self.heads, 4, self.scale());
        let bias = self.reach.map(|reach| {
            let table = self.bias(reach);
            PositionBias::new(&device.into(), "bias", self.heads, reach, |head, distance| {
                table[head * (2 * reach + 1) + (distance + reach as i64) as usize]
            })
            .unwrap()
        });
        let partials = (self.splits > 1).then(|| {
            let mut partials = Partials::new(device, self.rows() + 1, self.splits, self.heads, columns).unwrap();
            partials.contexts = poisoned(device, self.splits * (self.rows() + 1), columns, DType::F32);
            partials
        });
        // A group in front takes the rows before the first.
        let mut grouping = Grouping::default();
        grouping.push(1, u32::MAX, self.first as u32);
        let before: usize = self.groups[..only.start].iter().map(|g| g.0).sum();
        for (g, (rows, _)) in self.groups.iter().enumerate() {
            grouping.push(usize::from(only.contains(&g)) * 2, g as u32, *rows as u32);
        }
        let segment = grouping.segments.iter().copied().find(|s| s.slab == 2).unwrap();
        assert_eq!(segment.first as usize, self.first + before);
        let product = ElAttend {
            shape,
            q: &q,
            x: &x,
            bias: bias.as_ref(),
            out: &out,
            splits: partials.as_ref().map(|partials| (partials, self.splits)),
            segment,
        };
        let chosen = ElTile::choose(device, self.width(), 2 * self.heads).unwrap();
        let tile = self.tile.map(|(rows, quads)| {
            let subgroup = self.subgroup && device.capabilities().subgroup;
            ElTile { rows, quads, subgroup, split: self.split }
        });
        let tile = tile.or((self.split != SPLIT).then_some(ElTile { split: self.split, ..chosen }));
        let mut rec = device.recorder();
        let capacity = self.rows() + 2;
        if self.slots {
            let keys = physical[self.first..].iter().copied().zip(&places);
            let rows = placed(device, [capacity, TABLE], physical.clone(), keys, self.dropped);
            el_attend_tiled(&mut rec, ElQueries::Slots(&rows), product, tile, None).unwrap();
        } else {
            let mut pairs = vec![[u32::MAX; 2]; capacity];
            // What lies before the rows of the dispatch is looked at, too: groups may begin there.
            physical[..self.first].iter().for_each(|row| pairs[*row as usize] = [0, 0]);
            for (row, slots) in physical[self.first..].iter().zip(&places) {
                pairs[*row as usize] = [slots.first().copied().unwrap_or(3), slots.len() as u32];
            }
            let (index, ranges) = (numbers(device, &physical), ranges(device, &pairs));
            let groups = table(device, &grouping.groups);
            let segments = [segment];
            let queries = ElQueries::Groups(CrossQueries {
                groups: groups.view(),
                index: index.view(),
                ranges: ranges.view(),
                segments: &segments,
                count: physical.len(),
            });
            el_attend_tiled(&mut rec, queries, product, tile, None).unwrap();
        }
        if let Some((partials, splits)) = product.splits.filter(|(_, splits)| *splits > 1) {
            let heads = (self.heads, self.width());
            combine(&mut rec, partials, splits, heads, &out, segment.first, segment.count).unwrap();
        }
        rec.submit().unwrap();
        let first = segment.first as usize * columns;
        let live = first..first + segment.count as usize * columns;
        let raw = read_raw(device, &out);
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
        self.run(device, 0..self.groups.len())
    }
}

fn groups() -> impl Strategy<Value = Vec<(usize, usize)>> {
    let keys = prop::sample::select(vec![0usize, 1, 2, 3, 4, 5, 31, 64, 65, 130, 200]);
    prop::collection::vec((1..=6usize, keys), 1..=3)
}

/// (shift, spread) of scores: plain, and far beyond what exp can take without the running maximum.
fn scores() -> impl Strategy<Value = (f32, f32)> {
    prop::sample::select(vec![(0.0, 1.0), (0.0, 1.0), (0.0, 40.0), (80.0, 2.0), (-80.0, 2.0), (-80.0, 20.0)])
}

/// (keys of a split, splits dispatched): one for all, exactly enough, more than any row needs, fewer than a row may need.
fn splits() -> impl Strategy<Value = (usize, usize)> {
    prop::sample::select(vec![(SPLIT, 1), (SPLIT, 1), (SPLIT, 3), (50, 4), (33, 8), (64, 2)])
}

fn case() -> impl Strategy<Value = Case> {
    // Every width is a workgroup of its own, and compiling costs more than running: few of them.
    let widths = prop::sample::select(vec![4usize, 30, 62, 64, 250, 252]);
    let heads = prop::sample::select(vec![1usize, 3, 5, 8, 17]);
    let dtype = prop_oneof![Just(DType::F32), Just(DType::F16)];
    let reach = prop::sample::select(vec![None, Some(0), Some(1), Some(30), Some(128), Some(300)]);
    let cut = (splits(), 0..=2usize, prop::sample::select(vec![0usize, 0, 1, 3, 90]));
    (heads, widths, any::<bool>(), dtype, groups(), scores(), cut, reach, any::<u64>()).prop_map(
        |(heads, dim, slots, dtype, groups, (shift, spread), ((split, splits), first, dropped), reach, seed)| Case {
            dtype,
            first,
            shift,
            spread,
            split,
            splits,
            reach: reach.filter(|_| slots),
            dropped: if slots { dropped } else { 0 },
            seed,
            ..Case::plain(heads, dim, slots, &groups)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contexts_match_their_twin(case in case()) {
        let want = case.twin();
        // An f32 sum that starts with a score of 80 rounds each further term at that magnitude; without the running maximum it would be infinite or 0 / 0.
        let tolerance = if case.shift == 0.0 { 1e-4 } else { 5e-4 };
        // Checked and portable, unchecked with all features; the other two run below.
        for variant in [&devices()[1], &devices()[2]] {
            if let Err(message) = compare_within(&case.all(&variant.device), &want, tolerance) {
                prop_assert!(false, "{}: {message}", variant.name);
            }
        }
    }
}

/// Every tile that is compiled, with and without subgroups: widths that leave invocations without a quad, tiles that end inside a row, groups
/// of 0 to 200 keys.
#[test]
fn every_tile_matches_the_twin() {
    for (i, (rows, quads)) in ElTile::ALL.into_iter().enumerate() {
        let slots = i % 3 == 0;
        let mut case = Case::plain(5, [62, 130, 380][i % 3], slots, &[(3, 5), (1, 0), (4, 200), (2, 1)]);
        case.tile = Some((rows, quads));
        case.dtype = if i % 2 == 0 { DType::F32 } else { DType::F16 };
        case.first = i % 2;
        case.reach = slots.then_some(20);
        let want = case.twin();
        for subgroup in [false, true] {
            case.subgroup = subgroup;
            let device = &devices()[if subgroup { 2 * (i % 2) } else { i % 4 }].device;
            let got = case.all(device);
            compare(&got, &want).unwrap_or_else(|e| panic!("{case:?}: {e}"));
            let empty = 3 * case.columns()..4 * case.columns();
            assert!(got[empty].iter().all(|x| *x == 0.0), "a row without keys has a zero context");
        }
    }
}

/// A row attends to its live keys alone, however many positions it has; its query stands at the last position all the same.
#[test]
fn keys_are_the_live_ones_and_distances_those_of_positions() {
    let whole = Case { split: 64, ..Case::plain(3, 30, true, &[(2, 150), (1, 5), (1, 0), (1, 1)]) };
    for (splits, reach, dropped) in
        [(1, None, 3), (3, None, 90), (4, None, 1), (1, Some(120), 90), (3, Some(20), 3), (2, Some(0), 2)]
    {
        let whole = Case { splits, reach, ..whole.clone() };
        let case = Case { dropped, ..whole.clone() };
        for variant in devices() {
            let got = case.all(&variant.device);
            compare(&got, &case.twin()).unwrap_or_else(|e| panic!("{}, {case:?}: {e}", variant.name));
            if reach.is_none() {
                assert_same_bits(&got, &whole.all(&variant.device), &format!("{}, {case:?}", variant.name));
            }
        }
    }
}

/// The arithmetic of a row is its own: neither the tile's size, nor its mates, nor how many splits the batch needs change a bit.
#[test]
fn tiles_batches_and_spare_splits_do_not_change_a_bit() {
    for (slots, dtype, subgroup) in [(true, DType::F32, true), (false, DType::F32, false), (false, DType::F16, true)] {
        let groups = [(3, 65), (1, 1), (2, 200), (1, 0), (5, 64), (1, 130)];
        let mut case = Case::plain(5, 252, slots, &groups);
        case.dtype = dtype;
        case.subgroup = subgroup;
        case.reach = slots.then_some(50);
        for variant in [&devices()[1], &devices()[2]] {
            let device = &variant.device;
            case.tile = Some((8, 1));
            (case.split, case.splits) = (SPLIT, 1);
            let whole = case.all(device);
            let what = |case: &Case| format!("{}, {case:?}", variant.name);
            for rows in [1, 4] {
                case.tile = Some((rows, 1));
                assert_same_bits(&case.all(device), &whole, &what(&case));
            }
            // All keys lie in the first of three splits.
            (case.split, case.splits) = (200, 3);
            assert_same_bits(&case.all(device), &whole, &what(&case));
            // Rows of several splits: alone with just enough, or beside others with more.
            (case.split, case.splits) = (64, 4);
            let split = case.all(device);
            let starts: Vec<usize> = (0..=groups.len()).map(|g| groups[..g].iter().map(|x| x.0).sum()).collect();
            for only in [0..1, 1..2, 2..3, 4..5, 1..5] {
                let live = starts[only.start] * case.columns()..starts[only.end] * case.columns();
                let needed = groups[only.clone()].iter().map(|g| g.1.div_ceil(64)).max().unwrap_or(1);
                for (tile, splits) in [(4, needed), (8, 7)] {
                    case.tile = Some((tile, 1));
                    case.splits = splits.max(1);
                    assert_same_bits(&case.run(device, only.clone()), &split[live.clone()], &what(&case));
                }
            }
        }
    }
}

/// The last split takes what is left: too few of them cost time, never keys.
#[test]
fn too_few_splits_leave_no_key_out() {
    for slots in [false, true] {
        let mut case = Case::plain(3, 30, slots, &[(2, 200), (1, 64), (1, 90)]);
        (case.split, case.splits) = (64, 2);
        case.tile = Some((4, 1));
        let device = &devices()[1].device;
        compare(&case.all(device), &case.twin()).unwrap_or_else(|e| panic!("{case:?}: {e}"));
    }
}

/// The widths of real models, with the tile that is chosen for them.
#[test]
fn wide_hidden_states() {
    for (i, (dim, heads)) in [(768, 12), (1024, 16), (1280, 20), (2048, 3), (5120, 2)].into_iter().enumerate() {
        let case = Case { dtype: DType::F16, ..Case::plain(heads, dim, i % 2 == 0, &[(2, 9), (1, 30)]) };
        {
            let device = &devices()[i % 4].device;
            compare(&case.all(device), &case.twin()).unwrap_or_else(|e| panic!("{dim} x {heads}: {e}"));
        }
    }
}

#[test]
fn more_rows_than_one_dispatch_holds() {
    let device = &devices()[2].device;
    let n = 65535 + 300;
    let q = upload(device, n, 4, &vec![1.0; 4 * n]);
    let x = upload(device, 3, 4, &[1., 0., 0., 0., 2., 0., 0., 0., 3., 0., 0., 0.]);
    let out = poisoned(device, n, 4, DType::F32);
    let index = numbers(device, &(0..n as u32).collect::<Vec<_>>());
    let groups = ranges(device, &(0..n as u32).map(|i| [i, 1]).collect::<Vec<_>>());
    let ranges = ranges(device, &(0..n as u32).map(|i| [i % 3, 1]).collect::<Vec<_>>());
    let shape = Shape::new(4, 1, 4, 0.5);
    let segment = Segment { slab: 0, first: 0, count: n as u32, first_group: 0, groups: n as u32, widest_group: 1 };
    let product = ElAttend { shape, q: &q, x: &x, bias: None, out: &out, splits: None, segment };
    let mut rec = device.recorder();
    let segments = [segment];
    let queries = ElQueries::Groups(CrossQueries {
        groups: groups.view(),
        index: index.view(),
        ranges: ranges.view(),
        segments: &segments,
        count: n,
    });
    el_attend(&mut rec, queries, product).unwrap();
    rec.submit().unwrap();
    let raw = read_raw(device, &out);
    let wrong = raw.chunks(4).enumerate().find(|(i, row)| row[0] != (i % 3 + 1) as f32);
    assert_eq!(wrong, None);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let (q, x, out) =
        (upload(device, 2, 16, &[0.0; 32]), upload(device, 3, 8, &[0.0; 24]), poisoned(device, 2, 16, DType::F32));
    let half = device.tensor("half", Class::Cache, 3, 16, DType::F16).unwrap();
    let (index, groups) = (numbers(device, &[0, 1, 0, 0]), ranges(device, &[[0, 1], [0, 0]]));
    let ranges = ranges(device, &[[0, 1], [0, 0]]);
    let shape = Shape::new(8, 2, 4, 1.0);
    let segment = Segment { slab: 0, first: 0, count: 2, first_group: 0, groups: 2, widest_group: 1 };
    let good = ElAttend { shape, q: &q, x: &x, bias: None, out: &out, splits: None, segment };
    let bias = PositionBias::new(&device.into(), "bias", 2, 4, |_, _| 0.0).unwrap();
    let small = Partials::new(device, 1, 2, 2, 16).unwrap();
    let segments = [segment];
    let groups = ElQueries::Groups(CrossQueries {
        groups: groups.view(),
        index: index.view(),
        ranges: ranges.view(),
        segments: &segments,
        count: 2,
    });
    let mut rec = device.recorder();
    let mut run = |a: ElAttend<'_>, tile: Option<ElTile>| el_attend_tiled(&mut rec, groups, a, tile, None);
    assert!(run(good, None).is_ok());
    let late = Segment { first: 1, ..segment };
    let wide = Shape { d_model: 8196, ..shape };
    let bad = [
        ("rows", ElAttend { segment: late, ..good }),
        ("heads", ElAttend { shape: Shape { num_heads: 3, ..shape }, ..good }),
        ("hidden states of fewer columns", ElAttend { shape: Shape { d_model: 12, num_heads: 1, ..shape }, ..good }),
        ("half queries", ElAttend { q: &half, ..good }),
        ("a bias for groups", ElAttend { bias: Some(&bias), ..good }),
        ("splits with room for fewer rows", ElAttend { splits: Some((&small, 2)), ..good }),
        ("too wide", ElAttend { shape: wide, ..good }),
    ];
    for (what, a) in bad {
        assert!(matches!(run(a, None), Err(TensorError::Shape { op: "el_attend", .. })), "{what}");
    }
    for (what, rows, split) in [("a tile that is not compiled", 3, SPLIT), ("empty splits", 4, 0)] {
        let tile = ElTile { rows, quads: 1, subgroup: false, split };
        assert!(matches!(run(good, Some(tile)), Err(TensorError::Shape { op: "el_attend", .. })), "{what}");
    }
    let message = ElTile::choose(device, 8196, 1);
    assert_eq!(message, None);
}
