//! Generation flags: Hugging Face's options in kebab case.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;
use elgen_search::{EarlyStopping, ExponentialDecay, GenerationOptions, SequenceBias, StopStrings, TokenIds};
use serde_json::Value;

use super::values::{self, Words};

/// The generation options as flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "Generation options")]
pub(crate) struct GenerationFlags {
    /// Hypotheses kept per input; more than 1 is beam search
    #[arg(long, visible_alias = "beam-size", alias = "beam", value_name = "N", allow_negative_numbers = true)]
    num_beams: Option<usize>,

    /// Diverse beam search: groups of beams that are kept apart; must divide --num-beams
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    num_beam_groups: Option<usize>,

    /// Diverse beam search: subtracted from a token for each earlier group that chose it in the same step
    #[arg(long, value_name = "X", value_parser = values::finite, allow_negative_numbers = true)]
    diversity_penalty: Option<f64>,

    /// Draw tokens at random instead of taking the best
    #[arg(long, visible_alias = "sample", value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    do_sample: Option<bool>,

    /// Sequences returned per input
    #[arg(long, visible_alias = "n-best", alias = "nbest", value_name = "N", allow_negative_numbers = true)]
    num_return_sequences: Option<usize>,

    /// Most new tokens; wins over --max-length
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_new_tokens: Option<usize>,

    /// Longest sequence, prompt or decoder start token included
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_length: Option<usize>,

    /// No end before N new tokens; wins over --min-length
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    min_new_tokens: Option<usize>,

    /// No end before a sequence of N tokens, prompt or decoder start token included
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    min_length: Option<usize>,

    /// When beam search stops: true, as soon as --num-beams sequences are finished; false, when no running beam looks
    /// better than they do; never, when none can become better
    #[arg(long, value_name = "true|false|never", value_parser = values::early_stopping)]
    early_stopping: Option<EarlyStopping>,

    /// Power of the length that divides a beam's score: above 0 favours long sequences, below 0 short ones
    #[arg(long, visible_alias = "lenpen", value_name = "X", value_parser = values::finite, allow_negative_numbers = true)]
    length_penalty: Option<f64>,

    /// Sampling: divides the scores; below 1 is more cautious, above 1 more varied
    #[arg(long, visible_alias = "temp", value_name = "X", value_parser = values::finite, allow_negative_numbers = true)]
    temperature: Option<f64>,

    /// Sampling: draw from the K best tokens; 0 from all
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<usize>,

    /// Sampling: draw from the best tokens that together have probability P
    #[arg(long, value_name = "P", value_parser = values::finite, allow_negative_numbers = true)]
    top_p: Option<f64>,

    /// Sampling: draw from the tokens with at least P times the probability of the best
    #[arg(long, value_name = "P", value_parser = values::finite, allow_negative_numbers = true)]
    min_p: Option<f64>,

    /// Sampling: draw from the tokens nearest to the expected surprise that together have probability P
    #[arg(long, value_name = "P", value_parser = values::finite, allow_negative_numbers = true)]
    typical_p: Option<f64>,

    /// Sampling: draw from the tokens of at least probability P
    #[arg(long, value_name = "P", value_parser = values::finite, allow_negative_numbers = true)]
    epsilon_cutoff: Option<f64>,

    /// Sampling: as --epsilon-cutoff, with a lower bar where the distribution is flat
    #[arg(long, value_name = "P", value_parser = values::finite, allow_negative_numbers = true)]
    eta_cutoff: Option<f64>,

    /// Sampling: draw from the best tokens that together have the part P of the entropy of the first 100
    #[arg(long, value_name = "P", value_parser = values::finite, allow_negative_numbers = true)]
    top_h: Option<f64>,

    /// Sampling: seed of the random numbers; equal seeds give equal texts, however inputs are batched
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u64>,

    /// Above 1, makes tokens that occurred less likely
    #[arg(long, value_name = "X", value_parser = values::finite, allow_negative_numbers = true)]
    repetition_penalty: Option<f64>,

    /// Above 1, makes the source's tokens more likely
    #[arg(long, value_name = "X", value_parser = values::finite, allow_negative_numbers = true)]
    encoder_repetition_penalty: Option<f64>,

    /// No N-gram occurs twice; 0 is off
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    no_repeat_ngram_size: Option<usize>,

    /// No N-gram of the source is generated; 0 is off
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    encoder_no_repeat_ngram_size: Option<usize>,

    /// What is added to the score of a sequence's last token behind the others, in JSON: '[[[5],-2.5],[[6,8],1.0]]'
    #[arg(long, value_name = "JSON", value_parser = values::sequence_bias)]
    sequence_bias: Option<SequenceBias>,

    /// Raises the score of the end by FACTOR with each token behind the first START new ones: 20,1.05
    #[arg(long, value_name = "START,FACTOR", value_parser = values::exponential_decay)]
    exponential_decay_length_penalty: Option<ExponentialDecay>,

    /// Replace NaN by 0 and infinite scores by the largest finite ones
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    remove_invalid_values: Option<bool>,

    /// Turn processed scores into log-probabilities again
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    renormalize_logits: Option<bool>,

    /// Words that are never generated, as JSON lists of token ids: '[[5],[6,8]]'
    #[arg(long, value_name = "JSON", value_parser = values::words)]
    bad_words_ids: Option<Words>,

    /// Tokens that are never generated: 14,15
    #[arg(long, value_name = "IDS", value_parser = values::token_ids, allow_negative_numbers = true)]
    suppress_tokens: Option<TokenIds>,

    /// Tokens that are not generated first: 14,15
    #[arg(long, value_name = "IDS", value_parser = values::token_ids, allow_negative_numbers = true)]
    begin_suppress_tokens: Option<TokenIds>,

    /// Token that must come first
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    forced_bos_token_id: Option<u32>,

    /// Tokens of which one must come last at the maximum length: 2 or 2,7
    #[arg(long, value_name = "IDS", value_parser = values::token_ids, allow_negative_numbers = true)]
    forced_eos_token_id: Option<TokenIds>,

    /// Tokens that end a sequence: 2 or 2,7
    #[arg(long, value_name = "IDS", value_parser = values::token_ids, allow_negative_numbers = true)]
    eos_token_id: Option<TokenIds>,

    /// Padding token; has no effect on results
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    pad_token_id: Option<u32>,

    /// Token that begins a text
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    bos_token_id: Option<u32>,

    /// Token that the decoder of an encoder-decoder model starts with
    #[arg(long, value_name = "ID", allow_negative_numbers = true)]
    decoder_start_token_id: Option<u32>,

    /// End a sequence whose text holds STR; may be given several times
    #[arg(long = "stop", alias = "stop-strings", value_name = "STR", allow_hyphen_values = true)]
    stop_strings: Vec<String>,

    /// Begin no further token after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = values::finite, allow_negative_numbers = true)]
    max_time: Option<f64>,

    /// Generation options from a JSON file such as generation_config.json; flags and --set win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) generation_config: Option<PathBuf>,

    /// Any generation option by its Hugging Face name, its value as in JSON: num_beams=4; may be given several times, the
    /// option's own flag wins
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::setting)]
    pub(crate) set: Vec<(String, Value)>,
}

impl GenerationFlags {
    /// The options that were typed.
    pub(crate) fn options(&self) -> GenerationOptions {
        let ids = |list: &Option<TokenIds>| list.as_ref().map(|ids| ids.0.clone());
        GenerationOptions {
            max_length: self.max_length,
            max_new_tokens: self.max_new_tokens,
            min_length: self.min_length,
            min_new_tokens: self.min_new_tokens,
            num_beams: self.num_beams,
            num_beam_groups: self.num_beam_groups,
            diversity_penalty: self.diversity_penalty,
            do_sample: self.do_sample,
            num_return_sequences: self.num_return_sequences,
            early_stopping: self.early_stopping,
            length_penalty: self.length_penalty,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            epsilon_cutoff: self.epsilon_cutoff,
            eta_cutoff: self.eta_cutoff,
            top_h: self.top_h,
            repetition_penalty: self.repetition_penalty,
            encoder_repetition_penalty: self.encoder_repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size,
            encoder_no_repeat_ngram_size: self.encoder_no_repeat_ngram_size,
            sequence_bias: self.sequence_bias.clone(),
            exponential_decay_length_penalty: self.exponential_decay_length_penalty,
            remove_invalid_values: self.remove_invalid_values,
            renormalize_logits: self.renormalize_logits,
            bad_words_ids: self.bad_words_ids.as_ref().map(|words| words.0.clone()),
            suppress_tokens: ids(&self.suppress_tokens),
            begin_suppress_tokens: ids(&self.begin_suppress_tokens),
            // Beyond the range of i32 an id would stand for a negative number, which counts from the vocabulary's end.
            forced_bos_token_id: self.forced_bos_token_id.map(|id| id.min(i32::MAX as u32)),
            forced_eos_token_id: self.forced_eos_token_id.clone(),
            eos_token_id: self.eos_token_id.clone(),
            pad_token_id: self.pad_token_id,
            bos_token_id: self.bos_token_id,
            decoder_start_token_id: self.decoder_start_token_id,
            stop_strings: (!self.stop_strings.is_empty()).then(|| StopStrings(self.stop_strings.clone())),
            max_time: self.max_time,
            seed: self.seed,
            unsupported: BTreeMap::new(),
            lengths_of_checkpoint: false,
        }
    }
}

/// The names of the options that are set in `options`.
pub(crate) fn set_names(options: &GenerationOptions) -> Vec<String> {
    match serde_json::to_value(options) {
        Ok(Value::Object(fields)) => fields.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    }
}

/// The options that the user set, each with how the user wrote it: `num_beams` as `--num-beams`.
pub(crate) type Names = BTreeMap<String, String>;

/// A message about options with the names of those that the user set written as the user did, and whether there was any.
///
/// Names that the user did not write come from the checkpoint and stay as they stand in its files.
pub(crate) fn name_flags(message: &str, typed: &Names) -> (String, bool) {
    let mut named = String::with_capacity(message.len() + 8);
    let mut any = false;
    let mut rest = message;
    while !rest.is_empty() {
        let word = rest.find(|c: char| c.is_ascii_alphanumeric() || c == '_').unwrap_or(rest.len());
        named.push_str(&rest[..word]);
        rest = &rest[word..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let written = typed.get(word);
        any |= written.is_some();
        named.push_str(written.map_or(word, String::as_str));
        rest = behind;
    }
    (named, any)
}

/// The flag of an option: `num_beams` is `--num-beams`.
pub(crate) fn flag(option: &str) -> String {
    match option {
        "stop_strings" => "--stop".to_owned(),
        _ => format!("--{}", option.replace('_', "-")),
    }
}
