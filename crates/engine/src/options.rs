//! How a model is loaded and how a run goes, search apart.

use std::time::Instant;

use elgen_attention::{CacheFormat, Formats, Kind, Kinds};
use elgen_models::{DEFAULT_TEXT_BYTES, ModelConfig};
use elgen_search::Hooks;
use elgen_tensor::{Cooperative, DType, WeightFormat};
use serde::Serialize;

use crate::cancel::CancelToken;
use crate::device_class::OnMeasurement;
use crate::registry::Registry;

/// How a session loads and runs a model.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionOptions {
    /// The attention kind.
    pub attention: AttentionChoice,
    /// The kinds among which [`AttentionChoice::Auto`] chooses: those that say they may be chosen.
    pub registry: Registry,
    /// Storage of weights and caches, where the next two name none.
    pub dtype: DtypeChoice,
    /// Storage of weights, whatever `dtype` says.
    pub weights: Option<WeightFormat>,
    /// Storage of caches, whatever `dtype` says.
    pub cache: Option<CacheFormat>,
    /// Part of an adapter's name, or its number in `elgen devices`; `None` takes the best.
    pub device: Option<String>,
    /// Sentences decoded together at most.
    pub batch_size: BatchSize,
    /// Source ids (decoder-only: prompt ids) of the sentences decoded together, in sum. Sources are packed, never padded, so
    /// their real lengths count. A sentence that alone has more runs alone. `None`: no limit.
    pub max_batch_tokens: Option<usize>,
    /// Bytes that the memory pool may hold; `None`: 90 % of what is free.
    pub memory_limit: Option<u64>,
    /// Compile shaders with bounds checks (tests); release builds default to unchecked.
    pub checked_shaders: bool,
    /// Whether kernels may use cooperative matrices (tensor cores), where the adapter has them; f16 only.
    pub cooperative: Cooperative,
    /// What the sessions of the model will do: [`AttentionChoice::Auto`] chooses for it.
    pub expected: Expected,
    /// Hears of a device before it is measured, which [`AttentionChoice::Auto`] does once and which takes seconds.
    pub on_measurement: OnMeasurement,
    /// The most bytes of a text that are tokenised at once, where tokenising takes some 150 bytes of memory for each
    /// ([`elgen_models::Tokenizer::set_max_text_bytes`]).
    pub max_text_bytes: usize,
}

/// What the sessions of a model are expected to do. It decides about speed alone: runs that do something else give the same results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Expected {
    /// Rows of a sentence: beams, or returned samples. `None`: as the checkpoint's own options have it.
    pub num_beams: Option<usize>,
    /// Ids of the longest source, or prompt of a decoder-only model. `None`: as many as the position table holds (beside the new
    /// tokens, for a decoder-only model); 512 where the positions set no limit.
    pub source_length: Option<usize>,
    /// Ids that are generated for a sentence at most; 0: targets are only scored. `None`: as the checkpoint's own options have it.
    pub max_new_tokens: Option<usize>,
}

impl Default for SessionOptions {
    /// The best device, `auto` everywhere, 32 sentences at a time.
    fn default() -> Self {
        Self {
            attention: AttentionChoice::Auto,
            registry: Registry::default(),
            dtype: DtypeChoice::Auto,
            weights: None,
            cache: None,
            device: None,
            batch_size: BatchSize::Sentences(32),
            max_batch_tokens: None,
            memory_limit: None,
            checked_shaders: false,
            cooperative: Cooperative::default(),
            expected: Expected::default(),
            on_measurement: |_| {},
            max_text_bytes: DEFAULT_TEXT_BYTES,
        }
    }
}

impl SessionOptions {
    /// The same with other attention kinds ([`SessionOptions::attention`]).
    pub fn with_attention(self, attention: impl Into<AttentionChoice>) -> Self {
        Self { attention: attention.into(), ..self }
    }

    /// The same with other kinds to choose among ([`SessionOptions::registry`]).
    pub fn with_registry(self, registry: Registry) -> Self {
        Self { registry, ..self }
    }

    /// The same with another storage ([`SessionOptions::dtype`]).
    pub fn with_dtype(self, dtype: DtypeChoice) -> Self {
        Self { dtype, ..self }
    }

    /// The same with another storage of weights ([`SessionOptions::weights`]).
    pub fn with_weights(self, weights: impl Into<Option<WeightFormat>>) -> Self {
        Self { weights: weights.into(), ..self }
    }

    /// The same with another storage of caches ([`SessionOptions::cache`]).
    pub fn with_cache(self, cache: impl Into<Option<CacheFormat>>) -> Self {
        Self { cache: cache.into(), ..self }
    }

    /// How a model of `config` is stored on a software adapter (`software`) or on another device.
    pub fn formats(&self, software: bool, config: &ModelConfig) -> Formats {
        let dtype = match self.dtype {
            DtypeChoice::F32 => DType::F32,
            DtypeChoice::F16 => DType::F16,
            DtypeChoice::Auto if !software && config.dtype() == Some("float16") => DType::F16,
            DtypeChoice::Auto => DType::F32,
        };
        let both = Formats::from(dtype);
        Formats { weights: self.weights.unwrap_or(both.weights), cache: self.cache.unwrap_or(both.cache) }
    }

    /// The same with another device ([`SessionOptions::device`]).
    pub fn with_device(self, device: impl Into<Option<String>>) -> Self {
        Self { device: device.into(), ..self }
    }

    /// The same with another batch size ([`SessionOptions::batch_size`]).
    pub fn with_batch_size(self, batch_size: impl Into<BatchSize>) -> Self {
        Self { batch_size: batch_size.into(), ..self }
    }

    /// The same with another limit of source ids together ([`SessionOptions::max_batch_tokens`]).
    pub fn with_max_batch_tokens(self, max_batch_tokens: impl Into<Option<usize>>) -> Self {
        Self { max_batch_tokens: max_batch_tokens.into(), ..self }
    }

    /// The same with another limit of memory ([`SessionOptions::memory_limit`]).
    pub fn with_memory_limit(self, memory_limit: impl Into<Option<u64>>) -> Self {
        Self { memory_limit: memory_limit.into(), ..self }
    }

    /// The same with bounds checks in shaders or without ([`SessionOptions::checked_shaders`]).
    pub fn with_checked_shaders(self, checked_shaders: bool) -> Self {
        Self { checked_shaders, ..self }
    }

    /// The same with cooperative matrices or without ([`SessionOptions::cooperative`]).
    pub fn with_cooperative(self, cooperative: Cooperative) -> Self {
        Self { cooperative, ..self }
    }

    /// The same with other expectations ([`SessionOptions::expected`]).
    pub fn with_expected(self, expected: Expected) -> Self {
        Self { expected, ..self }
    }

    /// The same with another listener to measurements ([`SessionOptions::on_measurement`]).
    pub fn with_on_measurement(self, on_measurement: OnMeasurement) -> Self {
        Self { on_measurement, ..self }
    }

    /// The same with another limit of bytes tokenised at once ([`SessionOptions::max_text_bytes`]).
    pub fn with_max_text_bytes(self, max_text_bytes: usize) -> Self {
        Self { max_text_bytes, ..self }
    }
}

impl Expected {
    /// The same with rows of a sentence ([`Expected::num_beams`]).
    pub fn with_num_beams(self, num_beams: impl Into<Option<usize>>) -> Self {
        Self { num_beams: num_beams.into(), ..self }
    }

    /// The same with ids of the longest source ([`Expected::source_length`]).
    pub fn with_source_length(self, source_length: impl Into<Option<usize>>) -> Self {
        Self { source_length: source_length.into(), ..self }
    }

    /// The same with ids generated at most ([`Expected::max_new_tokens`]).
    pub fn with_max_new_tokens(self, max_new_tokens: impl Into<Option<usize>>) -> Self {
        Self { max_new_tokens: max_new_tokens.into(), ..self }
    }
}

/// How many sentences are decoded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BatchSize {
    /// As many as the memory limit allows by what each will take: caches, tables, logits, search and working tensors. At
    /// most 256 on a software adapter, which gains nothing from more, and 4096 elsewhere.
    Auto,
    /// This many at most.
    Sentences(usize),
}

impl From<usize> for BatchSize {
    fn from(sentences: usize) -> Self {
        Self::Sentences(sentences)
    }
}

/// Which attention kinds a model is loaded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AttentionChoice {
    /// Of the kinds of [`SessionOptions::registry`] that give the results of multi-head attention (`mha` and `el`), those that the planner predicts to be fastest for [`SessionOptions::expected`] within the memory limit, for self- and cross-attention
    /// separately; `mha-nocache` where neither fits. The device is measured once, for a few seconds. The pick may differ from machine to
    /// machine and with what is expected: name a kind for scores that are equal to the last bit.
    Auto,
    /// One kind for self-attention, and one for cross-attention.
    Kinds(Kinds),
}

impl AttentionChoice {
    /// Multi-head attention, cross keys and values shared by the beams of a sentence.
    pub const MHA: Self = Self::Kinds(Kinds::both(Kind::MHA));
    /// Multi-head attention with everything stored once per beam.
    pub const MHA_REPLICATED: Self = Self::Kinds(Kinds::both(Kind::MHA_REPLICATED));
    /// Multi-head attention that recomputes cross keys and values at each step.
    pub const MHA_NOCACHE: Self = Self::Kinds(Kinds::both(Kind::MHA_NOCACHE));
    /// EL-attention for self- and cross-attention.
    pub const EL: Self = Self::Kinds(Kinds::both(Kind::EL));

    /// The kinds that are named; `None` where the planner is to choose.
    pub fn named(self) -> Option<Kinds> {
        match self {
            Self::Auto => None,
            Self::Kinds(kinds) => Some(kinds),
        }
    }
}

impl From<Kind> for AttentionChoice {
    fn from(kind: Kind) -> Self {
        Self::Kinds(Kinds::both(kind))
    }
}

impl From<Kinds> for AttentionChoice {
    fn from(kinds: Kinds) -> Self {
        Self::Kinds(kinds)
    }
}

/// How weights and caches are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DtypeChoice {
    /// f32 on software adapters, else f16 where the checkpoint is f16, else f32.
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit floats for matrices and caches.
    F16,
}

/// Options of a run that are not about search.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RunOptions {
    /// Cut sources that are longer than the position table instead of failing their record.
    pub truncate: bool,
    /// Cut sources to this many ids (special tokens included).
    pub max_source_length: Option<usize>,
    /// Tell each token as it comes ([`crate::Events::token`]); refused with more than one beam.
    pub stream: bool,
    /// Return the cross-attention weights of this decoder layer with each sequence ([`crate::Sequence::alignment`]): 0 is the first layer, -1
    /// the last. When a batch has ended, what it returns runs through the decoder once more, up to that layer. Refused for models
    /// without cross-attention.
    pub alignment: Option<i32>,
    /// The caller's own logits processors, stop criteria and noise.
    pub hooks: Hooks,
    /// Stops the run after the current step, from another thread or from an event.
    pub cancel: CancelToken,
    /// Ends each request that has no deadline of its own ([`crate::RequestOptions::deadline`]) after the step in which this moment passes.
    pub deadline: Option<Instant>,
}

impl RunOptions {
    /// The same with sources cut or refused ([`RunOptions::truncate`]).
    pub fn with_truncate(self, truncate: bool) -> Self {
        Self { truncate, ..self }
    }

    /// The same with another limit of source ids ([`RunOptions::max_source_length`]).
    pub fn with_max_source_length(self, max_source_length: impl Into<Option<usize>>) -> Self {
        Self { max_source_length: max_source_length.into(), ..self }
    }

    /// The same with tokens told as they come or not ([`RunOptions::stream`]).
    pub fn with_stream(self, stream: bool) -> Self {
        Self { stream, ..self }
    }

    /// The same with alignments of a layer ([`RunOptions::alignment`]).
    pub fn with_alignment(self, alignment: impl Into<Option<i32>>) -> Self {
        Self { alignment: alignment.into(), ..self }
    }

    /// The same with other hooks ([`RunOptions::hooks`]).
    pub fn with_hooks(self, hooks: Hooks) -> Self {
        Self { hooks, ..self }
    }

    /// The same with another switch ([`RunOptions::cancel`]).
    pub fn with_cancel(self, cancel: CancelToken) -> Self {
        Self { cancel, ..self }
    }

    /// The same with another deadline ([`RunOptions::deadline`]).
    pub fn with_deadline(self, deadline: impl Into<Option<Instant>>) -> Self {
        Self { deadline: deadline.into(), ..self }
    }
}
