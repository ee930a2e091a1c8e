//! Errors of attention blocks and caches.

use elgen_tensor::{ErrorKind, LoadError, SourceError, TensorError};

/// Why an attention block could not be built, admitted to, or recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttentionError {
    /// The runtime refused.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The weights could not be read.
    #[error(transparent)]
    Weights(SourceError),
    /// Weights, dimensions and kind do not fit together.
    #[error("attention: {0}")]
    Shape(String),
    /// A kind cannot be this block.
    #[error("attention kind {kind} does not support {block}: {reason}")]
    Unsupported {
        /// The kind.
        kind: String,
        /// The block.
        block: String,
        /// What it has.
        reason: String,
    },
    /// A single sentence needs more than one slab can hold.
    #[error(
        "a sentence of {positions} cached positions needs {asked} bytes in one cache slab; this device binds at most {limit}"
    )]
    SentenceTooLarge {
        /// Slots asked for.
        positions: u64,
        /// Bytes of the largest slab buffer asked for.
        asked: u64,
        /// Largest binding.
        limit: u64,
    },
}

impl AttentionError {
    /// What kind of thing went wrong. Of weights that could not be read, only the source knows more.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Tensor(error) => error.kind(),
            Self::Weights(error) => error.downcast_ref().map_or(ErrorKind::BadModel, TensorError::kind),
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::SentenceTooLarge { .. } => ErrorKind::BadInput,
            Self::Shape(_) => ErrorKind::Internal,
        }
    }
}

/// Shorthand for results of this crate.
pub type Result<T, E = AttentionError> = std::result::Result<T, E>;

impl From<LoadError> for AttentionError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Tensor(error) => Self::Tensor(error),
            LoadError::Source(error) => Self::Weights(error),
            other => Self::Weights(Box::new(other)),
        }
    }
}
