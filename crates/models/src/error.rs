//! What can go wrong between a model directory and a model: one line each, naming the file and the tensor, key or id.

mod checkpoint;
mod config;
mod tokenizer;

use std::path::PathBuf;

use elgen_attention::AttentionError;
use elgen_tensor::ErrorKind;

pub use checkpoint::{CheckpointError, HeaderProblem};
pub use config::ConfigError;
pub use tokenizer::{LanguageRole, TokenizerError};

/// An error of loading a model directory or of using what was loaded from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A file (or the directory itself) that must be there is not.
    #[error("{dir}: {wanted} not found{hint}")]
    MissingFile {
        /// The directory that was searched.
        dir: PathBuf,
        /// What was looked for.
        wanted: String,
        /// What was found in its place, or nothing; starts with its own separator.
        hint: String,
    },
    /// The operating system refused to give the file's content.
    #[error("{file}: cannot be read: {source}")]
    Io {
        /// The file.
        file: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is the small text that Git LFS puts in place of a large file.
    #[error("{file}: is a Git LFS pointer, not the file itself (run `git lfs pull` where it was cloned)")]
    LfsPointer {
        /// The file.
        file: PathBuf,
    },
    /// A JSON file does not parse or does not have the expected structure.
    #[error("{file}: invalid JSON: {reason}")]
    Json {
        /// The file.
        file: PathBuf,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// The weights are no good.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The config is no good.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer is no good, or cannot do what it was asked for.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A token id is not a row of the embedding table.
    #[error("token id {id} at position {position} is outside the vocabulary of {vocab_size}")]
    TokenOutsideVocabulary {
        /// The id.
        id: u32,
        /// Its position in the sequence.
        position: usize,
        /// Rows of the model's embedding table.
        vocab_size: usize,
    },
    /// The device refused.
    #[error(transparent)]
    Tensor(#[from] elgen_tensor::TensorError),
    /// An attention block or cache refused.
    #[error(transparent)]
    Attention(#[from] AttentionError),
    /// An attention kind that this family cannot have.
    #[error("{family}: attention {kind} needs an encoder, this model has none")]
    KindNeedsEncoder {
        /// The model family.
        family: &'static str,
        /// The kind asked for.
        kind: elgen_attention::Kind,
    },
    /// Alignments of a model that has no cross-attention.
    #[error("alignments are weights of cross-attention, which this model does not have: it has no encoder")]
    NoCrossAttention,
    /// A decoder layer that does not exist.
    #[error("the decoder has no layer {layer} to align with: layers are 0 to {}, or -1 (the last) to -{layers}", .layers.saturating_sub(1))]
    NoSuchLayer {
        /// The layer asked for.
        layer: i32,
        /// Decoder layers.
        layers: usize,
    },
}

impl ModelError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Tensor(error) => error.kind(),
            // A weight is read by this crate.
            Self::Attention(AttentionError::Weights(error)) => {
                error.downcast_ref().map_or(ErrorKind::BadModel, Self::kind)
            }
            Self::Attention(error) => error.kind(),
            Self::Checkpoint(error) => error.kind(),
            Self::Config(error) => error.kind(),
            Self::Tokenizer(error) => error.kind(),
            Self::Io { .. } => ErrorKind::Io,
            Self::KindNeedsEncoder { .. } | Self::NoCrossAttention => ErrorKind::Unsupported,
            Self::NoSuchLayer { .. } => ErrorKind::BadOption,
            Self::TokenOutsideVocabulary { .. } => ErrorKind::BadInput,
            Self::MissingFile { .. } | Self::LfsPointer { .. } | Self::Json { .. } => ErrorKind::BadModel,
        }
    }
}

impl From<elgen_tensor::LoadError> for ModelError {
    fn from(error: elgen_tensor::LoadError) -> Self {
        Self::Attention(error.into())
    }
}

/// Text from a file as it may appear in a one-line message: line breaks and control characters escaped, and shortened.
pub(crate) fn excerpt(text: &str) -> String {
    const LIMIT: usize = 120;
    let mut out = String::new();
    for c in text.chars().take(LIMIT) {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    if text.chars().nth(LIMIT).is_some() {
        out.push('…');
    }
    out
}
