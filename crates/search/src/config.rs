//! Options made concrete: defaults filled in, conflicts refused, lengths worked out per sentence.

mod checks;
mod sound;

use std::fmt;

use checks::{check_return_sequences, cutoff};

use crate::error::{OptionError, OptionProblem};
use crate::options::unsupported::{self, Context};
use crate::options::values::written;
use crate::options::{DEFAULT_NEW_TOKENS, EarlyStopping, ExponentialDecay, GenerationOptions, TokenIds};

/// Samples, and beams, per sentence that the random counter can tell apart.
const MAX_RETURN_SEQUENCES: usize = 1 << 16;

/// Dividing by less than this could turn ordinary logits into infinities.
const MIN_TEMPERATURE: f64 = 1e-30;

/// What resolving needs to know of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelLimits {
    /// Number of token ids.
    pub vocab_size: usize,
    /// Positions of the decoder, if it has a table of them.
    pub max_position_embeddings: Option<usize>,
    /// Whether the decoder starts from `decoder_start_token_id` instead of a prompt.
    pub is_encoder_decoder: bool,
}

/// How tokens are chosen (§1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The best token.
    Greedy,
    /// One draw from the distribution.
    Sample,
    /// Beam search.
    Beam,
    /// Beam search whose candidates are drawn.
    BeamSample,
    /// Beam search in groups that avoid each other's tokens.
    DiverseBeam,
}

impl Mode {
    /// Whether tokens are drawn.
    #[must_use]
    pub fn samples(self) -> bool {
        matches!(self, Self::Sample | Self::BeamSample)
    }

    /// Whether hypotheses compete.
    #[must_use]
    pub fn has_beams(self) -> bool {
        matches!(self, Self::Beam | Self::BeamSample | Self::DiverseBeam)
    }
}

/// An option that has no effect or not the effect that its value suggests. Hugging Face logs the same.
///
/// Many checkpoints carry such options, so a program should print those whose [`Warning::option`] its user set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A sampling option without `do_sample`.
    NeedsSampling {
        /// The option.
        option: &'static str,
    },
    /// A beam option with one beam.
    NeedsBeams {
        /// The option.
        option: &'static str,
    },
    /// An option that acts on the EOS ids, none being known.
    NeedsEos {
        /// The option.
        option: &'static str,
    },
    /// A threshold that is off, because only values between 0 and 1, both excluded, are on.
    Outside {
        /// The option.
        option: &'static str,
    },
    /// Diverse beam search with one group.
    NeedsGroups {
        /// The option.
        option: &'static str,
    },
    /// An option that another one replaces.
    Overridden {
        /// The option without effect.
        option: &'static str,
        /// The one that wins.
        by: &'static str,
    },
    /// A checkpoint's length that was cut to what the model's positions allow.
    Cut {
        /// The length.
        option: &'static str,
        /// What the checkpoint asks for.
        asked: usize,
        /// What it was cut to.
        kept: usize,
    },
    /// An id that the vocabulary does not hold, and which so never comes.
    OutsideVocabulary {
        /// The option.
        option: &'static str,
        /// The id.
        id: u32,
        /// The number of ids, the first being 0.
        vocab_size: usize,
    },
    /// A minimum above the maximum: EOS can only come at the maximum, if forced.
    Unreachable {
        /// The minimum.
        option: &'static str,
        /// The maximum.
        limit: &'static str,
    },
}

impl Warning {
    /// The option that the warning is about, in Hugging Face's snake_case.
    #[must_use]
    pub fn option(&self) -> &'static str {
        match self {
            Self::NeedsSampling { option }
            | Self::NeedsBeams { option }
            | Self::NeedsEos { option }
            | Self::Outside { option }
            | Self::NeedsGroups { option }
            | Self::Cut { option, .. }
            | Self::OutsideVocabulary { option, .. }
            | Self::Overridden { option, .. }
            | Self::Unreachable { option, .. } => option,
        }
    }

    /// The message, with every option name passed through `rename`.
    pub fn describe(&self, rename: impl Fn(&str) -> String) -> String {
        let name = rename(self.option());
        match self {
            Self::NeedsSampling { .. } => format!("{name}: has no effect without {}", rename("do_sample")),
            Self::NeedsBeams { .. } => format!("{name}: has no effect with one beam ({} is 1)", rename("num_beams")),
            Self::NeedsEos { .. } => format!("{name}: has no effect, {} is not set", rename("eos_token_id")),
            Self::Outside { .. } => format!("{name}: has no effect, it is not between 0 and 1"),
            Self::NeedsGroups { .. } => {
                format!("{name}: has no effect with one group ({} is 1)", rename("num_beam_groups"))
            }
            Self::Overridden { by, .. } => format!("{name}: has no effect, {} is set too and wins", rename(by)),
            Self::Cut { asked, kept, .. } => {
                format!("{name}: the checkpoint asks for {asked}, which is cut to the {kept} that its positions allow")
            }
            Self::OutsideVocabulary { id, vocab_size, .. } => {
                let id = written(*id);
                format!("{name}: token id {id} is outside the model's vocabulary of {vocab_size} and never comes")
            }
            Self::Unreachable { limit, .. } => {
                format!("{name}: is larger than {} and cannot be reached", rename(limit))
            }
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe(str::to_owned))
    }
}

/// The lengths of one sentence, all counted like Hugging Face counts them (§2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// Longest sequence, prompt included. Always more than the prompt.
    pub max_length: usize,
    /// EOS is banned while the sequence, prompt included, is shorter.
    pub min_length: usize,
    /// EOS is banned while there are fewer new tokens.
    pub min_new_tokens: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LengthLimit {
    Default,
    Total(usize),
    New(usize),
}

/// Options that a search runs on: checked, with every default filled in. Made by [`GenerationOptions::resolve`]. Fields may be changed: every
/// search begins with [`GenerationConfig::check`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct GenerationConfig {
    /// How tokens are chosen.
    pub mode: Mode,
    /// Running beams; 1 outside beam search.
    pub num_beams: usize,
    /// Whether tokens are drawn; the warpers act only then.
    pub do_sample: bool,
    /// Groups of beams that are kept apart; 1 is off.
    pub num_beam_groups: usize,
    /// Subtracted for each time that an earlier group chose a token; above 0 with several groups.
    pub diversity_penalty: f64,
    /// Sequences returned per sentence.
    pub num_return_sequences: usize,
    /// When beam search stops.
    pub early_stopping: EarlyStopping,
    /// Power of the length that divides a finished beam's score.
    pub length_penalty: f64,
    /// Divisor of the scores when sampling.
    pub temperature: f32,
    /// Best tokens kept when sampling; 0 is off.
    pub top_k: usize,
    /// Probability kept when sampling; 1 is off.
    pub top_p: f64,
    /// Part of the best probability that a token needs when sampling; 0 is off.
    pub min_p: f64,
    /// Probability of the most typical tokens kept when sampling; 1 is off.
    pub typical_p: f64,
    /// Probability that a token needs when sampling; 0 is off.
    pub epsilon_cutoff: f64,
    /// The same where the distribution is sharp, less where it is flat; 0 is off.
    pub eta_cutoff: f64,
    /// Part of the entropy of the 100 best tokens that those kept may have; unset is off.
    pub top_h: Option<f64>,
    /// Penalty of ids that occurred; 1 is off.
    pub repetition_penalty: f32,
    /// Reward of the source's ids; 1 is off.
    pub encoder_repetition_penalty: f64,
    /// Length of n-grams that may not recur; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// Length of the source's n-grams that may not be generated; 0 is off.
    pub encoder_no_repeat_ngram_size: usize,
    /// Sequences and what is added to the score of their last id behind the others, each once and none empty.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// How the score of EOS grows.
    pub exponential_decay_length_penalty: Option<ExponentialDecay>,
    /// Whether NaN and infinities become finite.
    pub remove_invalid_values: bool,
    /// Whether the processed scores become log-probabilities again.
    pub renormalize_logits: bool,
    /// Banned words, none empty and none a single EOS id.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Ids never generated.
    pub suppress_tokens: Vec<u32>,
    /// Ids not generated first.
    pub begin_suppress_tokens: Vec<u32>,
    /// The id forced behind a single token.
    pub forced_bos_token_id: Option<u32>,
    /// The ids of which one is forced at `max_length`; empty is off.
    pub forced_eos_token_id: Vec<u32>,
    /// The ids that end a sequence, each once.
    pub eos_token_id: Vec<u32>,
    /// The id that fills a batch. As elgen never pads, it may lie outside the vocabulary.
    pub pad_token_id: Option<u32>,
    /// The id that begins a text; may lie outside the vocabulary, as long as no prompt is empty.
    pub bos_token_id: Option<u32>,
    /// The decoder's first id: set for an encoder-decoder, and only there.
    pub decoder_start_token_id: Option<u32>,
    /// Texts that end a sequence, none empty. Text is not the search's business: who knows the tokenizer stops it.
    pub stop_strings: Vec<String>,
    /// Seconds after which no further token is begun; for who runs the search.
    pub max_time: Option<f64>,
    /// Seed of sampling.
    pub seed: u64,
    /// Number of token ids.
    pub vocab_size: usize,
    max_position_embeddings: Option<usize>,
    /// One that no single token can be followed by, because it is outside the vocabulary.
    forced_bos_outside: Option<u32>,
    length_limit: LengthLimit,
    /// Whether the limit is cut where it exceeds the positions.
    cuts_lengths: bool,
    min_length: usize,
    min_new_tokens: Option<usize>,
}

impl GenerationConfig {
    /// Candidates that a beam step looks at per sentence: `max(2, 1 + #EOS) * num_beams` (§6), so that `num_beams` of them
    /// continue even if every beam's best ones are ends.
    #[must_use]
    pub fn num_candidates(&self) -> usize {
        self.num_beams.saturating_mul(self.eos_token_id.len().saturating_add(1).max(2))
    }

    /// Tokens that every warper leaves at least: 1, and with beams one more than there are EOS ids, so that a beam can go on.
    #[must_use]
    pub fn min_tokens_to_keep(&self) -> usize {
        if self.num_beams > 1 { 1 + self.eos_token_id.len().max(1) } else { 1 }
    }

    /// Rows that a sentence occupies in a batch: its beams, or its samples.
    #[must_use]
    pub fn rows_per_sentence(&self) -> usize {
        match self.mode {
            Mode::Greedy => 1,
            Mode::Sample => self.num_return_sequences,
            Mode::Beam | Mode::BeamSample | Mode::DiverseBeam => self.num_beams,
        }
    }

    /// Whether `token` ends a sequence.
    #[must_use]
    pub fn is_eos(&self, token: u32) -> bool {
        self.eos_token_id.contains(&token)
    }

    /// The lengths of a sentence whose decoder prompt has `prompt_len` tokens (the start token of an encoder-decoder is
    /// such a prompt), by the rules of §2.
    ///
    /// The last token is never fed, so a sequence may have one token more than the model has positions. Hugging Face fails where it
    /// would need more; here a length that was asked for and does not fit is refused, and a checkpoint's own is cut.
    ///
    /// # Errors
    /// The prompt leaves no room for a new token, the length asked for exceeds the model's positions, or an id outside the
    /// vocabulary is forced behind a prompt of one token.
    pub fn lengths(&self, prompt_len: usize) -> Result<Lengths, OptionError> {
        if let (1, Some(id)) = (prompt_len, self.forced_bos_outside) {
            let problem = OptionProblem::TokenOutsideVocabulary { id, vocab_size: self.vocab_size };
            return Err(OptionError::new("forced_bos_token_id", problem));
        }
        let positions = self.max_position_embeddings.unwrap_or(usize::MAX);
        let (option, asked) = self.asked(prompt_len);
        let most = positions.saturating_add(1);
        let max_length = if self.cuts_lengths { asked.min(most) } else { asked };
        if prompt_len >= max_length {
            return Err(OptionError::new(option, OptionProblem::PromptTooLong { prompt_len, max_length }));
        }
        if max_length > most {
            let problem = OptionProblem::TooManyPositions { prompt_len, asked: max_length, positions };
            return Err(OptionError::new(option, problem));
        }
        Ok(match self.min_new_tokens {
            Some(new) => Lengths { max_length, min_length: prompt_len.saturating_add(new), min_new_tokens: new },
            None => Lengths { max_length, min_length: self.min_length, min_new_tokens: 0 },
        })
    }

    /// Whether a prompt of `prompt_len` tokens leaves positions for all new tokens that were asked for, a checkpoint's included.
    #[must_use]
    pub fn leaves_room(&self, prompt_len: usize) -> bool {
        let most = self.max_position_embeddings.unwrap_or(usize::MAX).saturating_add(1);
        self.asked(prompt_len).1 <= most && self.lengths(prompt_len).is_ok()
    }

    /// The option that limits the sequence, and the longest one that it allows behind such a prompt.
    fn asked(&self, prompt_len: usize) -> (&'static str, usize) {
        let positions = self.max_position_embeddings.unwrap_or(usize::MAX);
        match self.length_limit {
            LengthLimit::Default => ("max_length", prompt_len.saturating_add(DEFAULT_NEW_TOKENS).min(positions)),
            LengthLimit::Total(total) => ("max_length", total),
            LengthLimit::New(new) => ("max_new_tokens", prompt_len.saturating_add(new)),
        }
    }
}

impl GenerationOptions {
    /// Fills in Hugging Face's defaults (§1) and checks the options against each other and the model.
    ///
    /// # Errors
    /// The cases in which `generate()` raises; token ids outside the vocabulary that have to be fed, forced or looked up; more positions
    /// than the model has; and options that elgen does not implement yet where they would change the result.
    pub fn resolve(&self, model: &ModelLimits) -> Result<(GenerationConfig, Vec<Warning>), OptionError> {
        let num_beams = self.num_beams.unwrap_or(1);
        let do_sample = self.do_sample.unwrap_or(false);
        let top_k = self.top_k.unwrap_or(50);
        let groups = self.num_beam_groups.unwrap_or(1);
        unsupported::check(&self.unsupported, Context { do_sample, num_beams, top_k, groups })?;
        self.check_lengths(model)?;
        self.check_ranges()?;
        if do_sample {
            self.check_warpers()?;
        }
        self.check_groups(num_beams, do_sample)?;
        self.check_tokens(model)?;

        let num_return_sequences = self.num_return_sequences.unwrap_or(1);
        let num_beam_groups = groups.max(1);
        let mode = match (num_beams, do_sample) {
            (1, false) => Mode::Greedy,
            (1, true) => Mode::Sample,
            (_, false) if num_beam_groups > 1 => Mode::DiverseBeam,
            (_, false) => Mode::Beam,
            (_, true) => Mode::BeamSample,
        };
        check_return_sequences(mode, num_return_sequences, num_beams)?;

        // Ends that cannot come end nothing; the same holds for what is suppressed.
        let known =
            |ids: &[u32]| ids.iter().copied().filter(|&id| (id as usize) < model.vocab_size).collect::<Vec<_>>();
        let eos_token_id = known(&distinct(self.eos_token_id.as_ref()));
        let needed = if mode.has_beams() { (1 + eos_token_id.len()).max(2) } else { 1 };
        if model.vocab_size < needed {
            let problem = OptionProblem::VocabularyTooSmall { vocab_size: model.vocab_size, needed };
            return Err(OptionError::new("num_beams", problem));
        }
        let mut warnings = self.warnings(do_sample, num_beams, !eos_token_id.is_empty());
        warnings.extend(self.outside(model));
        let (length_limit, cut) = self.cut_limit(model);
        warnings.extend(cut);
        let (forced_bos_token_id, forced_bos_outside) = self.forced_bos(model)?;
        // What does not act may hold anything; the device gets numbers all the same.
        let finite = |value: Option<f64>, neutral: f64| value.filter(|x| (*x as f32).is_finite()).unwrap_or(neutral);
        let config = GenerationConfig {
            mode,
            num_beams,
            do_sample,
            num_beam_groups,
            diversity_penalty: finite(self.diversity_penalty, 0.0),
            num_return_sequences,
            early_stopping: self.early_stopping.unwrap_or_default(),
            length_penalty: finite(self.length_penalty, 1.0),
            temperature: self.temperature.unwrap_or(1.0) as f32,
            top_k,
            top_p: finite(self.top_p.filter(|p| *p >= 0.0), 1.0).min(1.0),
            min_p: self.min_p.unwrap_or(0.0),
            typical_p: self.typical_p.unwrap_or(1.0).min(1.0),
            epsilon_cutoff: cutoff(self.epsilon_cutoff),
            eta_cutoff: cutoff(self.eta_cutoff),
            top_h: self.top_h,
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0) as f32,
            encoder_repetition_penalty: self.encoder_repetition_penalty.unwrap_or(1.0),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(0),
            encoder_no_repeat_ngram_size: self.encoder_no_repeat_ngram_size.unwrap_or(0),
            sequence_bias: self.biases().map(|(ids, bias)| (ids.clone(), *bias as f32)).collect(),
            exponential_decay_length_penalty: self.exponential_decay_length_penalty,
            remove_invalid_values: self.remove_invalid_values.unwrap_or(false),
            renormalize_logits: self.renormalize_logits.unwrap_or(false),
            bad_words_ids: self.words().cloned().collect(),
            suppress_tokens: known(self.suppress_tokens.as_deref().unwrap_or_default()),
            begin_suppress_tokens: known(self.begin_suppress_tokens.as_deref().unwrap_or_default()),
            forced_bos_token_id,
            forced_eos_token_id: distinct(self.forced_eos_token_id.as_ref()),
            pad_token_id: self.pad_token_id.or(eos_token_id.first().copied()),
            eos_token_id,
            bos_token_id: self.bos_token_id,
            decoder_start_token_id: self.decoder_start(model)?,
            stop_strings: self.stop_strings.clone().unwrap_or_default().0,
            max_time: self.max_time,
            seed: self.seed.unwrap_or(0),
            vocab_size: model.vocab_size,
            max_position_embeddings: model.max_position_embeddings,
            forced_bos_outside,
            length_limit,
            cuts_lengths: self.lengths_of_checkpoint,
            min_length: self.min_length.unwrap_or(0),
            min_new_tokens: self.min_new_tokens,
        };
        Ok((config, warnings))
    }

    fn length_limit(&self) -> LengthLimit {
        match (self.max_new_tokens, self.max_length) {
            (Some(new), _) => LengthLimit::New(new),
            (None, Some(total)) => LengthLimit::Total(total),
            (None, None) => LengthLimit::Default,
        }
    }

    /// The length limit, a checkpoint's cut to what any prompt can reach, and what to say about that.
    fn cut_limit(&self, model: &ModelLimits) -> (LengthLimit, Option<Warning>) {
        let limit = self.length_limit();
        let Some(positions) = model.max_position_embeddings.filter(|_| self.lengths_of_checkpoint) else {
            return (limit, None);
        };
        let warning = |option, asked: usize, kept| (asked > kept).then_some(Warning::Cut { option, asked, kept });
        match limit {
            LengthLimit::Total(asked) => {
                let kept = positions.saturating_add(1);
                (LengthLimit::Total(asked.min(kept)), warning("max_length", asked, kept))
            }
            LengthLimit::New(asked) => {
                (LengthLimit::New(asked.min(positions)), warning("max_new_tokens", asked, positions))
            }
            LengthLimit::Default => (limit, None),
        }
    }

    /// The id that is forced behind a single token, a negative one counted from the vocabulary's end as an index is in Python; and one
    /// that is outside. An encoder-decoder's prompt is a single token, so there that is an error.
    fn forced_bos(&self, model: &ModelLimits) -> Result<(Option<u32>, Option<u32>), OptionError> {
        let Some(id) = self.forced_bos_token_id else { return Ok((None, None)) };
        let from_end = if written(id) < 0 { model.vocab_size as i64 } else { 0 };
        let found = u32::try_from(i64::from(written(id)) + from_end).ok();
        match found.filter(|&id| (id as usize) < model.vocab_size) {
            None if model.is_encoder_decoder => {
                let problem = OptionProblem::TokenOutsideVocabulary { id, vocab_size: model.vocab_size };
                Err(OptionError::new("forced_bos_token_id", problem))
            }
            None => Ok((None, Some(id))),
            found => Ok((found, None)),
        }
    }

    fn decoder_start(&self, model: &ModelLimits) -> Result<Option<u32>, OptionError> {
        if !model.is_encoder_decoder {
            return Ok(None);
        }
        match self.decoder_start_token_id.or(self.bos_token_id) {
            Some(id) => Ok(Some(id)),
            None => {
                let needed_for = "an encoder-decoder's first token (bos_token_id is not set either)";
                Err(OptionError::new("decoder_start_token_id", OptionProblem::Missing { needed_for }))
            }
        }
    }
}

fn distinct(ids: Option<&TokenIds>) -> Vec<u32> {
    let mut found = Vec::new();
    for &id in ids.iter().flat_map(|ids| &ids.0) {
        if !found.contains(&id) {
            found.push(id);
        }
    }
    found
}
