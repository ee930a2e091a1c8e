//! The check of a whole [`GenerationConfig`] before it runs. Its fields are public: what [`GenerationOptions::resolve`] made may have been
//! changed, or be meant for another model.
//!
//! [`GenerationOptions::resolve`]: crate::GenerationOptions::resolve

use super::checks::{MAX_BEAMS, check_decay, check_return_sequences};
use super::{GenerationConfig, MIN_TEMPERATURE, Mode, ModelLimits};
use crate::error::{OptionError, OptionProblem};

impl GenerationConfig {
    /// Checks that a model can run these options, whatever was done to the fields: what [`GenerationOptions::resolve`] returns for the model
    /// passes. Ids that only stand for themselves (ends, suppressed ids, bad words, biases) may be anything: one that the vocabulary does not
    /// hold cannot occur.
    ///
    /// # Errors
    /// The first field that cannot be, by its name.
    ///
    /// [`GenerationOptions::resolve`]: crate::GenerationOptions::resolve
    pub fn check(&self, model: &ModelLimits) -> Result<(), OptionError> {
        if self.vocab_size != model.vocab_size {
            return Err(OptionError::out_of_range("vocab_size", self.vocab_size, "that of the model"));
        }
        let positions = |limit: Option<usize>| limit.unwrap_or(usize::MAX);
        if positions(self.max_position_embeddings) > positions(model.max_position_embeddings) {
            let found = self.max_position_embeddings.map_or("no limit".to_owned(), |limit| limit.to_string());
            let rule = "at most the positions of the model: options are resolved for one model";
            return Err(OptionError::out_of_range("max_position_embeddings", found, rule));
        }
        if model.is_encoder_decoder && self.decoder_start_token_id.is_none() {
            let needed_for = "an encoder-decoder's first token";
            return Err(OptionError::new("decoder_start_token_id", OptionProblem::Missing { needed_for }));
        }
        self.check_fields()
    }

    /// The part of [`GenerationConfig::check`] that needs no model: fields that contradict each other or the vocabulary that they name.
    ///
    /// # Errors
    /// As [`GenerationConfig::check`].
    pub fn check_fields(&self) -> Result<(), OptionError> {
        self.check_rows()?;
        self.check_numbers()?;
        self.check_ids()
    }

    /// The mode, and what it says about rows.
    fn check_rows(&self) -> Result<(), OptionError> {
        let (mode, beams, groups) = (self.mode, self.num_beams, self.num_beam_groups);
        let (fits, rule) = if mode.has_beams() {
            ((2..=MAX_BEAMS).contains(&beams), "from 2 to 65536 in a mode with beams")
        } else {
            (beams == 1, "1 in a mode without beams")
        };
        if !fits {
            return Err(OptionError::out_of_range("num_beams", beams, rule));
        }
        if self.do_sample != mode.samples() {
            return Err(OptionError::out_of_range("do_sample", self.do_sample, "what the mode does"));
        }
        let rule = match mode {
            Mode::DiverseBeam if groups > 1 && beams.is_multiple_of(groups) => None,
            Mode::DiverseBeam => Some("at least 2, and a divisor of the beams, in diverse beam search"),
            _ if groups == 1 => None,
            _ => Some("1 but for diverse beam search"),
        };
        if let Some(rule) = rule {
            return Err(OptionError::out_of_range("num_beam_groups", groups, rule));
        }
        if self.num_return_sequences == 0 {
            return Err(OptionError::out_of_range("num_return_sequences", 0, "at least 1"));
        }
        check_return_sequences(mode, self.num_return_sequences, beams)?;
        let needed = if mode.has_beams() { self.eos_token_id.len().saturating_add(1).max(2) } else { 1 };
        if self.vocab_size < needed {
            let problem = OptionProblem::VocabularyTooSmall { vocab_size: self.vocab_size, needed };
            return Err(OptionError::new("num_beams", problem));
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), OptionError> {
        let positive = |x: f64| x as f32 > 0.0 && (x as f32).is_finite();
        let part = |x: f64| (0.0..=1.0).contains(&x);
        let cutoff = |x: f64| (0.0..1.0).contains(&x);
        let diverse = self.mode == Mode::DiverseBeam;
        let temperature = f64::from(self.temperature);
        let top_h = self.top_h.unwrap_or(1.0);
        let max_time = self.max_time.unwrap_or(0.0);
        let samples = self.do_sample;
        let numbers = [
            ("length_penalty", self.length_penalty, self.length_penalty.is_finite(), "a finite number"),
            (
                "diversity_penalty",
                self.diversity_penalty,
                (self.diversity_penalty as f32).is_finite() && (!diverse || self.diversity_penalty > 0.0),
                "a finite number, above 0 with several groups",
            ),
            (
                "repetition_penalty",
                f64::from(self.repetition_penalty),
                positive(f64::from(self.repetition_penalty)),
                "a number above 0",
            ),
            (
                "encoder_repetition_penalty",
                self.encoder_repetition_penalty,
                positive(self.encoder_repetition_penalty) && positive(1.0 / self.encoder_repetition_penalty),
                "a number above 0",
            ),
            ("max_time", max_time, max_time >= 0.0 && max_time.is_finite(), "a number of seconds, 0 or more"),
            ("top_p", self.top_p, part(self.top_p), "between 0 and 1"),
            (
                "temperature",
                temperature,
                !samples || (self.temperature >= MIN_TEMPERATURE as f32 && self.temperature.is_finite()),
                "a number above 0",
            ),
            ("min_p", self.min_p, !samples || part(self.min_p), "between 0 and 1"),
            ("typical_p", self.typical_p, !samples || self.typical_p > 0.0, "above 0 (1 or more is off)"),
            ("epsilon_cutoff", self.epsilon_cutoff, !samples || cutoff(self.epsilon_cutoff), "0 or more and below 1"),
            ("eta_cutoff", self.eta_cutoff, !samples || cutoff(self.eta_cutoff), "0 or more and below 1"),
            ("top_h", top_h, !samples || (top_h > 0.0 && top_h <= 1.0), "above 0 and at most 1"),
        ];
        if let Some((option, found, _, rule)) = numbers.iter().find(|(_, _, holds, _)| !holds) {
            return Err(OptionError::out_of_range(option, found, rule));
        }
        self.exponential_decay_length_penalty.map_or(Ok(()), check_decay)?;
        if let Some((_, bias)) = self.sequence_bias.iter().find(|(_, bias)| !bias.is_finite()) {
            return Err(OptionError::out_of_range("sequence_bias", bias, "lists of [[token ids], finite bias]"));
        }
        Ok(())
    }

    /// Ids that are embedded or written must have rows. Lists of ids must not be empty.
    fn check_ids(&self) -> Result<(), OptionError> {
        let written = [
            ("decoder_start_token_id", self.decoder_start_token_id.as_slice()),
            ("forced_bos_token_id", self.forced_bos_token_id.as_slice()),
            ("forced_eos_token_id", &self.forced_eos_token_id[..]),
        ];
        for (option, ids) in written {
            if let Some(&id) = ids.iter().find(|id| **id as usize >= self.vocab_size) {
                let problem = OptionProblem::TokenOutsideVocabulary { id, vocab_size: self.vocab_size };
                return Err(OptionError::new(option, problem));
            }
        }
        let lists = "lists of at least one token id";
        if self.bad_words_ids.iter().any(Vec::is_empty) {
            return Err(OptionError::out_of_range("bad_words_ids", "[]", lists));
        }
        if self.sequence_bias.iter().any(|(ids, _)| ids.is_empty()) {
            return Err(OptionError::out_of_range("sequence_bias", "[]", lists));
        }
        if self.stop_strings.iter().any(String::is_empty) {
            return Err(OptionError::out_of_range("stop_strings", "\"\"", "texts of at least one character"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ExponentialDecay;
    use crate::{GenerationOptions, TokenIds};

    const LIMITS: ModelLimits =
        ModelLimits { vocab_size: 50, max_position_embeddings: Some(30), is_encoder_decoder: true };

    fn resolved(options: GenerationOptions) -> GenerationConfig {
        let start = GenerationOptions { decoder_start_token_id: Some(2), ..options };
        start.resolve(&LIMITS).expect("options that fit").0
    }

    /// A change of a config, and the field that it must be refused by.
    type Case = (&'static str, fn(&mut GenerationConfig));

    #[test]
    fn what_was_resolved_passes() {
        let sampling = GenerationOptions { do_sample: Some(true), temperature: Some(0.7), ..Default::default() };
        let beams = GenerationOptions { num_beams: Some(4), num_return_sequences: Some(4), ..Default::default() };
        let drawn = GenerationOptions { do_sample: Some(true), typical_p: Some(3.0), ..beams.clone() };
        let diverse = GenerationOptions {
            num_beam_groups: Some(2),
            diversity_penalty: Some(1.0),
            forced_eos_token_id: Some(TokenIds(vec![2])),
            ..beams.clone()
        };
        for options in [GenerationOptions::default(), sampling, beams, drawn, diverse] {
            resolved(options).check(&LIMITS).expect("resolved options");
        }
    }

    #[test]
    fn ids_that_stand_for_themselves_may_be_anything() {
        let mut config = resolved(GenerationOptions { num_beams: Some(2), ..Default::default() });
        let far = 4_000_000_000;
        config.eos_token_id = vec![1, far];
        config.suppress_tokens = vec![far];
        config.begin_suppress_tokens = vec![u32::MAX];
        config.bad_words_ids = vec![vec![far, 3], vec![far]];
        config.sequence_bias = vec![(vec![far], 1.0), (vec![1, far], 1.0)];
        config.pad_token_id = Some(far);
        config.bos_token_id = Some(far);
        config.check(&LIMITS).expect("ids that cannot occur");
    }

    #[test]
    fn changed_fields_are_named() {
        let greedy = resolved(GenerationOptions::default());
        let cases: [Case; 25] = [
            ("vocab_size", |c| c.vocab_size = 1 << 20),
            ("vocab_size", |c| c.vocab_size = 0),
            ("num_beams", |c| c.num_beams = 0),
            ("num_beams", |c| c.num_beams = 4),
            ("num_beams", |c| c.mode = Mode::Beam),
            ("do_sample", |c| c.do_sample = true),
            ("do_sample", |c| c.mode = Mode::Sample),
            ("num_beam_groups", |c| c.num_beam_groups = 0),
            ("num_beam_groups", |c| c.num_beam_groups = 3),
            ("num_return_sequences", |c| c.num_return_sequences = 0),
            ("num_return_sequences", |c| c.num_return_sequences = usize::MAX),
            ("decoder_start_token_id", |c| c.decoder_start_token_id = None),
            ("decoder_start_token_id", |c| c.decoder_start_token_id = Some(4_000_000_000)),
            ("forced_bos_token_id", |c| c.forced_bos_token_id = Some(50)),
            ("forced_eos_token_id", |c| c.forced_eos_token_id = vec![2, u32::MAX]),
            ("repetition_penalty", |c| c.repetition_penalty = f32::NAN),
            ("encoder_repetition_penalty", |c| c.encoder_repetition_penalty = 0.0),
            ("length_penalty", |c| c.length_penalty = f64::INFINITY),
            ("max_time", |c| c.max_time = Some(f64::NAN)),
            ("top_p", |c| c.top_p = f64::NAN),
            ("exponential_decay_length_penalty", |c| {
                c.exponential_decay_length_penalty = Some(ExponentialDecay { start: 0.5, factor: -1.0 });
            }),
            ("bad_words_ids", |c| c.bad_words_ids = vec![vec![]]),
            ("sequence_bias", |c| c.sequence_bias = vec![(vec![], 1.0)]),
            ("sequence_bias", |c| c.sequence_bias = vec![(vec![1], f32::NAN)]),
            ("stop_strings", |c| c.stop_strings = vec![String::new()]),
        ];
        for (field, change) in cases {
            let mut config = greedy.clone();
            change(&mut config);
            assert_eq!(config.check(&LIMITS).expect_err(field).option, field, "{config:?}");
        }
        let sampling = resolved(GenerationOptions { do_sample: Some(true), ..Default::default() });
        let cases: [Case; 7] = [
            ("temperature", |c| c.temperature = 0.0),
            ("temperature", |c| c.temperature = f32::INFINITY),
            ("min_p", |c| c.min_p = 2.0),
            ("typical_p", |c| c.typical_p = f64::NAN),
            ("epsilon_cutoff", |c| c.epsilon_cutoff = 1.0),
            ("eta_cutoff", |c| c.eta_cutoff = -1.0),
            ("top_h", |c| c.top_h = Some(0.0)),
        ];
        for (field, change) in cases {
            let mut config = sampling.clone();
            change(&mut config);
            assert_eq!(config.check(&LIMITS).expect_err(field).option, field);
        }
        let beams = resolved(GenerationOptions { num_beams: Some(2), ..Default::default() });
        let cases: [Case; 5] = [
            ("num_return_sequences", |c| c.num_return_sequences = 9),
            ("num_beam_groups", |c| c.num_beam_groups = 3),
            ("num_beams", |c| c.num_beams = usize::MAX),
            ("num_beams", |c| c.num_beams = 1),
            ("num_beams", |c| c.eos_token_id = (0..60).collect()),
        ];
        for (field, change) in cases {
            let mut config = beams.clone();
            change(&mut config);
            assert_eq!(config.check(&LIMITS).expect_err(field).option, field);
        }
    }

    #[test]
    fn options_of_a_model_with_more_positions_are_refused() {
        let config = resolved(GenerationOptions::default());
        let short = ModelLimits { max_position_embeddings: Some(29), ..LIMITS };
        assert_eq!(config.check(&short).expect_err("positions").option, "max_position_embeddings");
        config.check(&ModelLimits { max_position_embeddings: None, ..LIMITS }).expect("more positions");
    }
}
