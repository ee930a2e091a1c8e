//! A decoding context of a model, which serves requests.

use std::path::Path;
use std::time::Instant;

use elgen_models::{Runner, Tokenizer, prefill_budget};
use elgen_search::{GenerationOptions, ModelLimits};
use elgen_tensor::Device;

use crate::context::Context;
use crate::description::ModelDescription;
use crate::error::EngineError;
use crate::metrics::{Metrics, metrics};
use crate::model::Model;
use crate::options::SessionOptions;
use crate::totals::Totals;

/// A decoding context: caches, working tensors and counters of its own on the weights of a [`Model`]. One run at a time;
/// threads that work at once have a session each.
#[derive(Debug)]
pub struct Session {
    pub(crate) model: Model,
    /// Instead of the model's.
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) context: Context,
    opened: Instant,
}

impl Session {
    pub(crate) fn new(model: Model, context: Context, opened: Instant) -> Self {
        Self { model, tokenizer: None, context, opened }
    }

    /// Opens a device, loads the model of a Hugging Face directory, and makes a session of it.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load(model_dir: &Path, options: &SessionOptions) -> Result<Self, EngineError> {
        Ok(Model::load(model_dir, options)?.first_session())
    }

    /// [`Session::load`] of a directory that was described: [`Model::load_described`].
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_described(
        description: &ModelDescription,
        tokenizer: Option<Tokenizer>,
        options: &SessionOptions,
    ) -> Result<Self, EngineError> {
        Ok(Model::load_described(description, tokenizer, options)?.first_session())
    }

    /// The model, for other sessions of it.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// True if texts can be given and are returned.
    pub fn has_tokenizer(&self) -> bool {
        self.tokenizer().is_some()
    }

    /// The tokenizer in use.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref().or(self.model.tokenizer())
    }

    /// Encodes and decodes with this tokenizer from now on: the model's own, set to other languages.
    pub fn set_tokenizer(&mut self, tokenizer: Tokenizer) {
        self.tokenizer = Some(tokenizer);
    }

    /// The generation options of `generation_config.json`, or of `config.json` where there is none.
    pub fn checkpoint_options(&self) -> &GenerationOptions {
        self.model.checkpoint_options()
    }

    /// What generation options are checked against.
    pub fn limits(&self) -> ModelLimits {
        self.model.limits()
    }

    /// The device that the model is on.
    pub fn device(&self) -> &Device {
        self.model.device()
    }

    /// Counters since the session was made.
    pub fn metrics(&self) -> Metrics {
        metrics(&self.model, &self.context.totals, &self.context.runner, self.opened)
    }

    /// Counts anew.
    pub(crate) fn reset_counters(&mut self) {
        self.context.totals = Totals::default();
    }

    /// Milliseconds to the first token since the last call.
    pub(crate) fn take_first_token_ms(&mut self) -> f64 {
        let totals = &mut self.context.totals;
        totals.batch.first_token = None;
        totals.first_token_ms.take().unwrap_or(0.0)
    }

    /// Gives back all memory that runs of this session hold and keep, and what others left for the next one.
    pub(crate) fn let_go(&mut self) {
        self.context.let_go();
        self.model.release_idle();
        // What remains of the upload ring counts too. That the device failed is told by what comes next.
        let _ = self.model.device().trim();
    }
}

impl Model {
    /// A decoding context of its own: caches and working tensors, which come with its first run.
    pub fn session(&self) -> Session {
        Session::new(self.clone(), self.context(), Instant::now())
    }

    /// The session of a program that loads a model for it alone: its times begin with the load.
    pub(crate) fn first_session(&self) -> Session {
        Session::new(self.clone(), self.context(), self.load_started())
    }

    fn context(&self) -> Context {
        let budget = prefill_budget(self.device().pool().limit());
        Context::new(Runner::new(self.device(), self.shared_weights(), budget))
    }

    /// A session with a context that no other call uses.
    pub(crate) fn idle_session(&self) -> Session {
        let context = self.take_idle().unwrap_or_else(|| self.context());
        Session::new(self.clone(), context, Instant::now())
    }
}

/// All results, or the first error with its input's number.
pub(crate) fn all_of<T>(results: impl Iterator<Item = Result<T, EngineError>>) -> Result<Vec<T>, EngineError> {
    let numbered = |(index, result): (usize, Result<T, EngineError>)| {
        result.map_err(|source| EngineError::Input { index, source: Box::new(source) })
    };
    results.enumerate().map(numbered).collect()
}
