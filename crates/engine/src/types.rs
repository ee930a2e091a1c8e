//! What goes into a [`crate::Session`] and what comes out.

use elgen_attention::planner::STEADY;
use elgen_attention::{Kind, Kinds};
use elgen_models::DEFAULT_TEXT_BYTES;
use elgen_search::Hooks;
use elgen_tensor::Cooperative;
use serde::{Deserialize, Serialize};

use crate::cancel::CancelToken;
use crate::device_class::OnMeasurement;

/// One input of a generation run.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The number of this input within the whole run: it seeds the random numbers of its samples, so a result does not depend
    /// on how inputs are batched.
    pub ordinal: u64,
    /// The source text or ids.
    pub input: Input,
    /// Ids that the output is made to begin with. Encoder-decoder models: they follow the decoder start token (which is not
    /// doubled if they begin with it). Decoder-only models: they follow the input. A text is encoded without special tokens.
    /// The prefix is part of the decoder's prompt: it is not in the results, and `max_length` counts it.
    pub prefix: Option<Input>,
}

impl Request {
    /// A request without a prefix.
    pub fn new(ordinal: u64, input: impl Into<Input>) -> Self {
        Self { ordinal, input: input.into(), prefix: None }
    }
}

/// The source of a request: encoder input, or the prompt of a decoder-only model.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Text, encoded by the model's tokenizer with its special tokens.
    Text(String),
    /// Token ids, taken as they are.
    Ids(Vec<u32>),
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u32>> for Input {
    fn from(ids: Vec<u32>) -> Self {
        Self::Ids(ids)
    }
}

/// The result of one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// `num_return_sequences` hypotheses, best first (samples: in draw order).
    pub sequences: Vec<Sequence>,
    /// Number of input ids after truncation; for a decoder-only model those of the prefix too.
    pub prompt_tokens: usize,
    /// True if the source was cut to fit.
    pub truncated: bool,
}

/// One generated sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// The new ids: after the decoder start token or the prompt, and after the prefix, up to and including EOS.
    pub token_ids: Vec<u32>,
    /// For each new id, its log-probability after the processors.
    pub token_logprobs: Vec<f32>,
    /// The decoded text without special tokens; `None` for a model without a tokenizer.
    pub text: Option<String>,
    /// Beam modes: Hugging Face's `sequences_scores`; otherwise the sum of the new tokens' log-probabilities.
    pub score: f32,
    /// Why the sequence ended.
    pub finish_reason: FinishReason,
    /// `[new ids][source ids]`, if it was asked for ([`RunOptions::alignment`]): the cross-attention weights, averaged over heads, of
    /// the position that predicts each new id. A row sums to 1.
    pub alignment: Option<Vec<Vec<f32>>>,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// An end-of-sequence id was produced.
    Eos,
    /// The maximum length was reached.
    Length,
    /// A stop string or a stop criterion ended it.
    Stop,
    /// The run was cancelled before the request was done; this is what there was by then. In beam search all sequences of such a request say
    /// so, finished ones too: the order among them was not settled.
    Cancelled,
}

/// How a session loads and runs a model.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The attention kind.
    pub attention: AttentionChoice,
    /// Storage of weights and caches.
    pub dtype: DtypeChoice,
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
            dtype: DtypeChoice::Auto,
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

/// How many sentences are decoded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub enum AttentionChoice {
    /// `mha` or `el`, as the planner predicts to be fastest for [`SessionOptions::expected`] within the memory limit, for self- and cross-attention
    /// separately; `mha-nocache` where neither fits. The device is measured once, for a few seconds. The pick may differ from machine to
    /// machine and with what is expected: name a kind for scores that are equal to the last bit.
    Auto,
    /// Multi-head attention, cross keys and values shared by the beams of a sentence.
    Mha,
    /// Multi-head attention with everything stored once per beam.
    MhaReplicated,
    /// Multi-head attention that recomputes cross keys and values at each step.
    MhaNocache,
    /// EL-attention for self- and cross-attention.
    El,
    /// One kind for self-attention, and one for cross-attention.
    Kinds(Kinds),
}

impl AttentionChoice {
    /// The kinds of these names, as [`AttentionKinds`] has them: self-attention, and cross-attention if there is one.
    pub fn of_names(self_: &str, cross: Option<&str>) -> Option<Self> {
        let kind = |name: &str| Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let self_ = kind(self_)?;
        Some(Self::Kinds(Kinds { self_, cross: cross.map_or(Some(self_), kind)? }))
    }
}

/// How weights and caches are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub struct RunOptions {
    /// Cut sources that are longer than the position table instead of failing their record.
    pub truncate: bool,
    /// Cut sources to this many ids (special tokens included).
    pub max_source_length: Option<usize>,
    /// Tell each token as it comes ([`crate::Events::token`]); refused with more than one beam.
    pub stream: bool,
    /// Return the cross-attention weights of this decoder layer with each sequence ([`Sequence::alignment`]): 0 is the first layer, -1
    /// the last. When a batch has ended, what it returns runs through the decoder once more, up to that layer. Refused for models
    /// without cross-attention.
    pub alignment: Option<i32>,
    /// The caller's own logits processors, stop criteria and noise.
    pub hooks: Hooks,
    /// Stops the run after the current step, from another thread or from an event.
    pub cancel: CancelToken,
}

/// Counters of a session since it was made; the fields of the statistics that `elgen generate` writes as JSON. Bytes of `peak_bytes` are those of the device, so of
/// all sessions on it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Metrics {
    /// Adapter name.
    pub device: String,
    /// Driver name and version.
    pub driver: String,
    /// True if the adapter is software.
    pub software_adapter: bool,
    /// The attention kinds in use.
    pub attention: AttentionKinds,
    /// Requests given.
    pub inputs: u64,
    /// Sources that were cut.
    pub truncated: u64,
    /// Input ids of all requests.
    pub prompt_tokens: u64,
    /// New ids of all returned sequences.
    pub generated_tokens: u64,
    /// Wall-clock seconds by phase.
    pub seconds: Seconds,
    /// Generated tokens per second of encode and decode time.
    pub tokens_per_second: f64,
    /// From the call of `generate` to the first token known to the host.
    pub time_to_first_token_ms: f64,
    /// Decode steps.
    pub steps: u64,
    /// Averages over decode steps.
    pub per_step: PerStep,
    /// Compute dispatches per decoder layer in one decode step.
    pub dispatches_per_decoder_layer: f64,
    /// Peak bytes of the pool by class.
    pub peak_bytes: PeakBytes,
    /// Peak bytes reserved for attention caches.
    pub cache_bytes: CacheBytes,
    /// Bytes reserved in cache slabs beyond the slots handed out, and addressing tables, at their peak.
    pub cache_overhead_bytes: u64,
}

/// Attention kinds in use, by place.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AttentionKinds {
    /// Encoder self-attention (`None` for decoder-only models).
    pub encoder: Option<String>,
    /// Decoder self-attention.
    #[serde(rename = "self")]
    pub self_: String,
    /// Cross-attention (`None` for decoder-only models).
    pub cross: Option<String>,
    /// Why these; `None` where they were named.
    pub plan: Option<AttentionPlan>,
}

/// What the planner chose, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AttentionPlan {
    /// Why self-attention has its kind, in one sentence.
    #[serde(rename = "self")]
    pub self_reason: String,
    /// The same for cross-attention (`None` for decoder-only models).
    #[serde(rename = "cross")]
    pub cross_reason: Option<String>,
    /// What it was chosen for.
    pub expected: Option<Expected>,
    /// When the device was measured, and how well.
    pub measurement: Option<Measurement>,
    /// Throughputs that differ by this part of the larger one are a tie, which goes to the simpler kinds.
    pub margin: Option<f64>,
    /// Measured bytes per second of the device's memory.
    pub bandwidth: Option<f64>,
    /// EL in self-attention.
    pub el_self: Option<BreakEven>,
    /// EL in cross-attention (`None` for decoder-only models).
    pub el_cross: Option<BreakEven>,
    /// All that was compared, each at the largest batch that fits.
    pub candidates: Vec<PlannedKinds>,
}

/// When a device was measured for the planner, and how well it is known since. [`crate::measure_device`] measures it anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Seconds since 1970.
    pub measured_at: u64,
    /// How often it was measured, until the numbers agreed or time was up.
    pub rounds: u32,
    /// Seconds that this took.
    pub seconds: f64,
    /// How far the numbers lie apart, as a part of the smaller one: 0.1 or less is steady, 1 is not known.
    pub scatter: f64,
    /// Part of the processors' time that other programs took meanwhile; `None` where that says nothing (a GPU) or is not known.
    pub others: Option<f64>,
    /// Whether this process measured it.
    #[serde(skip)]
    pub is_new: bool,
}

impl Measurement {
    /// Whether the numbers agree and the machine was not busy with something else. What was measured otherwise is measured again some
    /// time later, a few times.
    pub fn is_steady(&self) -> bool {
        self.scatter <= STEADY && self.others.is_none_or(|others| others <= MOST_OTHERS)
    }
}

/// Part of the processors' time that other programs may take while a software adapter is measured.
const MOST_OTHERS: f64 = 0.25;

/// EL's speed and what it takes to win.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BreakEven {
    /// Measured FLOP/s of its core.
    pub el_flops: f64,
    /// FLOP/s above which it beats shared multi-head attention where memory is the limit: `2 * heads * bandwidth / element size` in
    /// self-attention, that times beams in cross-attention.
    pub break_even_flops: f64,
}

/// A combination of kinds and what was predicted for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedKinds {
    /// Decoder self-attention.
    #[serde(rename = "self")]
    pub self_: String,
    /// Cross-attention (`None` for decoder-only models).
    pub cross: Option<String>,
    /// Sentences together; `None` (and no predictions) if not one fits into memory.
    pub batch: Option<usize>,
    /// Seconds of a decode step at that batch.
    pub step_seconds: Option<f64>,
    /// Sentences per second, encoder and prompts included.
    pub sentences_per_second: Option<f64>,
    /// How it compares with what was chosen.
    pub reason: String,
}

/// Wall-clock seconds by phase.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seconds {
    /// Reading and uploading weights.
    pub load: f64,
    /// Compiling pipelines.
    pub compile: f64,
    /// Encoder and decoder prefill, and alignments.
    pub encode: f64,
    /// Decode steps.
    pub decode: f64,
    /// Since the session was made, or began to load if it loaded the model.
    pub total: f64,
}

/// Averages over decode steps.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PerStep {
    /// Rows (live hypotheses) that the step computes.
    pub rows: f64,
    /// Compute dispatches.
    pub dispatches: f64,
    /// Times that the host waited for the device.
    pub host_waits: f64,
    /// Bytes read back.
    pub readback_bytes: f64,
    /// Buffers allocated.
    pub allocations: f64,
    /// Queue submissions.
    pub submissions: f64,
}

/// Peak bytes by class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeakBytes {
    /// Model weights.
    pub weights: u64,
    /// Attention caches and their tables.
    pub cache: u64,
    /// Activations, logits and search state.
    pub activations: u64,
    /// Upload and read-back rings.
    pub staging: u64,
    /// Peak of the sum.
    pub total: u64,
}

/// Bytes reserved for caches (reserved slots x slot bytes).
#[derive(Clone, Debug, Default, Serialize)]
pub struct CacheBytes {
    /// Decoder self-attention.
    #[serde(rename = "self")]
    pub self_: u64,
    /// Cross-attention.
    pub cross: u64,
}
