//! What the parts of a model cost, from shapes alone: docs/el-attention.md §1.5 to 1.7.
//!
//! A multiply-add counts as two FLOPs. Widths are those in memory, whole quads, so that bytes are what kernels really read. All
//! numbers are f64: keys may be an average over steps, and every cost is linear in them.
//!
//! ```
//! use elgen_attention::planner::cost::{StepLoad, cross_attention};
//! use elgen_attention::{Kind, Shape};
//! use elgen_tensor::DType;
//! let shape = Shape::new(1024, 16, 64, 0.125);
//! let load = StepLoad { sentences: 1, beams: 4, self_keys: 0.0, shared_keys: 0.0, source_keys: 1024.0, formats: DType::F16.into() };
//! let bytes = |kind| cross_attention(kind, shape, &load).cache_bytes;
//! // One layer of BART-large over 1,024 source tokens: K and V of every beam, of one, and one X.
//! assert_eq!([Kind::MHA_REPLICATED, Kind::MHA, Kind::EL].map(bytes), [16e0, 4.0, 2.0].map(|mib| mib * 1048576.0));
//! ```

use std::iter::Sum;
use std::ops::{Add, Mul};

use elgen_tensor::{WeightFormat, padded};

use crate::formats::Formats;
use crate::kind::{Kind, Kinds, Place};
use crate::shape::Shape;
use crate::slot_format::{CacheFormat, SlotBuffers};

pub use super::kind_cost::{Core, KindCost};
pub(crate) use super::kind_cost::{el_cross, el_self, mha_cross, mha_self};

/// Query rows that a workgroup of a decode kernel serves with one load of its keys.
pub const TILE_ROWS: usize = 16;

/// Bytes of an activation.
pub(super) const F32: f64 = 4.0;

/// Layers of one shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stack {
    /// Number of layers.
    pub layers: usize,
    /// Their attention blocks.
    pub attention: Shape,
    /// Inner width of their feed-forward blocks.
    pub ffn: usize,
    /// Whether these have a gate.
    pub gated: bool,
}

/// The widths of a model: all that its cost depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelShape {
    /// The decoder.
    pub decoder: Stack,
    /// The encoder; `None` for a decoder-only model, which has no cross-attention either.
    pub encoder: Option<Stack>,
    /// Number of logits.
    pub vocab_size: usize,
}

/// One decode step: its rows and what they attend to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLoad {
    /// Sentences of the batch.
    pub sentences: usize,
    /// Rows of each.
    pub beams: usize,
    /// Keys of self-attention of a row: the decoder prompt, what was generated, and the fed position.
    pub self_keys: f64,
    /// Those of them that the rows of a sentence share: the decoder prompt.
    pub shared_keys: f64,
    /// Keys of cross-attention.
    pub source_keys: f64,
    /// Storage of weights and caches.
    pub formats: Formats,
}

impl StepLoad {
    /// Query rows of the step.
    pub fn rows(&self) -> f64 {
        self.sentences as f64 * self.beams as f64
    }
}

/// What something costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// FLOPs of products with weights.
    pub projection_flops: f64,
    /// FLOPs of scores and contexts.
    pub core_flops: f64,
    /// Bytes of weights, each read once.
    pub weight_bytes: f64,
    /// Bytes of the cache that are read, each counted once.
    pub cache_bytes: f64,
    /// Bytes of the cache that are read, as often as kernels load them: once per tile of [`TILE_ROWS`] query rows.
    pub issued_cache_bytes: f64,
    /// Bytes of f32 intermediates that one kernel writes and the next reads: EL's expanded queries and contexts, recomputed keys
    /// and values, logits. Activations of width `d_model` are left out.
    pub scratch_bytes: f64,
    /// Dispatches, for a cache of one slab and without the combine step of split keys.
    pub dispatches: f64,
}

impl Cost {
    /// All FLOPs.
    pub fn flops(&self) -> f64 {
        self.projection_flops + self.core_flops
    }

    /// All bytes, each counted once.
    pub fn bytes(&self) -> f64 {
        self.weight_bytes + self.cache_bytes + self.scratch_bytes
    }

    /// Seconds on an ideal device: `bandwidth` in bytes/s, `peak` in FLOP/s, projections and core one after the other,
    /// intermediates free (docs/el-attention.md §1.8).
    pub fn roofline_seconds(&self, bandwidth: f64, peak: f64) -> f64 {
        (self.weight_bytes / bandwidth).max(self.projection_flops / peak)
            + (self.cache_bytes / bandwidth).max(self.core_flops / peak)
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            projection_flops: self.projection_flops + other.projection_flops,
            core_flops: self.core_flops + other.core_flops,
            weight_bytes: self.weight_bytes + other.weight_bytes,
            cache_bytes: self.cache_bytes + other.cache_bytes,
            issued_cache_bytes: self.issued_cache_bytes + other.issued_cache_bytes,
            scratch_bytes: self.scratch_bytes + other.scratch_bytes,
            dispatches: self.dispatches + other.dispatches,
        }
    }
}

impl Mul<f64> for Cost {
    type Output = Self;

    fn mul(self, times: f64) -> Self {
        Self {
            projection_flops: self.projection_flops * times,
            core_flops: self.core_flops * times,
            weight_bytes: self.weight_bytes * times,
            cache_bytes: self.cache_bytes * times,
            issued_cache_bytes: self.issued_cache_bytes * times,
            scratch_bytes: self.scratch_bytes * times,
            dispatches: self.dispatches * times,
        }
    }
}

impl Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

/// (d_model, all heads) as stored.
pub(super) fn widths(shape: &Shape) -> (f64, f64) {
    (padded(shape.d_model) as f64, shape.inner() as f64)
}

/// A product of `rows` rows with a matrix of `elements`.
pub(super) fn product(rows: f64, elements: f64, weights: WeightFormat) -> Cost {
    Cost {
        projection_flops: 2.0 * rows * elements,
        weight_bytes: elements * weights.element_bytes(),
        dispatches: 1.0,
        ..Cost::default()
    }
}

/// Self-attention of one layer in a decode step, its output projection and the norm behind it included; nothing of a kind that does not say
/// what it costs.
pub fn self_attention(kind: Kind, shape: Shape, load: &StepLoad) -> Cost {
    kind.cost(Place::SelfAttention, &shape, load).map_or(Cost::default(), |known| known.cost)
}

/// The same for cross-attention.
pub fn cross_attention(kind: Kind, shape: Shape, load: &StepLoad) -> Cost {
    kind.cost(Place::CrossAttention, &shape, load).map_or(Cost::default(), |known| known.cost)
}

/// A feed-forward block and its norm for `rows` rows.
pub fn feed_forward(stack: &Stack, rows: f64, weights: WeightFormat) -> Cost {
    let matrices = if stack.gated { 3 } else { 2 };
    let elements = padded(stack.attention.d_model) as f64 * padded(stack.ffn) as f64;
    (0..matrices).map(|_| product(rows, elements, weights)).sum::<Cost>() + Cost { dispatches: 1.0, ..Cost::default() }
}

/// Embedding, head and search of a step: logits are written once and read three times (log-softmax twice, candidates).
pub fn head(model: &ModelShape, rows: f64, weights: WeightFormat) -> Cost {
    let elements = padded(model.decoder.attention.d_model) as f64 * model.vocab_size as f64;
    let logits = rows * padded(model.vocab_size) as f64 * F32;
    // embed; process, candidates, beam_step, advance.
    product(rows, elements, weights) + Cost { scratch_bytes: 4.0 * logits, dispatches: 5.0, ..Cost::default() }
}

/// A decode step over all layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepCost {
    /// Self-attention.
    pub self_attention: Cost,
    /// Cross-attention; zero for decoder-only models.
    pub cross_attention: Cost,
    /// Feed-forward blocks, embedding, head and search.
    pub rest: Cost,
}

impl StepCost {
    /// Everything.
    pub fn total(&self) -> Cost {
        self.self_attention + self.cross_attention + self.rest
    }
}

/// A decode step.
pub fn decode_step(model: &ModelShape, kinds: Kinds, load: &StepLoad) -> StepCost {
    let (stack, layers) = (&model.decoder, model.decoder.layers as f64);
    let cross = |_: &Stack| cross_attention(kinds.cross, stack.attention, load) * layers;
    StepCost {
        self_attention: self_attention(kinds.self_, stack.attention, load) * layers,
        cross_attention: model.encoder.as_ref().map(cross).unwrap_or_default(),
        rest: feed_forward(stack, load.rows(), load.formats.weights) * layers
            + head(model, load.rows(), load.formats.weights),
    }
}

/// A stack over packed rows, attention among themselves included: `sentences` of `length` rows, each seeing `keys` on average.
fn packed(stack: &Stack, sentences: usize, length: usize, keys: f64, weights: WeightFormat) -> Cost {
    let (d, e) = widths(&stack.attention);
    let rows = sentences as f64 * length as f64;
    let attention = product(rows, 3.0 * d * e, weights) + product(rows, d * e, weights);
    let core = Cost { core_flops: 4.0 * rows * keys * e, dispatches: 2.0, ..Cost::default() };
    (attention + core + feed_forward(stack, rows, weights)) * stack.layers as f64
}

/// The encoder over `sentences` sources of `length` ids, run as one micro-batch. The kind has no part in it.
pub fn encode(model: &ModelShape, sentences: usize, length: usize, weights: WeightFormat) -> Cost {
    let stack = |s: &Stack| packed(s, sentences, length, length as f64, weights);
    model.encoder.as_ref().map(stack).unwrap_or_default()
}

/// What a kind makes of the encoder output before the first step: keys and values of every layer, stored once per copy. They are
/// projected once, also for `mha-replicated`, which then stores them for each beam.
pub fn memorize(
    model: &ModelShape,
    kind: Kind,
    sentences: usize,
    beams: usize,
    length: usize,
    formats: Formats,
) -> Cost {
    if model.encoder.is_none() {
        return Cost::default();
    }
    let (d, _) = widths(&model.decoder.attention);
    let rows = sentences as f64 * length as f64;
    let slots = kind.slots(Place::CrossAttention, &model.decoder.attention, formats.cache);
    let copies = slots.copies(beams) as f64;
    let (width, size) = (slots.columns as f64, slots.format.dtype().bytes() as f64);
    let stored = Cost { scratch_bytes: copies * rows * width * (F32 + size), dispatches: copies, ..Cost::default() };
    match slots.buffers {
        SlotBuffers::EncoderOutput => stored,
        SlotBuffers::PerLayer => (product(rows, width * d, formats.weights) + stored) * model.decoder.layers as f64,
    }
}

/// The decoder over the prompts but for their last ids, which the first step feeds. All kinds prefill as plain multi-head attention;
/// prompts of encoder-decoder models are a start token and perhaps a short prefix, whose cross-attention is left out.
pub fn prefill(model: &ModelShape, sentences: usize, prompt: usize, weights: WeightFormat) -> Cost {
    match prompt.saturating_sub(1) {
        0 => Cost::default(),
        length => packed(&model.decoder, sentences, length, (length as f64 + 1.0) / 2.0, weights),
    }
}

/// FLOP/s above which EL with one pass over X beats multi-head attention whose cache is shared by the beams, while both are limited by
/// `bandwidth` bytes/s. Self: `2 * num_heads * bandwidth / element size`.
pub fn self_break_even(num_heads: usize, bandwidth: f64, cache: CacheFormat) -> f64 {
    2.0 * num_heads as f64 * bandwidth / cache.dtype().bytes() as f64
}

/// As [`self_break_even`], for cross-attention: `2 * beams * num_heads * bandwidth / element size`.
pub fn cross_break_even(beams: usize, num_heads: usize, bandwidth: f64, cache: CacheFormat) -> f64 {
    beams as f64 * self_break_even(num_heads, bandwidth, cache)
}

#[cfg(test)]
mod tests {
    use elgen_tensor::DType;

    use super::*;

    const MIB: f64 = 1048576.0;
    const BART_LARGE: Shape = Shape::new(1024, 16, 64, 0.125);

    fn load(sentences: usize, beams: usize, self_keys: f64, source_keys: f64) -> StepLoad {
        StepLoad { sentences, beams, self_keys, shared_keys: 0.0, source_keys, formats: DType::F16.into() }
    }

    fn bart_large() -> ModelShape {
        let stack = Stack { layers: 12, attention: BART_LARGE, ffn: 4096, gated: false };
        ModelShape { decoder: stack, encoder: Some(stack), vocab_size: 50264 }
    }

    /// docs/el-attention.md §1.5: a step whose rows see all of the cache reads its capacity.
    #[test]
    fn bart_large_reads_its_capacity() {
        let load = load(1, 4, 140.0, 1024.0);
        let read = |self_, cross| {
            let cost = decode_step(&bart_large(), Kinds::new(self_, cross), &load);
            [cost.self_attention.cache_bytes / MIB, cost.cross_attention.cache_bytes / MIB]
        };
        assert_eq!(read(Kind::MHA_REPLICATED, Kind::MHA_REPLICATED), [26.25, 192.0]);
        assert_eq!(read(Kind::MHA, Kind::MHA), [26.25, 48.0]);
        // One X for all layers is read by each of them: 12 times 2 MiB.
        assert_eq!(read(Kind::EL, Kind::EL), [13.125, 24.0]);
    }

    #[test]
    fn formulas_of_one_layer_by_hand() {
        // 32 sentences x 4 beams: R = 128, D = E = 1024.
        let load = load(32, 4, 100.0, 1024.0);
        let mha = self_attention(Kind::MHA, BART_LARGE, &load);
        let el = self_attention(Kind::EL, BART_LARGE, &load);
        assert_eq!(mha.projection_flops, 8.0 * 128.0 * MIB);
        assert_eq!(el.projection_flops, mha.projection_flops);
        assert_eq!(mha.core_flops, 4.0 * 128.0 * 100.0 * 1024.0);
        assert_eq!(el.core_flops, 16.0 * mha.core_flops);
        assert_eq!([mha.weight_bytes, el.weight_bytes], [8.0 * MIB; 2]);
        assert_eq!(mha.cache_bytes, 2.0 * el.cache_bytes);
        assert_eq!(el.cache_bytes, 128.0 * 100.0 * 2048.0);
        assert_eq!([mha.dispatches, el.dispatches], [5.0, 7.0]);

        let [mha, replicated, nocache, el] = Kind::BUILT_IN.map(|kind| cross_attention(kind, BART_LARGE, &load));
        assert_eq!(mha.projection_flops, 4.0 * 128.0 * MIB);
        assert_eq!(el.projection_flops, 8.0 * 128.0 * MIB);
        assert_eq!([mha.weight_bytes, el.weight_bytes, nocache.weight_bytes], [4.0 * MIB, 8.0 * MIB, 8.0 * MIB]);
        assert_eq!(mha.cache_bytes, 128.0 * MIB);
        assert_eq!(replicated.cache_bytes, 512.0 * MIB);
        assert_eq!([el.cache_bytes, nocache.cache_bytes], [64.0 * MIB, 128.0 * MIB], "mha-nocache keeps f32");
        assert_eq!(nocache.projection_flops - mha.projection_flops, 4.0 * 32.0 * 1024.0 * MIB);
        // Q' and c of 128 rows: 8 MiB each, written and read.
        assert_eq!(el.scratch_bytes, 32.0 * MIB);
        // Intensity of the core, FLOP per byte in f16: m and 2 m H.
        assert_eq!(mha.core_flops / mha.cache_bytes, 4.0);
        assert_eq!(el.core_flops / el.cache_bytes, 128.0);
    }

    #[test]
    fn tiles_read_again_and_prompts_are_shared() {
        // 6 beams x 16 heads are 6 tiles; 20 heads are 2 tiles of a self-attention row; 17 beams are 2 tiles of a head.
        let el = cross_attention(Kind::EL, BART_LARGE, &load(2, 6, 0.0, 10.0));
        assert_eq!(el.issued_cache_bytes, 6.0 * el.cache_bytes);
        let wide = Shape { num_heads: 20, d_model: 1280, ..BART_LARGE };
        let el = self_attention(Kind::EL, wide, &load(2, 6, 10.0, 0.0));
        assert_eq!(el.issued_cache_bytes, 2.0 * el.cache_bytes);
        let mha = cross_attention(Kind::MHA, BART_LARGE, &load(2, 17, 0.0, 10.0));
        assert_eq!(mha.issued_cache_bytes, 2.0 * mha.cache_bytes);
        // 3 sentences x 4 beams of 60 keys, 50 of them a prompt: 3 * (50 + 4 * 10) vectors lie in the cache, 12 * 60 are read.
        let prompt = StepLoad { shared_keys: 50.0, ..load(3, 4, 60.0, 0.0) };
        let [mha, replicated, _, el] = Kind::BUILT_IN.map(|kind| self_attention(kind, BART_LARGE, &prompt));
        assert_eq!(el.cache_bytes, 270.0 * 2048.0);
        assert_eq!(mha.cache_bytes, 270.0 * 4096.0);
        assert_eq!(replicated.cache_bytes, 720.0 * 4096.0);
        assert_eq!(mha.issued_cache_bytes, 720.0 * 4096.0);
    }

    #[test]
    fn widths_in_memory_count() {
        // 3 heads of 6 columns take 24, 10 hidden columns take 12.
        let odd = Shape::new(10, 3, 6, 1.0);
        let cost = cross_attention(Kind::MHA, odd, &load(1, 1, 0.0, 5.0));
        assert_eq!(cost.cache_bytes, 2.0 * 5.0 * 24.0 * 2.0);
        assert_eq!(cost.weight_bytes, 2.0 * 12.0 * 24.0 * 2.0);
    }

    /// docs/el-attention.md §1.8: the whole cross layer of BART-large, 32 sentences of 4 beams over 1,024 tokens.
    #[test]
    fn gains_of_the_sheet() {
        let load = load(32, 4, 0.0, 1024.0);
        let gain = |over: Kind, bandwidth: f64, ridge: f64| {
            let seconds =
                |kind| cross_attention(kind, BART_LARGE, &load).roofline_seconds(bandwidth, ridge * bandwidth);
            seconds(over) / seconds(Kind::EL)
        };
        let near = |value: f64, expected: f64, by: f64| assert!((value - expected).abs() <= by, "{value}, {expected}");
        // Tensor cores of a V100: ridge 124. Plain f32 arithmetic of an H100: ridge 20.
        near(gain(Kind::MHA, 0.9e12, 124.0), 1.8, 0.05);
        near(gain(Kind::MHA_REPLICATED, 0.9e12, 124.0), 7.0, 0.1);
        near(gain(Kind::MHA, 3.35e12, 20.0), 0.33, 0.01);
        near(gain(Kind::MHA_REPLICATED, 3.35e12, 20.0), 1.2, 0.05);
    }

    #[test]
    fn break_even_is_where_the_roofline_crosses() {
        // s * ridge / 2 heads: 124 in f16 at a ridge of 124.
        assert_eq!(self_break_even(124, 0.9e12, CacheFormat::F16), 124.0 * 0.9e12);
        assert_eq!(cross_break_even(4, 31, 0.9e12, CacheFormat::F16), 124.0 * 0.9e12);
        assert_eq!(self_break_even(16, 1e9, CacheFormat::F32), 8e9);
        // Exactly there, the cores take the same time.
        let load = load(32, 4, 0.0, 4096.0);
        let peak = cross_break_even(4, 16, 1e12, CacheFormat::F16);
        let core = |kind| {
            let cost = cross_attention(kind, BART_LARGE, &load);
            (cost.cache_bytes / 1e12).max(cost.core_flops / peak)
        };
        assert_eq!(core(Kind::MHA), core(Kind::EL));
    }

    #[test]
    fn encoder_head_and_prefill_by_hand() {
        let model = bart_large();
        let encode = encode(&model, 2, 100, WeightFormat::F16);
        // 12 layers of 200 rows: 4 matrices of attention, 8 MiB-elements of feed-forward, 100 keys per row.
        assert_eq!(encode.projection_flops, 12.0 * 2.0 * 200.0 * 12.0 * MIB);
        assert_eq!(encode.core_flops, 12.0 * 4.0 * 200.0 * 100.0 * 1024.0);
        let mha = memorize(&model, Kind::MHA, 2, 4, 100, DType::F16.into());
        assert_eq!(mha.projection_flops, 12.0 * 4.0 * 200.0 * MIB);
        assert_eq!(memorize(&model, Kind::EL, 2, 4, 100, DType::F16.into()).projection_flops, 0.0);
        assert_eq!(
            memorize(&model, Kind::MHA_REPLICATED, 2, 4, 100, DType::F16.into()).scratch_bytes,
            4.0 * mha.scratch_bytes
        );
        assert_eq!(prefill(&model, 2, 1, WeightFormat::F16), Cost::default());
        assert_eq!(prefill(&model, 2, 11, WeightFormat::F16).projection_flops, 12.0 * 2.0 * 20.0 * 12.0 * MIB);
        let head = head(&model, 8.0, WeightFormat::F16);
        assert_eq!(head.projection_flops, 2.0 * 8.0 * 1024.0 * 50264.0);
        assert_eq!(head.weight_bytes, 1024.0 * 50264.0 * 2.0);
        let decoder_only = ModelShape { encoder: None, ..model };
        let step = decode_step(&decoder_only, Kinds::both(Kind::EL), &load(1, 1, 10.0, 0.0));
        assert_eq!(step.cross_attention, Cost::default());
        let gated = Stack { gated: true, ..model.decoder };
        assert_eq!(feed_forward(&gated, 1.0, WeightFormat::F32).weight_bytes, 3.0 * 16.0 * MIB);
    }
}
