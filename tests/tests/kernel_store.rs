//! `store.wgsl` against its twin: decode steps of shared and own prompts, and packed rows.

use elgen_tensor::ops::{store, store_packed};
use elgen_tensor::{Class, DType, RowState, Rows, Segment};
use elgen_tests::harness::{devices, numbers, read_raw, stored, upload, values};
use elgen_tests::twin;
use proptest::prelude::*;

const WIDTH: u32 = 2;

/// Ids behind a prompt at most, each with a slot of its own for every beam.
const NEW: u32 = 9;

/// Sentences of two beams, each still in its prompt or some steps behind it.
fn states(lengths: &[(u32, u32)]) -> Vec<RowState> {
    let mut base = 0;
    let mut all = Vec::new();
    for (sentence, (prompt_len, generated)) in lengths.iter().enumerate() {
        for beam in 0..WIDTH {
            all.push(RowState {
                sentence: sentence as u32,
                beam,
                width: WIDTH,
                length: 1 + generated,
                live: 1 + generated,
                prompt_len: *prompt_len,
                prompt_base: base,
                gen_base: base + prompt_len + beam,
                owns_prompt: u32::from(beam == 0),
                // Behind it, a row stores where it stored last.
                limit: if sentence % 2 == 1 { prompt_len + 3 } else { 0 },
            });
        }
        base += prompt_len + WIDTH * NEW;
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn store_matches_its_twin(
        lengths in prop::collection::vec((1..=5u32, 0..=NEW), 1..=6),
        quads in 1..=3usize, first_quad in 0..=2usize, half in any::<bool>(), packed in any::<bool>(), seed in any::<u64>(),
    ) {
        let dtype = if half { DType::F16 } else { DType::F32 };
        let states = states(&lengths);
        // The middle of the rows is one segment; the others lie in other slabs.
        let first = states.len() / 4;
        let count = (states.len() - first).div_ceil(2);
        let slots = 6 * (5 + (WIDTH * NEW) as usize);
        let cols = 4 * (first_quad + quads) + 3;
        let width = 4 * quads;
        let x = values(seed, states.len() * cols);
        let target = |i: usize| {
            let (row, position) = (&states[i], states[i].length - 1);
            let silent = position < row.prompt_len && row.owns_prompt == 0;
            (!silent || packed).then(|| if packed { i * 3 + 1 } else { row.own_slot(position) as usize })
        };
        let places: Vec<Option<usize>> = (0..states.len()).map(|i| target(i).filter(|_| (first..first + count).contains(&i))).collect();
        let before = vec![-2.0f32; slots * width];
        let mut want = stored(&before, dtype);
        twin::store(&stored(&x, dtype), cols, 4 * first_quad, &places, &mut want, width);
        for variant in devices() {
            let device = &variant.device;
            let x = upload(device, states.len(), cols, &x);
            let slab = device.tensor_from("slab", Class::Cache, slots, width, dtype, &before).unwrap();
            let mut rows = Rows::new(device, states.len(), 16).unwrap();
            rows.set_active(device, (0..states.len() as u32).collect(), &vec![0; states.len()]).unwrap();
            rows.place(device, &states, None, None).unwrap();
            let listed = numbers(device, &(0..states.len() as u32).map(|i| i * 3 + 1).collect::<Vec<_>>());
            let mut rec = device.recorder();
            if packed {
                store_packed(&mut rec, listed.view(), first, count, &x, 4 * first_quad, &slab).unwrap();
            } else {
                let segment = Segment { first: first as u32, count: count as u32, ..rows.segments()[0] };
                store(&mut rec, &rows, segment, &x, 4 * first_quad, &slab).unwrap();
            }
            rec.submit().unwrap();
            // A store moves values: they must be exact, and every other slot untouched.
            let got: Vec<f64> = read_raw(device, &slab).into_iter().map(f64::from).collect();
            prop_assert_eq!(&got, &want, "{}", variant.name);
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let slots = numbers(device, &[0, 1, 2, 3]);
    let x = upload(device, 4, 8, &[0.0; 32]);
    let slab = device.tensor("slab", Class::Cache, 4, 8, DType::F32).unwrap();
    let mut rec = device.recorder();
    assert!(store_packed(&mut rec, slots.view(), 0, 4, &x, 0, &slab).is_ok());
    assert!(store_packed(&mut rec, slots.view(), 0, 4, &x, 4, &slab).is_err(), "columns");
    assert!(store_packed(&mut rec, slots.view(), 2, 3, &x, 0, &slab).is_err(), "rows");
}
