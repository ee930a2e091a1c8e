//! A model with a kind of attention of one's choice in each place, and greedy or beam search with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use elgen_models::{
    Checkpoint, DEFAULT_PREFILL_BUDGET, Formats, GenerationDefaults, Kinds, ModelConfig, Probe, Runner, Sentence,
    Tokenizer, load,
};
use elgen_search::device::{DeviceSearch, SentenceStart};
use elgen_search::{GenerationConfig, GenerationOptions, Hypothesis, ModelLimits};
use elgen_tensor::{Class, DType, Device, DeviceOptions, Rows};

use crate::repo_root;

/// The models in `tests/fixtures` whose names begin with `family`.
///
/// # Panics
/// The folder is missing.
pub fn fixtures(family: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(repo_root().join("tests/fixtures"))
        .expect("fixtures are part of the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.join("config.json").is_file() && path.join("reference.json").is_file())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(family)))
        .collect();
    found.sort();
    found
}

/// The adapter that `$ELGEN_TEST_DEVICE` selects.
///
/// # Panics
/// There is none.
pub fn device() -> Device {
    let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
    Device::open(&DeviceOptions { selector, ..DeviceOptions::default() }).expect("a Vulkan adapter")
}

/// A model's files, from which it can be loaded with any kinds.
#[derive(Debug)]
pub struct Files {
    config: ModelConfig,
    checkpoint: Checkpoint,
    defaults: GenerationOptions,
}

/// A loaded model.
#[derive(Debug)]
pub struct Loaded {
    pub(crate) device: Device,
    pub(crate) runner: Runner,
    limits: ModelLimits,
}

/// An encoder input (none: decoder-only) and a decoder prompt.
#[derive(Clone, Debug)]
pub struct Start {
    /// Encoder input.
    pub source: Vec<u32>,
    /// Decoder prompt, the start token included.
    pub prompt: Vec<u32>,
}

impl Files {
    /// Opens a model directory.
    ///
    /// # Panics
    /// It is not one.
    pub fn open(dir: &Path) -> Self {
        let config = ModelConfig::load(dir).expect("config");
        let defaults = GenerationDefaults::load(dir, &config).expect("generation defaults");
        let defaults = GenerationOptions::from_json(&defaults.options).expect("options");
        Self { config, checkpoint: Checkpoint::open(dir).expect("checkpoint"), defaults }
    }

    /// The model's tokenizer.
    ///
    /// # Panics
    /// It has none.
    pub fn tokenizer(&self, dir: &Path) -> Tokenizer {
        Tokenizer::load(dir, self.config.family().tokenizer).expect("tokenizer files").expect("a tokenizer")
    }

    /// Loads the weights.
    ///
    /// # Panics
    /// They do not fit.
    pub fn load(&self, device: &Device, kinds: Kinds, formats: impl Into<Formats>) -> Loaded {
        let model = load(device, &self.config, &self.checkpoint, kinds, formats).expect("a model");
        let (limits, layout) = (model.limits(), model.cache_layout());
        assert_eq!(layout.kinds, kinds);
        Loaded { device: device.clone(), runner: Runner::new(device, Arc::from(model), DEFAULT_PREFILL_BUDGET), limits }
    }

    /// The model's own options under those asked for.
    ///
    /// # Panics
    /// They contradict each other.
    pub fn config(&self, asked: GenerationOptions, limits: &ModelLimits) -> GenerationConfig {
        asked.or(self.defaults.clone()).resolve(limits).expect("options that fit").0
    }
}

impl Loaded {
    /// Vocabulary, positions, and whether there is an encoder.
    pub fn limits(&self) -> &ModelLimits {
        &self.limits
    }

    /// Feeds each sentence its `targets` one by one behind its prompt, all sentences as one batch: decode steps, as a search takes them. For each sentence
    /// the logits of every target token.
    ///
    /// # Panics
    /// The device failed, or a sentence has no target.
    pub fn forced_logits(&mut self, starts: &[Start], targets: &[Vec<u32>]) -> Vec<Vec<Vec<f32>>> {
        let device = self.device.clone();
        let sentences: Vec<Sentence<'_>> = starts
            .iter()
            .zip(targets)
            .map(|(s, target)| Sentence { source: &s.source, prompt: &s.prompt, max_new: target.len() })
            .collect();
        let longest = sentences.iter().map(|s| s.prompt.len() + s.max_new).max().expect("a sentence");
        let (count, vocab_size) = (starts.len(), self.limits.vocab_size);
        let mut rows = Rows::new(&device, count, longest).expect("rows");
        let logits = device.tensor("logits", Class::Activations, count, vocab_size, DType::F32).expect("logits");
        self.runner.begin(&mut rows, &sentences, 1).expect("admission");
        let mut states = rows.read_states(&device, count).expect("the states");
        let (mut tokens, mut slots) = rows.read_tables(&device, count).expect("the tables");
        let mut seen = vec![Vec::new(); count];
        for place in 0.. {
            let open = |s: &usize| place < targets[*s].len();
            let mut rec = device.recorder();
            self.runner.keep(&mut rec, &mut rows, (0..count).filter(open), 1).expect("fewer rows");
            self.runner.step_with_probe(&mut rec, &rows, &logits, Probe::none()).expect("a step");
            rec.submit().expect("submission");
            let got = device.read_tensor(&logits).expect("logits");
            for (row, logits) in rows.active_rows().iter().zip(got.chunks(vocab_size)) {
                let row = *row as usize;
                seen[row].push(logits.to_vec());
                let state = states[row];
                let at = state.length as usize;
                tokens[row * longest + at] = targets[row][place];
                slots[row * longest + at] = state.own_slot(at as u32);
                states[row] = state.with_length(state.length + 1);
            }
            if !(0..count).any(|s| place + 1 < targets[s].len()) {
                break;
            }
            rows.place(&device, &states, Some(&tokens), Some(&slots)).expect("the tables");
        }
        self.runner.end();
        seen
    }

    /// Searches all sentences as one batch; the best hypothesis of each comes first.
    ///
    /// # Panics
    /// The device failed.
    pub fn generate(&mut self, starts: &[Start], config: &GenerationConfig) -> Vec<Vec<Hypothesis>> {
        let (device, width) = (self.device.clone(), config.rows_per_sentence());
        let lengths: Vec<_> = starts.iter().map(|s| config.lengths(s.prompt.len()).expect("a length")).collect();
        let max_new: Vec<usize> = starts.iter().zip(&lengths).map(|(s, l)| l.max_length - s.prompt.len()).collect();
        let longest = lengths.iter().map(|l| l.max_length).max().expect("a sentence");
        let most = max_new.iter().copied().max().expect("a sentence");
        let count = starts.len() * width;
        let mut rows = Rows::new(&device, count, longest).expect("rows");
        let logits = device.tensor("logits", Class::Activations, count, config.vocab_size, DType::F32).expect("logits");
        let mut search = DeviceSearch::new(&device, config, starts.len(), most).expect("a search");
        let sentences: Vec<Sentence<'_>> = starts
            .iter()
            .zip(&max_new)
            .map(|(s, max_new)| Sentence { source: &s.source, prompt: &s.prompt, max_new: *max_new })
            .collect();
        let begins: Vec<SentenceStart<'_>> = (0..)
            .zip(starts.iter().zip(&lengths))
            .map(|(ordinal, (s, lengths))| SentenceStart {
                ordinal,
                lengths: *lengths,
                prompt: &s.prompt,
                source: if s.source.is_empty() { &s.prompt } else { &s.source },
            })
            .collect();
        self.runner.begin(&mut rows, &sentences, width).expect("admission");
        search.begin(&begins).expect("a batch");
        let mut done = vec![false; starts.len()];
        let mut rec = device.recorder();
        for _ in 0..most {
            self.runner.step_with_probe(&mut rec, &rows, &logits, Probe::none()).expect("a step");
            let now_done = search.step(&mut rec, &mut rows, &logits).expect("a step").done.to_vec();
            if now_done.iter().all(|d| *d) {
                break;
            }
            if now_done != done {
                let open = (0..starts.len()).filter(|s| !now_done[*s]);
                self.runner.keep(&mut rec, &mut rows, open, width).expect("fewer rows");
                done = now_done;
            }
        }
        let results = search.finish().expect("results");
        self.runner.end();
        results.into_iter().map(|found| found.expect("finite scores")).collect()
    }
}
