//! The position of a row and its number of live keys are two things: decode kernels attend to the live keys, and everything that asks where a row
//! stands goes by its position.

use elgen_attention::{
    ElAttend, ElQueries, MhaAttend, Partials, PositionBias, QueryRows, SPLIT, Shape, el_attend, mha_attend,
};
use elgen_tensor::ops::store;
use elgen_tensor::{Class, DType, Device, RowState, Rows, Segment};
use elgen_tests::harness::{compare_within, devices, poisoned, read_rows, stored, upload, values};

const SEGMENT: Segment = Segment { slab: 0, first: 0, count: 2, first_group: 0, groups: 2, widest_group: 1 };

/// Two rows with `ids` ids each, of whose keys `live` are left: in slots of all the slab, none of them the next one.
struct Evicted {
    rows: Rows,
    states: Vec<RowState>,
    table: Vec<u32>,
    ids: usize,
    live: [usize; 2],
}

impl Evicted {
    fn new(device: &Device, ids: usize, live: [usize; 2]) -> Self {
        let mut rows = Rows::new(device, 2, ids).unwrap();
        rows.set_active(device, vec![0, 1], &[0, 0]).unwrap();
        let state = |row: usize| RowState {
            length: ids as u32,
            live: live[row] as u32,
            width: 1,
            prompt_base: (row * ids) as u32,
            prompt_len: ids as u32,
            owns_prompt: 1,
            ..RowState::default()
        };
        let states: Vec<RowState> = (0..2).map(state).collect();
        let table: Vec<u32> = (0..2 * ids).map(|i| ((i * 7 + 3) % (2 * ids)) as u32).collect();
        rows.place_evicted(device, &states, None, Some(&table)).unwrap();
        Self { rows, states, table, ids, live }
    }

    /// The slots of a row's live keys.
    fn keys(&self, row: usize) -> &[u32] {
        &self.table[row * self.ids..][..self.live[row]]
    }
}

/// `softmax(q k + bias) v` in f64 over rows `keys` of `kv`, heads side by side.
fn attend(
    shape: Shape,
    q: &[f64],
    kv: &[Vec<f64>],
    keys: &[u32],
    columns: impl Fn(usize) -> [usize; 3],
    bias: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let mut out = Vec::new();
    for head in 0..shape.num_heads {
        let [k, v, width] = columns(head);
        let q = &q[head * width..][..width];
        let score = |(number, key): (usize, &u32)| {
            let dot: f64 = q.iter().zip(&kv[*key as usize][k..]).map(|(a, b)| a * b).sum();
            dot * f64::from(shape.scale) + bias(head, number)
        };
        let scores: Vec<f64> = keys.iter().enumerate().map(score).collect();
        let peak = scores.iter().copied().fold(f64::MIN, f64::max);
        let weights: Vec<f64> = scores.iter().map(|s| (s - peak).exp()).collect();
        let total: f64 = weights.iter().sum();
        for column in 0..width {
            out.push(keys.iter().zip(&weights).map(|(key, w)| w / total * kv[*key as usize][v + column]).sum());
        }
    }
    out
}

fn wide(values: &[f32], columns: usize) -> Vec<Vec<f64>> {
    stored(values, DType::F32).chunks(columns).map(<[f64]>::to_vec).collect()
}

/// With as many splits as ids need: those behind the last live key have nothing to do.
#[test]
fn multi_head_attention_sees_live_keys_from_the_rows_position() {
    let shape = Shape::new(8, 2, 4, 0.4);
    for variant in devices() {
        let device = &variant.device;
        for (ids, live) in [(9, [5, 9]), (SPLIT + 90, [SPLIT + 3, 40])] {
            let rows = Evicted::new(device, ids, live);
            let (q, kv) = (values(1, 2 * 8), values(2, 2 * ids * 16));
            let value = |head: usize, distance: i64| (head as f32 + 1.0) * 0.3 * (distance as f32 * 0.7).sin();
            let bias = PositionBias::new(&device.into(), "bias", 2, ids, value).unwrap();
            let (on_q, on_kv) = (upload(device, 2, 8, &q), upload(device, 2 * ids, 16, &kv));
            let out = poisoned(device, 2, 8, DType::F32);
            let splits = ids.div_ceil(SPLIT);
            let partials = Partials::new(device, 2, splits, 2, 8).unwrap();
            let product = MhaAttend {
                shape,
                q: (&on_q, 0),
                kv: &on_kv,
                columns: [0, 8],
                bias: Some(&bias),
                out: &out,
                splits: (splits > 1).then_some((&partials, splits)),
            };
            let mut rec = device.recorder();
            mha_attend(&mut rec, QueryRows::Slots(&rows.rows, &SEGMENT), product).unwrap();
            rec.submit().unwrap();
            let (q, kv) = (wide(&q, 8), wide(&kv, 16));
            let want: Vec<f64> = (0..2)
                .flat_map(|row| {
                    let distance = |number: usize| number as i64 - (ids as i64 - 1);
                    let bias = |head: usize, number: usize| f64::from(value(head, distance(number)));
                    attend(shape, &q[row], &kv, rows.keys(row), |head| [head * 4, 8 + head * 4, 4], bias)
                })
                .collect();
            compare_within(&read_rows(device, &out, 2, "contexts"), &want, 1e-5)
                .unwrap_or_else(|e| panic!("{}, {ids} ids, {live:?} keys: {e}", variant.name));
        }
    }
}

#[test]
fn el_attention_sees_live_keys_from_the_rows_position() {
    let shape = Shape::new(8, 2, 4, 0.4);
    for variant in devices() {
        let device = &variant.device;
        for (ids, live) in [(9, [5, 9]), (SPLIT + 90, [SPLIT + 3, 40])] {
            let rows = Evicted::new(device, ids, live);
            let (q, x) = (values(1, 2 * 16), values(2, 2 * ids * 8));
            let value = |head: usize, distance: i64| (head as f32 + 1.0) * 0.3 * (distance as f32 * 0.7).sin();
            let bias = PositionBias::new(&device.into(), "bias", 2, ids, value).unwrap();
            let (on_q, on_x) = (upload(device, 2, 16, &q), upload(device, 2 * ids, 8, &x));
            let out = poisoned(device, 2, 16, DType::F32);
            let splits = ids.div_ceil(SPLIT);
            let partials = Partials::new(device, 2, splits, 2, 16).unwrap();
            let product = ElAttend {
                shape,
                q: &on_q,
                x: &on_x,
                bias: Some(&bias),
                out: &out,
                splits: (splits, (splits > 1).then_some(&partials)),
                segment: SEGMENT,
            };
            let mut rec = device.recorder();
            el_attend(&mut rec, ElQueries::Slots(&rows.rows), product).unwrap();
            rec.submit().unwrap();
            let (q, x) = (wide(&q, 16), wide(&x, 8));
            let want: Vec<f64> = (0..2)
                .flat_map(|row| {
                    let distance = |number: usize| number as i64 - (ids as i64 - 1);
                    let bias = |head: usize, number: usize| f64::from(value(head, distance(number)));
                    attend(shape, &q[row], &x, rows.keys(row), |_| [0, 0, 8], bias)
                })
                .collect();
            compare_within(&read_rows(device, &out, 2, "contexts"), &want, 1e-5)
                .unwrap_or_else(|e| panic!("{}, {ids} ids, {live:?} keys: {e}", variant.name));
        }
    }
}

#[test]
fn what_is_stored_lies_where_the_position_says() {
    for variant in devices() {
        let device = &variant.device;
        let rows = Evicted::new(device, 9, [5, 2]);
        let x = values(3, 2 * 4);
        let slab = device.tensor("slab", Class::Cache, 18, 4, DType::F32).unwrap();
        let mut rec = device.recorder();
        store(&mut rec, &rows.rows, SEGMENT, &upload(device, 2, 4, &x), 0, &slab).unwrap();
        rec.submit().unwrap();
        let got = device.read_tensor(&slab).unwrap();
        for (row, state) in rows.states.iter().enumerate() {
            let slot = state.own_slot(8) as usize;
            assert_eq!(&got[slot * 4..][..4], &x[row * 4..][..4], "{}, row {row}", variant.name);
        }
        assert_eq!(got.iter().filter(|x| **x != 0.0).count(), 8, "{}", variant.name);
    }
}
