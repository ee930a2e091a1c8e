//! What the decode kernel of multi-head attention really loads and multiplies, counted by the kernel itself, against docs/el-attention.md §1.5 to 1.7.

use elgen_attention::{CrossQueries, MhaAttend, QueryRows, SPLIT, Shape, Splits, Tiling, mha_attend_tiled};
use elgen_tensor::ops::Partials;
use elgen_tensor::{Class, DType, Device, RowState, Rows, Segment};
use elgen_tests::harness::{devices, numbers, ranges, upload, upload_u32, values};

/// Sentences B, beams m.
const SENTENCES: usize = 3;
const BEAMS: usize = 4;
const HEADS: usize = 4;
const WIDTH: usize = 16;
/// Columns of all heads, E.
const E: usize = HEADS * WIDTH;

/// What one product did, in bytes of the cache and FLOPs.
#[derive(Debug, PartialEq)]
struct Work {
    /// Bytes of distinct quads that were loaded.
    unique: usize,
    /// Bytes loaded in all.
    issued: usize,
    flops: usize,
}

#[derive(Clone, Copy)]
enum Rule {
    Slots,
    Shared,
    Replicated,
}

/// `keys` keys for each of `BEAMS` beams of `SENTENCES` sentences, `rows` rows of a workgroup.
fn count(device: &Device, rule: Rule, keys: usize, rows: u32, dtype: DType) -> Work {
    let n = SENTENCES * BEAMS;
    let copies = if matches!(rule, Rule::Shared) { SENTENCES } else { n };
    let q = upload(device, n, E, &values(1, n * E));
    let line = values(2, 2 * E);
    let kv = device.tensor_from("kv", Class::Cache, copies * keys, 2 * E, dtype, &line.repeat(copies * keys)).unwrap();
    let out = device.tensor("out", Class::Activations, n, E, DType::F32).unwrap();
    let splits = Splits::of(keys, 0).self_;
    let partials = Partials::new(device, n, splits, HEADS, E).unwrap();
    let quads = copies * keys * 2 * E / 4;
    let counts = upload_u32(device, &vec![0; 2 + quads]);
    let product = MhaAttend {
        shape: Shape::new(E, HEADS, WIDTH, 0.25),
        q: (&q, 0),
        kv: &kv,
        columns: [0, E],
        bias: None,
        out: &out,
        splits: Some((&partials, splits)),
    };
    let segment = Segment {
        slab: 0,
        first: 0,
        count: n as u32,
        first_group: 0,
        groups: SENTENCES as u32,
        widest_group: BEAMS as u32,
    };
    let tiling = Some(Tiling { rows, ..Tiling::choose(device.capabilities(), HEADS, WIDTH, rows) });
    let mut rec = device.recorder();
    if let Rule::Slots = rule {
        let mut table = Rows::new(device, n, keys).unwrap();
        table.set_active(device, (0..n as u32).collect(), &vec![0; n]).unwrap();
        let states = vec![RowState::default().with_length(keys as u32); n];
        // Beams of a sentence take turns, as a search leaves them.
        let slot = |i: usize, k: usize| (i / BEAMS * BEAMS * keys + k * BEAMS + i % BEAMS) as u32;
        let slots: Vec<u32> = (0..n).flat_map(|i| (0..keys).map(move |k| slot(i, k))).collect();
        table.place(device, &states, None, Some(&slots)).unwrap();
        mha_attend_tiled(&mut rec, QueryRows::Slots(&table, &segment), product, tiling, Some(&counts)).unwrap();
    } else {
        let copy = |i: usize| if copies == n { i } else { i / BEAMS };
        let index = numbers(device, &(0..n as u32).collect::<Vec<_>>());
        let groups = ranges(device, &(0..SENTENCES).map(|g| [(g * BEAMS) as u32, BEAMS as u32]).collect::<Vec<_>>());
        let ranges = ranges(device, &(0..n).map(|i| [(copy(i) * keys) as u32, keys as u32]).collect::<Vec<_>>());
        let (index, ranges, groups) = (index.view(), ranges.view(), groups.view());
        let queries = CrossQueries { index, ranges, groups, segments: &[segment], count: n };
        let which = QueryRows::Groups { queries: &queries, segment: &segment, shared: matches!(rule, Rule::Shared) };
        mha_attend_tiled(&mut rec, which, product, tiling, Some(&counts)).unwrap();
    }
    rec.submit().unwrap();
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&device.read(&counts, counts.bytes()).unwrap());
    let loads: &[u32] = &words[2..2 + quads];
    assert_eq!(loads.iter().sum::<u32>(), words[0], "each load is of some quad");
    let bytes = 4 * dtype.bytes() as usize;
    Work {
        unique: loads.iter().filter(|times| **times > 0).count() * bytes,
        issued: words[0] as usize * bytes,
        // A unit is four multiply-adds, a multiply-add two FLOPs.
        flops: words[1] as usize * 8,
    }
}

/// §1.7: self-attention reads 2 B m S E s bytes, once, and takes 4 R S E FLOPs.
#[test]
fn self_attention_reads_every_key_and_value_once() {
    for (variant, dtype) in devices().iter().zip([DType::F32, DType::F16, DType::F16, DType::F32]) {
        for keys in [4, 64, 300] {
            let bytes = 2 * SENTENCES * BEAMS * keys * E * dtype.bytes() as usize;
            let want = Work { unique: bytes, issued: bytes, flops: 4 * SENTENCES * BEAMS * keys * E };
            assert_eq!(count(&variant.device, Rule::Slots, keys, 1, dtype), want, "{} {keys}", variant.name);
        }
    }
}

/// §1.7: cross-attention reads 2 B S E s bytes, with a copy per beam m times that; the beams of a sentence share each load.
#[test]
fn beams_share_the_loads_of_their_sentence_unless_each_has_a_copy() {
    let device = &devices()[2].device;
    for (keys, dtype) in [(4, DType::F32), (64, DType::F16), (300, DType::F32)] {
        let bytes = 2 * SENTENCES * keys * E * dtype.bytes() as usize;
        let flops = 4 * SENTENCES * BEAMS * keys * E;
        let shared = count(device, Rule::Shared, keys, BEAMS as u32, dtype);
        assert_eq!(shared, Work { unique: bytes, issued: bytes, flops });
        let alone = count(device, Rule::Shared, keys, 1, dtype);
        assert_eq!(alone, Work { unique: bytes, issued: BEAMS * bytes, flops }, "a row per workgroup");
        let replicated = count(device, Rule::Replicated, keys, 1, dtype);
        assert_eq!(replicated, Work { unique: BEAMS * bytes, issued: BEAMS * bytes, flops });
    }
}

/// What the tiling adds: keys go in blocks of four, of which the last repeats the last key. Splits add nothing.
#[test]
fn blocks_are_rounded_up_and_splits_cost_nothing() {
    let device = &devices()[2].device;
    for keys in [1, 61, SPLIT + 10] {
        // Each split begins a block of its own; they are multiples of 4 long.
        assert_eq!(SPLIT % 4, 0);
        let blocks = keys.next_multiple_of(4);
        let want = |rows: usize| Work {
            unique: 2 * rows * keys * E * 4,
            issued: 2 * rows * blocks * E * 4,
            flops: 4 * SENTENCES * BEAMS * blocks * E,
        };
        assert_eq!(count(device, Rule::Shared, keys, BEAMS as u32, DType::F32), want(SENTENCES), "{keys} keys");
        assert_eq!(count(device, Rule::Slots, keys, 1, DType::F32), want(SENTENCES * BEAMS), "{keys} keys");
    }
}
