//! Errors of a session.

use std::sync::Arc;

use elgen_models::ModelError;
use elgen_search::device::SearchError;
use elgen_search::{NotFinite, OptionError};
pub use elgen_tensor::ErrorKind;
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
    #[error("{message}")]
    Batch {
        /// What kind of error it was.
        kind: ErrorKind,
        /// Its words.
        message: String,
    },
}

impl EngineError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Tensor(error) => error.kind(),
            Self::Model(error) => error.kind(),
            Self::UnusableTokenizer(error) => error.kind(),
            Self::Search(error) => error.kind(),
            Self::Option(_) | Self::StreamsOneBeam { .. } | Self::StopString { .. } => ErrorKind::BadOption,
            Self::CheckpointOptions { .. } => ErrorKind::BadModel,
            Self::InputTooLong { .. }
            | Self::TextTooLong { .. }
            | Self::EmptyInput
            | Self::NoTokenizer
            | Self::EmptyTarget
            | Self::NoTarget
            | Self::TargetTooLong { .. } => ErrorKind::BadInput,
            Self::NotFinite(_) | Self::StatesNotFinite => ErrorKind::NotFinite,
            Self::Input { source, .. } => source.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Batch { kind, .. } => *kind,
        }
    }

    /// What the requests get that had not ended when a run failed.
    pub(crate) fn for_others(&self) -> Self {
        Self::Batch { kind: self.kind(), message: self.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use elgen_attention::AttentionError;
    use elgen_tensor::Class;

    use super::*;

    #[test]
    fn a_kind_is_found_however_deep_it_lies() {
        let limit = || TensorError::MemoryLimit { what: "x".into(), class: Class::Cache, asked: 4, used: 1, limit: 2 };
        let errors: [EngineError; 4] = [
            limit().into(),
            ModelError::from(limit()).into(),
            ModelError::from(AttentionError::from(limit())).into(),
            SearchError::from(limit()).into(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
            assert!(error.kind().may_fit_smaller());
            let told = error.for_others();
            assert_eq!((told.kind(), told.to_string()), (error.kind(), error.to_string()));
            let numbered = EngineError::Input { index: 3, source: Box::new(error) };
            assert_eq!(numbered.kind(), ErrorKind::OutOfMemory);
        }
        let large = TensorError::TooLarge { what: "x".into(), asked: 4, limit: 2, kind: "binding" };
        assert_eq!(EngineError::from(large).kind(), ErrorKind::TooLarge);
        assert_eq!(EngineError::from(TensorError::Device("lost".into())).kind(), ErrorKind::Device);
        assert!(!EngineError::Cancelled.kind().may_fit_smaller());
    }
}
