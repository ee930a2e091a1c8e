//! A loaded model that serves requests.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use elgen_attention::Kind;
use elgen_models::{
    Checkpoint, DEFAULT_PREFILL_BUDGET, GenerationDefaults, Kinds, ModelConfig, Runner, Tokenizer, load,
};
use elgen_search::{GenerationConfig, GenerationOptions, Hypothesis, ModelLimits};
use elgen_tensor::{Class, DType, Device, DeviceOptions};

use crate::batch::{BatchState, BatchStats, sentences_per_binding};
use crate::error::EngineError;
use crate::prepare::{Prepared, prepare};
use crate::types::{
    AttentionChoice, AttentionKinds, CacheBytes, DtypeChoice, FinishReason, Generation, Metrics, PeakBytes, PerStep,
    Request, RunOptions, Seconds, Sequence, SessionOptions,
};

/// A model on a device, ready to generate.
pub struct Session {
    device: Device,
    config: ModelConfig,
    tokenizer: Option<Tokenizer>,
    checkpoint_options: GenerationOptions,
    limits: ModelLimits,
    kinds: Kinds,
    layers: usize,
    batch_size: usize,
    runner: Runner,
    state: Option<BatchState>,
    opened: Instant,
    totals: Totals,
}

#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    load_seconds: f64,
    inputs: u64,
    truncated: u64,
    prompt_tokens: u64,
    generated_tokens: u64,
    first_token_ms: Option<f64>,
    batch: BatchStats,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("device", &self.device).field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

/// What generation options are resolved against, known without loading the weights.
#[derive(Clone, Debug)]
pub struct ModelDescription {
    /// Vocabulary, positions, and whether there is an encoder.
    pub limits: ModelLimits,
    /// The generation options of `generation_config.json`, or of `config.json` where there is none.
    pub checkpoint_options: GenerationOptions,
}

/// Reads the configuration of a model directory, so that options can be checked before the weights are loaded.
///
/// # Errors
/// A configuration that is missing, damaged or not supported.
pub fn describe(model_dir: &Path) -> Result<ModelDescription, EngineError> {
    let config = ModelConfig::load(model_dir)?;
    let limits = ModelLimits {
        vocab_size: config.vocab_size(),
        max_position_embeddings: config.max_positions(),
        is_encoder_decoder: config.family().is_encoder_decoder(),
    };
    Ok(ModelDescription { limits, checkpoint_options: checkpoint_options(model_dir, &config)? })
}

/// The checkpoint's own generation options.
fn checkpoint_options(dir: &Path, config: &ModelConfig) -> Result<GenerationOptions, EngineError> {
    let defaults = GenerationDefaults::load(dir, config)?;
    GenerationOptions::from_json(&defaults.options)
        .map_err(|source| EngineError::CheckpointOptions { file: defaults.source.path().display().to_string(), source })
}

impl Session {
    /// Opens a device and loads the model of a Hugging Face directory.
    ///
    /// # Errors
    /// No device; a directory that is incomplete, damaged or not supported; out of memory.
    pub fn load(model_dir: &Path, options: &SessionOptions) -> Result<Self, EngineError> {
        let opened = Instant::now();
        let config = ModelConfig::load(model_dir)?;
        let checkpoint = Checkpoint::open(model_dir)?;
        let checkpoint_options = checkpoint_options(model_dir, &config)?;
        let tokenizer = Tokenizer::load(model_dir, config.family())?;
        let device = Device::open(&DeviceOptions {
            selector: options.device.clone(),
            memory_limit: options.memory_limit,
            checked: options.checked_shaders,
            ..DeviceOptions::default()
        })?;
        let kinds = Kinds::both(match options.attention {
            AttentionChoice::Auto | AttentionChoice::Mha => Kind::Mha,
            AttentionChoice::MhaReplicated => Kind::MhaReplicated,
            AttentionChoice::MhaNocache => Kind::MhaNocache,
            AttentionChoice::El => Kind::El,
        });
        let model = load(&device, &config, &checkpoint, kinds, dtype(options.dtype, &device, &config))?;
        device.trim()?;
        let (limits, layers) = (model.limits(), model.cache_layout().layers);
        // A small memory limit also bounds the working tensors of the encoder.
        let budget = DEFAULT_PREFILL_BUDGET.min(device.pool().limit() / 8);
        let runner = Runner::new(&device, Arc::from(model), budget);
        let totals = Totals { load_seconds: opened.elapsed().as_secs_f64(), ..Totals::default() };
        let batch_size = options.batch_size.max(1);
        Ok(Self {
            device,
            config,
            tokenizer,
            checkpoint_options,
            limits,
            kinds,
            layers,
            batch_size,
            runner,
            state: None,
            opened,
            totals,
        })
    }

    /// True if texts can be given and are returned.
    pub fn has_tokenizer(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// Encodes and decodes with this tokenizer from now on: the model's own, set to other languages.
    pub fn set_tokenizer(&mut self, tokenizer: Tokenizer) {
        self.tokenizer = Some(tokenizer);
    }

    /// The generation options of `generation_config.json`, or of `config.json` where there is none.
    pub fn checkpoint_options(&self) -> &GenerationOptions {
        &self.checkpoint_options
    }

    /// What generation options are checked against.
    pub fn limits(&self) -> ModelLimits {
        self.limits
    }

    /// The device that the model is on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs all requests; `on_done(index, result)` is called once for each as it ends, in any order. A request that fails alone gets its
    /// own error and the run goes on. Once `cancel` is set, the run stops after the current step and the open requests get
    /// [`EngineError::Cancelled`].
    ///
    /// # Errors
    /// The device failed: no further request can be served. Requests that had not ended were given to `on_done` with an error.
    pub fn generate(
        &mut self,
        requests: &[Request],
        config: &GenerationConfig,
        run: &RunOptions,
        cancel: &AtomicBool,
        on_done: &mut dyn FnMut(usize, Result<Generation, EngineError>),
    ) -> Result<(), EngineError> {
        let started = Instant::now();
        self.totals.inputs += requests.len() as u64;
        let mut ready: Vec<Prepared> = Vec::with_capacity(requests.len());
        for (index, request) in requests.iter().enumerate() {
            match prepare(index, request, &self.config, self.tokenizer.as_ref(), config, run) {
                Ok(prepared) => ready.push(prepared),
                Err(error) => on_done(index, Err(error)),
            }
        }
        // Similar lengths end together; the longest first, so that buffers are allocated once.
        ready.sort_by_key(|p| (std::cmp::Reverse(p.source.len().max(p.prompt.len())), p.request));
        let mut capacity =
            self.batch_size.min(sentences_per_binding(&self.device, &self.runner, config)).min(ready.len()).max(1);
        let mut at = 0;
        while at < ready.len() {
            let batch = &ready[at..(at + capacity).min(ready.len())];
            if cancel.load(Ordering::Relaxed) {
                break;
            }
            match self.run_batch(batch, config, capacity, &ready, cancel) {
                Ok(Some(results)) => {
                    let first_token = self.totals.batch.first_token;
                    self.totals.first_token_ms =
                        self.totals.first_token_ms.or(first_token.map(|t| (t - started).as_secs_f64() * 1e3));
                    for (prepared, hypotheses) in batch.iter().zip(results) {
                        let result = self.generation(prepared, hypotheses, config);
                        on_done(prepared.request, result);
                    }
                    at += batch.len();
                }
                Ok(None) => break,
                Err(error) if error.is_out_of_memory() && batch.len() > 1 => {
                    // A sentence's result does not depend on its batch, so a smaller one gives the same.
                    self.state = None;
                    capacity = batch.len().div_ceil(2);
                }
                Err(error) if error.is_out_of_memory() => {
                    self.state = None;
                    on_done(batch[0].request, Err(error));
                    at += 1;
                }
                Err(error) => {
                    for prepared in &ready[at..] {
                        on_done(prepared.request, Err(EngineError::Batch(error.to_string())));
                    }
                    return Err(error);
                }
            }
        }
        for prepared in &ready[at..] {
            on_done(prepared.request, Err(EngineError::Cancelled));
        }
        Ok(())
    }

    fn run_batch(
        &mut self,
        batch: &[Prepared],
        config: &GenerationConfig,
        capacity: usize,
        all: &[Prepared],
        cancel: &AtomicBool,
    ) -> Result<Option<Vec<Vec<Hypothesis>>>, EngineError> {
        let state = match self.state.take() {
            Some(state) if batch.iter().all(|p| state.fits(config, capacity, p.lengths.max_length, p.max_new())) => {
                state
            }
            _ => {
                // Sized for every request of this run, so that it is made once.
                let max_length = all.iter().map(|p| p.lengths.max_length).max().unwrap_or(1);
                let max_new = all.iter().map(Prepared::max_new).max().unwrap_or(1);
                BatchState::new(&self.device, config, capacity, max_length, max_new)?
            }
        };
        let state = self.state.insert(state);
        state.run(&self.device, &mut self.runner, batch, cancel, &mut self.totals.batch)
    }

    fn generation(
        &mut self,
        prepared: &Prepared,
        hypotheses: Vec<Hypothesis>,
        config: &GenerationConfig,
    ) -> Result<Generation, EngineError> {
        let mut sequences = Vec::with_capacity(hypotheses.len());
        for hypothesis in hypotheses.into_iter().take(config.num_return_sequences) {
            let text = match &self.tokenizer {
                Some(tokenizer) => Some(tokenizer.decode(&hypothesis.token_ids, true)?),
                None => None,
            };
            let finish_reason = match hypothesis.finish_reason {
                elgen_search::FinishReason::Eos => FinishReason::Eos,
                elgen_search::FinishReason::Length => FinishReason::Length,
                elgen_search::FinishReason::Stop => FinishReason::Stop,
            };
            self.totals.generated_tokens += hypothesis.token_ids.len() as u64;
            sequences.push(Sequence {
                token_ids: hypothesis.token_ids,
                token_logprobs: hypothesis.token_logprobs,
                text,
                score: hypothesis.score,
                finish_reason,
            });
        }
        self.totals.prompt_tokens += prepared.prompt_tokens as u64;
        self.totals.truncated += u64::from(prepared.truncated);
        Ok(Generation { sequences, prompt_tokens: prepared.prompt_tokens, truncated: prepared.truncated })
    }

    /// Counters since the session was opened.
    pub fn metrics(&self) -> Metrics {
        let (totals, batch) = (&self.totals, &self.totals.batch);
        let report = self.device.report();
        let peak = self.device.pool().peak();
        let steps = batch.steps.max(1) as f64;
        let busy = batch.encode_seconds + batch.decode_seconds;
        let cross = self.limits.is_encoder_decoder;
        let cache = self.runner.caches().peak_bytes();
        Metrics {
            device: report.name.clone(),
            driver: report.driver.clone(),
            software_adapter: report.software,
            attention: AttentionKinds {
                encoder: cross.then(|| Kind::Mha.name().to_owned()),
                self_: self.kinds.self_.name().to_owned(),
                cross: cross.then(|| self.kinds.cross.name().to_owned()),
            },
            inputs: totals.inputs,
            truncated: totals.truncated,
            prompt_tokens: totals.prompt_tokens,
            generated_tokens: totals.generated_tokens,
            seconds: Seconds {
                load: totals.load_seconds,
                compile: self.device.compile_seconds(),
                encode: batch.encode_seconds,
                decode: batch.decode_seconds,
                total: self.opened.elapsed().as_secs_f64(),
            },
            tokens_per_second: if busy > 0.0 { totals.generated_tokens as f64 / busy } else { 0.0 },
            time_to_first_token_ms: totals.first_token_ms.unwrap_or(0.0),
            steps: batch.steps,
            per_step: PerStep {
                rows: batch.row_steps as f64 / steps,
                dispatches: batch.stats.dispatches as f64 / steps,
                host_waits: batch.stats.host_waits as f64 / steps,
                readback_bytes: batch.stats.readback_bytes as f64 / steps,
                allocations: batch.allocations as f64 / steps,
                submissions: batch.stats.submissions as f64 / steps,
            },
            dispatches_per_decoder_layer: batch.layer_dispatches as f64 / steps / self.layers.max(1) as f64,
            peak_bytes: PeakBytes {
                weights: peak.of(Class::Weights),
                cache: peak.of(Class::Cache),
                activations: peak.of(Class::Activations),
                staging: peak.of(Class::Staging),
                total: peak.total,
            },
            cache_bytes: CacheBytes { self_: cache.self_, cross: cache.cross },
            cache_overhead_bytes: peak.of(Class::Cache).saturating_sub(cache.self_ + cache.cross),
        }
    }
}

/// `auto`: f32 on software adapters and for checkpoints that are f32, else f16.
fn dtype(choice: DtypeChoice, device: &Device, config: &ModelConfig) -> DType {
    match choice {
        DtypeChoice::F32 => DType::F32,
        DtypeChoice::F16 => DType::F16,
        DtypeChoice::Auto if device.capabilities().software => DType::F32,
        DtypeChoice::Auto => {
            if config.dtype() == Some("float16") {
                DType::F16
            } else {
                DType::F32
            }
        }
    }
}
