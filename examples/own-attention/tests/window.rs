//! The kind in whole models, against multi-head attention and an f64 twin.

mod gpt2;

use std::sync::Arc;

use elgen_attention::{Kind, Kinds};
use elgen_engine::{
    BatchWorkload, DtypeChoice, Generation, MemoryPlan, Request, RunOptions, Session, SessionOptions, on_done,
};
use elgen_models::{Checkpoint, DEFAULT_PREFILL_BUDGET, ModelConfig, Probe, Runner, Sentence, load};
use elgen_search::twin;
use elgen_search::{GenerationConfig, GenerationOptions};
use elgen_tensor::{Class, DType, Device, DeviceOptions, Rows, Tensor};
use gpt2::{Gpt2, LAYERS, model_dir};
use own_attention::{WINDOW_8, Windowed};

static COVERING: Windowed = Windowed::new("window-64", 64, 0);

const NEW: usize = 20;

fn options(kind: Kind, batch: usize) -> SessionOptions {
    SessionOptions::default()
        .with_attention(kind)
        .with_dtype(DtypeChoice::F32)
        .with_device(std::env::var("ELGEN_TEST_DEVICE").ok())
        .with_batch_size(batch)
}

fn session(kind: Kind, batch: usize) -> Session {
    Session::load(&model_dir(), &options(kind, batch)).expect("a model")
}

/// Prompts shorter and longer than the window, so that prompts are cut by it too.
fn prompts(count: usize) -> Vec<Vec<u32>> {
    let length = |n: usize| [3, 9, 1, 14, 20, 11][n % 6];
    (0..count).map(|n| (0..length(n)).map(|i| (2 + (i * 7 + n * 13) % 90) as u32).collect()).collect()
}

fn config(session: &Session, num_beams: usize) -> GenerationConfig {
    let asked = GenerationOptions {
        num_beams: Some(num_beams),
        max_new_tokens: Some(NEW),
        min_new_tokens: Some(NEW),
        ..GenerationOptions::default()
    };
    session.model().config(&asked).expect("options that fit")
}

fn generate(session: &mut Session, prompts: &[Vec<u32>], config: &GenerationConfig) -> Vec<Generation> {
    let requests: Vec<Request> = (0..).zip(prompts).map(|(n, ids)| Request::new(n, ids.clone())).collect();
    let mut results: Vec<Option<Generation>> = vec![None; requests.len()];
    let keep = |i: usize, result: Result<Generation, _>| results[i] = Some(result.expect("a generation"));
    session.generate(&requests, config, &RunOptions::default(), &mut on_done(keep)).expect("a run");
    results.into_iter().map(|result| result.expect("every request ends")).collect()
}

fn ids(all: &[Generation]) -> Vec<Vec<Vec<u32>>> {
    all.iter().map(|g| g.sequences.iter().map(|s| s.token_ids.clone()).collect()).collect()
}

#[test]
fn a_window_that_covers_the_text_gives_the_ids_of_mha() {
    for beams in [1, 4] {
        let (mut window, mut mha) = (session(Kind::new(&COVERING), 8), session(Kind::MHA, 8));
        let config = config(&mha, beams);
        let (window, mha) = (generate(&mut window, &prompts(6), &config), generate(&mut mha, &prompts(6), &config));
        assert_eq!(ids(&window), ids(&mha), "{beams} beams");
        for (a, b) in window.iter().zip(&mha) {
            let (a, b) = (a.sequences[0].score, b.sequences[0].score);
            assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}");
        }
    }
}

/// With beams, rows take over each other's slots at every step.
#[test]
fn ids_are_those_of_the_f64_twin() {
    let model = Gpt2::load(&model_dir(), 2, 8);
    for beams in [1, 4] {
        let mut windowed = session(WINDOW_8, 8);
        let config = config(&windowed, beams);
        let found = generate(&mut windowed, &prompts(6), &config);
        for (prompt, found) in prompts(6).iter().zip(&found) {
            let mut step = |rows: &[twin::Row<'_>]| rows.iter().map(|row| model.logits(row.tokens)).collect::<Vec<_>>();
            let lengths = config.lengths(prompt.len()).expect("a length");
            let wanted = twin::generate(&config, lengths, prompt, 0, &mut step).expect("a search");
            assert_eq!(found.sequences[0].token_ids, wanted[0].token_ids, "{beams} beams, {prompt:?}");
            let (a, b) = (found.sequences[0].score, wanted[0].score);
            assert!((a - b).abs() <= 1e-4 * b.abs().max(1.0), "{a} {b}");
        }
        let all = generate(&mut session(Kind::MHA, 8), &prompts(6), &config);
        assert_ne!(ids(&found), ids(&all), "the window changes nothing");
    }
}

/// Hidden states behind the last layer, in prompts and in steps.
#[test]
fn states_are_those_of_the_f64_twin() {
    let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
    let device = Device::open(&DeviceOptions { selector, ..DeviceOptions::default() }).expect("an adapter");
    let model_config = ModelConfig::load(model_dir()).expect("a config");
    let checkpoint = Checkpoint::open(model_dir()).expect("weights");
    let model = load(&device, &model_config, &checkpoint, Kinds::both(WINDOW_8), DType::F32).expect("a model");
    let vocab_size = model.limits().vocab_size;
    let mut runner = Runner::new(&device, Arc::from(model), DEFAULT_PREFILL_BUDGET);
    let text: Vec<u32> = prompts(5)[4].iter().chain(&prompts(4)[3]).copied().collect();
    let twin = Gpt2::load(&model_dir(), 2, 8).states(&text);
    let logits = device.tensor("logits", Class::Activations, 1, vocab_size, DType::F32).expect("a tensor");
    // The last position of a prompt is fed by a step, all others by the prompt's pass, whose keys it sees.
    for end in [1, 2, 9, 10, 11, 12, 13, 25, text.len()] {
        let mut rows = Rows::new(&device, 1, text.len() + 1).expect("rows");
        let sentence = Sentence { source: &[], prompt: &text[..end], max_new: 1 };
        runner.begin(&mut rows, &[sentence], 1).expect("admission");
        let mut last: Option<Tensor> = None;
        let mut see = |_: &mut elgen_tensor::Recorder, stack: &'static str, index: usize, x: &Tensor, _: usize| {
            if (stack, index) == ("decoder", LAYERS) {
                last = Some(x.clone());
            }
            Ok(())
        };
        let mut rec = device.recorder();
        runner.step_with_probe(&mut rec, &rows, &logits, Probe::new(&mut see)).expect("a step");
        rec.submit().expect("a submission");
        let states = device.read_tensor(&last.expect("a last layer")).expect("states");
        let wanted = &twin[end - 1];
        let rms = (wanted.iter().map(|x| x * x).sum::<f64>() / wanted.len() as f64).sqrt();
        for (a, b) in states.iter().zip(wanted) {
            assert!((f64::from(*a) - b).abs() <= 1e-4 * b.abs().max(rms), "position {}: {a} {b}", end - 1);
        }
        runner.end();
    }
}

#[test]
fn a_batch_changes_no_bit() {
    let mut alone = session(WINDOW_8, 1);
    let config = config(&alone, 3);
    let wanted = generate(&mut alone, &prompts(64), &config);
    let bits = |all: &[Generation]| -> Vec<Vec<u32>> {
        let of = |g: &Generation| g.sequences[0].token_logprobs.iter().map(|x| x.to_bits()).collect();
        all.iter().map(of).collect()
    };
    for batch in [7, 64] {
        let found = generate(&mut session(WINDOW_8, batch), &prompts(64), &config);
        assert_eq!(ids(&found), ids(&wanted), "batch {batch}");
        assert_eq!(bits(&found), bits(&wanted), "batch {batch}");
    }
}

#[test]
fn bytes_are_those_of_the_plan() {
    let model_config = ModelConfig::load(model_dir()).expect("a config");
    let inputs: Vec<Vec<u32>> = (0..8).map(|n| (0..17).map(|i| (2 + (i * 5 + n) % 90) as u32).collect()).collect();
    let mut session = session(WINDOW_8, 8);
    let config = config(&session, 4);
    let plan = MemoryPlan {
        model: &model_config,
        kinds: Kinds::both(WINDOW_8),
        formats: DType::F32.into(),
        max_binding_bytes: session.device().capabilities().max_binding_bytes,
        memory_limit: session.device().pool().limit(),
    };
    let planned = plan.predict(&BatchWorkload::new(&config, 0, 17, NEW), 8).expect("a plan");
    generate(&mut session, &inputs, &config);
    let peak = session.device().pool().peak();
    let caches = planned.self_cache + planned.cross_cache + planned.tables;
    assert_eq!(
        [planned.weights, caches, planned.activations, planned.staging, planned.total],
        [
            peak.of(Class::Weights),
            peak.of(Class::Cache),
            peak.of(Class::Activations),
            peak.of(Class::Staging),
            peak.total
        ]
    );
}
