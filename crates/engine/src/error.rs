//! Errors of a session.

use std::sync::Arc;

use elgen_models::ModelError;
use elgen_search::device::SearchError;
use elgen_search::{NotFinite, OptionError};
use elgen_tensor::TensorError;

/// Why a session could not be opened, or a request not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The runtime failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// The model directory or the model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The search failed.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// The options do not fit the request.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The checkpoint's generation options cannot be used.
    #[error("{file}: {source}")]
    CheckpointOptions {
        /// The file.
        file: String,
        /// What is wrong with them.
        source: OptionError,
    },
    /// The source has more tokens than the model has positions.
    #[error("the input has {tokens} tokens, the model has positions for {limit} (truncation is off)")]
    InputTooLong {
        /// Tokens of the input, special ones included.
        tokens: usize,
        /// Rows of the position table, or `max_source_length`.
        limit: usize,
    },
    /// The same of a text so long that its tokens were not all counted.
    #[error(
        "the input has {bytes} bytes and more tokens than the model has positions for: {limit} (truncation is off)"
    )]
    TextTooLong {
        /// Bytes of the text.
        bytes: usize,
        /// Rows of the position table.
        limit: usize,
    },
    /// Nothing to encode.
    #[error("the input has no tokens")]
    EmptyInput,
    /// Text was given to a model without a tokenizer.
    #[error("the model has no tokenizer: give token ids (input_ids)")]
    NoTokenizer,
    /// Text was given to a model whose tokenizer could not be loaded.
    #[error("{0}")]
    UnusableTokenizer(Arc<ModelError>),
    /// Tokens of several beams cannot be told as they come: a beam may be given up later.
    #[error("streaming needs one beam, num_beams is {num_beams}")]
    StreamsOneBeam {
        /// Beams asked for.
        num_beams: usize,
    },
    /// A stop string that the vocabulary cannot produce.
    #[error("stop_strings: no token can end {text:?}")]
    StopString {
        /// The string.
        text: String,
    },
    /// Nothing to score.
    #[error("the target has no tokens")]
    EmptyTarget,
    /// A text without a target was given to an encoder-decoder model.
    #[error("the target is missing; only decoder-only models score a text alone")]
    NoTarget,
    /// The decoder's sequence has more ids than the model has positions.
    #[error("prompt and target have {tokens} tokens, the model has positions for {limit}")]
    TargetTooLong {
        /// Tokens of both.
        tokens: usize,
        /// Rows of the position table.
        limit: usize,
    },
    /// The scores of this request are NaN or infinite, or every token of a step is banned: it has no result.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// The hidden states of this input are NaN or infinite.
    #[error("hidden states are not finite: the model's values overflow (try dtype f32)")]
    StatesNotFinite,
    /// One of several inputs failed.
    #[error("input {index}: {source}")]
    Input {
        /// Its number in the call, from 0.
        index: usize,
        /// Why.
        source: Box<EngineError>,
    },
    /// The run was cancelled before this request had begun.
    #[error("cancelled")]
    Cancelled,
    /// The run failed as a whole; every request of the failed batch gets this.
    #[error("{0}")]
    Batch(String),
}

impl EngineError {
    /// True if a smaller batch may succeed.
    pub fn is_out_of_memory(&self) -> bool {
        let tensor = match self {
            Self::Tensor(e) | Self::Model(ModelError::Tensor(e)) | Self::Search(SearchError::Tensor(e)) => e,
            Self::Model(ModelError::Attention(elgen_attention::AttentionError::Tensor(e))) => e,
            _ => return false,
        };
        matches!(
            tensor,
            TensorError::MemoryLimit { .. } | TensorError::OutOfMemory { .. } | TensorError::TooLarge { .. }
        )
    }
}
