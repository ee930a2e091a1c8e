//! `config.json`: what the families' configs have in common. Which family a file belongs to and what it says is read by
//! [`crate::Registry`].

mod keys;

use crate::error::ModelError;
pub use keys::Keys;
pub(crate) use keys::{MAX_FFN, MAX_LAYERS, MAX_ROWS, MAX_WIDTH};

/// Name of the config file in a model directory.
pub const CONFIG_FILE: &str = "config.json";

/// An activation function of a feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Activation {
    /// `x · Φ(x)` with the error function.
    Gelu,
    /// `0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
    /// `x · sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
}

impl Activation {
    const NAMES: [(&str, Self); 11] = [
        ("gelu", Self::Gelu),
        ("gelu_python", Self::Gelu),
        ("gelu_new", Self::GeluTanh),
        ("gelu_fast", Self::GeluTanh),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_python_tanh", Self::GeluTanh),
        ("gelu_accurate", Self::GeluTanh),
        ("quick_gelu", Self::QuickGelu),
        ("relu", Self::Relu),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
    ];

    /// The activation that configs call `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    pub(crate) fn names() -> String {
        Self::NAMES.map(|(name, _)| name).join(", ")
    }
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
