//! What a run takes from the memory pool, known before anything is loaded or allocated.

mod choose;
mod report;
mod rows;

use elgen_attention::{Alike, Formats, Kinds, Need};
use elgen_models::{Footprint, ModelConfig, Outline, prefill_budget};
use elgen_search::GenerationConfig;
use elgen_search::device::BatchTraits;
use elgen_tensor::{Arena, Class, TensorError};
use serde::Serialize;

pub(crate) use choose::decide;
pub(crate) use report::shape;
pub use report::{AttentionPlan, ElBreakEven, PlannedKinds};
pub use rows::{Comparison, PlanRow, compared};

use crate::batch::BatchBuffers;
use crate::bisect::largest;
use crate::error::EngineError;

/// Sentences that [`MemoryPlan::largest_batch`] looks at; the bindings of all known devices end before.
const MOST_SENTENCES: usize = 1 << 20;

/// The sentences of a batch, all of one size, and how they are generated.
#[derive(Clone, Debug)]
pub struct BatchWorkload<'a> {
    /// Encoder positions; 0 for decoder-only models.
    pub source_len: usize,
    /// Ids of the decoder prompt: 1 where it is the start token.
    pub prompt_len: usize,
    /// Ids generated at most.
    pub max_new: usize,
    /// Beams or samples, vocabulary, and the options whose search takes memory.
    pub config: &'a GenerationConfig,
    /// What the host takes part in.
    pub traits: BatchTraits,
}

impl<'a> BatchWorkload<'a> {
    /// A workload without anything that only a run can plug in: streaming, users' processors, criteria and noise.
    pub fn new(config: &'a GenerationConfig, source_len: usize, prompt_len: usize, max_new: usize) -> Self {
        let sees_tokens = !config.stop_strings.is_empty() || config.max_time.is_some();
        let traits = BatchTraits { sees_tokens, ..BatchTraits::default() };
        Self { source_len, prompt_len, max_new, config, traits }
    }

    fn need(&self) -> Need {
        Need {
            prompt_len: self.prompt_len,
            max_new: self.max_new,
            width: self.config.rows_per_sentence(),
            source_len: self.source_len,
        }
    }
}

/// Bytes of the memory pool at its peak, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedBytes {
    /// Model weights.
    pub weights: u64,
    /// Slots of the decoder's self-attention.
    pub self_cache: u64,
    /// Slots of cross-attention.
    pub cross_cache: u64,
    /// Tables of rows, tokens and slots.
    pub tables: u64,
    /// Working tensors, logits and the state of the search.
    pub activations: u64,
    /// Upload ring and read-back buffers.
    pub staging: u64,
    /// The peak of the sum: of a run, or of loading if that takes more.
    pub total: u64,
}

/// A model that is not loaded, on a device that need not be there.
///
/// ```
/// use elgen_attention::Kind;
/// use elgen_engine::{MemoryPlan, BatchWorkload};
/// use elgen_models::{Kinds, ModelConfig, Outline};
/// use elgen_search::GenerationOptions;
/// use elgen_tensor::DType;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let json = serde_json::json!({ "model_type": "bart", "vocab_size": 50264, "decoder_start_token_id": 2 });
/// let model = ModelConfig::from_map(json.as_object().unwrap(), "config.json".as_ref())?;
/// let options = GenerationOptions {
///     num_beams: Some(4),
///     max_new_tokens: Some(140),
///     decoder_start_token_id: Some(2),
///     ..GenerationOptions::default()
/// };
/// let (config, _) = options.resolve(&Outline::new(&model).limits)?;
/// let workload = BatchWorkload::new(&config, 1024, 1, 140);
/// let plan = |kind| MemoryPlan {
///     model: &model,
///     kinds: Kinds::both(kind),
///     formats: DType::F16.into(),
///     max_binding_bytes: 2 << 30,
///     memory_limit: 16 << 30,
/// };
/// let largest = |kind| plan(kind).largest_batch(&workload);
/// assert!(largest(Kind::EL) > largest(Kind::MHA) && largest(Kind::MHA) > largest(Kind::MHA_REPLICATED));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan<'a> {
    /// The model.
    pub model: &'a ModelConfig,
    /// Attention kinds.
    pub kinds: Kinds,
    /// Storage of weights and caches.
    pub formats: Formats,
    /// Bytes that one binding of the device holds.
    pub max_binding_bytes: u64,
    /// Bytes that the pool may hold. It also bounds the upload ring and the working tensors of prompts.
    pub memory_limit: u64,
}

impl MemoryPlan<'_> {
    /// The bytes of a fresh session that runs `batch` sentences at a time. The limit itself is not checked.
    ///
    /// # Errors
    /// A sentence whose slots of a layer exceed one binding, or a batch of which a buffer does; a kind that does not support the model's blocks.
    pub fn predict(&self, workload: &BatchWorkload<'_>, batch: usize) -> Result<PlannedBytes, EngineError> {
        let budget = prefill_budget(self.memory_limit);
        let outline = Outline::new(self.model);
        let footprint = Footprint::new(&outline, self.kinds, self.formats.cache, self.max_binding_bytes, budget);
        // One run of sentences, however many they are: what a prediction costs does not depend on their number.
        let runs = [Alike { need: workload.need(), count: batch }];
        let arena = Arena::counting(self.max_binding_bytes);
        let (config, max_new) = (workload.config, workload.max_new);
        let input = if workload.source_len > 0 { workload.source_len } else { workload.prompt_len };
        let traits = BatchTraits { source_ids: batch.saturating_mul(input), ..workload.traits };
        BatchBuffers::build(&arena, config, batch, workload.prompt_len.saturating_add(max_new), max_new, traits)?;
        let caches = footprint.count(&arena, &runs, batch.saturating_mul(config.rows_per_sentence()))?;
        let mut tally = arena.tally();
        if tally.largest_binding() > self.max_binding_bytes {
            return Err(TensorError::TooLarge {
                what: format!("a batch of {batch}"),
                asked: tally.largest_binding(),
                limit: self.max_binding_bytes,
                kind: "binding",
            }
            .into());
        }
        tally.upload_ring(self.memory_limit);
        let mut load = self.model.tally_weights(self.kinds, self.formats.weights, self.max_binding_bytes)?;
        load.upload_ring(self.memory_limit);
        // The ring of loading is gone before the first run.
        let (run, load) = (tally.usage(), load.usage());
        let weights = load.of(Class::Weights);
        Ok(PlannedBytes {
            weights,
            self_cache: caches.self_,
            cross_cache: caches.cross,
            tables: run.of(Class::Cache).saturating_sub(caches.self_).saturating_sub(caches.cross),
            activations: run.of(Class::Activations),
            staging: run.of(Class::Staging).max(load.of(Class::Staging)),
            total: load.total.max(weights.saturating_add(run.total)),
        })
    }

    /// The most sentences that run together within the memory limit; `None` if one does not.
    pub fn largest_batch(&self, workload: &BatchWorkload<'_>) -> Option<usize> {
        largest(MOST_SENTENCES, |batch| {
            self.predict(workload, batch).is_ok_and(|bytes| bytes.total <= self.memory_limit)
        })
    }
}
