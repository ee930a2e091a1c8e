//! `embed.wgsl` against its twin: decode steps and packed rows, tables in one window and in several.

use elgen_tensor::ops::{embed_packed, embed_step, positions_packed, positions_step};
use elgen_tensor::{DType, RowStart, RowState, Rows, TokenAt, WeightFormat};
use elgen_tests::harness::{
    self, Variant, assert_same_bits, compare, devices, matrix, poisoned, read_rows, stored, stored_weights, values,
    windowed_devices,
};
use elgen_tests::twin;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    vocab: usize,
    d: usize,
    format: WeightFormat,
    /// The storage of positions, and their offset.
    positions: Option<(DType, usize)>,
    scale: f32,
    /// Ids of each physical row.
    prompts: Vec<Vec<u32>>,
    seed: u64,
}

fn cases(max_vocab: usize, max_d: usize) -> impl Strategy<Value = Case> {
    let positions = prop::option::of((any::<bool>(), 0..=2usize));
    let formats = vec![WeightFormat::F32, WeightFormat::F16, WeightFormat::Int8Blocks];
    let format = prop::sample::select(formats);
    (1..=max_vocab, 1..=max_d, format, positions, 1..=12usize, any::<u64>()).prop_map(
        |(vocab, d, format, positions, rows, seed)| {
            let pick = |i: usize, n: usize| (values(seed ^ i as u64, 1)[0].abs() * n as f32) as usize;
            let prompts = (0..rows)
                .map(|r| (0..1 + pick(100 + r, 9)).map(|c| pick(1000 + 10 * r + c, vocab) as u32).collect())
                .collect();
            let storage = |half| if half { DType::F16 } else { DType::F32 };
            let positions = positions.map(|(half, offset)| (storage(half), offset));
            Case {
                vocab,
                d,
                format,
                positions,
                scale: if format == WeightFormat::F16 { 1.0 } else { 7.5 },
                prompts,
                seed,
            }
        },
    )
}

const PLACES: usize = 12;

fn check(case: &Case, variants: &[Variant]) -> Result<(), TestCaseError> {
    let table = values(case.seed, case.vocab * case.d);
    let places = values(case.seed ^ 1, PLACES * case.d);
    let place_dtype = case.positions.map_or(DType::F32, |(dtype, _)| dtype);
    let (wide_table, wide_places) = (stored_weights(&table, case.d, case.format), stored(&places, place_dtype));
    // The last id of each row, which is what a step feeds; every second row has finished, in descending order.
    let active: Vec<u32> = (0..case.prompts.len() as u32).rev().step_by(2).collect();
    let fed: Vec<(u32, u32)> = active
        .iter()
        .map(|r| &case.prompts[*r as usize])
        .map(|ids| (ids[ids.len() - 1], ids.len() as u32 - 1))
        .collect();
    let want = twin::embed(
        &fed,
        &wide_table,
        case.d,
        f64::from(case.scale),
        case.positions.map(|(_, offset)| (&wide_places[..], offset)),
    );
    for variant in variants {
        let device = &variant.device;
        let weights = matrix(device, case.vocab, case.d, case.format, &table);
        let places = matrix(device, PLACES, case.d, place_dtype, &places);
        let positions = case.positions.map(|(_, offset)| (&places, offset));

        let mut rows = Rows::new(device, case.prompts.len() + 1, 10).unwrap();
        let states: Vec<RowState> = case
            .prompts
            .iter()
            .map(|ids| {
                RowState { prompt_len: ids.len() as u32, width: 1, ..RowState::default() }.with_length(ids.len() as u32)
            })
            .collect();
        let starts: Vec<RowStart<'_>> = states
            .iter()
            .zip(&case.prompts)
            .map(|(state, ids)| RowStart { state: *state, prompt: ids, slab: 0, max_length: ids.len() })
            .collect();
        let slabs = vec![0; states.len()];
        rows.begin(device, &starts).unwrap();
        rows.set_active(device, active.clone(), &slabs).unwrap();
        let tokens: Vec<TokenAt> = fed.iter().map(|(id, position)| TokenAt { id: *id, position: *position }).collect();
        let ids = harness::table(device, &tokens);

        let step = poisoned(device, active.len() + 1, case.d, DType::F32);
        let packed = poisoned(device, active.len() + 1, case.d, DType::F32);
        let mut rec = device.recorder();
        embed_step(&mut rec, &rows, &weights, case.scale, positions, &step).unwrap();
        embed_packed(&mut rec, ids.view(), active.len(), &weights, case.scale, positions, &packed).unwrap();
        prop_assert_eq!(rec.dispatches(), 2 * weights.window_count() as u64);
        rec.submit().unwrap();
        let got = read_rows(device, &step, active.len(), &variant.name);
        if let Err(message) = compare(&got, &want) {
            prop_assert!(false, "{}: {message}", variant.name);
        }
        assert_same_bits(&read_rows(device, &packed, active.len(), &variant.name), &got, "packed");

        let Some(positions) = positions else { continue };
        let alone = poisoned(device, active.len() + 1, case.d, DType::F32);
        let alone_packed = poisoned(device, active.len() + 1, case.d, DType::F32);
        let mut rec = device.recorder();
        positions_step(&mut rec, &rows, positions, &alone).unwrap();
        positions_packed(&mut rec, ids.view(), active.len(), positions, &alone_packed).unwrap();
        prop_assert_eq!(rec.dispatches(), 2);
        rec.submit().unwrap();
        let want: Vec<f32> = fed
            .iter()
            .flat_map(|(_, position)| {
                let first = (*position as usize + positions.1) * case.d;
                wide_places[first..first + case.d].iter().map(|x| *x as f32)
            })
            .collect();
        for (tensor, what) in [(&alone, "positions alone"), (&alone_packed, "packed positions alone")] {
            assert_same_bits(&read_rows(device, tensor, active.len(), &variant.name), &want, what);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn embed_matches_its_twin(case in cases(50, 70)) {
        check(&case, devices())?;
    }

    #[test]
    fn embed_over_row_windows_matches_its_twin(case in cases(900, 90)) {
        check(&case, windowed_devices())?;
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let table = matrix(device, 6, 5, DType::F32, &[0.0; 30]);
    let ids = harness::table(device, &[TokenAt { id: 0, position: 0 }, TokenAt { id: 1, position: 1 }]);
    let out = poisoned(device, 4, 5, DType::F32);
    let places = matrix(device, 3, 5, DType::F16, &[0.0; 15]);
    let mut rec = device.recorder();
    assert!(embed_packed(&mut rec, ids.view(), 3, &table, 1.0, None, &out).is_err(), "too few pairs");
    let wide = matrix(device, 3, 6, DType::F32, &[0.0; 18]);
    assert!(embed_packed(&mut rec, ids.view(), 2, &table, 1.0, Some((&wide, 0)), &out).is_err(), "other columns");
    assert!(
        embed_packed(&mut rec, ids.view(), 2, &table, 1.0, None, &poisoned(device, 1, 5, DType::F32)).is_err(),
        "too few rows"
    );
    let narrow = poisoned(device, 4, 4, DType::F32);
    assert!(positions_packed(&mut rec, ids.view(), 3, (&places, 0), &out).is_err(), "too few pairs for positions");
    assert!(positions_packed(&mut rec, ids.view(), 2, (&places, 0), &narrow).is_err(), "too few columns for positions");
    assert!(positions_packed(&mut rec, ids.view(), 2, (&places, 3), &out).is_err(), "offset behind the table");
    let blocks = matrix(device, 3, 5, WeightFormat::Int8Blocks, &[0.0; 15]);
    let refused = positions_packed(&mut rec, ids.view(), 2, (&blocks, 0), &out).unwrap_err();
    assert_eq!(refused.to_string(), "embed: positions [3, 5] int8-blocks, whose elements do not stand alone");
    let device = &windowed_devices()[0].device;
    let tall = matrix(device, 5000, 5, DType::F32, &vec![0.0; 25_000]);
    let ids = harness::table(device, &[TokenAt { id: 0, position: 0 }]);
    let out = poisoned(device, 1, 5, DType::F32);
    let refused = positions_packed(&mut device.recorder(), ids.view(), 1, (&tall, 0), &out).unwrap_err();
    assert_eq!(refused.to_string(), "embed: [5000, 5] f32 lies in 3 windows, where one is needed");
}
