//! What a decode step and a search make of rows that attend to fewer keys than they have positions, as an eviction policy will leave them: ids,
//! positions and slots follow the length, and the slot table goes on behind the live keys.

use elgen_search::device::{DeviceSearch, SentenceStart};
use elgen_search::{GenerationOptions, ModelLimits};
use elgen_tensor::ops::{embed_step, store};
use elgen_tensor::{DType, Device, RowStart, RowState, Rows, TensorError};
use elgen_tests::harness::{compare, devices, matrix, poisoned, read_raw, read_rows, upload, values};
use elgen_tests::twin;

const WIDTH: usize = 2;
const PROMPT: [u32; 5] = [3, 1, 4, 1, 6];
const VOCAB: usize = 8;
const MAX_LENGTH: usize = 8;

/// The two rows of a sentence at the end of their prompt.
fn rows(device: &Device) -> Rows {
    let (prompt, width) = (PROMPT.len() as u32, WIDTH as u32);
    let state = |beam: u32| RowState {
        beam,
        width,
        prompt_len: prompt,
        gen_base: prompt + beam,
        owns_prompt: u32::from(beam == 0),
        ..RowState::default().with_length(prompt)
    };
    let start = |beam: u32| RowStart { state: state(beam), prompt: &PROMPT, slab: 0, max_length: MAX_LENGTH };
    let mut rows = Rows::new(device, WIDTH, MAX_LENGTH).unwrap();
    rows.begin(device, &[start(0), start(1)]).unwrap();
    rows
}

#[test]
fn a_step_feeds_and_stores_what_stands_at_the_position() {
    const D: usize = 6;
    let (table, places) = (values(1, VOCAB * D), values(2, MAX_LENGTH * D));
    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let last = (PROMPT[PROMPT.len() - 1], PROMPT.len() as u32 - 1);
    let want = twin::embed(&[last; WIDTH], &wide(&table), D, 2.0, Some((&wide(&places), 0)));
    for variant in devices() {
        let device = &variant.device;
        let mut rows = rows(device);
        rows.set_live(device, &[2, 1]).unwrap();
        let weights = matrix(device, VOCAB, D, DType::F32, &table);
        let places = matrix(device, MAX_LENGTH, D, DType::F32, &places);
        let embedded = poisoned(device, WIDTH, D, DType::F32);
        let x = upload(device, WIDTH, 4, &[1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        let slab = upload(device, 16, 4, &[-1.0; 64]);
        let mut rec = device.recorder();
        embed_step(&mut rec, &rows, &weights, 2.0, Some((&places, 0)), &embedded).unwrap();
        store(&mut rec, &rows, rows.segments()[0], &x, 0, &slab).unwrap();
        rec.submit().unwrap();
        let got = read_rows(device, &embedded, WIDTH, &variant.name);
        compare(&got, &want).unwrap_or_else(|e| panic!("{}: {e}", variant.name));
        // The prompt is beam 0's to store.
        let mut stored = [-1.0; 64];
        stored[4 * (PROMPT.len() - 1)..][..4].fill(1.0);
        assert_eq!(read_raw(device, &slab), stored, "{}", variant.name);
    }
}

/// The tables of both rows after two steps of a search, the rows having begun with `live` live keys.
fn searched(device: &Device, options: &GenerationOptions, live: u32) -> (Vec<RowState>, Vec<u32>, Vec<u32>) {
    let limits = ModelLimits { vocab_size: VOCAB, max_position_embeddings: None, is_encoder_decoder: false };
    let (config, _) = options.clone().resolve(&limits).unwrap();
    let mut search = DeviceSearch::new(device, &config, 1, MAX_LENGTH - PROMPT.len()).unwrap();
    let lengths = config.lengths(PROMPT.len()).unwrap();
    search.begin(&[SentenceStart { ordinal: 0, lengths, prompt: &PROMPT, source: &PROMPT }]).unwrap();
    let mut rows = rows(device);
    rows.set_live(device, &[live; WIDTH]).unwrap();
    for slopes in [[0.1, 0.1], [0.01, 9.0]] {
        // In the second step beam 1 is the surer one: its child becomes beam 0, and that of beam 0 beam 1.
        let logits: Vec<f32> = slopes.iter().flat_map(|slope| (0..VOCAB).map(move |id| slope * id as f32)).collect();
        search.step(&mut device.recorder(), &mut rows, &upload(device, WIDTH, VOCAB, &logits)).unwrap();
    }
    let (tokens, slots) = rows.read_tables(device, WIDTH).unwrap();
    (rows.read_states(device, WIDTH).unwrap(), tokens, slots)
}

/// Sampling appends in place (`select`), beam search takes prefixes over (`advance`).
#[test]
fn a_search_appends_the_slot_of_the_position_behind_the_live_keys() {
    let both = GenerationOptions { max_length: Some(MAX_LENGTH), ..GenerationOptions::default() };
    let sample = GenerationOptions { do_sample: Some(true), num_return_sequences: Some(WIDTH), ..both.clone() };
    let beams = GenerationOptions { num_beams: Some(WIDTH), ..both };
    let prompt = PROMPT.len() as u32;
    for variant in devices() {
        let (device, name) = (&variant.device, &variant.name);
        for (mode, options, parents) in [("sampling", &sample, [0, 1]), ("beams", &beams, [1, 0])] {
            let (_, whole, _) = searched(device, options, prompt);
            for live in [1, 3, prompt] {
                let (states, tokens, slots) = searched(device, options, live);
                for (row, (state, parent)) in states.iter().zip(parents).enumerate() {
                    let what = format!("{name}, {live} live keys, row {row}, {mode}");
                    assert_eq!([state.length, state.live], [prompt + 2, live + 2], "{what}");
                    let of = |table: &[u32], count: u32| table[row * MAX_LENGTH..][..count as usize].to_vec();
                    assert_eq!(of(&tokens, state.length), of(&whole, state.length), "{what}");
                    let first = prompt + parent;
                    let second = prompt + WIDTH as u32 + row as u32;
                    assert_eq!(of(&slots, state.live), (0..live).chain([first, second]).collect::<Vec<_>>(), "{what}");
                }
            }
        }
    }
}

#[test]
fn rows_have_no_more_live_keys_than_positions() {
    let device = &devices()[0].device;
    let mut rows = rows(device);
    for live in [&[5, 6][..], &[u32::MAX, 1]] {
        assert!(matches!(rows.set_live(device, live), Err(TensorError::Shape { op: "rows", .. })), "{live:?}");
    }
    assert!(rows.set_live(device, &[0, 5]).is_ok());
    let live: Vec<u32> = rows.read_states(device, 2).unwrap().iter().map(|state| state.live).collect();
    assert_eq!((live, rows.active_rows(), rows.segments().len()), (vec![0, 5], &[0, 1][..], 1));
}
