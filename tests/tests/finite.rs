//! Weights that the storage cannot hold are refused by name when they are loaded; scores that are not finite are an error of their record, in
//! every mode.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elgen_attention::Kind;
use elgen_engine::{
    AttentionChoice, DtypeChoice, EngineError, Events, Generation, GenerationOptions, Hooks, LogitsProcessor, Model,
    Request, RunOptions, ScoreInput, ScoreRequest, SequenceView, SessionOptions, StreamedToken, WholeText,
};
use elgen_models::{Checkpoint, Kinds, ModelConfig, load};
use elgen_tensor::{DType, Device, DeviceOptions};
use elgen_tests::hooks::LookOn;
use elgen_tests::repo_root;
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    repo_root().join("tests/fixtures").join(name)
}

/// A tensor of a file: its name, shape, bytes of an element, and where its bytes lie.
struct Place {
    name: String,
    shape: Vec<usize>,
    element: usize,
    begin: usize,
    end: usize,
}

/// The F32 and BF16 tensors of a weights file.
fn places(file: &[u8]) -> Vec<Place> {
    let (size, header) = safetensors::SafeTensors::read_metadata(file).expect("a safetensors file");
    let tensors = header.tensors().into_iter().filter_map(|(name, info)| {
        let element = match info.dtype {
            safetensors::Dtype::F32 => 4,
            safetensors::Dtype::BF16 => 2,
            _ => return None,
        };
        let (begin, end) = info.data_offsets;
        Some(Place { name, shape: info.shape.clone(), element, begin: size + 8 + begin, end: size + 8 + end })
    });
    let mut all: Vec<Place> = tensors.collect();
    all.sort_by_key(|place| place.begin);
    all
}

/// Writes `value` over element `index` of a tensor.
fn set(file: &mut [u8], place: &Place, index: usize, value: f32) {
    let at = place.begin + index * place.element;
    // The upper half of an F32 is a BF16.
    file[at..at + place.element].copy_from_slice(&value.to_le_bytes()[4 - place.element..]);
}

impl Place {
    fn len(&self) -> usize {
        (self.end - self.begin) / self.element
    }
}

/// The directory without its weights, and the name of the weights file.
fn copy_of(model: &Path) -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut weights = Vec::new();
    for entry in fs::read_dir(model).expect("a fixture") {
        let path = entry.expect("a file").path();
        let to = dir.path().join(path.file_name().expect("a name"));
        let text = path.to_string_lossy();
        if text.ends_with(".safetensors") && !text.ends_with("states.safetensors") {
            weights.push(to.clone());
        }
        if path.is_file() {
            fs::copy(&path, &to).expect("a copy");
        }
    }
    weights.sort();
    (dir, weights)
}

fn device() -> Device {
    let options = DeviceOptions { selector: std::env::var("ELGEN_TEST_DEVICE").ok(), ..DeviceOptions::default() };
    Device::open(&options).expect("an adapter")
}

fn loaded(device: &Device, dir: &Path, dtype: DType) -> Result<(), String> {
    let config = ModelConfig::load(dir).expect("a config");
    let checkpoint = Checkpoint::open(dir).map_err(|error| error.to_string())?;
    let made = load(device, &config, &checkpoint, Kinds::both(Kind::EL), dtype);
    made.map(|_| ()).map_err(|error| {
        // Blocks wrap what their weights say.
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(inner) = source {
            text.push_str(&inner.to_string());
            source = inner.source();
        }
        text
    })
}

/// Tensors of two dimensions that are stored as f32 in any case.
fn is_exempt(name: &str) -> bool {
    name.contains("relative_attention_bias") || name.ends_with("final_logits_bias")
}

/// Every matrix of a model, one after the other, has 1e5 as its last element.
fn check_matrices(models: &[&str], least: usize) {
    let device = device();
    let mut refused = 0;
    for model in models {
        let (dir, files) = copy_of(&fixture(model));
        let mut vectors = 0;
        for path in &files {
            let original = fs::read(path).expect("weights");
            for place in places(&original).iter().filter(|place| place.shape.len() == 2 && place.len() > 0) {
                let mut file = original.clone();
                set(&mut file, place, place.len() - 1, 1e5);
                fs::write(path, file).expect("weights");
                let found = loaded(&device, dir.path(), DType::F16);
                if is_exempt(&place.name) {
                    found.unwrap_or_else(|error| panic!("{model}: {}: {error}", place.name));
                    continue;
                }
                let error = found.expect_err(&format!("{model}: {} was loaded", place.name));
                let value = if place.element == 4 { "100000" } else { "99840" };
                for part in [format!("`{}`", place.name).as_str(), value, "f16 cannot hold", "dtype f32"] {
                    assert!(error.contains(part), "{model}: {}: {error}", place.name);
                }
                assert!(!error.contains('\n'), "{error}");
                refused += 1;
            }
            // All of them, in f32; and all vectors, which are f32 in any case.
            for (dtype, dimensions) in [(DType::F32, 2), (DType::F16, 1)] {
                let mut file = original.clone();
                for place in places(&original).iter().filter(|p| p.shape.len() == dimensions && p.len() > 0) {
                    set(&mut file, place, place.len() - 1, 1e5);
                    vectors += usize::from(dimensions == 1);
                }
                fs::write(path, file).expect("weights");
                loaded(&device, dir.path(), dtype).unwrap_or_else(|error| panic!("{model}, {dtype:?}: {error}"));
            }
            fs::write(path, &original).expect("weights");
        }
        assert!(vectors > 0, "{model} has no vectors");
    }
    assert!(refused >= least, "only {refused} matrices were refused");
}

#[test]
fn bart_matrices_beyond_f16_are_named() {
    check_matrices(&["bart-base-like", "bart-noprefix-bf16"], 54);
}

#[test]
fn mbart_and_pegasus_matrices_beyond_f16_are_named() {
    check_matrices(&["mbart-cc25", "pegasus-tables", "pegasus-no-tables-bf16"], 60);
}

#[test]
fn marian_matrices_beyond_f16_are_named() {
    check_matrices(&["marian-shared", "marian-separate"], 40);
}

#[test]
fn t5_matrices_beyond_f16_are_named() {
    check_matrices(&["t5-base-like", "t5-gated-untied", "t5-head12-bf16-sharded"], 60);
}

#[test]
fn gpt2_and_opt_matrices_beyond_f16_are_named() {
    check_matrices(&["gpt2-base-like", "gpt2-head32-bf16", "opt-prenorm", "opt-noprefix-nobias"], 50);
}

/// The model with every element of the tensors that `choose` takes replaced.
fn with_values(model: &str, choose: impl Fn(&Place) -> Option<f32>) -> TempDir {
    let (dir, files) = copy_of(&fixture(model));
    for path in files {
        let mut file = fs::read(&path).expect("weights");
        for place in places(&file) {
            if let Some(value) = choose(&place) {
                for index in 0..place.len() {
                    // Both signs: sums become NaN, not only infinite.
                    set(&mut file, &place, index, if index % 3 == 0 { -value } else { value });
                }
            }
        }
        fs::write(path, file).expect("weights");
    }
    dir
}

fn open(dir: &Path, dtype: DtypeChoice) -> Model {
    let options = SessionOptions::default()
        .with_attention(AttentionChoice::MHA)
        .with_dtype(dtype)
        .with_device(std::env::var("ELGEN_TEST_DEVICE").ok());
    Model::load(dir, &options).expect("a model")
}

/// Option sets of every mode.
fn modes() -> Vec<(&'static str, GenerationOptions)> {
    let base = GenerationOptions { num_beams: Some(1), max_new_tokens: Some(5), ..GenerationOptions::default() };
    let drawn = GenerationOptions { do_sample: Some(true), ..base.clone() };
    let beams = GenerationOptions { num_beams: Some(2), num_return_sequences: Some(2), ..base.clone() };
    vec![
        ("greedy", base.clone()),
        ("sampling", GenerationOptions { top_k: Some(0), ..drawn.clone() }),
        ("top-k and top-p", GenerationOptions { top_k: Some(5), top_p: Some(0.9), ..drawn.clone() }),
        ("other warpers", GenerationOptions { min_p: Some(0.1), typical_p: Some(0.8), top_h: Some(0.5), ..drawn }),
        ("beams", beams.clone()),
        ("beam sampling", GenerationOptions { do_sample: Some(true), ..beams.clone() }),
        ("diverse beams", GenerationOptions { num_beam_groups: Some(2), diversity_penalty: Some(0.5), ..beams }),
    ]
}

#[derive(Debug)]
struct BanAll;

impl LogitsProcessor for BanAll {
    fn process(&self, _: &SequenceView<'_>, scores: &mut [f32]) {
        scores.fill(f32::NEG_INFINITY);
    }
}

#[derive(Default)]
struct Heard {
    results: Vec<Result<Generation, EngineError>>,
    tokens: usize,
}

impl Events for Heard {
    fn done(&mut self, _: usize, result: Result<Generation, EngineError>) {
        self.results.push(result);
    }

    fn token(&mut self, _: &StreamedToken) {
        self.tokens += 1;
    }
}

/// Runs two inputs; both must fail.
fn assert_fails(model: &Model, options: &GenerationOptions, run: &RunOptions, what: &str) {
    let config = model.config(options).expect("options");
    let mut heard = Heard::default();
    let requests = [Request::new(0, vec![5, 6, 7]), Request::new(1, vec![9, 4])];
    model.session().generate(&requests, &config, run, &mut heard).expect("the run goes on");
    assert_eq!(heard.results.len(), 2, "{what}");
    for result in &heard.results {
        assert!(matches!(result, Err(EngineError::NotFinite(_))), "{what}: {result:?}");
        let error = result.as_ref().expect_err("an error").to_string();
        assert!(error.starts_with("scores are not finite") && error.contains("dtype f32"), "{error}");
    }
    // A forced first token needs no score of the model.
    let forced = if config.forced_bos_token_id.is_some() && run.stream { 2 } else { 0 };
    assert_eq!(heard.tokens, forced, "{what}: what is not finite is not told");
}

#[test]
fn overflow_is_an_error_in_every_mode() {
    // T5's norms make zeros of infinite states, and finite logits of those, as in Hugging Face: there the head overflows.
    for name in ["bart-base-like", "gpt2-base-like", "t5-gated-untied"] {
        let overflows =
            |place: &Place| !name.starts_with("t5") && place.shape.len() == 2 || place.name == "lm_head.weight";
        let dir = with_values(name, |place| overflows(place).then_some(3e38));
        let model = open(dir.path(), DtypeChoice::F32);
        for (mode, options) in modes() {
            let what = format!("{name}, {mode}");
            assert_fails(&model, &options, &RunOptions::default(), &what);
            let stop = Hooks { stop_criteria: vec![Arc::new(LookOn)], ..Hooks::default() };
            let look = Hooks { processors: vec![Arc::new(LookOn)], ..Hooks::default() };
            for hooks in [stop, look] {
                assert_fails(&model, &options, &RunOptions::default().with_hooks(hooks), &what);
            }
            if options.num_beams == Some(1) {
                assert_fails(&model, &options, &RunOptions::default().with_stream(true), &what);
            }
        }
        let config = model.config(&GenerationOptions::default()).expect("options");
        let pair = ScoreRequest { source: vec![5, 6].into(), target: vec![7, 8, 9].into() };
        let mut inputs = vec![ScoreInput::Target(pair)];
        if !model.limits().is_encoder_decoder {
            inputs.push(ScoreInput::Whole(vec![5, 6, 7].into(), WholeText::default()));
        }
        for score in model.session().score_inputs(&inputs, &config, &RunOptions::default(), None).expect("a run") {
            assert!(matches!(score, Err(EngineError::NotFinite(_))), "{name}: {score:?}");
        }
        if name.starts_with("t5") {
            continue;
        }
        let states = model.encode(&[vec![5_u32, 6, 7]]);
        let Err(EngineError::Input { index: 0, source }) = states else { panic!("{name}: {states:?}") };
        assert!(matches!(*source, EngineError::StatesNotFinite), "{name}: {source}");
    }
}

#[test]
fn a_processor_that_bans_every_token_is_an_error_in_every_mode() {
    let hooks = Hooks { processors: vec![Arc::new(BanAll)], ..Hooks::default() };
    for name in ["bart-base-like", "gpt2-base-like"] {
        let model = open(&fixture(name), DtypeChoice::F32);
        for (mode, options) in modes() {
            let run = RunOptions::default().with_hooks(hooks.clone());
            assert_fails(&model, &options, &run, &format!("{name}, {mode}"));
        }
    }
}

/// Keys beyond the range of f16 are infinite in its caches.
#[test]
fn activations_beyond_f16_are_an_error_there_and_none_in_f32() {
    let dir = with_values("gpt2-base-like", |place| place.name.ends_with("c_attn.weight").then_some(6e4));
    for (dtype, finite) in [(DtypeChoice::F32, true), (DtypeChoice::F16, false)] {
        let model = open(dir.path(), dtype);
        for (mode, options) in modes() {
            if !finite {
                assert_fails(&model, &options, &RunOptions::default(), mode);
                continue;
            }
            for generation in
                model.generate(&[vec![5_u32, 6, 7]], &model.config(&options).expect("options")).expect(mode)
            {
                assert!(generation.sequences.iter().all(|s| s.score.is_finite()), "{mode}: {generation:?}");
            }
        }
    }
}
