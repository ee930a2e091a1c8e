//! The probabilities that cross-attention blocks give on request, every kind against plain attention in f64.

use elgen_attention::{
    BlockInput, BlockSpec, CacheLayout, Caches, CrossQueries, Cx, Extras, Kind, Kinds, Need, Packed, Pass, Placement,
    PositionScheme, Probabilities, Shape, Workspace, store_encoder_output,
};
use elgen_tensor::{DType, Device, DeviceOptions, Grouping};
use elgen_tests::blocks::Weights;
use elgen_tests::harness::{compare_within, numbers, poisoned, ranges, read_rows, stored, table, upload, values};

const BEAMS: usize = 2;

/// Keys of each sentence, and the query rows of each, in the order of a packed batch.
const SOURCES: [usize; 5] = [20, 3, 1, 19, 9];
const QUERIES: [usize; 5] = [5, 1, 2, 4, 3];

/// Heads that are not whole quads, a width that is not, and more head columns than hidden ones.
fn shape() -> Shape {
    Shape::new(30, 5, 10, 0.3)
}

/// One binding holds so little that the batch lies in several slabs.
fn device(portable: bool) -> Device {
    let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
    let options =
        DeviceOptions { selector, checked: true, portable, binding_limit: Some(20 << 10), ..DeviceOptions::default() };
    Device::open(&options).unwrap_or_else(|e| panic!("attention tests need a Vulkan adapter: {e}"))
}

/// One sentence's encoder outputs.
fn packed_source(device: &Device, placement: &Placement) -> Packed {
    let count = placement.cross_range(0).count;
    let mut grouping = Grouping::default();
    grouping.push(placement.slab, 0, count);
    let slots = (0..placement.copies().1 as u32).map(|copy| {
        let first = placement.cross_range(copy).first;
        numbers(device, &(first..first + count).collect::<Vec<_>>())
    });
    Packed {
        tokens: count as usize,
        index: numbers(device, &(0..count).collect::<Vec<_>>()),
        ranges: ranges(device, &vec![[0, count]; count as usize]),
        groups: table(device, &grouping.groups),
        segments: grouping.segments,
        slots: slots.collect(),
        cross_ranges: None,
    }
}

/// Mean probabilities `[rows, longest source]` of one block.
fn run(device: &Device, kind: Kind, dtype: DType, weights: &Weights, memory: &[f32], queries: &[f32]) -> Vec<f32> {
    let shape = weights.shape;
    let spec = BlockSpec { what: "layer 1", layer: 1, shape, formats: dtype.into(), positions: PositionScheme::None };
    let block = kind.cross_attention(&device.into(), &spec, weights.get()).unwrap();
    let kinds = Kinds::both(kind);
    let layout = CacheLayout { layers: 2, kinds, self_shape: shape, cross_shape: Some(shape), format: dtype.into() };
    let mut caches = Caches::new(device, layout);
    let needs = SOURCES.map(|source_len| Need { prompt_len: 1, max_new: 2, width: BEAMS, source_len });
    caches.prepare(&needs).unwrap();
    let placements: Vec<Placement> = needs.iter().map(|need| caches.admit(*need).unwrap()).collect();
    let stores_keys = [Kind::MHA, Kind::MHA_REPLICATED].contains(&kind) && dtype == DType::F32;
    assert!(caches.slabs().len() > usize::from(stores_keys), "{kind}: one slab");
    let largest = caches.slabs().iter().map(|s| s.cross[0].rows).max().unwrap();
    let extras = Extras { kinds, pass: Pass::Step, cross_slots: largest, ..Extras::default() };
    let work = Workspace::new(device, shape, QUERIES.iter().sum(), extras).unwrap();
    let mut rest = memory;
    for (placement, source) in placements.iter().zip(SOURCES) {
        let (own, behind) = rest.split_at(source * shape.d_model);
        rest = behind;
        let batch = packed_source(device, placement);
        let encode = Extras { kinds, encodes: true, ..Extras::default() };
        let encode = Workspace::new(device, shape, source, encode).unwrap();
        let x = upload(device, source, shape.d_model, own);
        let mut rec = device.recorder();
        store_encoder_output(&mut rec, &x, &batch, &caches).unwrap();
        block.cache_sources(&mut Cx::new(&mut rec, &caches, &encode), &x, &batch).unwrap();
        rec.submit().unwrap();
    }

    let (mut ranges, mut grouping) = (Vec::new(), Grouping::default());
    for (sentence, (placement, count)) in (0..).zip(placements.iter().zip(QUERIES)) {
        ranges.extend(vec![placement.cross_range(0); count]);
        grouping.push(placement.slab, sentence, count as u32);
    }
    let rows = ranges.len();
    let (index, ranges) = (numbers(device, &(0..rows as u32).collect::<Vec<_>>()), table(device, &ranges));
    let groups = table(device, &grouping.groups);
    let (index, ranges, groups) = (index.view(), ranges.view(), groups.view());
    let cross = CrossQueries { index, ranges, groups, segments: &grouping.segments, count: rows };
    let mean = poisoned(device, rows + 1, SOURCES.into_iter().max().unwrap(), DType::F32);
    let out = Probabilities { mean: &mean, log_sum_exp: None };
    let queries = upload(device, rows, shape.d_model, queries);
    let mut rec = device.recorder();
    block.probabilities(&mut Cx::new(&mut rec, &caches, &work), &BlockInput::plain(&queries), cross, &out).unwrap();
    rec.submit().unwrap();
    read_rows(device, &mean, rows, kind.name())
}

#[test]
fn every_kind_gives_the_probabilities_of_plain_attention() {
    let (d, longest) = (shape().d_model, SOURCES.into_iter().max().unwrap());
    let memory = values(1, SOURCES.iter().sum::<usize>() * d);
    let queries = values(2, QUERIES.iter().sum::<usize>() * d);
    for biases in [[true; 4], [false; 4]] {
        let weights = Weights::new(shape(), biases, 3000);
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F16, 5e-3)] {
            let mut want = Vec::new();
            let (mut keys, mut rows) = (&memory[..], queries.chunks(d));
            for (source, count) in SOURCES.into_iter().zip(QUERIES) {
                let own = stored(&keys[..source * d], DType::F32);
                keys = &keys[source * d..];
                for query in rows.by_ref().take(count) {
                    let mut row = weights.probabilities(&stored(query, DType::F32), &own, dtype);
                    row.resize(longest, 0.0);
                    want.extend(row);
                }
            }
            for portable in [false, true] {
                let device = device(portable);
                for kind in Kind::BUILT_IN {
                    let got = run(&device, kind, dtype, &weights, &memory, &queries);
                    if let Err(message) = compare_within(&got, &want, tolerance) {
                        panic!("{kind}, {dtype:?}, biases {biases:?}, portable {portable}: {message}");
                    }
                }
            }
        }
    }
}

#[test]
fn room_that_is_not_there_is_an_error() {
    let device = device(false);
    let (shape, kind) = (shape(), Kind::EL);
    let weights = Weights::new(shape, [true; 4], 1);
    let spec =
        BlockSpec { what: "block", layer: 0, shape, formats: DType::F32.into(), positions: PositionScheme::None };
    let block = kind.cross_attention(&(&device).into(), &spec, weights.get()).unwrap();
    let (kinds, format) = (Kinds::both(kind), DType::F32.into());
    let layout = CacheLayout { layers: 1, kinds, self_shape: shape, cross_shape: Some(shape), format };
    let caches = Caches::new(&device, layout);
    let work = Workspace::new(&device, shape, 2, Extras::default()).unwrap();
    let (index, pairs) = (numbers(&device, &[0; 2]), ranges(&device, &[[0; 2]; 2]));
    let x = upload(&device, 2, 30, &[0.0; 60]);
    let mean = poisoned(&device, 2, 3, DType::F32);
    let queries =
        CrossQueries { index: index.view(), ranges: pairs.view(), groups: pairs.view(), segments: &[], count: 2 };
    let out = Probabilities { mean: &mean, log_sum_exp: None };
    let error = block
        .probabilities(&mut Cx::new(&mut device.recorder(), &caches, &work), &BlockInput::plain(&x), queries, &out)
        .unwrap_err();
    assert!(error.to_string().contains("no room for EL queries"), "{error}");
}
