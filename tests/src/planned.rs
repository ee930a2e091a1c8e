//! Batches whose memory is predicted: a model, a workload, and a session that runs it.

use elgen_attention::Kinds;
use elgen_engine::{
    AttentionChoice, BatchSize, BatchWorkload, ConfigOnly, DtypeChoice, MemoryPlan, Model, PlannedBytes, Request,
    Session,
};
use elgen_models::Outline;
use elgen_search::{GenerationConfig, GenerationOptions};
use elgen_tensor::{Class, DType, tensor_bytes};

use crate::demo::{config, generate, session_options};

/// A model with random weights, and what is asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// The text of its config.json.
    pub model: &'a str,
    /// Attention kind.
    pub attention: AttentionChoice,
    /// Storage of weights and caches.
    pub dtype: DType,
    /// Ids of each input.
    pub input: usize,
    /// New ids at most.
    pub max_new: usize,
    /// Beams.
    pub beams: usize,
    /// Sentences together.
    pub batch: usize,
    /// Limit of the pool.
    pub memory_limit: Option<u64>,
    /// End every sentence behind its first token: reserved memory does not depend on what is generated.
    pub short: bool,
}

/// The kinds that a choice stands for.
///
/// # Panics
/// `auto`, which stands for none before a device is measured.
pub fn kinds(choice: AttentionChoice) -> Kinds {
    choice.named().expect("a prediction needs kinds")
}

impl Planned<'_> {
    /// The model's config.
    ///
    /// # Panics
    /// It is damaged.
    pub fn config_only(&self) -> ConfigOnly {
        ConfigOnly::parse(self.model, "config.json".as_ref()).expect("a config")
    }

    /// A fresh session on a device of its own.
    ///
    /// # Panics
    /// No device, or out of memory.
    pub fn session(&self, batch_size: BatchSize) -> Session {
        let dtype = if self.dtype == DType::F16 { DtypeChoice::F16 } else { DtypeChoice::F32 };
        let options = session_options(self.attention, 1)
            .with_dtype(dtype)
            .with_batch_size(batch_size)
            .with_memory_limit(self.memory_limit);
        Model::random(&self.config_only(), 1, &options).expect("a model").session()
    }

    /// The generation options.
    pub fn config(&self, session: &Session) -> GenerationConfig {
        let options = GenerationOptions {
            num_beams: Some(self.beams),
            max_new_tokens: Some(self.max_new),
            max_time: self.short.then_some(0.0),
            ..GenerationOptions::default()
        };
        config(session, options)
    }

    /// Inputs of one length, no two alike.
    pub fn requests(&self, count: usize) -> Vec<Request> {
        let ids = |n: usize| (0..self.input).map(|i| (5 + (i + n) % 30) as u32).collect::<Vec<u32>>();
        (0..count).map(|n| Request::new(n as u64, ids(n))).collect()
    }

    /// Hands the plan of this case on the session's device to `see`.
    pub fn plan<R>(
        &self,
        session: &Session,
        config: &GenerationConfig,
        see: impl FnOnce(MemoryPlan<'_>, &BatchWorkload<'_>) -> R,
    ) -> R {
        let model = self.config_only();
        let plan = MemoryPlan {
            model: model.config(),
            kinds: kinds(self.attention),
            formats: self.dtype.into(),
            max_binding_bytes: session.device().capabilities().max_binding_bytes,
            memory_limit: session.device().pool().limit(),
        };
        let (source, prompt) =
            if Outline::new(model.config()).encoder.is_some() { (self.input, 1) } else { (0, self.input) };
        see(plan, &BatchWorkload::new(config, source, prompt, self.max_new))
    }

    /// Runs a batch in a fresh session: what was predicted, and the session behind it.
    pub fn run(&self) -> (PlannedBytes, Session) {
        let mut session = self.session(self.batch.into());
        let config = self.config(&session);
        let predict = |plan: MemoryPlan<'_>, workload: &BatchWorkload<'_>| plan.predict(workload, self.batch);
        let planned = self.plan(&session, &config, predict).expect("a batch that fits the device");
        generate(&mut session, &self.requests(self.batch), &config);
        (planned, session)
    }

    /// Runs the batch; the peak of every class is what was predicted, to the byte. Gives the session.
    ///
    /// # Panics
    /// It is not.
    pub fn exact(&self) -> Session {
        let (mut planned, session) = self.run();
        let peak = session.device().pool().peak();
        // A bias of zeros on the logits is counted, but not loaded.
        let bias = tensor_bytes(1, session.limits().vocab_size, DType::F32);
        if session.limits().is_encoder_decoder && planned.weights == peak.of(Class::Weights) + bias {
            planned.weights -= bias;
            planned.total -= bias;
        }
        let cache = planned.self_cache + planned.cross_cache + planned.tables;
        let predicted = [planned.weights, cache, planned.activations, planned.staging, planned.total];
        let [weights, caches, activations, staging] = Class::ALL.map(|class| peak.of(class));
        assert_eq!(
            predicted,
            [weights, caches, activations, staging, peak.total],
            "{self:?}: weights, cache, activations, staging and total"
        );
        session
    }
}
