//! Options with any values, as a program can set them: a run is refused or goes through, and nothing panics. Shaders are checked here, so an id
//! without a row cannot pass unnoticed by reading what lies beside a table: such ids must leave results as they are, or be refused.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use elgen_attention::{
    Attend, CacheLayout, Caches, Extras, KeyRanges, Kind, Kinds, Need, Pass, Shape, Splits, Workspace, attend,
};
use elgen_engine::{
    AttentionChoice, BatchSize, DtypeChoice, EngineError, Expected, Generation, Model, Request, RunOptions,
    ScoreRequest, SessionOptions, on_done,
};
use elgen_models::{Checkpoint, DEFAULT_PREFILL_BUDGET, ModelConfig, Runner, Sentence, load};
use elgen_search::device::{DecodeStep, DeviceSearch, SearchError};
use elgen_search::{EarlyStopping, ExponentialDecay, GenerationConfig, GenerationOptions, Mode, TokenIds, twin};
use elgen_tensor::ops::Partials;
use elgen_tensor::{
    Arena, Class, Cooperative, DType, Device, DeviceOptions, Matrix, Range, RowStart, RowState, Rows, Table, Tensor,
    TokenAt, WeightFormat, ops,
};
use elgen_tests::repo_root;

fn device() -> &'static Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| {
        let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
        Device::open(&DeviceOptions { selector, checked: true, ..DeviceOptions::default() }).expect("an adapter")
    })
}

fn session_options() -> SessionOptions {
    SessionOptions::default().with_attention(AttentionChoice::MHA).with_dtype(DtypeChoice::F32)
}

fn model(name: &str) -> Model {
    Model::load_on(device(), repo_root().join("tests/fixtures").join(name), &session_options()).expect("a fixture")
}

/// Two short requests.
fn run(model: &Model, config: &GenerationConfig) -> Result<Vec<Generation>, EngineError> {
    let requests: Vec<Request> = (0..).zip([vec![5, 6, 7], vec![9, 4]]).map(|(n, ids)| Request::new(n, ids)).collect();
    let mut results = Vec::new();
    let mut events = on_done(|index, result| results.push((index, result)));
    model.session().generate(&requests, config, &RunOptions::default(), &mut events)?;
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Options of every mode.
fn modes(model: &Model) -> Vec<GenerationConfig> {
    let base = GenerationOptions { max_new_tokens: Some(3), ..GenerationOptions::default() };
    let beams = GenerationOptions { num_beams: Some(2), ..base.clone() };
    let sampled = |options: GenerationOptions| GenerationOptions { do_sample: Some(true), top_k: Some(5), ..options };
    let diverse = GenerationOptions { num_beam_groups: Some(2), diversity_penalty: Some(0.5), ..beams.clone() };
    [base.clone(), sampled(base), beams.clone(), sampled(beams), diverse]
        .map(|options| {
            // No defaults of the checkpoint: they would hide what a change does.
            let start = GenerationOptions { decoder_start_token_id: Some(0), ..options };
            start.resolve(&model.limits()).expect("options that fit").0
        })
        .into()
}

type Change = Box<dyn Fn(&mut GenerationConfig)>;

/// Every public field at its ends.
fn changes() -> Vec<(&'static str, Change)> {
    let mut all: Vec<(&'static str, Change)> = Vec::new();
    macro_rules! at {
        ($field:ident: $($value:expr),* $(,)?) => {
            $(all.push((stringify!($field), Box::new(move |c: &mut GenerationConfig| c.$field = $value)));)*
        };
    }
    let far = 4_000_000_000_u32;
    at!(mode: Mode::Greedy, Mode::Sample, Mode::Beam, Mode::BeamSample, Mode::DiverseBeam);
    at!(num_beams: 0, 1, 3, 100, 1 << 32, usize::MAX);
    at!(do_sample: true, false);
    at!(num_beam_groups: 0, 1, 3, usize::MAX);
    at!(num_return_sequences: 0, 2, 9, 1 << 33, usize::MAX);
    at!(early_stopping: EarlyStopping::True, EarlyStopping::Never);
    at!(length_penalty: 0.0, -1e308, 1e308, f64::NAN, f64::INFINITY);
    at!(diversity_penalty: 0.0, -1.0, 1e300, f64::NAN);
    at!(temperature: 0.0, -1.0, f32::MIN_POSITIVE, f32::MAX, f32::NAN, f32::INFINITY);
    at!(top_k: 0, 1, usize::MAX);
    at!(top_p: 0.0, -1.0, 2.0, f64::NAN);
    at!(min_p: 1.0, -1.0, 2.0, f64::NAN);
    at!(typical_p: 0.0, 1e-300, f64::NAN);
    at!(epsilon_cutoff: 1.0, 0.999, f64::NAN);
    at!(eta_cutoff: 1.0, 0.999, f64::NAN);
    at!(top_h: Some(0.0), Some(1.0), Some(f64::NAN));
    at!(repetition_penalty: 0.0, 1e-30, f32::MAX, f32::NAN);
    at!(encoder_repetition_penalty: 0.0, 1e-30, 1e308, f64::NAN);
    at!(no_repeat_ngram_size: 1, 1 << 32, usize::MAX);
    at!(encoder_no_repeat_ngram_size: 1, 1 << 32, usize::MAX);
    at!(sequence_bias: vec![(vec![], 1.0)], vec![(vec![far], 1.0)], vec![(vec![1, far], f32::NAN)], vec![(vec![u32::MAX; 3], 9.0)]);
    at!(exponential_decay_length_penalty:
        Some(ExponentialDecay { start: 0.0, factor: f64::MAX }),
        Some(ExponentialDecay { start: f64::MAX, factor: 2.0 }),
        Some(ExponentialDecay { start: f64::NAN, factor: f64::NAN }));
    at!(remove_invalid_values: true);
    at!(renormalize_logits: true);
    at!(bad_words_ids: vec![vec![]], vec![vec![far]], vec![vec![3, far], vec![u32::MAX]]);
    at!(suppress_tokens: vec![far], vec![u32::MAX; 100], (0..200).collect());
    at!(begin_suppress_tokens: vec![far], vec![u32::MAX]);
    at!(forced_bos_token_id: Some(far), Some(u32::MAX), Some(1));
    at!(forced_eos_token_id: vec![far], vec![1, u32::MAX], vec![1; 50]);
    at!(eos_token_id: vec![], vec![far], vec![1, far, u32::MAX], (0..5000).collect());
    at!(pad_token_id: None, Some(far), Some(u32::MAX));
    at!(bos_token_id: None, Some(far), Some(u32::MAX));
    at!(decoder_start_token_id: None, Some(far), Some(u32::MAX), Some(1));
    at!(stop_strings: vec![String::new()], vec!["x".to_owned()]);
    at!(max_time: Some(0.0), Some(f64::NAN), Some(-1.0), Some(f64::MAX));
    at!(seed: u64::MAX);
    at!(vocab_size: 0, 1, 1 << 20, usize::MAX);
    all
}

#[test]
fn any_generation_config_runs_or_is_refused() {
    let changes = changes();
    for name in ["t5-base-like", "gpt2-one-head"] {
        let model = model(name);
        let (mut ran, mut refused) = (0, 0);
        for config in modes(&model) {
            for (field, change) in &changes {
                let mut config = config.clone();
                change(&mut config);
                let begun = Instant::now();
                match run(&model, &config) {
                    Ok(found) => {
                        ran += 1;
                        assert!(found.iter().all(|one| one.sequences.len() <= config.num_return_sequences), "{field}");
                        let ids = found.iter().flat_map(|one| &one.sequences).flat_map(|one| &one.token_ids);
                        let known = |id: &u32| (*id as usize) < config.vocab_size || config.is_eos(*id);
                        assert!(ids.copied().all(|id| known(&id)), "{name}, {field}: {found:?}");
                    }
                    Err(error) => {
                        refused += 1;
                        assert!(!error.to_string().contains('\n'), "{error}");
                    }
                }
                assert!(begun.elapsed() < Duration::from_secs(20), "{name}, {field}: {:?}", begun.elapsed());
            }
        }
        assert!(ran > 100 && refused > 100, "{name}: {ran} ran, {refused} were refused");
    }
}

#[test]
fn an_id_that_cannot_occur_changes_nothing() {
    let far = 4_000_000_000;
    let model = model("t5-base-like");
    for config in modes(&model) {
        let expected = run(&model, &config).expect("a run");
        let mut odd = config.clone();
        odd.eos_token_id = vec![far];
        odd.suppress_tokens = vec![far, u32::MAX];
        odd.begin_suppress_tokens = vec![far];
        odd.bad_words_ids = vec![vec![far], vec![1, far]];
        odd.sequence_bias = vec![(vec![far], 5.0), (vec![far, 1], 5.0)];
        odd.exponential_decay_length_penalty = Some(ExponentialDecay { start: 0.0, factor: 2.0 });
        odd.pad_token_id = Some(far);
        let found = run(&model, &odd).expect("a run");
        let ids = |all: &[Generation]| -> Vec<Vec<u32>> {
            all.iter().flat_map(|one| one.sequences.iter().map(|s| s.token_ids.clone())).collect()
        };
        assert_eq!(ids(&found), ids(&expected), "{:?}", config.mode);
    }
}

#[test]
fn scoring_checks_its_options() {
    let model = model("t5-base-like");
    let request = ScoreRequest { source: vec![5, 6].into(), target: vec![7, 1].into() };
    let mut config = modes(&model).remove(0);
    let score = |config: &GenerationConfig| {
        model.session().score(std::slice::from_ref(&request), config, &RunOptions::default(), None)
    };
    assert!(score(&config).expect("a run")[0].is_ok());
    config.decoder_start_token_id = Some(2_000_000_000);
    let error = score(&config).expect_err("an id outside the vocabulary").to_string();
    assert!(error.contains("decoder_start_token_id") && error.contains("2000000000"), "{error}");
    // The twin and the device's search check them too.
    config.decoder_start_token_id = Some(0);
    config.num_beam_groups = 0;
    let lengths = config.lengths(1).expect("lengths");
    let step = &mut |rows: &[twin::Row<'_>]| vec![vec![0.0; config.vocab_size]; rows.len()];
    let error = twin::generate(&config, lengths, &[0], 0, step).expect_err("no groups").to_string();
    assert!(error.starts_with("num_beam_groups: "), "{error}");
    let error = DeviceSearch::new(device(), &config, 1, 4).expect_err("no groups");
    assert!(matches!(&error, SearchError::Option(error) if error.option == "num_beam_groups"), "{error}");
}

#[test]
fn any_lengths_run_or_are_refused() {
    for name in ["t5-base-like", "gpt2-one-head"] {
        let model = model(name);
        let ends = [0, 1, 2, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 53, usize::MAX / 2, usize::MAX];
        for a in ends {
            for b in ends {
                let start = || GenerationOptions { decoder_start_token_id: Some(0), ..GenerationOptions::default() };
                let sets = [
                    GenerationOptions { max_length: Some(a), min_length: Some(b), ..start() },
                    GenerationOptions {
                        max_new_tokens: Some(a),
                        min_new_tokens: Some(b),
                        num_beams: Some(2),
                        ..start()
                    },
                ];
                for options in sets {
                    if let Ok((config, _)) = options.resolve(&model.limits()) {
                        let _ = run(&model, &config);
                    }
                }
            }
        }
    }
}

#[test]
fn any_session_options_load_or_are_refused() {
    let dir = repo_root().join("tests/fixtures/t5-base-like");
    let ends = [0, 1, 1 << 32, usize::MAX];
    let mut all: Vec<(String, SessionOptions)> = Vec::new();
    let mut add = |what: String, options: SessionOptions| all.push((what, options));
    for n in ends {
        add(format!("batch size {n}"), session_options().with_batch_size(BatchSize::Sentences(n)));
        add(format!("{n} batch tokens"), session_options().with_max_batch_tokens(n));
        let expected = Expected::default().with_num_beams(n).with_source_length(n).with_max_new_tokens(n.max(1));
        let attention = AttentionChoice::Auto;
        add(format!("expected {n}"), session_options().with_expected(expected).with_attention(attention));
    }
    for bytes in [0, 1, 1 << 20, u64::MAX] {
        add(format!("limit {bytes}"), session_options().with_memory_limit(bytes));
    }
    for cooperative in [Cooperative::Edge(0), Cooperative::Edge(7), Cooperative::Edge(u32::MAX)] {
        let dtype = DtypeChoice::F16;
        add(
            format!("{cooperative:?}"),
            session_options().with_cooperative(cooperative).with_dtype(dtype).with_attention(AttentionChoice::EL),
        );
    }
    let mixed = AttentionChoice::Kinds(Kinds::new(Kind::MHA_NOCACHE, Kind::EL));
    add("recomputed self-attention".to_owned(), session_options().with_attention(mixed));
    for (what, options) in all {
        let options = options.with_checked_shaders(true).with_device(std::env::var("ELGEN_TEST_DEVICE").ok());
        let begun = Instant::now();
        // A limit needs a device of its own.
        let loaded = match options.memory_limit {
            Some(_) => Model::load(&dir, &options),
            None => Model::load_on(device(), &dir, &options),
        };
        if let Ok(model) = loaded {
            let _ = run(&model, &modes(&model)[2]);
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {:?}", begun.elapsed());
    }
}

#[test]
fn a_runner_checks_the_ids_that_it_is_given() {
    let dir = repo_root().join("tests/fixtures/t5-base-like");
    let config = ModelConfig::load(&dir).expect("a config");
    let checkpoint = Checkpoint::open(&dir).expect("a checkpoint");
    let loaded = load(device(), &config, &checkpoint, Kinds::both(Kind::MHA), DType::F32).expect("a model");
    let vocab = config.vocab_size() as u32;
    let mut runner = Runner::new(device(), loaded.into(), DEFAULT_PREFILL_BUDGET);
    let mut rows = Rows::new(device(), 2, 8).expect("rows");
    let (good, bad, none) = ([5, 6], [5, vocab], []);
    for (source, prompt, width) in [(&bad[..], &good[..], 1), (&good, &bad, 1), (&good, &none, 1), (&good, &good, 3)] {
        let sentences = [Sentence { source, prompt, max_new: 1 }];
        assert!(runner.begin(&mut rows, &sentences, width).is_err(), "{source:?} {prompt:?} {width}");
        if width == 1 {
            let mut see = |rec: &mut elgen_tensor::Recorder, _: elgen_models::LogitRows<'_>| {
                rec.submit()?;
                Ok(())
            };
            assert!(runner.score(&sentences, &[1], 1 << 20, &mut see).is_err(), "{source:?} {prompt:?}");
        }
    }
    let sentences = [Sentence { source: &good, prompt: &good, max_new: 1 }];
    assert!(runner.begin(&mut rows, &sentences, usize::MAX).is_err());
    let fresh = load(device(), &config, &checkpoint, Kinds::both(Kind::MHA), DType::F32).expect("a model");
    let mut fresh = Runner::new(device(), fresh.into(), DEFAULT_PREFILL_BUDGET);
    let logits = device().tensor("logits", Class::Activations, 2, vocab as usize, DType::F32).expect("logits");
    let step = fresh.step(&mut device().recorder(), &rows, &logits).expect_err("no batch").to_string();
    assert_eq!(step, "step: no batch has begun");
    assert!(fresh.encode_with_probe(&sentences, elgen_models::Probe::none()).is_err(), "no batch");
    runner.begin(&mut rows, &sentences, 2).expect("what fits");
    let others = [Sentence { source: &good, prompt: &good, max_new: 1 }, sentences[0]];
    assert!(
        runner.encode_with_probe(&others, elgen_models::Probe::none()).is_err(),
        "a sentence more than was admitted"
    );
}

#[test]
fn caches_and_working_tensors_without_end_are_errors() {
    let (device, max) = (device(), usize::MAX);
    let small = Shape::new(8, 2, 4, 1.0);
    let shapes = [
        small,
        Shape { d_model: max, ..small },
        Shape { num_heads: max, ..small },
        Shape { head_dim: max, num_heads: max, ..small },
    ];
    let sizes = [1, 1 << 32, 1 << 53, max];
    for shape in shapes {
        for kind in Kind::BUILT_IN {
            for layers in sizes {
                let layout = CacheLayout {
                    layers,
                    kinds: Kinds::both(kind),
                    self_shape: shape,
                    cross_shape: Some(shape),
                    format: DType::F32.into(),
                };
                for (a, b) in sizes.iter().flat_map(|a| sizes.map(|b| (*a, b))) {
                    let need = Need { prompt_len: a, max_new: b, width: a, source_len: b };
                    // Slots that no kernel counts are too large as well.
                    let bytes = layout.count_slabs(&Arena::counting(u64::MAX), layout.slots(&need), 1);
                    let huge = bytes.map_or(true, |bytes| bytes.self_.max(bytes.cross) > 1 << 40);
                    let mut caches = Caches::new(device, layout);
                    assert!(caches.prepare(&[need, need]).is_err() || !huge, "{layout:?} {need:?}");
                    assert!(caches.admit(need).is_err() || !huge, "{layout:?} {need:?}");
                }
            }
            let splits = Splits::of(max, max);
            for extras in [(Kind::MHA_NOCACHE, max, Splits::default()), (Kind::EL, 0, splits)].map(
                |(kind, cross_slots, splits)| Extras {
                    kinds: Kinds::both(kind),
                    pass: Pass::Step,
                    cross_slots,
                    splits,
                    ..Extras::default()
                },
            ) {
                assert!(Workspace::new(device, shape, max, extras).is_err(), "{shape:?}");
                let plan = Arena::counting(u64::MAX);
                let counted = Workspace::build(&plan, shape, max, extras);
                assert!(counted.is_err() || plan.tally().usage().total == u64::MAX, "{shape:?}");
            }
        }
    }
    assert!(Partials::new(device, max, max, max, max).is_err());
    for (out, input) in [(max, 1), (1, max), (max, max), (1 << 40, 1)] {
        assert!(Matrix::build(&device.into(), "a matrix", out, input, WeightFormat::F32).is_err(), "{out} {input}");
    }
}

#[test]
fn operations_on_more_rows_than_there_are_are_errors() {
    let (device, max) = (device(), usize::MAX);
    let x = device.tensor("x", Class::Activations, 2, 8, DType::F32).expect("a tensor");
    let y = device.tensor("y", Class::Activations, 2, 8, DType::F32).expect("a tensor");
    let list = device.alloc("a list", Class::Activations, 64).expect("a buffer");
    let numbers = Table::of(device, "numbers", &[0_u32; 16]).expect("a table");
    let ranges = Table::of(device, "ranges", &[Range::new(0, 1); 8]).expect("a table");
    let tokens = Table::of(device, "tokens", &[TokenAt::default(); 8]).expect("a table");
    let matrix = Matrix::build(&device.into(), "a matrix", 8, 8, WeightFormat::F32).expect("a matrix");
    let projection = ops::Linear::from(matrix.clone());
    let norm = ops::Norm::layer_norm(&device.into(), "a norm", &[1.0; 8], &[0.0; 8], 1e-5).expect("a norm");
    let mut rec = device.recorder();
    for rows in [3, 1 << 32, max - 1, max] {
        assert!(ops::linear(&mut rec, &x, &projection, ops::Activation::None, None, &y, rows).is_err());
        assert!(ops::layer_norm(&mut rec, &x, &norm, &y, rows).is_err());
        assert!(ops::heads_expand(&mut rec, &x, &matrix, rows, &y, rows).is_err());
        assert!(ops::store_packed(&mut rec, numbers.view(), rows, 1, &x, 0, &y).is_err());
        assert!(ops::store_packed(&mut rec, numbers.view(), 0, rows, &x, 0, &y).is_err());
        assert!(ops::store_packed(&mut rec, numbers.view(), 0, 1, &x, rows / 4 * 4, &y).is_err() || rows == 3);
        assert!(ops::token_logprobs(&mut rec, &x, numbers.view(), &list, rows).is_err());
        if rows > 8 {
            assert!(ops::embed_packed(&mut rec, tokens.view(), rows, &matrix, 1.0, None, &y).is_err());
        }
    }
    let shape = Shape::new(8, 2, 4, 1.0);
    for (first, count) in [(u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
        let product = Attend { shape, q: (&x, 0), k: (&x, 0), v: (&x, 0), bias: None, out: &y, first, count };
        assert!(
            attend(&mut rec, KeyRanges { index: numbers.view(), ranges: ranges.view() }, product).is_err(),
            "{first} {count}"
        );
    }
    assert!(device.read(&list, u64::MAX).is_err() && device.write(&list, u64::MAX - 3, &[0; 4]).is_err());
    assert!(rec.copy(&list, u64::MAX - 3, &x.buffer, 0, 4).is_err());
    assert!(
        device.write_rows(&x, max, &[0.0; 8]).is_err() && matrix.write_rows(&device.into(), max, &[0.0; 8]).is_err()
    );
}

#[test]
fn a_device_may_be_limited_to_nothing() {
    for (memory_limit, binding_limit) in [(0, None), (1 << 24, Some(0)), (1 << 24, Some(1)), (u64::MAX, Some(u64::MAX))]
    {
        let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
        let memory_limit = Some(memory_limit);
        let options = DeviceOptions { selector, memory_limit, binding_limit, ..DeviceOptions::default() };
        let limited = Device::open(&options).expect("an adapter");
        let dir = repo_root().join("tests/fixtures/t5-base-like");
        let loaded = Model::load_on(&limited, dir, &session_options());
        assert_eq!(loaded.is_ok(), binding_limit == Some(u64::MAX), "{memory_limit:?} {binding_limit:?}");
    }
}

#[test]
fn any_run_options_run_or_are_refused() {
    let model = model("t5-base-like");
    let config = modes(&model).remove(0);
    for ordinal in [0, u64::MAX] {
        for max_source_length in [Some(0), Some(1), Some(usize::MAX), None] {
            for alignment in [None, Some(0), Some(-1), Some(i32::MAX), Some(i32::MIN)] {
                for (truncate, stream) in [(false, false), (true, true)] {
                    let options = RunOptions::default()
                        .with_truncate(truncate)
                        .with_max_source_length(max_source_length)
                        .with_stream(stream)
                        .with_alignment(alignment);
                    let mut results = Vec::new();
                    let mut events = on_done(|_, result| results.push(result));
                    let request = Request::new(ordinal, vec![5, 6, 7]);
                    let ran = model.session().generate(&[request], &config, &options, &mut events);
                    let exists = alignment.is_none_or(|layer| [0, -1].contains(&layer));
                    assert_eq!(ran.is_ok(), exists, "{options:?}");
                    assert!(results.iter().all(Result::is_ok), "{options:?}");
                }
            }
        }
    }
}

#[test]
fn sizes_without_end_are_errors() {
    let (device, max) = (device(), usize::MAX);
    let refused = |tensor: Result<Tensor, elgen_tensor::TensorError>| tensor.expect_err("no such tensor").to_string();
    for (rows, cols) in
        [(1, max), (max, 1), (max, max), (0, max), (1 << 32, 1 << 32), (1 << 62, 1), (1, 1 << 62), (2, 1 << 63)]
    {
        for dtype in [DType::F32, DType::F16] {
            refused(device.tensor("a tensor", Class::Activations, rows, cols, dtype));
        }
    }
    for bytes in [u64::MAX, 1 << 63, 1 << 53] {
        assert!(device.alloc("a buffer", Class::Cache, bytes).is_err() && device.readback("a buffer", bytes).is_err());
    }
    for (capacity, length) in [(max, max), (1, max), (max, 1), (1 << 32, 1 << 32), (1 << 31, 1 << 31), (3, 1 << 62)] {
        let error = Rows::new(device, capacity, length).expect_err("no such tables").to_string();
        assert!(error.contains("token table"), "{error}");
    }
    let mut rows = Rows::new(device, 2, 4).expect("rows");
    assert!(rows.set_active(device, vec![7], &[0, 0]).is_err() && rows.set_active(device, vec![1], &[0]).is_err());
    let state = RowState { width: 1, length: 9, live: 9, prompt_len: 9, ..RowState::default() };
    assert!(rows.begin(device, &[RowStart { state, prompt: &[1; 9], slab: 0, max_length: 9 }]).is_err());
    let limits = model("gpt2-one-head").limits();
    for options in [
        GenerationOptions::default(),
        GenerationOptions { num_beams: Some(2), ..GenerationOptions::default() },
        GenerationOptions {
            eos_token_id: Some(TokenIds(vec![1])),
            do_sample: Some(true),
            ..GenerationOptions::default()
        },
    ] {
        let (config, _) = options.resolve(&limits).expect("options");
        for (sentences, new) in [(max, 1), (1, max), (max, max), (1 << 32, 1 << 32), (1, 1 << 53)] {
            assert!(DeviceSearch::new(device, &config, sentences, new).is_err(), "{sentences} {new}");
        }
    }
}
