//! `config.json`: what the families' configs have in common. Which family a file belongs to and what it says is read by
//! [`crate::Families`].

mod keys;

pub use elgen_tensor::ops::Activation;

use crate::error::ModelError;
pub use keys::ConfigKeys;
pub(crate) use keys::{MAX_FFN, MAX_LAYERS, MAX_ROWS, MAX_WIDTH};

/// Name of the config file in a model directory.
pub const CONFIG_FILE: &str = "config.json";

/// The names that configs have for activation functions.
const ACTIVATIONS: [(&str, Activation); 11] = [
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("relu", Activation::Relu),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
];

/// The activation function that configs call `name`.
pub(crate) fn activation(name: &str) -> Option<Activation> {
    ACTIVATIONS.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
}

/// All names of activation functions.
pub(crate) fn activation_names() -> String {
    ACTIVATIONS.map(|(name, _)| name).join(", ")
}

/// Where the norms of a stack of layers stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormOrder {
    /// Each block reads a normalised input and adds to the unnormalised stream; a final norm stands behind the last layer.
    Pre,
    /// Each block's sum is normalised; there is no final norm.
    Post,
}

/// Special token ids, all within the model's vocabulary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins a sequence.
    pub bos: Option<u32>,
    /// Any of these ends a sequence; may be empty.
    pub eos: Vec<u32>,
    /// Fills up sequences.
    pub pad: Option<u32>,
    /// First token of an encoder-decoder model's output sequence.
    pub decoder_start: Option<u32>,
}

pub(crate) fn check_ids(ids: &[u32], vocab_size: usize) -> Result<(), ModelError> {
    match ids.iter().position(|&id| id as usize >= vocab_size) {
        Some(position) => Err(ModelError::TokenOutsideVocabulary { id: ids[position], position, vocab_size }),
        None => Ok(()),
    }
}
