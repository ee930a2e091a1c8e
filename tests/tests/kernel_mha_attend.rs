//! `mha_attend.wgsl` against its twin: rows through the slot table, groups that share a range, and rows of a group with a range each.

use elgen_attention::{
    CrossQueries, MhaAttend, PositionBias, QueryRows, SPLIT, Shape, Splits, Tiling, mha_attend, mha_attend_tiled,
};
use elgen_tensor::ops::{Partials, combine};
use elgen_tensor::{Class, DType, Device, Rows, Segment, TensorError};
use elgen_tests::harness::{
    HeadRows, assert_same_bits, compare, compare_within, devices, numbers, placed, poisoned, ranges, read_raw, stored,
    upload, values,
};
use elgen_tests::twin;
use proptest::prelude::*;

/// Slots of the slab: more than the keys of any row.
const SLOTS: usize = 1290;

/// Which kernel variant, and so how keys are found.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// Each row through the slot table.
    Slots,
    /// The rows of a group have one range.
    Shared,
    /// Each row has its own range.
    Replicated,
}

#[derive(Clone, Debug)]
struct Case {
    rule: Rule,
    heads: usize,
    /// Width of one head.
    dim: usize,
    dtype: DType,
    /// (rows, keys) of each group; without sharing, later rows of a group have fewer keys.
    groups: Vec<(usize, usize)>,
    /// Groups before the first that is computed.
    skipped: usize,
    /// Quads before queries, keys and values begin.
    lead: usize,
    /// Common part of all scores, and how far they spread around it.
    shift: f32,
    spread: f32,
    tiling: Option<Tiling>,
    /// Splits that are launched; `None`: one workgroup walks all keys.
    splits: Option<usize>,
    /// With a bias for distances up to this; only with [`Rule::Slots`].
    reach: Option<usize>,
    /// Positions that each row has beyond its live keys, as if an eviction policy had dropped so many; only with [`Rule::Slots`].
    dropped: usize,
    seed: u64,
}

impl Case {
    fn plain(rule: Rule, heads: usize, dim: usize, groups: Vec<(usize, usize)>) -> Self {
        Self {
            rule,
            heads,
            dim,
            dtype: DType::F32,
            groups,
            skipped: 0,
            lead: 0,
            shift: 0.0,
            spread: 3.0,
            tiling: None,
            splits: None,
            reach: None,
            dropped: 0,
            seed: 11,
        }
    }

    fn width(&self) -> usize {
        self.dim.next_multiple_of(4)
    }

    fn columns(&self) -> usize {
        self.heads * self.width()
    }

    /// The first row and the rows of each group.
    fn spans(&self) -> Vec<(usize, usize)> {
        let mut first = 0;
        let span = |(rows, _): &(usize, usize)| {
            first += rows;
            (first - rows, *rows)
        };
        self.groups.iter().map(span).collect()
    }

    fn rows(&self) -> usize {
        self.groups.iter().map(|g| g.0).sum()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    /// Rows of heads of `dim` values, padded with zeros to whole quads, behind `lead` quads of nonsense.
    fn spread_heads(&self, seed: u64, rows: usize, factor: f32, constant: f32) -> Vec<f32> {
        HeadRows { heads: self.heads, dim: self.dim, lead: self.lead }.values(seed, rows, factor, constant)
    }

    /// Queries whose first column, met by a key's first column of 1, gives every score `shift`; the others spread scores by about `spread`.
    fn queries(&self) -> Vec<f32> {
        let factor = 3.0 * self.spread / (self.dim as f32).sqrt() / self.scale();
        self.spread_heads(self.seed ^ 1, self.rows(), factor, self.shift / self.scale())
    }

    fn keys(&self) -> Vec<f32> {
        self.spread_heads(self.seed ^ 2, SLOTS, 1.0, 1.0)
    }

    fn values(&self) -> Vec<f32> {
        self.spread_heads(self.seed ^ 3, SLOTS, 1.0, -0.5)
    }

    /// Keys and values side by side.
    fn slab(&self) -> Vec<f32> {
        let ld = 4 * self.lead + self.columns();
        self.keys().chunks(ld).zip(self.values().chunks(ld)).flat_map(|(k, v)| [k, v].concat()).collect()
    }

    /// `[heads, 2 * reach + 1]`.
    fn bias(&self, reach: usize) -> Vec<f32> {
        values(self.seed ^ 99, self.heads * (2 * reach + 1)).into_iter().map(|x| 2.0 * x).collect()
    }

    /// The physical row of each query row, and the slots of its keys.
    fn places(&self) -> (Vec<u32>, Vec<Vec<u32>>) {
        let order = |seed: u64, n: usize| {
            let keys = values(seed, n);
            let mut order: Vec<u32> = (0..n as u32).collect();
            order.sort_by(|a, b| keys[*a as usize].total_cmp(&keys[*b as usize]));
            order
        };
        let physical = order(self.seed ^ 4, self.rows() + 2)[..self.rows()].to_vec();
        let mut slots = Vec::new();
        for (g, (rows, keys)) in self.groups.iter().enumerate() {
            for r in 0..*rows {
                let own = if self.rule == Rule::Shared { 0 } else { r };
                let keys = keys.saturating_sub(own);
                let start = (self.seed as usize + 13 * g + 31 * own) % (SLOTS - keys);
                slots.push(match self.rule {
                    Rule::Slots => order(self.seed ^ (50 * g + 5 + r) as u64, SLOTS)[..keys].to_vec(),
                    _ => (start as u32..(start + keys) as u32).collect(),
                });
            }
        }
        (physical, slots)
    }

    fn twin(&self) -> Vec<f64> {
        let (lead, columns) = (4 * self.lead, self.columns());
        let (q, k, v) =
            (stored(&self.queries(), DType::F32), stored(&self.keys(), self.dtype), stored(&self.values(), self.dtype));
        let at =
            |x: &'_ [f64], slot: u32| -> Vec<f64> { x[slot as usize * (lead + columns) + lead..][..columns].to_vec() };
        let table = self.reach.map(|reach| (reach, self.bias(reach)));
        let before: usize = self.groups[..self.skipped].iter().map(|g| g.0).sum();
        let mut out = Vec::new();
        for (row, slots) in q.chunks(lead + columns).zip(&self.places().1).skip(before) {
            let keys: Vec<Vec<f64>> = slots.iter().map(|s| at(&k, *s)).collect();
            let values: Vec<Vec<f64>> = slots.iter().map(|s| at(&v, *s)).collect();
            let (keys, values): (Vec<&[f64]>, Vec<&[f64]>) =
                (keys.iter().map(Vec::as_slice).collect(), values.iter().map(Vec::as_slice).collect());
            let bias = |head: usize, key: usize| {
                // A key's index for its position, as the kernel has it.
                let distance = key as i64 - ((slots.len() + self.dropped) as i64 - 1);
                table.as_ref().map_or(0.0, |(reach, table)| twin::distance_bias(table, *reach, head, distance))
            };
            let scale = f64::from(self.scale());
            out.extend(twin::attend_biased(&row[lead..], &keys, &values, self.heads, false, scale, bias));
        }
        out
    }

    /// Runs the groups `skipped..` in one dispatch; returns their contexts.
    fn run(&self, device: &Device) -> Vec<f32> {
        let (lead, columns, (physical, slots)) = (4 * self.lead, self.columns(), self.places());
        let (spans, rows) = (self.spans(), self.rows());
        let q = upload(device, rows, lead + columns, &self.queries());
        let kv =
            device.tensor_from("slab", Class::Cache, SLOTS, 2 * (lead + columns), self.dtype, &self.slab()).unwrap();
        let out = poisoned(device, rows + 1, columns, DType::F32);
        let partials = self.splits.map(|splits| {
            let partials = Partials::new(device, rows + 3, splits, self.heads, columns).unwrap();
            for buffer in [&partials.contexts.buffer, &partials.stats] {
                device.write(buffer, 0, &vec![0xff; buffer.bytes() as usize]).unwrap();
            }
            (partials, splits)
        });
        let bias = self.reach.map(|reach| {
            let table = self.bias(reach);
            let entry = |head, distance| table[head * (2 * reach + 1) + (distance + reach as i64) as usize];
            PositionBias::new(&device.into(), "bias", self.heads, reach, entry).unwrap()
        });
        let product = MhaAttend {
            shape: Shape::new(columns, self.heads, self.dim, self.scale()),
            q: (&q, lead),
            kv: &kv,
            columns: [lead, 2 * lead + columns],
            bias: bias.as_ref(),
            out: &out,
            splits: partials.as_ref().map(|(partials, splits)| (partials, *splits)),
        };
        let before = spans.get(self.skipped).map_or(rows, |span| span.0);
        let segment = Segment {
            slab: 0,
            first: before as u32,
            count: (rows - before) as u32,
            first_group: self.skipped as u32,
            groups: (spans.len() - self.skipped) as u32,
            widest_group: spans[self.skipped..].iter().map(|span| span.1 as u32).max().unwrap_or(0),
        };
        let capacity = rows + 2;
        let mut rec = device.recorder();
        if self.rule == Rule::Slots {
            let keys = physical.iter().copied().zip(&slots);
            let table_rows = placed(device, [capacity, SLOTS], physical.clone(), keys, self.dropped);
            mha_attend_tiled(&mut rec, QueryRows::Slots(&table_rows, &segment), product, self.tiling, None).unwrap();
        } else {
            let mut pairs = vec![[u32::MAX; 2]; capacity];
            for (row, slots) in physical.iter().zip(&slots) {
                pairs[*row as usize] = [slots.first().copied().unwrap_or(3), slots.len() as u32];
            }
            let groups: Vec<[u32; 2]> = spans.iter().map(|(first, rows)| [*first as u32, *rows as u32]).collect();
            let (index, groups, ranges) = (numbers(device, &physical), ranges(device, &groups), ranges(device, &pairs));
            let (index, ranges, groups) = (index.view(), ranges.view(), groups.view());
            let queries = CrossQueries { index, ranges, groups, segments: &[segment], count: rows };
            let shared = self.rule == Rule::Shared;
            let which = QueryRows::Groups { queries: &queries, segment: &segment, shared };
            mha_attend_tiled(&mut rec, which, product, self.tiling, None).unwrap();
        }
        if let Some((partials, splits)) = product.splits.filter(|(_, splits)| *splits > 1) {
            let heads = (self.heads, self.width());
            combine(&mut rec, partials, splits, heads, &out, segment.first, segment.count).unwrap();
        }
        rec.submit().unwrap();
        let live = before * columns..rows * columns;
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

fn tiling() -> impl Strategy<Value = Option<(u32, u32, u32)>> {
    let some = (
        prop::sample::select(vec![8u32, 16, 64, 128]),
        prop::sample::select(vec![1u32, 2, 4, 8]),
        prop::sample::select(vec![1u32, 2, 3, 4]),
    );
    prop_oneof![1 => Just(None), 3 => some.prop_map(Some)]
}

fn case() -> impl Strategy<Value = Case> {
    let rule = prop::sample::select(vec![Rule::Slots, Rule::Shared, Rule::Shared, Rule::Replicated]);
    let widths = prop::sample::select(vec![1usize, 4, 8, 10, 12, 16, 33, 64, 100]);
    let heads = prop::sample::select(vec![1usize, 2, 3, 5, 8, 16]);
    let dtype = prop_oneof![Just(DType::F32), Just(DType::F16)];
    let keys = prop::sample::select(vec![0usize, 1, 2, 5, 63, 64, 65, 130, 257, SPLIT, SPLIT + 1, 2 * SPLIT + 70]);
    let groups = prop::collection::vec((1usize..=6, keys), 1..=3);
    // Plain scores, and scores far beyond what exp can take without the running maximum.
    let scores = prop::sample::select(vec![(0.0f32, 1.0f32), (0.0, 1.0), (0.0, 40.0), (80.0, 2.0), (-80.0, 20.0)]);
    let reach = prop::sample::select(vec![None, Some(0), Some(1), Some(30), Some(300)]);
    let dropped = prop::sample::select(vec![0usize, 0, 1, 3, 90]);
    let cut = (tiling(), any::<bool>(), 0..=2usize, 0..=2usize, dropped);
    (rule, heads, widths, dtype, groups, scores, reach, cut, any::<u64>()).prop_map(
        |(rule, heads, dim, dtype, groups, (shift, spread), reach, (tiling, split, skipped, lead, dropped), seed)| {
            let most = Splits::of(groups.iter().map(|g| g.1).max().unwrap_or(0), 0).self_;
            // What the shader can do: several heads only if their columns fit.
            let tiling = tiling.map(|(workgroup, heads, rows)| {
                let fits = heads == 1 || heads as usize * dim.div_ceil(4) <= workgroup as usize;
                Tiling {
                    workgroup,
                    heads: if fits { heads } else { 1 },
                    rows: if rule == Rule::Shared { rows } else { 1 },
                }
            });
            Case {
                rule,
                heads,
                dim,
                dtype,
                skipped: skipped.min(groups.len() - 1),
                groups,
                lead,
                shift,
                spread,
                tiling,
                splits: (split || most > 1).then_some(most + usize::from(split)),
                reach: reach.filter(|_| rule == Rule::Slots),
                dropped: if rule == Rule::Slots { dropped } else { 0 },
                seed,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 28, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_variant_matches_its_twin(case in case()) {
        let want = case.twin();
        // An f32 sum that starts with a score of 80 rounds each further term at that magnitude.
        let tolerance = if case.shift == 0.0 { 1e-4 } else { 5e-4 };
        // One way of running a case: each is a kernel of its own, and a software driver takes half a second to compile it.
        let variant = &devices()[(case.seed % devices().len() as u64) as usize];
        if let Err(message) = compare_within(&case.run(&variant.device), &want, tolerance) {
            prop_assert!(false, "{}: {message}", variant.name);
        }
    }
}

/// The cases that a random run could miss: every tile of rows against every size of a group, and one group larger than any tile.
#[test]
fn every_tile_of_rows_with_every_group() {
    for (i, rows) in [1u32, 2, 3, 4, 5, 6, 8].into_iter().enumerate() {
        let mut case = Case::plain(Rule::Shared, 3, 30, vec![(1, 9), (2, 0), (3, 70), (5, 64), (6, 1), (19, 33)]);
        case.tiling = Some(Tiling { workgroup: 16, heads: 1 + (i as u32 % 2), rows });
        case.dtype = if i % 2 == 0 { DType::F16 } else { DType::F32 };
        let device = &devices()[i % devices().len()].device;
        let got = case.run(device);
        compare(&got, &case.twin()).unwrap_or_else(|e| panic!("{case:?}: {e}"));
        assert!(got[3 * 32..3 * 3 * 32].iter().all(|x| *x == 0.0), "rows without keys have a zero context");
    }
}

/// A row attends to its live keys alone, however many positions it has; its query stands at the last position all the same.
#[test]
fn keys_are_the_live_ones_and_distances_those_of_positions() {
    let whole = Case::plain(Rule::Slots, 3, 30, vec![(2, SPLIT + 40), (1, 5), (1, 0), (1, 1)]);
    for (splits, reach, dropped) in
        [(None, None, 3), (Some(2), None, 90), (Some(3), None, 1), (None, Some(200), 90), (Some(2), Some(20), 3)]
    {
        let whole = Case { splits, reach, ..whole.clone() };
        let case = Case { dropped, ..whole.clone() };
        for variant in devices() {
            let got = case.run(&variant.device);
            compare(&got, &case.twin()).unwrap_or_else(|e| panic!("{}, {case:?}: {e}", variant.name));
            if reach.is_none() {
                assert_same_bits(&got, &whole.run(&variant.device), &format!("{}, {case:?}", variant.name));
            }
        }
    }
}

/// A head that is wider than a workgroup has invocations is cut into tiles of columns.
#[test]
fn wide_heads() {
    for (rule, dim) in [(Rule::Slots, 300), (Rule::Shared, 516), (Rule::Replicated, 64)] {
        let mut case = Case::plain(rule, 2, dim, vec![(2, 70), (3, 1)]);
        case.tiling = Some(Tiling { workgroup: 16, heads: 1, rows: if rule == Rule::Shared { 3 } else { 1 } });
        for variant in &devices()[..2] {
            compare(&case.run(&variant.device), &case.twin())
                .unwrap_or_else(|e| panic!("{}, {case:?}: {e}", variant.name));
        }
    }
}

/// What else is in the batch, how rows are tiled and how many splits are launched leave no trace in f32, nor in f16.
#[test]
fn neither_neighbours_nor_tiles_change_a_bit() {
    for (rule, dtype, keys) in [
        (Rule::Slots, DType::F32, 200),
        (Rule::Shared, DType::F32, 200),
        (Rule::Replicated, DType::F16, 70),
        (Rule::Shared, DType::F16, SPLIT),
        (Rule::Shared, DType::F32, SPLIT + 200),
    ] {
        let splits = Splits::of(keys, 0).self_;
        let whole = Case {
            dtype,
            splits: (splits > 1).then_some(splits),
            ..Case::plain(rule, 5, 44, vec![(4, 65), (1, 1), (6, keys)])
        };
        // One with all features and one portable.
        for variant in &devices()[2..] {
            let all = whole.run(&variant.device);
            let skipped = Case { skipped: 2, ..whole.clone() };
            let columns = 5 * 44;
            let last = &all[5 * columns..];
            assert_same_bits(&skipped.run(&variant.device), last, &format!("{}, {whole:?} alone", variant.name));
            let more = Case { splits: Some(splits + 2), ..whole.clone() };
            assert_same_bits(&more.run(&variant.device), &all, &format!("{}, {more:?}", variant.name));
            if rule == Rule::Shared {
                for rows in [1, 4, 8] {
                    let tiling = Tiling { rows, ..Tiling::choose(variant.device.capabilities(), 5, 44, 6) };
                    let tiled = Case { tiling: Some(tiling), ..whole.clone() };
                    assert_same_bits(&tiled.run(&variant.device), &all, &format!("{}, {tiled:?}", variant.name));
                }
                // The same keys, read by each row for itself: fewer beams in the group.
                let fewer = Case { groups: vec![(4, 65), (1, 1), (3, keys)], ..whole.clone() };
                let kept = fewer.run(&variant.device);
                let want = whole.queries();
                assert_eq!(fewer.queries()[..8 * columns], want[..8 * columns]);
                assert_same_bits(&kept, &all[..8 * columns], &format!("{}, {fewer:?}", variant.name));
            }
        }
    }
}

#[test]
fn more_groups_than_one_dispatch_holds() {
    let device = &devices()[2].device;
    let n = 65535 + 30;
    let q = upload(device, n, 4, &vec![1.0; 4 * n]);
    let kv = upload(
        device,
        3,
        8,
        &[0., 0., 0., 0., 1., 0., 0., 0., 0., 0., 0., 0., 2., 0., 0., 0., 0., 0., 0., 0., 3., 0., 0., 0.],
    );
    let out = poisoned(device, n, 4, DType::F32);
    let index = numbers(device, &(0..n as u32).collect::<Vec<_>>());
    let groups = ranges(device, &(0..n as u32).map(|i| [i, 1]).collect::<Vec<_>>());
    let ranges = ranges(device, &(0..n as u32).map(|i| [i % 3, 1]).collect::<Vec<_>>());
    let segment = Segment { slab: 0, first: 0, count: n as u32, first_group: 0, groups: n as u32, widest_group: 1 };
    let (index, ranges, groups) = (index.view(), ranges.view(), groups.view());
    let queries = CrossQueries { index, ranges, groups, segments: &[segment], count: n };
    let product = MhaAttend {
        shape: Shape::new(4, 1, 4, 0.5),
        q: (&q, 0),
        kv: &kv,
        columns: [0, 4],
        bias: None,
        out: &out,
        splits: None,
    };
    let mut rec = device.recorder();
    mha_attend(&mut rec, QueryRows::Groups { queries: &queries, segment: &segment, shared: true }, product).unwrap();
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
    let (index, pairs) = (numbers(device, &[0, 1, 0, 0]), ranges(device, &[[0, 1], [0, 0]]));
    let segment = Segment { slab: 0, first: 0, count: 2, first_group: 0, groups: 1, widest_group: 2 };
    let shape = Shape::new(8, 2, 4, 1.0);
    let good = MhaAttend { shape, q: (&q, 4), kv: &kv, columns: [0, 8], bias: None, out: &out, splits: None };
    let (index, ranges, groups) = (index.view(), pairs.view(), pairs.view());
    let queries = CrossQueries { index, ranges, groups, segments: &[segment], count: 2 };
    let bias = PositionBias::new(&device.into(), "bias", 2, 4, |_, _| 0.0).unwrap();
    let three = PositionBias::new(&device.into(), "bias", 3, 4, |_, _| 0.0).unwrap();
    let small = Partials::new(device, 1, 2, 2, 8).unwrap();
    let mut rec = device.recorder();
    let mut run = |segment: Segment, shared: bool, a: MhaAttend<'_>, tiling: Option<Tiling>| {
        let rows = QueryRows::Groups { queries: &queries, segment: &segment, shared };
        mha_attend_tiled(&mut rec, rows, a, tiling, None)
    };
    assert!(run(segment, true, good, None).is_ok());
    assert!(run(segment, true, MhaAttend { kv: &half, ..good }, None).is_ok());
    let tiling = Tiling { workgroup: 16, heads: 1, rows: 2 };
    assert!(run(segment, true, good, Some(tiling)).is_ok());
    let bad = [
        ("rows", Segment { first: 1, ..segment }, good, None),
        ("query columns", segment, MhaAttend { q: (&q, 8), ..good }, None),
        ("query column within a quad", segment, MhaAttend { q: (&q, 2), ..good }, None),
        ("value columns", segment, MhaAttend { columns: [0, 12], ..good }, None),
        ("half queries", segment, MhaAttend { q: (&half, 0), ..good }, None),
        ("half contexts", segment, MhaAttend { out: &half, ..good }, None),
        ("out columns", segment, MhaAttend { shape: Shape { num_heads: 3, ..shape }, q: (&q, 0), ..good }, None),
        ("a bias without positions", segment, MhaAttend { bias: Some(&bias), ..good }, None),
        ("a workgroup of 12", segment, good, Some(Tiling { workgroup: 12, ..tiling })),
        ("3 heads of a workgroup", segment, good, Some(Tiling { heads: 3, ..tiling })),
        ("more heads than columns", segment, good, Some(Tiling { workgroup: 4, heads: 8, ..tiling })),
        ("7 rows", segment, good, Some(Tiling { rows: 7, ..tiling })),
        ("partials of fewer rows", segment, MhaAttend { splits: Some((&small, 2)), ..good }, None),
    ];
    for (what, segment, a, tiling) in bad {
        let error = run(segment, true, a, tiling);
        assert!(matches!(error, Err(TensorError::Shape { op: "mha_attend", .. })), "{what}: {error:?}");
    }
    // Rows with ranges of their own must not share a load.
    assert!(matches!(run(segment, false, good, Some(tiling)), Err(TensorError::Shape { op: "mha_attend", .. })));
    let mut rows = Rows::new(device, 2, 4).unwrap();
    rows.set_active(device, vec![0, 1], &[0, 0]).unwrap();
    let other_heads = MhaAttend { bias: Some(&three), ..good };
    let error = mha_attend(&mut device.recorder(), QueryRows::Slots(&rows, &segment), other_heads);
    assert!(matches!(error, Err(TensorError::Shape { op: "mha_attend", .. })), "a bias of other heads: {error:?}");
}
