//! Attention blocks with a bias by head and distance (T5) against plain attention in f64: encoders, decoder prompts and steps, MHA and EL.

use elgen_attention::{
    BlockInput, BlockSpec, CacheFormat, CacheLayout, Caches, Cx, Epilogue, Extras, Kind, Kinds, Need, Packed, Pass,
    Placement, PositionBias, PositionScheme, Shape, Step, Workspace,
};
use elgen_tensor::{DType, Device, Grouping, Rows};
use elgen_tests::blocks::Weights;
use elgen_tests::harness::{compare_within, devices, numbers, poisoned, read_rows, stored, table, upload, values};
use elgen_tests::twin;

/// Heads that are not whole quads and together wider than the model; scores are not scaled.
const SHAPE: Shape = Shape::new(30, 5, 10, 1.0);

/// Positions of two sentences: both longer than the reach, one beyond a chunk of 64 keys.
const LENGTHS: [usize; 2] = [9, 70];
const REACH: usize = 6;

/// Prompt positions of each sentence; the others are stepped.
const PROMPTS: [usize; 2] = [4, 67];
const STEPS: usize = 3;

/// A table on the host and on the device.
struct Bias {
    table: Vec<f32>,
    device: PositionBias,
}

impl Bias {
    fn new(device: &Device, heads: usize) -> Self {
        let columns = 2 * REACH + 1;
        let table: Vec<f32> = values(40, heads * columns).into_iter().map(|x| 3.0 * x).collect();
        let value = |head: usize, distance: i64| table[head * columns + (distance + REACH as i64) as usize];
        let on_device = PositionBias::new(&device.into(), "bias", heads, REACH, value).unwrap();
        assert_eq!((on_device.num_heads(), on_device.reach()), (heads, REACH));
        Self { table, device: on_device }
    }

    /// Plain attention of position `query` over the first `keys` positions.
    fn attend(&self, weights: &Weights, x: &[Vec<f64>], query: usize, keys: usize) -> Vec<f64> {
        let memory: Vec<&[f64]> = x[..keys].iter().map(Vec::as_slice).collect();
        let bias = |head: usize, key: usize| twin::distance_bias(&self.table, REACH, head, key as i64 - query as i64);
        weights.attend_biased(&x[query], &memory, DType::F32, bias)
    }
}

/// Hidden states of a sentence.
fn hidden(sentence: usize) -> Vec<Vec<f32>> {
    let d = SHAPE.d_model;
    values(500 + sentence as u64, LENGTHS[sentence] * d).chunks(d).map(<[f32]>::to_vec).collect()
}

fn wide(rows: &[Vec<f32>]) -> Vec<Vec<f64>> {
    rows.iter().map(|row| stored(row, DType::F32)).collect()
}

fn spec<'a>(what: &'a str, bias: &'a Bias) -> BlockSpec<'a> {
    BlockSpec {
        what,
        layer: 1,
        shape: SHAPE,
        formats: DType::F32.into(),
        positions: PositionScheme::Bias(&bias.device),
    }
}

/// Packed rows: the first `lengths` positions of each sentence.
fn pack(device: &Device, lengths: &[usize], causal: bool, slots: Vec<Vec<u32>>) -> Packed {
    let (mut ranges, mut first, mut grouping) = (Vec::new(), 0, Grouping::default());
    for (sentence, count) in (0..).zip(lengths.iter().map(|n| *n as u32)) {
        grouping.push(0, sentence, count);
        ranges.extend((0..count).map(|p| [first, if causal { p + 1 } else { count }]));
        first += count;
    }
    Packed {
        tokens: first as usize,
        index: numbers(device, &(0..first).collect::<Vec<_>>()),
        ranges: elgen_tests::harness::ranges(device, &ranges),
        groups: table(device, &grouping.groups),
        segments: grouping.segments,
        slots: slots.iter().map(|list| numbers(device, list)).collect(),
        cross_ranges: None,
    }
}

/// Runs `record` and compares with `want` plus a residual.
#[track_caller]
fn check(device: &Device, want: &[f64], what: &str, record: impl FnOnce(&mut elgen_tensor::Recorder, &Epilogue<'_>)) {
    let d = SHAPE.d_model;
    let rows = want.len() / d;
    let residual = values(91, rows * d);
    let on_device = upload(device, rows, d, &residual);
    let out = poisoned(device, rows + 1, d, DType::F32);
    let mut rec = device.recorder();
    record(&mut rec, &Epilogue { residual: Some(&on_device), out: &out });
    rec.submit().unwrap();
    let want: Vec<f64> = want.iter().zip(&residual).map(|(a, b)| a + f64::from(*b)).collect();
    compare_within(&read_rows(device, &out, rows, what), &want, 2e-5).unwrap_or_else(|e| panic!("{what}: {e}"));
}

#[test]
fn an_encoder_looks_both_ways() {
    for variant in devices() {
        let device = &variant.device;
        let (bias, weights) = (Bias::new(device, SHAPE.num_heads), Weights::new(SHAPE, [false; 4], 5000));
        let block = Kind::MHA.encoder_attention(&device.into(), &spec("encoder", &bias), weights.get()).unwrap();
        let batch = pack(device, &LENGTHS, false, Vec::new());
        let layout = CacheLayout {
            layers: 0,
            kinds: Kinds::default(),
            self_shape: SHAPE,
            cross_shape: None,
            format: CacheFormat::F32,
        };
        let caches = Caches::new(device, layout);
        let extras = Extras { encodes: true, ..Extras::default() };
        let work = Workspace::new(device, SHAPE, batch.tokens, extras).unwrap();
        let x = [hidden(0), hidden(1)];
        let mut want = Vec::new();
        for sentence in &x {
            let sentence = wide(sentence);
            (0..sentence.len()).for_each(|i| want.extend(bias.attend(&weights, &sentence, i, sentence.len())));
        }
        let x = upload(device, batch.tokens, SHAPE.d_model, &x.concat().concat());
        check(device, &want, &variant.name, |rec, epilogue| {
            block.forward(&mut Cx::new(rec, &caches, &work), &BlockInput::plain(&x), epilogue, &batch).unwrap();
        });
    }
}

#[test]
fn a_decoder_counts_from_its_own_position() {
    for variant in devices() {
        for kind in [Kind::MHA, Kind::EL] {
            let device = &variant.device;
            let what = |at: &str| format!("{kind}, {}, {at}", variant.name);
            let (bias, weights) = (Bias::new(device, SHAPE.num_heads), Weights::new(SHAPE, [false; 4], 6000));
            let block = kind.self_attention(&device.into(), &spec("decoder", &bias), weights.get()).unwrap();
            let (kinds, format) = (Kinds::both(kind), CacheFormat::F32);
            let layout = CacheLayout { layers: 2, kinds, self_shape: SHAPE, cross_shape: None, format };
            let mut caches = Caches::new(device, layout);
            let needs = PROMPTS.map(|n| Need { prompt_len: n + 1, max_new: STEPS, width: 1, source_len: 0 });
            caches.prepare(&needs).unwrap();
            let placements: Vec<Placement> = needs.iter().map(|need| caches.admit(*need).unwrap()).collect();
            let prompt_rows: usize = PROMPTS.iter().sum();
            let work = |pass| {
                let extras = Extras { kinds, pass, ..Extras::default() };
                Workspace::new(device, SHAPE, prompt_rows, extras).unwrap()
            };
            let (prompt_work, work) = (work(Pass::Prompt), work(Pass::Step));
            let x = [hidden(0), hidden(1)];

            let slots = placements
                .iter()
                .zip(PROMPTS)
                .flat_map(|(p, n)| (0..n as u32).map(|position| p.row(0, 0).own_slot(position)))
                .collect();
            let batch = pack(device, &PROMPTS, true, vec![slots]);
            let mut want = Vec::new();
            for (sentence, prompt) in x.iter().zip(PROMPTS) {
                let sentence = wide(sentence);
                (0..prompt).for_each(|i| want.extend(bias.attend(&weights, &sentence, i, i + 1)));
            }
            let prompts = [&x[0][..PROMPTS[0]], &x[1][..PROMPTS[1]]].concat().concat();
            let input = upload(device, prompt_rows, SHAPE.d_model, &prompts);
            check(device, &want, &what("prefill"), |rec, epilogue| {
                block
                    .prefill(&mut Cx::new(rec, &caches, &prompt_work), &BlockInput::plain(&input), epilogue, &batch)
                    .unwrap();
            });

            let mut rows = Rows::new(device, 2, 80).unwrap();
            rows.set_active(device, vec![0, 1], &[0, 0]).unwrap();
            for step in 0..STEPS {
                let mut states: Vec<_> = placements.iter().enumerate().map(|(s, p)| p.row(s as u32, 0)).collect();
                let mut table = vec![u32::MAX; 2 * 80];
                let (mut input, mut want) = (Vec::new(), Vec::new());
                for s in 0..2 {
                    let position = PROMPTS[s] + step;
                    states[s] = states[s].with_length(position as u32 + 1);
                    for p in 0..=position {
                        table[s * 80 + p] = states[s].own_slot(p as u32);
                    }
                    input.extend_from_slice(&x[s][position]);
                    want.extend(bias.attend(&weights, &wide(&x[s]), position, position + 1));
                }
                rows.place(device, &states, None, Some(&table)).unwrap();
                let input = upload(device, 2, SHAPE.d_model, &input);
                check(device, &want, &what(&format!("step {step}")), |rec, epilogue| {
                    let step = Step { rows: &rows, cross_ranges: None };
                    block.step(&mut Cx::new(rec, &caches, &work), &BlockInput::plain(&input), epilogue, step).unwrap();
                });
            }
        }
    }
}

#[test]
fn biases_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let weights = Weights::new(SHAPE, [false; 4], 1);
    let bias = Bias::new(device, SHAPE.num_heads);
    for kind in Kind::BUILT_IN {
        let error = kind.cross_attention(&device.into(), &spec("cross", &bias), weights.get()).unwrap_err();
        assert!(error.to_string().contains("a position bias in cross-attention"), "{error}");
        let other = Bias::new(device, 3);
        let error = kind.self_attention(&device.into(), &spec("decoder", &other), weights.get()).unwrap_err();
        assert!(error.to_string().contains("decoder") && error.to_string().contains("3 heads"), "{error}");
    }
    assert!(PositionBias::new(&device.into(), "bias", 1, usize::MAX / 2, |_, _| 0.0).is_err());
}
