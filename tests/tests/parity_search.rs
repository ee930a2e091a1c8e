//! Diverse beam search against Hugging Face 4.55 (`diverse.json`), through the engine; sampling and beam sampling with known
//! noise against 5.23 (`sampling.json`), through the search. Ids equal, scores within tolerance.
//!
//! All inputs of a case run as one ragged batch, although each reference was made alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use elgen_attention::Kind;
use elgen_engine::{
    AttentionChoice, DtypeChoice, Generation, Input, Request, RunOptions, Session, SessionOptions, on_done,
};
use elgen_models::{
    Checkpoint, DEFAULT_PREFILL_BUDGET, GenerationDefaults, Kinds, ModelConfig, Runner, Sentence, load,
};
use elgen_search::device::{DecodeStep, DeviceSearch, SentenceStart};
use elgen_search::hooks::{Hooks, NoiseSource};
use elgen_search::{GenerationConfig, GenerationOptions, Lengths};
use elgen_tensor::{Class, DType, Device, DeviceOptions, Rows};
use elgen_tests::repo_root;
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    inputs: Vec<Vec<u32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    generation: serde_json::Map<String, serde_json::Value>,
    inputs: Vec<usize>,
    outputs: Vec<Vec<Expected>>,
}

#[derive(Deserialize)]
struct Expected {
    token_ids: Vec<u32>,
    score: f32,
}

/// The models that have a file of this name, with its contents.
fn references(file: &str) -> Vec<(PathBuf, Reference)> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(repo_root().join("tests/fixtures"))
        .expect("fixtures are part of the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.join(file).is_file())
        .collect();
    found.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(path.join(file)).expect("a readable reference");
        let reference = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path, reference)
    };
    found.into_iter().map(read).collect()
}

fn assert_equal(at: &str, found: &[(Vec<u32>, f32)], expected: &[Expected]) -> usize {
    assert_eq!(found.len(), expected.len(), "{at}: number of sequences");
    for (rank, ((token_ids, score), expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(token_ids, &expected.token_ids, "{at}, rank {rank}");
        let tolerance = 1e-4 * expected.score.abs().max(1.0);
        assert!((score - expected.score).abs() <= tolerance, "{at}, rank {rank}: {score} for {}", expected.score);
    }
    found.len()
}

fn diverse(attention: AttentionChoice) {
    let mut compared = 0;
    for (model, reference) in references("diverse.json") {
        let options = SessionOptions {
            attention,
            device: std::env::var("ELGEN_TEST_DEVICE").ok(),
            dtype: DtypeChoice::F32,
            ..SessionOptions::default()
        };
        let mut session = Session::load(&model, &options).unwrap_or_else(|e| panic!("{}: {e}", model.display()));
        for case in &reference.cases {
            let at = format!("{} {} {attention:?}", model.display(), case.name);
            let asked = GenerationOptions::from_json(&case.generation).unwrap_or_else(|e| panic!("{at}: {e}"));
            let resolved = asked.or(session.checkpoint_options().clone()).resolve(&session.limits());
            let (config, _) = resolved.unwrap_or_else(|e| panic!("{at}: {e}"));
            let inputs = case.inputs.iter().map(|i| (*i as u64, reference.inputs[*i].clone()));
            let requests: Vec<Request> = inputs.map(|(ordinal, ids)| Request::new(ordinal, Input::Ids(ids))).collect();
            let mut results: Vec<Option<Generation>> = vec![None; requests.len()];
            session
                .generate(
                    &requests,
                    &config,
                    &RunOptions::default(),
                    &mut on_done(|i, result| results[i] = Some(result.unwrap_or_else(|e| panic!("{at}: {e}")))),
                )
                .unwrap_or_else(|e| panic!("{at}: {e}"));
            for ((input, expected), got) in case.inputs.iter().zip(&case.outputs).zip(results) {
                let got = got.unwrap_or_else(|| panic!("{at}: no result")).sequences;
                let found: Vec<_> = got.into_iter().map(|one| (one.token_ids, one.score)).collect();
                compared += assert_equal(&format!("{at}, input {input}"), &found, expected);
            }
        }
    }
    println!("{attention:?}: {compared} hypotheses equal");
    assert!(compared >= 400, "only {compared} hypotheses were compared");
}

#[test]
fn diverse_beams_mha() {
    diverse(AttentionChoice::Mha);
}

#[test]
fn diverse_beams_el() {
    diverse(AttentionChoice::El);
}

/// The noise of `tools/make_sampling_fixtures.py`: −ln(u), u in (0, 1) a hash of input, row, step and token.
#[derive(Debug)]
struct KnownNoise;

fn splitmix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl NoiseSource for KnownNoise {
    fn exponential(&self, ordinal: u64, row: usize, step: usize, out: &mut [f32]) {
        let place = splitmix(ordinal * 1_000_003 + row as u64 * 1009 + step as u64);
        for (token, e) in out.iter_mut().enumerate() {
            let bits = splitmix(place.wrapping_add(token as u64)) >> 40;
            *e = -((bits as f64 + 0.5) / f64::from(1 << 24)).ln() as f32;
        }
    }
}

/// A model and a search without an engine between them.
struct Bare {
    device: Device,
    runner: Runner,
    config: ModelConfig,
}

impl Bare {
    fn load(model: &Path, kind: Kind) -> Self {
        let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
        let device = Device::open(&DeviceOptions { selector, ..DeviceOptions::default() }).unwrap();
        let config = ModelConfig::load(model).unwrap();
        let checkpoint = Checkpoint::open(model).unwrap();
        let architecture = load(&device, &config, &checkpoint, Kinds::both(kind), DType::F32).unwrap();
        let runner = Runner::new(&device, Arc::from(architecture), DEFAULT_PREFILL_BUDGET);
        Self { device, runner, config }
    }

    /// Runs these inputs, of the given ordinals, as one batch.
    fn run(&mut self, config: &GenerationConfig, inputs: &[(u64, &[u32])], hooks: &Hooks) -> Vec<Vec<(Vec<u32>, f32)>> {
        let start = config.decoder_start_token_id.map(|id| vec![id]);
        let prompts: Vec<&[u32]> = inputs.iter().map(|(_, ids)| start.as_deref().unwrap_or(ids)).collect();
        let lengths: Vec<Lengths> = prompts.iter().map(|prompt| config.lengths(prompt.len()).unwrap()).collect();
        let sentences: Vec<Sentence<'_>> = (inputs.iter().zip(&prompts).zip(&lengths))
            .map(|(((_, ids), prompt), lengths)| Sentence {
                source: if start.is_some() { ids } else { &[] },
                prompt,
                max_new: lengths.max_length - prompt.len(),
            })
            .collect();
        let starts: Vec<SentenceStart<'_>> = (inputs.iter().zip(&prompts).zip(&lengths))
            .map(|(((ordinal, source), prompt), lengths)| SentenceStart {
                ordinal: *ordinal,
                lengths: *lengths,
                prompt,
                source,
            })
            .collect();
        let width = config.rows_per_sentence();
        let longest = lengths.iter().map(|lengths| lengths.max_length).max().unwrap_or(1);
        let count = inputs.len() * width;
        let mut rows = Rows::new(&self.device, count, longest).unwrap();
        let vocab = self.runner.vocab_size();
        let logits = self.device.tensor("logits", Class::Activations, count, vocab, DType::F32).unwrap();
        let mut search = DeviceSearch::new(&self.device, config, inputs.len(), longest).unwrap();
        search.set_hooks(hooks.clone()).unwrap();
        self.runner.begin(&mut rows, &sentences, width).unwrap();
        search.begin(&starts).unwrap();
        loop {
            let mut rec = self.device.recorder();
            self.runner.step(&mut rec, &rows, &logits).unwrap();
            let done = search.step(rec, &mut rows, &logits).unwrap().done;
            if done.iter().all(|done| *done) {
                break;
            }
            let open = (0..done.len()).filter(|sentence| !done[*sentence]);
            self.runner.keep(&mut rows, open, width).unwrap();
        }
        self.runner.end();
        let hypotheses = search.finish().unwrap();
        hypotheses.into_iter().map(|all| all.into_iter().map(|one| (one.token_ids, one.score)).collect()).collect()
    }
}

fn sampling(kind: Kind) {
    let (mut sampled, mut beams) = (0, 0);
    let hooks = Hooks { noise: Some(Arc::new(KnownNoise)), ..Hooks::default() };
    for (model, reference) in references("sampling.json") {
        let mut bare = Bare::load(&model, kind);
        let defaults = GenerationDefaults::load(&model, &bare.config).unwrap();
        let checkpoint = GenerationOptions::from_json(&defaults.options).unwrap();
        for case in &reference.cases {
            let at = format!("{} {} {kind:?}", model.display(), case.name);
            let asked = GenerationOptions::from_json(&case.generation).unwrap_or_else(|e| panic!("{at}: {e}"));
            let (config, _) = asked.or(checkpoint.clone()).resolve(&bare.runner.model().limits()).unwrap();
            let inputs: Vec<(u64, &[u32])> =
                case.inputs.iter().map(|i| (*i as u64, &reference.inputs[*i][..])).collect();
            let found = bare.run(&config, &inputs, &hooks);
            for ((input, expected), found) in case.inputs.iter().zip(&case.outputs).zip(&found) {
                let compared = assert_equal(&format!("{at}, input {input}"), found, expected);
                *(if config.num_beams > 1 { &mut beams } else { &mut sampled }) += compared;
            }
        }
    }
    println!("{kind:?}: {sampled} samples and {beams} drawn beams equal");
    assert!(sampled >= 100 && beams >= 100, "only {sampled} samples and {beams} drawn beams were compared");
}

#[test]
fn known_noise_mha() {
    sampling(Kind::Mha);
}

#[test]
fn known_noise_el() {
    sampling(Kind::El);
}
