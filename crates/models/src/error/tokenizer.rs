//! What can go wrong with a tokenizer.

use elgen_tensor::ErrorKind;
use std::fmt;
use std::path::PathBuf;

/// An error of a tokenizer's files, or of using it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A tokenizer file is not usable.
    #[error("{file}: not a usable tokenizer: {reason}")]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer failed on a text or on ids.
    #[error("the tokenizer could not {action}: {reason}")]
    Tokenize {
        /// `encode the text` or `decode the ids`.
        action: &'static str,
        /// The tokenizer's reason.
        reason: String,
    },
    /// A text that would take too much memory or time to tokenise.
    #[error(
        "the text has {bytes} bytes to be tokenised at once, more than this tokenizer takes: {limit} (max_text_bytes)"
    )]
    TextTooLong {
        /// Bytes of the text, or of the part of it in which there is no place to cut.
        bytes: usize,
        /// The most that are tokenised.
        limit: usize,
    },
    /// A language that the tokenizer cannot be set to.
    #[error("{role} language `{language}`: {why}")]
    Language {
        /// Which of the two languages.
        role: LanguageRole,
        /// The language asked for.
        language: String,
        /// Which languages there are.
        why: String,
    },
}

/// Which of the two languages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LanguageRole {
    /// That of the texts to be read.
    Source,
    /// That of the texts to be written.
    Target,
}

impl fmt::Display for LanguageRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Target => "target",
        })
    }
}

impl TokenizerError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Language { .. } => ErrorKind::BadOption,
            Self::Tokenize { .. } | Self::TextTooLong { .. } => ErrorKind::BadInput,
            _ => ErrorKind::BadModel,
        }
    }
}
