//! Which options `generate()` refuses, and of which it warns.

use super::{LengthLimit, MAX_RETURN_SEQUENCES, MIN_TEMPERATURE, Mode, ModelLimits, Warning};
use crate::error::{OptionError, OptionProblem};
use crate::options::{EarlyStopping, ExponentialDecay, GenerationOptions, TokenIds};

/// Beams of a sentence at most.
pub(super) const MAX_BEAMS: usize = MAX_RETURN_SEQUENCES;

impl GenerationOptions {
    /// The biased sequences; an empty one matches nothing.
    pub(super) fn biases(&self) -> impl Iterator<Item = &(Vec<u32>, f64)> {
        self.sequence_bias.iter().flat_map(|bias| &bias.0).filter(|(ids, _)| !ids.is_empty())
    }

    /// The banned words: an empty one matches nothing, and one that is an EOS id is not banned.
    pub(super) fn words(&self) -> impl Iterator<Item = &Vec<u32>> {
        let ends = |id: &u32| self.eos_token_id.as_ref().is_some_and(|ends| ends.0.contains(id));
        self.bad_words_ids.iter().flatten().filter(move |word| match &word[..] {
            [] => false,
            [id] => !ends(id),
            _ => true,
        })
    }

    /// Ids that never come, in options where this is no error.
    pub(super) fn outside(&self, model: &ModelLimits) -> Vec<Warning> {
        let vocab_size = model.vocab_size;
        let lists = [
            ("eos_token_id", self.eos_token_id.as_ref().map(|ids| &ids.0)),
            ("suppress_tokens", self.suppress_tokens.as_ref()),
            ("begin_suppress_tokens", self.begin_suppress_tokens.as_ref()),
        ];
        let found = lists.into_iter().filter_map(|(option, ids)| {
            let id = *ids?.iter().find(|&&id| id as usize >= vocab_size)?;
            Some(Warning::OutsideVocabulary { option, id, vocab_size })
        });
        found.collect()
    }

    pub(super) fn check_lengths(&self, model: &ModelLimits) -> Result<(), OptionError> {
        match self.length_limit() {
            LengthLimit::New(0) => Err(OptionError::out_of_range("max_new_tokens", 0, "at least 1")),
            LengthLimit::Total(0) => Err(OptionError::out_of_range("max_length", 0, "at least 1")),
            _ if self.lengths_of_checkpoint => Ok(()),
            // Behind a prompt of at least one token, and the last one needs no position.
            LengthLimit::New(asked) => check_positions("max_new_tokens", asked, 0, model),
            LengthLimit::Total(asked) => check_positions("max_length", asked, 1, model),
            LengthLimit::Default => Ok(()),
        }
    }

    pub(super) fn check_ranges(&self) -> Result<(), OptionError> {
        let counts = [("num_beams", self.num_beams), ("num_return_sequences", self.num_return_sequences)];
        if let Some((option, _)) = counts.iter().find(|(_, value)| *value == Some(0)) {
            return Err(OptionError::out_of_range(option, 0, "at least 1"));
        }
        if let Some(beams) = self.num_beams.filter(|beams| *beams > MAX_BEAMS) {
            return Err(OptionError::out_of_range("num_beams", beams, "at most 65536"));
        }
        let positive = |x: f64| x as f32 > 0.0 && (x as f32).is_finite();
        let inverse_too = |x: f64| positive(x) && positive(1.0 / x);
        check("repetition_penalty", self.repetition_penalty, "a number above 0", positive)?;
        check("encoder_repetition_penalty", self.encoder_repetition_penalty, "a number above 0", inverse_too)?;
        if self.num_beams.unwrap_or(1) > 1 {
            check("length_penalty", self.length_penalty, "a finite number", |x| (x as f32).is_finite())?;
        }
        check("max_time", self.max_time, "a number of seconds, 0 or more", |x| x >= 0.0 && x.is_finite())?;
        if let Some(decay) = self.exponential_decay_length_penalty {
            check_decay(decay)?;
        }
        for (_, bias) in self.biases() {
            check("sequence_bias", Some(*bias), "lists of [[token ids], finite bias]", |x| (x as f32).is_finite())?;
        }
        if self.stop_strings.iter().flat_map(|texts| &texts.0).any(String::is_empty) {
            return Err(OptionError::out_of_range("stop_strings", "\"\"", "texts of at least one character"));
        }
        Ok(())
    }

    /// What `generate()` raises only when it samples.
    pub(super) fn check_warpers(&self) -> Result<(), OptionError> {
        let divides = |t: f64| t >= MIN_TEMPERATURE && (t as f32).is_finite();
        check("top_p", self.top_p, "0 or more (1 or more is off)", |p| p >= 0.0)?;
        check("temperature", self.temperature, "a number above 0 (at least 1e-30)", divides)?;
        check("min_p", self.min_p, "between 0 and 1", |p| (0.0..=1.0).contains(&p))?;
        check("typical_p", self.typical_p, "above 0 (1 or more is off)", |p| p > 0.0)?;
        check("top_h", self.top_h, "above 0 and at most 1", |h| h > 0.0 && h <= 1.0)
    }

    /// What diverse beam search asks for.
    pub(super) fn check_groups(&self, num_beams: usize, do_sample: bool) -> Result<(), OptionError> {
        let option = "num_beam_groups";
        let groups = self.num_beam_groups.unwrap_or(1);
        if groups <= 1 {
            return Ok(());
        }
        if groups > num_beams {
            let problem = OptionProblem::Exceeds { found: groups, other: "num_beams", limit: num_beams };
            return Err(OptionError::new(option, problem));
        }
        if !num_beams.is_multiple_of(groups) {
            let problem = OptionProblem::NotDivisible { found: groups, other: "num_beams", value: num_beams };
            return Err(OptionError::new(option, problem));
        }
        if do_sample {
            let problem = OptionProblem::Excludes { found: groups.to_string(), other: "do_sample" };
            return Err(OptionError::new(option, problem));
        }
        if self.diversity_penalty.is_none() {
            let needed = "a diversity_penalty above 0, without which all groups would be alike";
            return Err(OptionError::new(option, OptionProblem::Needs { found: groups.to_string(), needed }));
        }
        let acts = |x: f64| x > 0.0 && (x as f32).is_finite();
        let rule = "above 0 with several groups (num_beam_groups), which would be alike without";
        check("diversity_penalty", self.diversity_penalty, rule, acts)
    }

    /// Checks the ids that are fed, forced or looked up. Many checkpoints have others behind the vocabulary: a pad id, and ends, which then
    /// never come. A decoder-only model's begin id is fed where a prompt is empty, which is not known here.
    pub(super) fn check_tokens(&self, model: &ModelLimits) -> Result<(), OptionError> {
        let bos = self.bos_token_id.filter(|_| model.is_encoder_decoder && self.decoder_start_token_id.is_none());
        let start = self.decoder_start_token_id.filter(|_| model.is_encoder_decoder);
        let many = |ids: &'_ Option<TokenIds>| ids.as_ref().map_or(&[][..], |ids| &ids.0).to_vec();
        let lists = [
            ("bos_token_id", Vec::from_iter(bos)),
            ("decoder_start_token_id", Vec::from_iter(start)),
            ("forced_eos_token_id", many(&self.forced_eos_token_id)),
            ("bad_words_ids", self.words().flatten().copied().collect()),
            ("sequence_bias", self.biases().flat_map(|(ids, _)| ids).copied().collect()),
        ];
        for (option, ids) in &lists {
            if let Some(&id) = ids.iter().find(|&&id| id as usize >= model.vocab_size) {
                let problem = OptionProblem::TokenOutsideVocabulary { id, vocab_size: model.vocab_size };
                return Err(OptionError::new(*option, problem));
            }
        }
        let suppressed = self.suppress_tokens.as_deref().unwrap_or_default();
        let all_forced = [
            ("forced_bos_token_id", Vec::from_iter(self.forced_bos_token_id)),
            ("forced_eos_token_id", many(&self.forced_eos_token_id)),
        ];
        for (option, forced) in all_forced {
            if !forced.is_empty() && forced.iter().all(|id| suppressed.contains(id)) {
                let problem = OptionProblem::AllSuppressed { forced, by: "suppress_tokens" };
                return Err(OptionError::new(option, problem));
            }
        }
        Ok(())
    }

    pub(super) fn warnings(&self, do_sample: bool, num_beams: usize, has_eos: bool) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let differs = |value: Option<f64>, neutral: f64| value.is_some_and(|value| value != neutral);
        if do_sample {
            let set = [("epsilon_cutoff", self.epsilon_cutoff), ("eta_cutoff", self.eta_cutoff)];
            let set = set.iter().filter(|(_, value)| differs(*value, 0.0) && cutoff(*value) == 0.0);
            warnings.extend(set.map(|&(option, _)| Warning::Outside { option }));
        } else {
            let set = [
                ("temperature", differs(self.temperature, 1.0)),
                ("top_k", self.top_k.is_some_and(|k| k != 50)),
                ("top_p", differs(self.top_p, 1.0)),
                ("min_p", self.min_p.is_some()),
                ("top_h", self.top_h.is_some()),
                ("typical_p", differs(self.typical_p, 1.0)),
                ("epsilon_cutoff", differs(self.epsilon_cutoff, 0.0)),
                ("eta_cutoff", differs(self.eta_cutoff, 0.0)),
            ];
            warnings.extend(set.iter().filter(|(_, set)| *set).map(|&(option, _)| Warning::NeedsSampling { option }));
        }
        if num_beams == 1 {
            let set = [
                ("early_stopping", self.early_stopping.is_some_and(|stopping| stopping != EarlyStopping::False)),
                ("length_penalty", differs(self.length_penalty, 1.0)),
            ];
            warnings.extend(set.iter().filter(|(_, set)| *set).map(|&(option, _)| Warning::NeedsBeams { option }));
        }
        if differs(self.diversity_penalty, 0.0) && self.num_beam_groups.unwrap_or(1) == 1 {
            warnings.push(Warning::NeedsGroups { option: "diversity_penalty" });
        }
        if !has_eos {
            let set = [
                ("min_length", self.min_length.is_some_and(|length| length > 0)),
                ("min_new_tokens", self.min_new_tokens.is_some_and(|new| new > 0)),
                ("exponential_decay_length_penalty", self.exponential_decay_length_penalty.is_some()),
            ];
            warnings.extend(set.iter().filter(|(_, set)| *set).map(|&(option, _)| Warning::NeedsEos { option }));
        }
        if self.max_length.is_some() && self.max_new_tokens.is_some() {
            warnings.push(Warning::Overridden { option: "max_length", by: "max_new_tokens" });
        }
        if self.min_length.is_some_and(|length| length > 0) && self.min_new_tokens.is_some() {
            warnings.push(Warning::Overridden { option: "min_length", by: "min_new_tokens" });
        }
        match (self.min_new_tokens, self.max_new_tokens, self.min_length, self.max_length) {
            (Some(min), Some(max), _, _) if min > max => {
                warnings.push(Warning::Unreachable { option: "min_new_tokens", limit: "max_new_tokens" });
            }
            (Some(min), None, _, Some(max)) if min > max => {
                warnings.push(Warning::Unreachable { option: "min_new_tokens", limit: "max_length" });
            }
            (None, None, Some(min), Some(max)) if min > max => {
                warnings.push(Warning::Unreachable { option: "min_length", limit: "max_length" });
            }
            _ => {}
        }
        warnings
    }
}

/// Fails on a value that `holds` does not accept.
fn check(
    option: &'static str,
    value: Option<f64>,
    rule: &'static str,
    holds: impl Fn(f64) -> bool,
) -> Result<(), OptionError> {
    match value {
        Some(value) if !holds(value) => Err(OptionError::out_of_range(option, value, rule)),
        _ => Ok(()),
    }
}

/// A cutoff as it acts: 0, which is off, outside the open interval from 0 to 1.
pub(super) fn cutoff(value: Option<f64>) -> f64 {
    value.filter(|&value| value > 0.0 && value < 1.0).unwrap_or(0.0)
}

pub(super) fn check_return_sequences(mode: Mode, returned: usize, num_beams: usize) -> Result<(), OptionError> {
    let option = "num_return_sequences";
    match mode {
        Mode::Greedy if returned > 1 => {
            let needed = "do_sample or as many num_beams";
            Err(OptionError::new(option, OptionProblem::Needs { found: returned.to_string(), needed }))
        }
        Mode::Beam | Mode::BeamSample | Mode::DiverseBeam if returned > num_beams => {
            let problem = OptionProblem::Exceeds { found: returned, other: "num_beams", limit: num_beams };
            Err(OptionError::new(option, problem))
        }
        _ if returned > MAX_RETURN_SEQUENCES => Err(OptionError::out_of_range(option, returned, "at most 65536")),
        _ => Ok(()),
    }
}

/// Fails where `asked` exceeds the positions and `beyond`.
fn check_positions(option: &'static str, asked: usize, beyond: usize, model: &ModelLimits) -> Result<(), OptionError> {
    match model.max_position_embeddings {
        Some(positions) if asked > positions.saturating_add(beyond) => {
            Err(OptionError::new(option, OptionProblem::TooManyPositions { prompt_len: 0, asked, positions }))
        }
        _ => Ok(()),
    }
}

/// Refuses a penalty that would be no number somewhere.
pub(super) fn check_decay(decay: ExponentialDecay) -> Result<(), OptionError> {
    if decay.is_defined() {
        return Ok(());
    }
    let found = format!("[{}, {}]", decay.start, decay.factor);
    let rule = "[start, factor] with finite numbers, the factor 0 or more where the start has a fraction";
    Err(OptionError::out_of_range("exponential_decay_length_penalty", found, rule))
}
