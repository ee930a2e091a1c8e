//! Generation options as people and checkpoints write them: everything optional, merged by priority.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::OptionError;

mod sequences;
pub(crate) mod unsupported;
pub(crate) mod values;

use values::OptionType;

pub use sequences::{ExponentialDecay, SequenceBias, StopStrings};

/// New tokens when neither `max_length` nor `max_new_tokens` is set (docs/generation.md §2).
pub(crate) const DEFAULT_NEW_TOKENS: usize = 20;

/// When beam search stops (Hugging Face `early_stopping`, docs/generation.md §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub enum EarlyStopping {
    /// `false`: when the best running beam, at its present length, cannot beat the worst finished hypothesis.
    #[default]
    False,
    /// `true`: as soon as `num_beams` hypotheses are finished.
    True,
    /// `"never"`: as `false`, judging a running beam at the most favourable length that it can still reach.
    Never,
}

impl TryFrom<Value> for EarlyStopping {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::Bool(false) => Ok(Self::False),
            Value::Bool(true) => Ok(Self::True),
            Value::String(text) if text == "never" => Ok(Self::Never),
            // Hugging Face lets numbers pass that equal a boolean, and acts on `true` itself alone.
            Value::Number(number) if matches!(number.as_f64(), Some(0.0 | 1.0)) => Ok(Self::False),
            _ => Err(Self::EXPECTED),
        }
    }
}

impl From<EarlyStopping> for Value {
    fn from(stopping: EarlyStopping) -> Self {
        match stopping {
            EarlyStopping::False => Self::Bool(false),
            EarlyStopping::True => Self::Bool(true),
            EarlyStopping::Never => Self::String("never".into()),
        }
    }
}

/// One token id or several, as `eos_token_id` and `forced_eos_token_id` are written.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct TokenIds(#[serde(serialize_with = "values::written_list")] pub Vec<u32>);

impl TryFrom<Value> for TokenIds {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        Self::read("", &value).ok_or(Self::EXPECTED)
    }
}

impl From<u32> for TokenIds {
    fn from(id: u32) -> Self {
        Self(vec![id])
    }
}

impl From<Vec<u32>> for TokenIds {
    fn from(ids: Vec<u32>) -> Self {
        Self(ids)
    }
}

/// The value of `option`; null means unset.
fn parse<T: OptionType>(option: &'static str, value: &Value) -> Result<Option<T>, OptionError> {
    if value.is_null() {
        return Ok(None);
    }
    T::read(option, value).map(Some).ok_or_else(|| OptionError::wrong_type(option, value, T::EXPECTED))
}

/// Declares the struct together with what must visit every field, so that a new option cannot be forgotten in one place.
macro_rules! generation_options {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// The generation options of Hugging Face `generate()` 5.23 that elgen implements, each unset or set.
        ///
        /// Sources are merged with [`GenerationOptions::or`], best first (what the user asked, `generation_config.json`,
        /// `config.json`), and become concrete in [`GenerationOptions::resolve`], which also knows the defaults. As JSON,
        /// keys are Hugging Face's, null means unset, and unknown keys are ignored. A token id that no vocabulary holds, as files
        /// have them where they play no part, is kept in 32 bits: -1 as `u32::MAX`, and so on.
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
        #[serde(try_from = "Map<String, Value>")]
        pub struct GenerationOptions {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<$type>,)*
            /// Options of Hugging Face that elgen does not implement yet, with the values found, and options of a checkpoint whose
            /// values have a wrong type. Resolving fails if one of them would change the result.
            #[serde(flatten)]
            pub unsupported: BTreeMap<String, Value>,
            /// Whether `max_length` and `max_new_tokens` are what a checkpoint says: one that exceeds the model's positions is then cut to
            /// them instead of refused.
            #[serde(skip)]
            pub lengths_of_checkpoint: bool,
        }

        impl GenerationOptions {
            /// The names of the implemented options.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),*];

            /// Fills what is unset here with the values of `lower`, a source of lower priority.
            #[must_use]
            pub fn or(self, lower: Self) -> Self {
                let mut unsupported = lower.unsupported;
                $(if self.$name.is_some() {
                    unsupported.remove(stringify!($name));
                })*
                let of_lower = match self.max_new_tokens.or(lower.max_new_tokens) {
                    Some(_) => self.max_new_tokens.is_none(),
                    None => self.max_length.is_none(),
                };
                let lengths_of_checkpoint = if of_lower { lower.lengths_of_checkpoint } else { self.lengths_of_checkpoint };
                unsupported.extend(self.unsupported);
                Self { $($name: self.$name.or(lower.$name),)* unsupported, lengths_of_checkpoint }
            }

            /// Reads the options from a JSON object.
            ///
            /// # Errors
            /// A key of a known option whose value has the wrong type; the error names both.
            pub fn from_json(map: &Map<String, Value>) -> Result<Self, OptionError> {
                Self::read(map, |_| false)
            }

            /// Reads a checkpoint's own options, for instance the contents of `generation_config.json`. As in Hugging Face, a value of
            /// the wrong type is no error as long as its option has no part in a run, and a length that exceeds the model's
            /// positions does not make the checkpoint unusable ([`GenerationOptions::lengths_of_checkpoint`]).
            ///
            /// # Errors
            /// A key of a known option that always acts, whose value has the wrong type; the error names both.
            pub fn from_checkpoint(map: &Map<String, Value>) -> Result<Self, OptionError> {
                Ok(Self { lengths_of_checkpoint: true, ..Self::read(map, unsupported::may_wait)? })
            }

            fn read(map: &Map<String, Value>, may_wait: impl Fn(&str) -> bool) -> Result<Self, OptionError> {
                let mut options = Self::default();
                for (key, value) in map {
                    match key.as_str() {
                        $(stringify!($name) => match parse(stringify!($name), value) {
                            Err(_) if may_wait(stringify!($name)) => {
                                options.unsupported.insert(key.clone(), value.clone());
                            }
                            read => options.$name = read?,
                        },)*
                        key if unsupported::is_known(key) && !value.is_null() => {
                            options.unsupported.insert(key.to_owned(), value.clone());
                        }
                        _ => {}
                    }
                }
                Ok(options)
            }
        }
    };
}

generation_options! {
    /// Longest sequence, the prompt or the decoder start token included (§2). Default: 20 new tokens.
    max_length: usize,
    /// Most new tokens; wins over `max_length` (§2).
    max_new_tokens: usize,
    /// No EOS before the sequence, counted like `max_length`, has this many tokens. Default 0.
    min_length: usize,
    /// No EOS among this many first new tokens; wins over `min_length`.
    min_new_tokens: usize,
    /// Hypotheses kept per sentence; more than 1 means beam search (§6). Default 1.
    num_beams: usize,
    /// Groups of beams that are kept apart (diverse beam search, §9). Default 1, off.
    num_beam_groups: usize,
    /// Subtracted from the score of a token for each time that an earlier group chose it in the same step (§9). Default 0.
    diversity_penalty: f64,
    /// Draw each token from the model's distribution instead of taking the best (§5). Default false.
    do_sample: bool,
    /// Sequences returned per sentence. Default 1.
    num_return_sequences: usize,
    /// When beam search stops (§6). Default false.
    early_stopping: EarlyStopping,
    /// Power of the length that divides a finished beam's score: above 0 favours long ones (§6). Default 1.
    length_penalty: f64,
    /// Divides the scores before sampling (§4 row 17). Default 1.
    temperature: f64,
    /// Samples from this many best tokens; 0 is off (§4 row 19). Default 50.
    top_k: usize,
    /// Samples from the best tokens that together have this probability (§4 row 20). Default 1, off.
    top_p: f64,
    /// Samples from the tokens with at least this part of the best one's probability (§4 row 21). Default 0, off.
    min_p: f64,
    /// Samples from the tokens of the most typical surprise that together have this probability (§4 row 22). Default 1,
    /// off.
    typical_p: f64,
    /// Samples from the tokens of at least this probability (§4 row 23). Default 0, off.
    epsilon_cutoff: f64,
    /// As `epsilon_cutoff`, with a lower bar where the distribution is flat (§4 row 24). Default 0, off.
    eta_cutoff: f64,
    /// Samples from the best of the first 100 tokens, as many as have this part of their entropy (§4 row 18). Default
    /// unset, off.
    top_h: f64,
    /// Makes ids that occurred less likely when above 1 (§4 row 4). Default 1, off.
    repetition_penalty: f64,
    /// Makes the source's ids more likely when above 1 (§4 row 3). Default 1, off.
    encoder_repetition_penalty: f64,
    /// Bans the second occurrence of an n-gram of this length; 0 is off (§4 row 5). Default 0.
    no_repeat_ngram_size: usize,
    /// Bans n-grams of this length that the source holds; 0 is off (§4 row 6). Default 0.
    encoder_no_repeat_ngram_size: usize,
    /// What is added to the score of a sequence's last id where the others came before it (§4 row 2).
    sequence_bias: SequenceBias,
    /// Raises the score of EOS ever more steeply (§4 row 14).
    exponential_decay_length_penalty: ExponentialDecay,
    /// Replaces NaN by 0 and infinities by the largest finite numbers (§4 row 13). Default false.
    remove_invalid_values: bool,
    /// Makes the processed scores log-probabilities again (§4 row 26). Default false.
    renormalize_logits: bool,
    /// Words, as lists of ids, that must not be generated (§4 row 7).
    #[serde(serialize_with = "values::written_lists")]
    bad_words_ids: Vec<Vec<u32>>,
    /// Ids that are never generated (§4 row 15).
    #[serde(serialize_with = "values::written_ids")]
    suppress_tokens: Vec<u32>,
    /// Ids that are not generated as the first new token (§4 row 15).
    #[serde(serialize_with = "values::written_ids")]
    begin_suppress_tokens: Vec<u32>,
    /// The id that must follow a sequence of one token (§4 row 11).
    #[serde(serialize_with = "values::written_id")]
    forced_bos_token_id: u32,
    /// The ids of which one must be the last at `max_length` (§4 row 12).
    forced_eos_token_id: TokenIds,
    /// The ids that end a sequence (§3).
    eos_token_id: TokenIds,
    /// The id that fills a batch. elgen never pads; it is kept for tools that do. Default: the first EOS id.
    #[serde(serialize_with = "values::written_id")]
    pad_token_id: u32,
    /// The id that begins a text: a decoder-only model's prompt when there is none.
    #[serde(serialize_with = "values::written_id")]
    bos_token_id: u32,
    /// The first id of an encoder-decoder's decoder (§3). Default: `bos_token_id`.
    #[serde(serialize_with = "values::written_id")]
    decoder_start_token_id: u32,
    /// Texts that end a sequence when they occur in it (§7).
    stop_strings: StopStrings,
    /// Seconds after which no further token is begun (§5).
    max_time: f64,
    /// Seed of the random numbers of sampling; equal seeds give equal text. Default 0.
    seed: u64,
}

impl GenerationOptions {
    /// What an unset option stands for, where that is a value (§1): Hugging Face's, and a seed of 0. `max_new_tokens` holds
    /// only where `max_length` is unset too.
    #[must_use]
    pub fn defaults() -> Self {
        Self {
            max_new_tokens: Some(DEFAULT_NEW_TOKENS),
            min_length: Some(0),
            num_beams: Some(1),
            num_beam_groups: Some(1),
            diversity_penalty: Some(0.0),
            do_sample: Some(false),
            num_return_sequences: Some(1),
            early_stopping: Some(EarlyStopping::False),
            length_penalty: Some(1.0),
            temperature: Some(1.0),
            top_k: Some(50),
            top_p: Some(1.0),
            typical_p: Some(1.0),
            epsilon_cutoff: Some(0.0),
            eta_cutoff: Some(0.0),
            repetition_penalty: Some(1.0),
            encoder_repetition_penalty: Some(1.0),
            no_repeat_ngram_size: Some(0),
            encoder_no_repeat_ngram_size: Some(0),
            remove_invalid_values: Some(false),
            renormalize_logits: Some(false),
            seed: Some(0),
            ..Self::default()
        }
    }

    /// Whether an option of this name is implemented, or would be refused where it acts.
    #[must_use]
    pub fn knows(option: &str) -> bool {
        Self::NAMES.contains(&option) || unsupported::is_known(option)
    }
}

impl TryFrom<Map<String, Value>> for GenerationOptions {
    type Error = OptionError;

    fn try_from(map: Map<String, Value>) -> Result<Self, OptionError> {
        Self::from_json(&map)
    }
}
