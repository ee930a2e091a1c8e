//! A model without its weights: what its config alone says about shapes and caches. Loaded models use the same.

use elgen_attention::{CacheFormat, CacheLayout, Kinds};
use elgen_search::ModelLimits;

use crate::space::StackShape;

/// What a config says about a model.
///
/// ```
/// use elgen_models::{ModelConfig, Outline};
/// # fn main() -> Result<(), elgen_models::ModelError> {
/// // BART-large: the defaults of its config class.
/// let json = serde_json::json!({ "model_type": "bart", "vocab_size": 50264 });
/// let config = ModelConfig::from_map(json.as_object().unwrap(), "config.json".as_ref())?;
/// let outline = Outline::new(&config);
/// assert_eq!((outline.encoder_layers, outline.decoder_layers), (12, 12));
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
}

impl Outline {
    /// What the caches must hold.
    pub fn cache_layout(&self, kinds: Kinds, format: CacheFormat) -> CacheLayout {
        let shape = self.decoder.attention;
        CacheLayout {
            layers: self.decoder_layers,
            kinds,
            self_shape: shape,
            cross_shape: self.limits.is_encoder_decoder.then_some(shape),
            format,
        }
    }
}
