//! Indices that kernels read from memory: whatever a program puts into their tables by any public way, it gets an error or a clamp, in shaders
//! that are checked and in those that are not.

use elgen_attention::{
    Align, Attend, CrossQueries, ElAttend, ElQueries, KeyRanges, MhaAttend, Probabilities, QueryRows, Shape, align,
    attend, el_attend, mha_attend,
};
use elgen_search::device::{DeviceSearch, SentenceStart};
use elgen_search::{GenerationOptions, ModelLimits};
use elgen_tensor::ops::{embed_packed, embed_step, positions_packed, store, store_packed, token_logprobs};
use elgen_tensor::{
    Arena, Class, DType, Device, KernelSource, KernelSpec, Range, Recorder, RowStart, RowState, Rows, Segment, Table,
    Tensor, TensorError, TokenAt, bind,
};
use elgen_tests::harness::{devices, matrix, numbers, poisoned, ranges, read_raw, table, upload, zeros};

const SHAPE: Shape = Shape::new(8, 2, 4, 1.0);
/// Slots of the caches below.
const SLOTS: usize = 5;

fn refused<T: std::fmt::Debug>(result: Result<T, TensorError>, what: &str) {
    let error = result.expect_err(what);
    assert!(matches!(error, TensorError::Shape { .. }), "{what}: {error}");
    assert_eq!(error.to_string().lines().count(), 1, "{what}: {error}");
}

/// Two query rows, and what they attend to.
struct Operands {
    q: Tensor,
    kv: Tensor,
    x: Tensor,
    out: Tensor,
    wide: Tensor,
}

impl Operands {
    fn new(device: &Device) -> Self {
        let zeros = |rows: usize, cols: usize| upload(device, rows, cols, &vec![0.5; rows * cols]);
        Self {
            q: zeros(2, 16),
            kv: zeros(SLOTS, 16),
            x: zeros(SLOTS, 8),
            out: poisoned(device, 2, 8, DType::F32),
            wide: poisoned(device, 2, 16, DType::F32),
        }
    }

    fn mha(&self) -> MhaAttend<'_> {
        let (q, out) = ((&self.q, 0), &self.out);
        MhaAttend { shape: SHAPE, q, kv: &self.kv, columns: [0, 8], bias: None, out, splits: None }
    }

    fn el(&self, segment: Segment) -> ElAttend<'_> {
        let (q, x, out) = (&self.q, &self.x, &self.wide);
        ElAttend { shape: SHAPE, q, x, bias: None, out, splits: None, segment }
    }
}

/// Rows 0 and 1 of one sentence, in the midst of their work.
fn placed(device: &Device, lengths: [u32; 2], slots: &[u32; 8]) -> Rows {
    let mut rows = Rows::new(device, 2, 4).expect("tables");
    rows.set_active(device, vec![0, 1], &[0, 0]).expect("two rows");
    let states = lengths.map(|length| RowState { length, live: length, prompt_len: length, ..RowState::default() });
    rows.place(device, &states, None, Some(slots)).expect("rows that the tables hold");
    rows
}

const SEGMENT: Segment = Segment { slab: 0, first: 0, count: 2, first_group: 0, groups: 1, widest_group: 2 };

#[test]
fn slots_of_rows_lie_in_the_cache_or_are_refused() {
    for variant in devices() {
        let (device, name) = (&variant.device, &variant.name);
        let operands = Operands::new(device);
        let last = SLOTS as u32 - 1;
        let good = placed(device, [2, 3], &[0, last, 99, 99, 1, 2, last, u32::MAX]);
        let run = |rows: &Rows, what: &str, fits: bool| {
            for segment in [SEGMENT, Segment { slab: 7, ..SEGMENT }] {
                let mut rec = device.recorder();
                let mha = mha_attend(&mut rec, QueryRows::Slots(rows, &segment), operands.mha());
                let el = el_attend(&mut rec, ElQueries::Slots(rows), operands.el(segment));
                for result in [mha, el] {
                    match fits {
                        true => result.unwrap_or_else(|e| panic!("{name}, {what}: {e}")),
                        false => refused(result, what),
                    }
                }
                rec.submit().expect("submission");
            }
        };
        run(&good, "slots behind a row's length are not read", true);
        run(&placed(device, [2, 3], &[0, 1, 0, 0, 1, 2, SLOTS as u32, 0]), "a slot behind the cache", false);
        run(&placed(device, [1, 1], &[u32::MAX, 0, 0, 0, 1, 0, 0, 0]), "the largest slot", false);
        for segment in [
            Segment { first: 1, ..SEGMENT },
            Segment { count: 3, ..SEGMENT },
            Segment { first: u32::MAX, ..SEGMENT },
            Segment { count: u32::MAX, ..SEGMENT },
        ] {
            let mut rec = device.recorder();
            refused(mha_attend(&mut rec, QueryRows::Slots(&good, &segment), operands.mha()), "rows that are not there");
            refused(el_attend(&mut rec, ElQueries::Slots(&good), operands.el(segment)), "rows that are not there");
            refused(store(&mut rec, &good, segment, &operands.q, 0, &operands.x), "rows that are not there");
        }
        // What a step would store.
        let mut rec = device.recorder();
        store(&mut rec, &good, SEGMENT, &operands.q, 0, &operands.x).expect("slots 1 and 2");
        let mut rows = Rows::new(device, 2, 4).expect("tables");
        let states = |gen_base: u32, width: u32| {
            [0, 1].map(|beam| RowState {
                beam,
                width,
                length: 3,
                live: 3,
                prompt_len: 1,
                gen_base,
                ..RowState::default()
            })
        };
        for (what, states) in [
            ("a base behind the cache", states(SLOTS as u32, 1)),
            ("the largest base", states(u32::MAX, 1)),
            ("a stride behind the cache", states(0, SLOTS as u32)),
            ("the largest stride", states(1, u32::MAX)),
        ] {
            rows.set_active(device, vec![0, 1], &[0, 0]).expect("two rows");
            rows.place(device, &states, None, Some(&[0; 8])).expect("rows");
            refused(store(&mut rec, &rows, SEGMENT, &operands.q, 0, &operands.x), what);
        }
        let unplaced = {
            let mut rows = Rows::new(device, 2, 4).expect("tables");
            rows.set_active(device, vec![0, 1], &[0, 0]).expect("two rows");
            rows
        };
        refused(store(&mut rec, &unplaced, SEGMENT, &operands.q, 0, &operands.x), "rows that feed nothing");
        let embeddings = matrix(device, 3, 8, DType::F32, &[0.0; 24]);
        refused(embed_step(&mut rec, &unplaced, &embeddings, 1.0, None, &operands.out), "rows that feed nothing");
        rec.submit().expect("submission");
    }
}

#[test]
fn rows_begin_and_are_placed_within_their_tables() {
    let device = &devices()[2].device;
    let mut rows = Rows::new(device, 2, 4).expect("tables");
    let state = RowState { width: 1, length: 2, live: 2, prompt_len: 2, ..RowState::default() };
    let good = RowStart { state, prompt: &[1, 2], slab: 0, max_length: 4 };
    rows.begin(device, &[good, good]).expect("two rows");
    let bad = [
        ("a third row", vec![good; 3]),
        ("no prompt", vec![RowStart { prompt: &[], ..good }]),
        ("another length", vec![RowStart { state: state.with_length(3), ..good }]),
        ("another prompt", vec![RowStart { state: RowState { prompt_len: 1, ..state }, ..good }]),
        ("no room for the prompt", vec![RowStart { max_length: 1, ..good }]),
        ("more ids than the table has", vec![RowStart { max_length: 5, ..good }]),
        ("endless ids", vec![RowStart { max_length: usize::MAX, ..good }]),
    ];
    for (what, starts) in bad {
        refused(rows.begin(device, &starts), what);
    }
    for (what, live) in [("a dropped key", 1), ("a key too many", 3), ("no key", 0), ("endless keys", u32::MAX)] {
        let kept = RowState { live, ..state };
        let starts = [good, RowStart { state: kept, ..good }];
        let errors = [rows.begin(device, &starts), rows.place(device, &[state, kept], None, None)];
        for error in errors.map(|result| result.expect_err(what)) {
            let message =
                format!("rows: row 1 has {live} live keys of 2 positions; only whole histories are supported yet");
            assert_eq!(error.to_string(), message, "{what}");
            assert!(matches!(error, TensorError::Shape { op: "rows", .. }), "{what}: {error:?}");
        }
    }
    let long = state.with_length(5);
    refused(rows.place(device, &[long], None, None), "a length behind the table");
    refused(rows.place(device, &[state; 3], None, None), "a third row");
    refused(rows.place(device, &[state], None, Some(&[0; 5])), "slots of another size");
    refused(rows.place(device, &[state], Some(&[0; 3]), None), "ids of another size");
    refused(rows.set_active(device, vec![2], &[0, 0, 0]), "a row without a place");
    refused(rows.set_active(device, vec![1], &[0]), "a row without a slab");
}

#[test]
fn packed_slots_lie_in_the_cache_or_are_refused() {
    for variant in devices() {
        let device = &variant.device;
        let operands = Operands::new(device);
        let mut rec = device.recorder();
        for (what, slots) in [("one behind", [0, SLOTS as u32]), ("the largest", [u32::MAX, 1])] {
            let slots = numbers(device, &slots);
            refused(store_packed(&mut rec, slots.view(), 0, 2, &operands.q, 0, &operands.x), what);
        }
        let slots = numbers(device, &[SLOTS as u32 - 1, u32::MAX]);
        store_packed(&mut rec, slots.view(), 0, 1, &operands.q, 0, &operands.x).expect("the first of them");
        refused(store_packed(&mut rec, slots.view(), 1, 1, &operands.q, 0, &operands.x), "the second of them");
        refused(store_packed(&mut rec, slots.view(), 1, 2, &operands.q, 0, &operands.x), "slots that are not listed");
    }
}

/// What is tried, row numbers, ranges, a group, and whether it fits.
type Case = (&'static str, [u32; 2], [[u32; 2]; 2], [u32; 2], bool);

#[test]
fn ranges_lie_within_the_keys_or_are_refused() {
    for variant in devices() {
        let (device, name) = (&variant.device, &variant.name);
        let operands = Operands::new(device);
        let mean = poisoned(device, 2, SLOTS, DType::F32);
        let max = u32::MAX;
        let cases: [Case; 9] = [
            ("ranges up to the end", [1, 0], [[0, 5], [4, 1]], [0, 2], true),
            ("no keys at all, wherever", [1, 0], [[max, 0], [4, 0]], [0, 2], true),
            ("a range behind the end", [0, 1], [[0, 5], [4, 2]], [0, 2], false),
            ("the largest range", [0, 1], [[max, max], [0, 1]], [0, 2], false),
            ("a range that wraps", [0, 1], [[max, 2], [0, 1]], [0, 2], false),
            ("a row without a range", [0, 2], [[0, 5], [0, 5]], [0, 2], false),
            ("the largest row number", [max, 0], [[0, 5], [0, 5]], [0, 2], false),
            ("a group behind the rows", [0, 1], [[0, 5], [0, 5]], [0, 3], false),
            ("the largest group", [0, 1], [[0, 5], [0, 5]], [max, max], false),
        ];
        for (what, index, pairs, group, fits) in cases {
            let (index, pairs, groups) = (numbers(device, &index), ranges(device, &pairs), ranges(device, &[group]));
            let (index, pairs, groups) = (index.view(), pairs.view(), groups.view());
            let segments = [SEGMENT];
            let queries = CrossQueries { index, ranges: pairs, groups, segments: &segments, count: 2 };
            let mut rec = device.recorder();
            let mut results = Vec::new();
            for shared in [true, false] {
                let rows = QueryRows::Groups { queries: &queries, segment: &SEGMENT, shared };
                results.push(mha_attend(&mut rec, rows, operands.mha()));
            }
            results.push(el_attend(&mut rec, ElQueries::Groups(queries), operands.el(SEGMENT)));
            if group == [0, 2] {
                let (q, k) = ((&operands.q, 0), (&operands.kv, 0));
                let rows = Align { shape: SHAPE, shared: false, q, k, first: 0, count: 2 };
                let out = Probabilities { mean: &mean, log_sum_exp: None };
                results.push(align(&mut rec, index, pairs, rows, &out));
                let (k, v, out) = ((&operands.kv, 0), (&operands.kv, 8), &operands.out);
                let product = Attend { shape: SHAPE, q, k, v, bias: None, out, first: 0, count: 2 };
                results.push(attend(&mut rec, KeyRanges { index, ranges: pairs }, product));
            }
            for result in results {
                match fits {
                    true => result.unwrap_or_else(|e| panic!("{name}, {what}: {e}")),
                    false => refused(result, what),
                }
            }
            rec.submit().expect("submission");
        }
        // Groups that are not listed, and a row of probabilities that is too short.
        let (index, pairs, groups) =
            (numbers(device, &[0, 1]), ranges(device, &[[0, 5]; 2]), ranges(device, &[[0, 2]]));
        let (index, pairs, groups) = (index.view(), pairs.view(), groups.view());
        let queries = CrossQueries { index, ranges: pairs, groups, segments: &[], count: 2 };
        for segment in [Segment { groups: 2, ..SEGMENT }, Segment { first_group: u32::MAX, ..SEGMENT }] {
            let mut rec = device.recorder();
            let rows = QueryRows::Groups { queries: &queries, segment: &segment, shared: true };
            refused(mha_attend(&mut rec, rows, operands.mha()), "groups that are not listed");
            let el = el_attend(&mut rec, ElQueries::Groups(queries), operands.el(segment));
            refused(el, "groups that are not listed");
        }
        let narrow = poisoned(device, 2, SLOTS - 1, DType::F32);
        let rows = Align { shape: SHAPE, shared: false, q: (&operands.q, 0), k: (&operands.kv, 0), first: 0, count: 2 };
        let out = Probabilities { mean: &narrow, log_sum_exp: None };
        refused(align(&mut device.recorder(), index, pairs, rows, &out), "a range longer than a row");
    }
}

#[test]
fn ids_outside_a_table_are_left_out_and_positions_end_with_it() {
    for variant in devices() {
        let (device, name) = (&variant.device, &variant.name);
        let embeddings = matrix(device, 3, 4, DType::F32, &[1., 1., 1., 1., 2., 2., 2., 2., 3., 3., 3., 3.]);
        let places = matrix(device, 2, 4, DType::F32, &[10., 10., 10., 10., 20., 20., 20., 20.]);
        let max = u32::MAX;
        let tokens = [(2, 1), (3, 0), (max, max), (0, 2), (1, max)].map(|(id, position)| TokenAt { id, position });
        let ids = table(device, &tokens);
        let out = poisoned(device, 6, 4, DType::F32);
        let alone = poisoned(device, 6, 4, DType::F32);
        let mut rec = device.recorder();
        embed_packed(&mut rec, ids.view(), 5, &embeddings, 1.0, Some((&places, 0)), &out).expect("five rows");
        positions_packed(&mut rec, ids.view(), 5, (&places, 1), &alone).expect("five rows");
        let short = embed_packed(&mut rec, ids.view(), 6, &embeddings, 1.0, None, &out);
        refused(short, "an id that is not listed");
        rec.submit().expect("submission");
        let first: Vec<f32> = read_raw(device, &out).chunks(4).map(|row| row[0]).collect();
        let seen: Vec<Option<f32>> = first.iter().map(|x| (!x.is_nan()).then_some(*x)).collect();
        assert_eq!(seen, [Some(23.0), None, None, Some(21.0), Some(22.0), None], "{name}");
        let first: Vec<f32> = read_raw(device, &alone).chunks(4).map(|row| row[0]).collect();
        assert!(first[..5].iter().all(|x| [10.0, 20.0].contains(x)), "{name}: {first:?}");
        // Ids to score have no such place: they are refused.
        let (logits, scores) =
            (upload(device, 2, 8, &[0.0; 16]), device.alloc("scores", Class::Activations, 64).expect("room"));
        for (what, ids) in [("one behind", [7, 8]), ("the largest", [max, 0])] {
            let ids = numbers(device, &ids);
            refused(token_logprobs(&mut device.recorder(), &logits, ids.view(), &scores, 2), what);
        }
    }
}

/// A step of a search over two sentences whose rows are `starts`.
fn step(device: &Device, starts: &[RowStart<'_>], prompt: &[u32]) -> Result<(), elgen_search::device::SearchError> {
    let limits = ModelLimits { vocab_size: 8, max_position_embeddings: None, is_encoder_decoder: false };
    for num_beams in [1, 2] {
        let asked = GenerationOptions {
            num_beams: Some(num_beams),
            num_return_sequences: Some(2),
            do_sample: Some(num_beams == 1),
            max_new_tokens: Some(2),
            repetition_penalty: Some(1.5),
            encoder_repetition_penalty: Some(1.5),
            ..GenerationOptions::default()
        };
        let (config, _) = asked.resolve(&limits).expect("options");
        let mut search = DeviceSearch::new(device, &config, 2, 2).expect("a search");
        let lengths = config.lengths(prompt.len()).expect("lengths");
        let start = |ordinal| SentenceStart { ordinal, lengths, prompt, source: prompt };
        search.begin(&[start(0), start(1)]).expect("a batch");
        let mut rows = Rows::new(device, 4, 6).expect("tables");
        rows.begin(device, starts).expect("rows");
        let logits = upload(device, 4, 8, &[0.25; 32]);
        search.step(&mut device.recorder(), &mut rows, &logits)?;
    }
    Ok(())
}

#[test]
fn a_search_takes_the_rows_of_its_batch_alone() {
    for variant in devices() {
        let device = &variant.device;
        let row = |row: u32| RowStart {
            state: RowState {
                sentence: row / 2,
                beam: row % 2,
                width: 2,
                length: 1,
                live: 1,
                prompt_len: 1,
                ..RowState::default()
            },
            prompt: &[1],
            slab: 0,
            max_length: 3,
        };
        let good = [0, 1, 2, 3].map(row);
        step(device, &good, &[1]).unwrap_or_else(|e| panic!("{}: {e}", variant.name));
        // Ids that the vocabulary does not have: kernels keep off the logits that are not there.
        let far = good.map(|start| RowStart { prompt: &[u32::MAX], ..start });
        step(device, &far, &[u32::MAX]).unwrap_or_else(|e| panic!("{}: {e}", variant.name));
        let change = |edit: fn(&mut RowState)| {
            let mut bad = good;
            edit(&mut bad[3].state);
            bad
        };
        let bad = [
            ("a sentence that the batch does not have", change(|state| state.sentence = 2)),
            ("the largest sentence", change(|state| state.sentence = u32::MAX)),
            ("another beam", change(|state| state.beam = 7)),
            ("another width", change(|state| state.width = 1)),
            (
                "no room for all ids",
                [0, 1, 2, 3].map(|i| RowStart { max_length: if i == 3 { 2 } else { 3 }, ..row(i) }),
            ),
        ];
        for (what, starts) in bad {
            let error = step(device, &starts, &[1]).expect_err(what).to_string();
            assert!(error.contains("row 3") && error.lines().count() == 1, "{what}: {error}");
        }
        let error = step(device, &good, &[1, 1]).expect_err("a longer prompt").to_string();
        assert!(error.contains("a prompt of 2 ids"), "{error}");
        assert!(step(device, &good[..3], &[1]).is_err(), "a row is missing");
    }
}

/// Copies `slots[i]` of a row table to `out`, and writes `value` to `table[at]` if it is asked to.
fn reader(writes: bool) -> KernelSource {
    let access = if writes { "read_write" } else { "read" };
    KernelSource::new(
        "reader",
        format!(
            "struct Params {{ at: u32 }}
#include params
@group(0) @binding(0) var<storage, {access}> slots: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(1)
fn main() {{ out[p.at] = slots[p.at]; {} }}
",
            if writes { "slots[p.at] = 1u;" } else { "" }
        ),
    )
}

#[test]
fn kernels_from_outside_read_tables_and_stay_in_their_buffers() {
    for variant in devices() {
        let (device, name) = (&variant.device, &variant.name);
        let slots = numbers(device, &[7, 8, 9, 10]);
        let out = device.alloc("out", Class::Activations, 16).expect("room");
        let beside = device.alloc("beside", Class::Activations, 16).expect("room");
        device.write(&beside, 0, &[7; 16]).expect("an upload");
        let mut rec = device.recorder();
        let reads = device.kernel(&KernelSpec::from_source(&reader(false))).expect("a kernel");
        for at in [2_u32, 4, 1 << 20, u32::MAX] {
            rec.dispatch(&reads, &bind![slots.view(), &out], &at, [1, 1, 1]).expect("a dispatch");
        }
        let writes = device.kernel(&KernelSpec::from_source(&reader(true))).expect("a kernel");
        let error =
            rec.dispatch(&writes, &bind![slots.view(), &out], &0_u32, [1, 1, 1]).expect_err("a write").to_string();
        assert!(error.contains("binding 0 is a table of indices"), "{name}: {error}");
        rec.submit().expect("submission");
        let words = |bytes: Vec<u8>| bytemuck::pod_collect_to_vec::<u8, u32>(&bytes);
        // Where a checked access lands within the buffer is the compiler's choice; the one in range is exact.
        assert_eq!(words(device.read(&out, 16).expect("a read"))[2], 9, "{name}");
        assert_eq!(device.read(&beside, 16).expect("a read"), [7; 16], "{name}");
        assert_eq!(slots.read(device, 4).expect("a read"), [7, 8, 9, 10], "{name}");
    }
}

#[test]
fn what_was_recorded_for_other_contents_is_not_run() {
    for variant in devices() {
        let device = &variant.device;
        let operands = Operands::new(device);
        let mut slots = numbers(device, &[0, 1]);
        let record = |slots: &Table<u32>| -> Recorder {
            let mut rec = device.recorder();
            store_packed(&mut rec, slots.view(), 0, 2, &operands.q, 0, &operands.x).expect("slots of the cache");
            rec
        };
        let ran = |mut rec: Recorder| rec.submit().map(drop);
        let stale = "a table of indices was written anew";
        // Written at once, before the recording that read it is submitted.
        let (recorded, old) = (record(&slots), slots.clone());
        slots.write(device, &[1_000_000, 2]).expect("an upload");
        assert!(ran(recorded).unwrap_err().to_string().contains(stale));
        assert!(ran(record(&old)).unwrap_err().to_string().contains(stale), "a clone knows the old contents alone");
        slots.write(device, &[3, 4]).expect("an upload");
        ran(record(&slots)).expect("the contents of now");
        // Recorded: they come with the recording that writes them, and not before.
        let before = record(&slots);
        let mut later = device.recorder();
        slots.record(&mut later, &[4, 0]).expect("an upload");
        let early = record(&slots);
        assert!(ran(early).unwrap_err().to_string().contains(stale), "what is not there yet");
        ran(before).expect("the contents are still the old ones");
        store_packed(&mut later, slots.view(), 0, 2, &operands.q, 0, &operands.x).expect("slots of the cache");
        ran(later).expect("its own contents");
        ran(record(&slots)).expect("the contents of now");
        // A recording that is dropped never wrote.
        slots.record(&mut device.recorder(), &[2, 2]).expect("an upload");
        assert!(ran(record(&slots)).unwrap_err().to_string().contains(stale));

        let mut rows = placed(device, [1, 1], &[0; 8]);
        let mut recorded = device.recorder();
        mha_attend(&mut recorded, QueryRows::Slots(&rows, &SEGMENT), operands.mha()).expect("rows of the cache");
        let mut fewer = device.recorder();
        rows.retain(&mut fewer, |row| row == 1).expect("an upload");
        let mut lost = device.recorder();
        let one = Segment { count: 1, ..SEGMENT };
        mha_attend(&mut lost, QueryRows::Slots(&rows, &one), operands.mha()).expect("rows of the cache");
        assert!(ran(lost).unwrap_err().to_string().contains(stale), "dropped in another recording");
        ran(recorded).expect("the rows are still the old ones");
        mha_attend(&mut fewer, QueryRows::Slots(&rows, &one), operands.mha()).expect("rows of the cache");
        ran(fewer).expect("its own rows");
    }
}

#[test]
fn buffers_that_were_only_counted_reach_no_recording() {
    let device = &devices()[0].device;
    let arena = Arena::counting(1 << 20);
    let counted = arena.buffer("counted", Class::Activations, 16).expect("a count");
    let tensor = arena.tensor("counted", Class::Activations, 2, 4, DType::F32).expect("a count");
    let real = upload(device, 2, 4, &[0.0; 8]);
    let mut rec = device.recorder();
    refused(rec.write(&counted, 0, &[0; 16]).and_then(|()| rec.submit().map(drop)), "an upload");
    refused(rec.copy(&real.buffer, 0, &counted, 0, 16).and_then(|()| rec.submit().map(drop)), "a copy");
    refused(device.read(&counted, 16), "a read");
    refused(device.write(&counted, 0, &[0; 16]), "a write");
    let matrix = zeros(device, 4, 4, DType::F32, None);
    let product = elgen_tensor::ops::linear(&mut rec, &tensor, &matrix, Default::default(), None, &real, 2);
    refused(product, "a product");
    let pairs: Table<Range> = Table::new(&arena, "counted", Class::Activations, 4).expect("a count");
    assert_eq!((pairs.capacity(), arena.tally().usage().total), (4, 16 + 32 + 32));
    refused(pairs.read(device, 1), "a table");
}
