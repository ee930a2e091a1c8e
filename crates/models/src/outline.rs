//! A model without its weights: what its config alone says about shapes, caches and bytes. Loaded models use the same.

use elgen_attention::{
    BlockPlace, CacheLayout, Kinds, Shape, UPLOAD_WINDOW, block_weight_bytes, matrix_bytes, position_bias_bytes,
};
use elgen_search::ModelLimits;
use elgen_tensor::{Class, DType, Tally, tensor_bytes};

use crate::space::StackShape;

/// Some weights of one kind, all of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Weight {
    /// A matrix `[rows, cols]`, with a bias `[rows]`.
    Matrix { rows: usize, cols: usize, bias: bool },
    /// The gain of a norm of this width, and its shift.
    Norm { cols: usize, shift: bool },
    /// The four projections of an encoder layer's attention.
    Encoder { shape: Shape, biases: bool },
    /// Those of a decoder layer's self-attention.
    SelfAttention { shape: Shape, biases: bool },
    /// Those of a decoder layer's cross-attention.
    CrossAttention { shape: Shape, biases: bool },
    /// A bias on scores by head and distance.
    PositionBias { heads: usize, reach: usize },
    /// A vector of f32.
    Vector { len: usize },
}

impl Weight {
    /// Bytes of its largest upload, a window of rows of its largest matrix.
    fn upload(self, dtype: DType) -> u64 {
        let (rows, cols, dtype) = match self {
            Self::Matrix { rows, cols, .. } => (rows, cols, dtype),
            Self::Norm { cols, .. } => (1, cols, DType::F32),
            Self::Encoder { shape, .. } | Self::SelfAttention { shape, .. } | Self::CrossAttention { shape, .. } => {
                (shape.num_heads.saturating_mul(shape.head_dim), shape.d_model, dtype)
            }
            Self::PositionBias { reach, .. } => (1, reach.saturating_mul(2).saturating_add(1), DType::F32),
            Self::Vector { len } => (1, len, DType::F32),
        };
        let window = (UPLOAD_WINDOW / cols.max(1)).clamp(1, rows.max(1));
        tensor_bytes(window, cols, dtype)
    }

    fn bytes(self, kinds: Kinds, dtype: DType, max_binding_bytes: u64) -> u64 {
        let block = |place, shape, biases| block_weight_bytes(place, shape, dtype, biases, max_binding_bytes);
        match self {
            Self::Matrix { rows, cols, bias } => {
                let bias = if bias { tensor_bytes(1, rows, DType::F32) } else { 0 };
                matrix_bytes(rows, cols, dtype, max_binding_bytes).saturating_add(bias)
            }
            Self::Norm { cols, shift } => (1 + u64::from(shift)) * tensor_bytes(1, cols, DType::F32),
            Self::Encoder { shape, biases } => block(BlockPlace::Encoder, shape, biases),
            Self::SelfAttention { shape, biases } => block(BlockPlace::SelfAttention(kinds.self_), shape, biases),
            Self::CrossAttention { shape, biases } => block(BlockPlace::CrossAttention(kinds.cross), shape, biases),
            Self::PositionBias { heads, reach } => position_bias_bytes(heads, reach),
            Self::Vector { len } => tensor_bytes(1, len, DType::F32),
        }
    }
}

/// What a config says about a model.
///
/// ```
/// use elgen_attention::Kind;
/// use elgen_models::{Kinds, ModelConfig, Outline};
/// use elgen_tensor::DType;
/// # fn main() -> Result<(), elgen_models::ModelError> {
/// // BART-large: the defaults of its config class.
/// let json = serde_json::json!({ "model_type": "bart", "vocab_size": 50264 });
/// let config = ModelConfig::from_map(json.as_object().unwrap(), "config.json".as_ref())?;
/// let outline = Outline::new(&config);
/// assert_eq!((outline.encoder_layers, outline.decoder_layers), (12, 12));
/// let bytes = outline.weight_bytes(Kinds::both(Kind::EL), DType::F16, 2 << 30);
/// assert_eq!(bytes >> 20, 775);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// Vocabulary, positions, and whether there is an encoder.
    pub limits: ModelLimits,
    /// Encoder layers; 0 for decoder-only models.
    pub encoder_layers: usize,
    /// Decoder layers.
    pub decoder_layers: usize,
    /// Widths of the encoder's working tensors, which also take the decoder's cross projections; `None` for decoder-only models.
    pub encoder: Option<StackShape>,
    /// Widths of the decoder's working tensors.
    pub decoder: StackShape,
    /// Width of the rows that the head reads: `[vocab_size, head_width]` is its matrix.
    pub head_width: usize,
    /// What lies in device memory, as (how often, what).
    pub(crate) weights: Vec<(usize, Weight)>,
}

impl Outline {
    /// What the caches must hold.
    pub fn cache_layout(&self, kinds: Kinds, dtype: DType) -> CacheLayout {
        let shape = self.decoder.attention;
        CacheLayout {
            layers: self.decoder_layers,
            kinds,
            self_shape: shape,
            cross_shape: self.limits.is_encoder_decoder.then_some(shape),
            format: dtype.into(),
        }
    }

    /// Counts all weights, as [`Outline::weight_bytes`], and their uploads.
    pub fn tally_weights(&self, kinds: Kinds, dtype: DType, max_binding_bytes: u64, tally: &mut Tally) {
        for (count, weight) in &self.weights {
            let bytes = weight.bytes(kinds, dtype, max_binding_bytes).saturating_mul(*count as u64);
            tally.buffers(Class::Weights, bytes, 0);
            if *count > 0 {
                tally.upload(weight.upload(dtype));
            }
        }
    }

    /// Bytes of all weights in device memory, where a binding holds `max_binding_bytes`. Tables that the config ties are counted once; a
    /// checkpoint may hold different ones all the same. `final_logits_bias` is counted for the families that have it, though one of zeros
    /// is not loaded.
    pub fn weight_bytes(&self, kinds: Kinds, dtype: DType, max_binding_bytes: u64) -> u64 {
        let mut tally = Tally::default();
        self.tally_weights(kinds, dtype, max_binding_bytes, &mut tally);
        tally.usage().total
    }
}

/// The matrices of a feed-forward block.
pub(crate) fn feed_forward(layers: usize, d_model: usize, ffn: usize, gated: bool, bias: bool) -> [(usize, Weight); 2] {
    let up = layers * if gated { 2 } else { 1 };
    [
        (up, Weight::Matrix { rows: ffn, cols: d_model, bias }),
        (layers, Weight::Matrix { rows: d_model, cols: ffn, bias }),
    ]
}
