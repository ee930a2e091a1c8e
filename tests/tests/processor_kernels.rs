//! Users' logits processors on the device against the same rules on the host.

use std::path::PathBuf;
use std::sync::Arc;

use elgen_engine::{AttentionChoice, Generation, Request, RunOptions, Session, on_done};
use elgen_search::hooks::{DeviceProcessor, Effect, Hooks, LogitsProcessor, SequenceView};
use elgen_search::twin;
use elgen_search::{GenerationConfig, GenerationOptions};
use elgen_tensor::{KernelSource, KernelSpec, Recorder, Rows, Tensor, TensorError, bind};
use elgen_tests::demo::{config, session_options};
use elgen_tests::repo_root;

const RULES: &str = r"
struct Params { vocab: u32, stride: u32, table: u32 }
#include params
#include rows
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read> state: array<RowState>;
@group(0) @binding(2) var<storage, read> tokens: array<u32>;
@group(0) @binding(3) var<storage, read_write> scores: array<f32>;
@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) at: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = active_rows[at.x];
    let length = state[row].length;
    let last = tokens[row * p.table + length - 1u];
    for (var id = lane; id < p.vocab; id += 32u) {
        let place = at.x * p.stride + id;
#ifdef BANS
        if (id % 5u == 1u || id == last) { scores[place] = bitcast<f32>(0xff800000u); }
#else
        if (id % 2u == length % 2u) { scores[place] = scores[place] * 0.5 + 1.5; }
#endif
    }
}";

/// Bans the ids that are one above a multiple of five and the one that was said last, or halves and lifts every other id, in turns.
#[derive(Debug)]
struct OnDevice {
    source: KernelSource,
    bans: bool,
    effect: Option<Effect>,
}

impl OnDevice {
    fn new(bans: bool, effect: Option<Effect>) -> Self {
        Self { source: KernelSource::new("rules", RULES), bans, effect }
    }
}

/// One that says nothing about its effect.
#[derive(Debug)]
struct Undeclared(OnDevice);

impl DeviceProcessor for OnDevice {
    fn name(&self) -> &str {
        "rules"
    }
    fn effect(&self) -> Effect {
        self.effect.unwrap_or_default()
    }
    fn record(&self, rec: &mut Recorder, rows: &Rows, scores: &Tensor) -> Result<(), TensorError> {
        let spec = KernelSpec::from_source(&self.source).define_if(self.bans, "BANS");
        let kernel = rec.device().kernel(&spec)?;
        let params = [scores.cols as u32, scores.ld() as u32, rows.max_length() as u32];
        let tables = bind![rows.active(), rows.state(), rows.tokens(), scores];
        rec.dispatch(&kernel, &tables, &params, [rows.count() as u32, 1, 1])
    }
}

impl DeviceProcessor for Undeclared {
    fn name(&self) -> &str {
        "undeclared"
    }
    fn record(&self, rec: &mut Recorder, rows: &Rows, scores: &Tensor) -> Result<(), TensorError> {
        self.0.record(rec, rows, scores)
    }
}

/// The same rules.
#[derive(Debug)]
struct OnHost(bool);

impl LogitsProcessor for OnHost {
    fn process(&self, sequence: &SequenceView<'_>, scores: &mut [f32]) {
        let (length, last) = (sequence.token_ids.len(), sequence.token_ids[sequence.token_ids.len() - 1] as usize);
        for (id, score) in scores.iter_mut().enumerate() {
            match self.0 {
                true if id % 5 == 1 || id == last => *score = f32::NEG_INFINITY,
                false if id % 2 == length % 2 => *score = *score * 0.5 + 1.5,
                _ => {}
            }
        }
    }
}

fn device(processor: impl DeviceProcessor + 'static) -> Hooks {
    Hooks { device_processors: vec![Arc::new(processor)], ..Hooks::default() }
}

fn host(bans: bool) -> Hooks {
    Hooks { processors: vec![Arc::new(OnHost(bans))], ..Hooks::default() }
}

const MODELS: [&str; 2] = ["gpt2-base-like", "bart-base-like"];

fn dir(model: &str) -> PathBuf {
    repo_root().join("tests/fixtures").join(model)
}

fn session(model: &str, batch: usize) -> Session {
    Session::load(&dir(model), &session_options(AttentionChoice::MHA, batch)).unwrap()
}

fn requests(count: usize) -> Vec<Request> {
    let ids = |n: usize| (0..3 + n % 5).map(|i| (2 + (i * 11 + n * 7) % 60) as u32).collect::<Vec<u32>>();
    (0..count).map(|n| Request::new(n as u64, ids(n))).collect()
}

fn generate(
    session: &mut Session,
    count: usize,
    config: &GenerationConfig,
    hooks: Hooks,
) -> Result<Vec<Generation>, String> {
    let mut found = vec![None; count];
    let keep = |i: usize, result: Result<Generation, elgen_engine::EngineError>| {
        found[i] = Some(result.map_err(|error| error.to_string()));
    };
    let run = RunOptions::default().with_hooks(hooks);
    session.generate(&requests(count), config, &run, &mut on_done(keep)).map_err(|error| error.to_string())?;
    found.into_iter().map(|result| result.expect("every request ends")).collect()
}

/// The modes of search that take every processor.
fn modes() -> Vec<(&'static str, GenerationOptions)> {
    let base = GenerationOptions { max_new_tokens: Some(10), ..GenerationOptions::default() };
    let sample = GenerationOptions {
        do_sample: Some(true),
        temperature: Some(1.5),
        top_k: Some(20),
        seed: Some(3),
        ..base.clone()
    };
    vec![
        ("greedy", GenerationOptions { num_beams: Some(1), ..base.clone() }),
        ("sampling", GenerationOptions { num_beams: Some(1), ..sample.clone() }),
        ("beams", GenerationOptions { num_beams: Some(4), ..base.clone() }),
        ("beams with a penalty", GenerationOptions { num_beams: Some(3), repetition_penalty: Some(1.4), ..base }),
        ("beam sampling", GenerationOptions { num_beams: Some(3), ..sample }),
    ]
}

fn diverse() -> GenerationOptions {
    GenerationOptions {
        num_beams: Some(4),
        num_beam_groups: Some(2),
        diversity_penalty: Some(0.7),
        max_new_tokens: Some(10),
        ..GenerationOptions::default()
    }
}

fn ids(all: &[Generation]) -> Vec<Vec<Vec<u32>>> {
    all.iter().map(|g| g.sequences.iter().map(|s| s.token_ids.clone()).collect()).collect()
}

#[track_caller]
fn assert_same(found: &[Generation], wanted: &[Generation], what: &str) {
    assert_eq!(ids(found), ids(wanted), "{what}");
    for (a, b) in found.iter().zip(wanted).flat_map(|(a, b)| a.sequences.iter().zip(&b.sequences)) {
        assert!((a.score - b.score).abs() <= 1e-4 * b.score.abs().max(1.0), "{what}: {} {}", a.score, b.score);
    }
}

#[test]
fn a_kernel_gives_what_the_same_rule_gives_on_the_host() {
    for model in MODELS {
        let mut session = session(model, 4);
        for (mode, options) in modes() {
            let config = config(&session, options);
            let plain = generate(&mut session, 6, &config, Hooks::default()).unwrap();
            for bans in [true, false] {
                let what = format!("{model}, {mode}, bans {bans}");
                let effect = if bans { Effect::Bans } else { Effect::Scores };
                let hooks = device(OnDevice::new(bans, Some(effect)));
                let found = generate(&mut session, 6, &config, hooks).unwrap();
                let wanted = generate(&mut session, 6, &config, host(bans)).unwrap();
                assert_same(&found, &wanted, &what);
                assert_ne!(ids(&found), ids(&plain), "{what}: the rule changes nothing");
            }
        }
        // Diverse beams: what bans alone.
        let config = config(&session, diverse());
        let found = generate(&mut session, 6, &config, device(OnDevice::new(true, Some(Effect::Bans)))).unwrap();
        assert_same(&found, &generate(&mut session, 6, &config, host(true)).unwrap(), "diverse beams");
    }
}

/// The penalty of diverse beams comes before processors, and the device's lists get it behind them: right for what bans, wrong for what computes.
#[test]
fn undeclared_means_scores() {
    let mut session = session("gpt2-base-like", 4);
    let config = config(&session, diverse());
    let wanted = generate(&mut session, 6, &config, host(false)).unwrap();
    let lied = generate(&mut session, 6, &config, device(OnDevice::new(false, Some(Effect::Bans)))).unwrap();
    assert_ne!(ids(&lied), ids(&wanted), "the declaration would not matter");
    for hooks in [device(Undeclared(OnDevice::new(false, None))), device(Undeclared(OnDevice::new(true, None)))] {
        let error = generate(&mut session, 6, &config, hooks).unwrap_err();
        assert_eq!(
            error,
            "the logits processor undeclared: diverse beams subtract their penalty before processors: only one that declares to ban \
             alone can run there"
        );
    }
}

#[test]
fn a_batch_changes_no_bit() {
    for (mode, options) in modes() {
        let of = |batch: usize| {
            let mut session = session("gpt2-base-like", batch);
            let config = config(&session, options.clone());
            let found = generate(&mut session, 64, &config, device(Undeclared(OnDevice::new(false, None)))).unwrap();
            let bits = |g: &Generation| -> Vec<Vec<u32>> {
                g.sequences.iter().map(|s| s.token_logprobs.iter().map(|x| x.to_bits()).collect()).collect()
            };
            (ids(&found), found.iter().map(bits).collect::<Vec<_>>())
        };
        let alone = of(1);
        assert!(of(7) == alone && of(64) == alone, "{mode}");
    }
}

#[test]
fn nothing_is_read_back_for_it() {
    for (mode, options) in modes() {
        let read = |hooks: Hooks| {
            let mut session = session("gpt2-base-like", 4);
            // Sentences that all end at once read the same number of flags whatever they say.
            let options = GenerationOptions { min_new_tokens: Some(10), ..options.clone() };
            let config = config(&session, options);
            generate(&mut session, 4, &config, hooks).unwrap();
            let step = session.metrics().per_step;
            (step.readback_bytes, step.host_waits, step.submissions)
        };
        assert_eq!(read(device(OnDevice::new(true, Some(Effect::Bans)))), read(Hooks::default()), "{mode}");
    }
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    let mut session = session("gpt2-base-like", 4);
    let config = config(&session, modes().remove(2).1);
    let mixed = Hooks { processors: host(true).processors, ..device(OnDevice::new(true, Some(Effect::Bans))) };
    let error = generate(&mut session, 2, &config, mixed).unwrap_err();
    let wanted = "the logits processor rules: it runs on the device and cannot be mixed with processors of the host";
    assert_eq!(error, wanted);
    // A text that is no WGSL, and more rows than the scores have: named, and the next run is none the worse.
    let broken = OnDevice { source: KernelSource::new("broken", "fn main( {}"), bans: false, effect: None };
    let error = generate(&mut session, 2, &config, device(broken)).unwrap_err();
    assert!(error.starts_with("the logits processor rules: ") && error.contains("broken"), "{error}");
    assert!(!error.contains('\n'), "{error}");
    generate(&mut session, 2, &config, Hooks::default()).unwrap();
    let mut step = |rows: &[twin::Row<'_>]| vec![vec![0.0; config.vocab_size]; rows.len()];
    let input = twin::TwinInput { ordinal: 0, prompt: &[5], source: &[5] };
    let hooks = device(OnDevice::new(true, Some(Effect::Bans)));
    let error = twin::generate_with(&config, config.lengths(1).unwrap(), input, &hooks, &mut step).unwrap_err();
    assert_eq!(error.to_string(), "the logits processor rules runs on a device alone");
}

/// Writes far behind its buffer at every place that is not its own.
#[derive(Debug)]
struct Stray(KernelSource);

const STRAY: &str = r"
struct Params { count: u32 }
#include params
@group(0) @binding(0) var<storage, read_write> scores: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    for (var i = lane; i < 4096u; i += 64u) { scores[p.count + i * 977u] = bitcast<f32>(0x7fc00000u); }
}";

impl DeviceProcessor for Stray {
    fn name(&self) -> &str {
        "stray"
    }
    fn record(&self, rec: &mut Recorder, _: &Rows, scores: &Tensor) -> Result<(), TensorError> {
        let kernel = rec.device().kernel(&KernelSpec::from_source(&self.0))?;
        let count = (scores.buffer.bytes() / 4) as u32;
        rec.dispatch(&kernel, &bind![scores], &[count], [1, 1, 1])
    }
}

/// Bounds checks turn such a write into none, or into one within the scores: then the sentence's scores are not finite, and it says so.
#[test]
fn a_kernel_that_strays_reaches_nothing_else() {
    let mut session = session("gpt2-base-like", 4);
    let config = config(&session, modes().remove(0).1);
    let wanted = generate(&mut session, 4, &config, Hooks::default()).unwrap();
    if let Ok(found) = generate(&mut session, 4, &config, device(Stray(KernelSource::new("stray", STRAY)))) {
        assert_same(&found, &wanted, "no write at all");
    }
    assert_same(&generate(&mut session, 4, &config, Hooks::default()).unwrap(), &wanted, "behind it");
}
