//! Why a search on the device fails.

use elgen_tensor::{ErrorKind, TensorError};

use crate::error::{OptionError, TwinError};
use crate::hooks::HookError;

/// A failure of the search on the device.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The runtime failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// Options that cannot be run.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The trace that the device wrote leads nowhere.
    #[error(transparent)]
    Trace(TwinError),
    /// A user's hook failed.
    #[error(transparent)]
    Hook(#[from] HookError),
    /// A user's logits processor on the device failed, or cannot run in this search.
    #[error("the logits processor {name}: {reason}")]
    Processor {
        /// The processor.
        name: String,
        /// What is wrong, on one line.
        reason: String,
    },
    /// More beams and candidates than a workgroup has invocations.
    #[error("beam search: {beams} beams and {candidates} candidates are more than {limit} together; use fewer beams")]
    TooManyBeams {
        /// Beams of a sentence.
        beams: usize,
        /// Candidates of a sentence: `max(2, 1 + #EOS)` per beam.
        candidates: usize,
        /// The most of both together.
        limit: usize,
    },
    /// There are not as many continuations as candidates.
    #[error("beam search: {beams} beams over {vocab_size} ids give fewer than {candidates} candidates")]
    VocabularyTooSmall {
        /// Number of token ids.
        vocab_size: usize,
        /// Beams of a sentence.
        beams: usize,
        /// Candidates needed.
        candidates: usize,
    },
    /// A batch that does not fit what the search was made for.
    #[error("search: {message}")]
    Batch {
        /// What does not fit.
        message: String,
    },
}

impl SearchError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Tensor(error) => error.kind(),
            Self::Option(_) | Self::TooManyBeams { .. } | Self::VocabularyTooSmall { .. } => ErrorKind::BadOption,
            Self::Hook(_) | Self::Processor { .. } => ErrorKind::Hook,
            Self::Trace(_) | Self::Batch { .. } => ErrorKind::Internal,
        }
    }
}

impl From<TwinError> for SearchError {
    fn from(error: TwinError) -> Self {
        match error {
            TwinError::Hook(error) => Self::Hook(error),
            TwinError::Option(error) => Self::Option(error),
            other => Self::Trace(other),
        }
    }
}
