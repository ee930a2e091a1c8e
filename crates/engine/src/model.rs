//! A loaded model, shared by any number of sessions.

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use elgen_models::{Architecture, Checkpoint, Formats, Kinds, ModelConfig, ModelError, Tokenizer, load};
use elgen_search::{GenerationConfig, GenerationOptions, ModelLimits};
use elgen_tensor::{Device, DeviceOptions};

use crate::config_only::ConfigOnly;
use crate::context::Context;
use crate::description::{ModelDescription, describe};
use crate::error::EngineError;
use crate::options::{BatchSize, SessionOptions};
use crate::plan::{AttentionPlan, decide};
use crate::stop_strings::TokenBytes;

/// Contexts that `Model::generate` keeps for its next calls; each holds its caches.
const IDLE_CONTEXTS: usize = 2;

/// A model on a device: its weights, tokenizer and options. Cheap to clone, and to be used from several threads: each makes
/// its own [`crate::Session`] with [`Model::session`], all of them share the weights.
#[derive(Clone)]
pub struct Model {
    shared: Arc<Shared>,
}

struct Shared {
    device: Device,
    config: ModelConfig,
    tokenizer: Option<Tokenizer>,
    tokenizer_error: Option<Arc<ModelError>>,
    checkpoint_options: GenerationOptions,
    weights: Arc<dyn Architecture>,
    kinds: Kinds,
    plan: Option<AttentionPlan>,
    batch_size: BatchSize,
    max_batch_tokens: Option<usize>,
    load_started: Instant,
    load_seconds: f64,
    token_bytes: OnceLock<TokenBytes>,
    idle: Mutex<Vec<Context>>,
}

/// What a model consists of beside its device ([`Model::from_architecture`]).
#[derive(Debug)]
#[non_exhaustive]
pub struct ModelParts {
    /// What `config.json` says: vocabulary, special ids, family.
    pub config: ModelConfig,
    /// The graph with its weights.
    pub architecture: Box<dyn Architecture>,
    /// The tokenizer; without one, inputs are token ids.
    pub tokenizer: Option<Tokenizer>,
    /// The options of `generation_config.json`.
    pub generation_options: GenerationOptions,
    tokenizer_error: Option<Arc<ModelError>>,
    plan: Option<AttentionPlan>,
}

impl ModelParts {
    /// A model without a tokenizer and without generation options of its own.
    pub fn new(config: ModelConfig, architecture: Box<dyn Architecture>) -> Self {
        let (tokenizer, tokenizer_error, plan) = (None, None, None);
        Self {
            config,
            architecture,
            tokenizer,
            generation_options: GenerationOptions::default(),
            tokenizer_error,
            plan,
        }
    }

    /// The same with a tokenizer.
    pub fn with_tokenizer(self, tokenizer: Tokenizer) -> Self {
        Self { tokenizer: Some(tokenizer), ..self }
    }

    /// The same with generation options ([`elgen_models::GenerationDefaults`]).
    pub fn with_generation_options(self, generation_options: GenerationOptions) -> Self {
        Self { generation_options, ..self }
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("device", &self.shared.device)
            .field("kinds", &self.shared.kinds)
            .finish_non_exhaustive()
    }
}

impl Model {
    /// Opens a device and loads the model of a Hugging Face directory. A tokenizer that cannot be loaded is no error until a text asks for it:
    /// token ids need none ([`Model::tokenizer_error`]).
    ///
    /// # Errors
    /// No device; a directory that is incomplete, damaged or not supported; out of memory.
    pub fn load(model_dir: impl AsRef<Path>, options: &SessionOptions) -> Result<Self, EngineError> {
        let started = Instant::now();
        Self::load_at(started, &describe(model_dir.as_ref())?, None, None, options)
    }

    /// [`Model::load`] with attention kinds from anywhere: those of `options` have no effect.
    ///
    /// # Errors
    /// As [`Model::load`]; a kind that does not support the model's blocks.
    pub fn load_with(
        model_dir: impl AsRef<Path>,
        kinds: impl Into<Kinds>,
        options: &SessionOptions,
    ) -> Result<Self, EngineError> {
        Self::load(model_dir, &options.clone().with_attention(kinds.into()))
    }

    /// [`Model::load`] of a directory that was described; what was read of it then is not read again. `tokenizer`: instead of the
    /// directory's, which then is not opened.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_described(
        description: &ModelDescription,
        tokenizer: Option<Tokenizer>,
        options: &SessionOptions,
    ) -> Result<Self, EngineError> {
        Self::load_at(Instant::now(), description, tokenizer, None, options)
    }

    /// [`Model::load`] on a device that is open: `device`, `memory_limit` and `checked_shaders` of the options have no effect.
    ///
    /// # Errors
    /// As [`Model::load`], but for the device.
    pub fn load_on(
        device: &Device,
        model_dir: impl AsRef<Path>,
        options: &SessionOptions,
    ) -> Result<Self, EngineError> {
        let started = Instant::now();
        Self::load_at(started, &describe(model_dir.as_ref())?, None, Some(device), options)
    }

    fn load_at(
        started: Instant,
        description: &ModelDescription,
        tokenizer: Option<Tokenizer>,
        device: Option<&Device>,
        options: &SessionOptions,
    ) -> Result<Self, EngineError> {
        let ModelDescription { config, checkpoint_options, .. } = description.clone();
        let dir = description.dir();
        let checkpoint = Checkpoint::open(dir)?;
        let tokenizer = match tokenizer {
            Some(given) => Ok(Some(given)),
            None => Tokenizer::load(dir, config.family().tokenizer),
        };
        let tokenizer = tokenizer.map(|found| {
            found.map(|mut tokenizer| {
                tokenizer.set_max_text_bytes(options.max_text_bytes);
                tokenizer
            })
        });
        let device = device.map_or_else(|| open_device(options), |device| Ok(device.clone()))?;
        Self::build(started, device, config, checkpoint_options, tokenizer, &checkpoint, options)
    }

    /// A model with random weights, without a checkpoint and a tokenizer: of any supported family, at the size that a `config.json` tells. The
    /// weights are made on the device; equal seeds make equal models, whatever the attention kind and the formats
    /// ([`Checkpoint::random`]).
    ///
    /// # Errors
    /// No device; out of memory.
    pub fn random(model: &ConfigOnly, seed: u64, options: &SessionOptions) -> Result<Self, EngineError> {
        Self::random_on(&open_device(options)?, model, seed, options)
    }

    /// [`Model::random`] on a device that is open: `device`, `memory_limit` and `checked_shaders` of the options have no effect.
    ///
    /// # Errors
    /// Out of memory.
    pub fn random_on(
        device: &Device,
        model: &ConfigOnly,
        seed: u64,
        options: &SessionOptions,
    ) -> Result<Self, EngineError> {
        let checkpoint = model.config.random_checkpoint(seed);
        let (config, defaults) = (model.config.clone(), model.options.clone());
        Self::build(Instant::now(), device.clone(), config, defaults, Ok(None), &checkpoint, options)
    }

    fn build(
        load_started: Instant,
        device: Device,
        config: ModelConfig,
        checkpoint_options: GenerationOptions,
        tokenizer: Result<Option<Tokenizer>, ModelError>,
        checkpoint: &Checkpoint,
        options: &SessionOptions,
    ) -> Result<Self, EngineError> {
        let (tokenizer, tokenizer_error) = match tokenizer {
            Ok(tokenizer) => (tokenizer, None),
            Err(error) => (None, Some(Arc::new(error))),
        };
        let formats = options.formats(device.capabilities().software, &config);
        let (kinds, plan) = decide(&device, &config, &checkpoint_options, options, formats);
        let weights = load(&device, &config, checkpoint, kinds, formats)?;
        device.trim()?;
        let mut parts = ModelParts::new(config, weights).with_generation_options(checkpoint_options);
        (parts.tokenizer, parts.tokenizer_error, parts.plan) = (tokenizer, tokenizer_error, plan);
        Ok(Self::of_parts(load_started, device, parts, options))
    }

    /// A model of an architecture that the caller has built, on the device that it lies on: `attention`, `dtype`, `weights`, `cache`, `device`, `memory_limit` and
    /// `checked_shaders` of the options have no effect. The attention kinds are those of its cache layout.
    pub fn from_architecture(device: &Device, parts: ModelParts, options: &SessionOptions) -> Self {
        Self::of_parts(Instant::now(), device.clone(), parts, options)
    }

    fn of_parts(load_started: Instant, device: Device, parts: ModelParts, options: &SessionOptions) -> Self {
        let ModelParts { config, architecture, tokenizer, tokenizer_error, generation_options, plan } = parts;
        Self {
            shared: Arc::new(Shared {
                device,
                config,
                tokenizer,
                tokenizer_error,
                checkpoint_options: generation_options,
                kinds: architecture.cache_layout().kinds,
                weights: Arc::from(architecture),
                plan,
                batch_size: options.batch_size,
                max_batch_tokens: options.max_batch_tokens,
                load_started,
                load_seconds: load_started.elapsed().as_secs_f64(),
                token_bytes: OnceLock::new(),
                idle: Mutex::default(),
            }),
        }
    }

    /// A context that waits for a call, if there is one.
    pub(crate) fn take_idle(&self) -> Option<Context> {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Leaves a context for the next call.
    pub(crate) fn keep_idle(&self, context: Context) {
        let mut contexts = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if contexts.len() < IDLE_CONTEXTS {
            contexts.push(context);
        }
    }

    /// Gives back what the contexts hold that wait for the next call.
    pub(crate) fn release_idle(&self) {
        self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The options to generate with: those asked for, then the checkpoint's, then Hugging Face's defaults. What has no effect
    /// is passed over; [`GenerationOptions::resolve`] tells it.
    ///
    /// # Errors
    /// Options that contradict each other or do not fit the model.
    pub fn config(&self, asked: &GenerationOptions) -> Result<GenerationConfig, EngineError> {
        Ok(asked.clone().or(self.checkpoint_options().clone()).resolve(&self.limits())?.0)
    }

    /// True if texts can be given and are returned.
    pub fn has_tokenizer(&self) -> bool {
        self.shared.tokenizer.is_some()
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.shared.tokenizer.as_ref()
    }

    /// Why the directory's tokenizer could not be loaded; `None` where it was, or where there is none.
    pub fn tokenizer_error(&self) -> Option<&ModelError> {
        self.shared.tokenizer_error.as_deref()
    }

    /// What a text meets where there is no tokenizer.
    pub(crate) fn no_tokenizer(&self) -> EngineError {
        match &self.shared.tokenizer_error {
            Some(error) => EngineError::UnusableTokenizer(Arc::clone(error)),
            None => EngineError::NoTokenizer,
        }
    }

    /// The generation options of `generation_config.json`, or of `config.json` where there is none.
    pub fn checkpoint_options(&self) -> &GenerationOptions {
        &self.shared.checkpoint_options
    }

    /// What generation options are checked against.
    pub fn limits(&self) -> ModelLimits {
        self.shared.weights.limits()
    }

    /// The device that the model is on.
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    /// The model's configuration.
    pub fn model_config(&self) -> &ModelConfig {
        &self.shared.config
    }

    /// The attention kinds that it was loaded with.
    pub fn kinds(&self) -> Kinds {
        self.shared.kinds
    }

    pub(crate) fn shared_weights(&self) -> Arc<dyn Architecture> {
        Arc::clone(&self.shared.weights)
    }

    /// Why it has these kinds; `None` where [`SessionOptions::attention`] named them.
    pub fn plan(&self) -> Option<&AttentionPlan> {
        self.shared.plan.as_ref()
    }

    /// How weights and caches are stored. Of an architecture that does not say how its weights are, as its caches.
    pub fn formats(&self) -> Formats {
        let cache = self.shared.weights.cache_layout().format;
        let weights = self.shared.weights.weight_format();
        Formats { cache, weights: weights.unwrap_or(cache.dtype().into()) }
    }

    pub(crate) fn layers(&self) -> usize {
        self.shared.weights.cache_layout().layers
    }

    pub(crate) fn batch_size(&self) -> BatchSize {
        self.shared.batch_size
    }

    pub(crate) fn max_batch_tokens(&self) -> Option<usize> {
        self.shared.max_batch_tokens
    }

    /// When it began to load.
    pub(crate) fn load_started(&self) -> Instant {
        self.shared.load_started
    }

    pub(crate) fn load_seconds(&self) -> f64 {
        self.shared.load_seconds
    }

    /// What each token adds to a text; made at the first use.
    ///
    /// # Errors
    /// The model has no tokenizer, or it cannot decode one of its tokens.
    pub(crate) fn token_bytes(&self) -> Result<TokenBytes, EngineError> {
        let tokenizer = self.tokenizer().ok_or_else(|| self.no_tokenizer())?;
        if let Some(known) = self.shared.token_bytes.get() {
            return Ok(known.clone());
        }
        let made = TokenBytes::of_tokenizer(tokenizer)?;
        Ok(self.shared.token_bytes.get_or_init(|| made).clone())
    }
}

/// The device that the options ask for.
///
/// # Errors
/// There is none, or its driver refuses.
pub fn open_device(options: &SessionOptions) -> Result<Device, EngineError> {
    Ok(Device::open(&DeviceOptions {
        selector: options.device.clone(),
        memory_limit: options.memory_limit,
        checked: options.checked_shaders,
        cooperative: options.cooperative,
        ..DeviceOptions::default()
    })?)
}
