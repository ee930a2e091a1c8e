//! The errors of options and of the CPU twin.

use std::borrow::Cow;

use serde_json::Value;

use crate::options::values::written;

/// A generation option that cannot be honoured.
///
/// It carries the option's name in Hugging Face's snake_case, so that a caller can print the flag or field that its own
/// user wrote: see [`OptionError::describe`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.describe(str::to_owned))]
pub struct OptionError {
    /// The option, for instance `max_new_tokens`.
    pub option: Cow<'static, str>,
    /// What is wrong with it.
    pub problem: OptionProblem,
}

/// What is wrong with an option.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OptionProblem {
    /// A value of the wrong JSON type.
    WrongType {
        /// The value found, as JSON.
        found: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A value outside its range.
    OutOfRange {
        /// The value found.
        found: String,
        /// The rule it breaks: "must be …".
        rule: &'static str,
    },
    /// A token id that the model's vocabulary does not hold.
    TokenOutsideVocabulary {
        /// The id.
        id: u32,
        /// The number of ids, the first being 0.
        vocab_size: usize,
    },
    /// A value larger than that of another option.
    Exceeds {
        /// The value found.
        found: usize,
        /// The other option.
        other: &'static str,
        /// Its value.
        limit: usize,
    },
    /// A value that needs another option.
    Needs {
        /// The value found.
        found: String,
        /// The other options, in words.
        needed: &'static str,
    },
    /// Every id that is forced is also suppressed, which leaves no token at all.
    AllSuppressed {
        /// The ids.
        forced: Vec<u32>,
        /// The option that suppresses them.
        by: &'static str,
    },
    /// The option is unset and so is everything it could have been taken from.
    Missing {
        /// What it is needed for.
        needed_for: &'static str,
    },
    /// The prompt leaves no room for a new token.
    PromptTooLong {
        /// Tokens in the prompt.
        prompt_len: usize,
        /// The longest sequence, prompt included.
        max_length: usize,
    },
    /// More positions than the model has.
    TooManyPositions {
        /// Tokens in the prompt; zero where the option alone asks for too many.
        prompt_len: usize,
        /// The longest sequence asked for, prompt included; it may have one token more than the model has positions.
        asked: usize,
        /// Positions of the model.
        positions: usize,
    },
    /// The vocabulary is too small to give every beam a continuation besides the EOS ids.
    VocabularyTooSmall {
        /// The number of ids.
        vocab_size: usize,
        /// The smallest number that will do.
        needed: usize,
    },
    /// An option that would change the result and that this version does not implement.
    Unsupported {
        /// Its value, as JSON.
        found: String,
    },
    /// A value that another one does not divide.
    NotDivisible {
        /// The value found.
        found: usize,
        /// The option that it should divide.
        other: &'static str,
        /// That option's value.
        value: usize,
    },
    /// A value that contradicts another option.
    Excludes {
        /// The value found, as JSON.
        found: String,
        /// The other option.
        other: &'static str,
    },
}

impl OptionError {
    pub(crate) fn new(option: impl Into<Cow<'static, str>>, problem: OptionProblem) -> Self {
        Self { option: option.into(), problem }
    }

    pub(crate) fn wrong_type(option: &'static str, found: &Value, expected: &'static str) -> Self {
        Self::new(option, OptionProblem::WrongType { found: found.to_string(), expected })
    }

    pub(crate) fn out_of_range(option: &'static str, found: impl ToString, rule: &'static str) -> Self {
        Self::new(option, OptionProblem::OutOfRange { found: found.to_string(), rule })
    }

    /// The message, with every option name passed through `rename` (a command line turns `num_beams` into `--num-beams`).
    pub fn describe(&self, rename: impl Fn(&str) -> String) -> String {
        let name = rename(&self.option);
        match &self.problem {
            OptionProblem::WrongType { found, expected } => format!("{name}: expected {expected}, got {found}"),
            OptionProblem::OutOfRange { found, rule } => format!("{name}: must be {rule}, got {found}"),
            OptionProblem::TokenOutsideVocabulary { id, vocab_size } => {
                format!("{name}: token id {} is outside the model's vocabulary of {vocab_size}", written(*id))
            }
            OptionProblem::Exceeds { found, other, limit } => {
                format!("{name}: {found} is more than {} ({limit})", rename(other))
            }
            OptionProblem::Needs { found, needed } => format!("{name}: {found} needs {needed}"),
            OptionProblem::AllSuppressed { forced, by } => {
                format!("{name}: every id of {forced:?} is also in {}", rename(by))
            }
            OptionProblem::Missing { needed_for } => format!("{name}: not set, and needed for {needed_for}"),
            OptionProblem::PromptTooLong { prompt_len, max_length } => format!(
                "{name}: the prompt has {prompt_len} tokens, which leaves no room for a new one in a sequence of at most \
                 {max_length}"
            ),
            OptionProblem::TooManyPositions { prompt_len: 0, asked, positions } => format!(
                "{name}: asks for sequences of {asked} tokens, but the model's {positions} positions allow {}",
                positions.saturating_add(1)
            ),
            OptionProblem::TooManyPositions { prompt_len, asked, positions } => format!(
                "{name}: asks for a sequence of {asked} tokens (the prompt has {prompt_len}), but the model's \
                 {positions} positions allow {}",
                positions.saturating_add(1)
            ),
            OptionProblem::VocabularyTooSmall { vocab_size, needed } => {
                format!("{name}: needs a vocabulary of at least {needed} ids, the model has {vocab_size}")
            }
            OptionProblem::Unsupported { found } => format!("{name}: {found} is not supported yet"),
            OptionProblem::NotDivisible { found, other, value } => {
                format!("{name}: {found} does not divide {} ({value})", rename(other))
            }
            OptionProblem::Excludes { found, other } => format!("{name}: {found} excludes {}", rename(other)),
        }
    }
}

/// A sentence came to scores that are not finite: NaN or an infinity of the model, or no token that is not banned. Any token would be as
/// good as any other, so the sentence has no result. Hugging Face returns whatever its `topk` and `argmax` make of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("scores are not finite: the model's values overflow (try dtype f32), or the logits processors ban every token")]
pub struct NotFinite;

/// A failure of the CPU twin: the model that it drives, or the trace that it reads, broke the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TwinError {
    /// Options that cannot be run.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The decode step did not give one row of logits per hypothesis.
    #[error("the decode step was asked for {expected} rows of logits and gave {found}")]
    StepRows {
        /// Hypotheses passed to the step.
        expected: usize,
        /// Rows that came back.
        found: usize,
    },
    /// A row of logits does not have one value per id of the vocabulary.
    #[error("a decode step's row holds {found} logits, the vocabulary {expected} ids")]
    StepVocabulary {
        /// The vocabulary.
        expected: usize,
        /// Logits in the row.
        found: usize,
    },
    /// The prompt is empty or leaves no room for a new token.
    #[error("a prompt of {prompt_len} tokens cannot be continued within {max_length}")]
    Prompt {
        /// Tokens in the prompt.
        prompt_len: usize,
        /// The longest sequence, prompt included.
        max_length: usize,
    },
    /// A user's hook failed.
    #[error(transparent)]
    Hook(#[from] crate::hooks::HookError),
    /// There is no device for a processor that runs on one.
    #[error("the logits processor {name} runs on a device alone")]
    DeviceProcessor {
        /// The processor.
        name: String,
    },
    /// The sentence has no result.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// A trace that points outside itself.
    #[error(
        "the search trace has no entry for step {step}, row {row} ({entries} entries of {rows_per_step} rows a step)"
    )]
    BrokenTrace {
        /// The step looked up.
        step: usize,
        /// The row looked up.
        row: usize,
        /// Entries in the trace.
        entries: usize,
        /// Rows that each step holds.
        rows_per_step: usize,
    },
}
