//! Options of Hugging Face `generate()` that change its result and that elgen does not implement yet. A checkpoint may set
//! any of them, mostly to the neutral value; a value that acts is refused, never ignored.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::{OptionError, OptionProblem};

/// What decides, besides the value itself, whether an option acts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    pub(crate) do_sample: bool,
    pub(crate) num_beams: usize,
    pub(crate) top_k: usize,
}

/// Whether a value that is not null changes anything.
type Acts = fn(&Value, Context) -> bool;

const TABLE: &[(&str, Acts)] = &[
    ("constraints", |value, _| filled(value)),
    ("dola_layers", |value, _| filled(value)),
    ("encoder_no_repeat_ngram_size", |value, _| number(value) != Some(0.0)),
    ("encoder_repetition_penalty", |value, _| number(value) != Some(1.0)),
    ("epsilon_cutoff", |value, at| at.do_sample && cutoff(value)),
    ("eta_cutoff", |value, at| at.do_sample && cutoff(value)),
    ("exponential_decay_length_penalty", |value, _| filled(value)),
    ("force_words_ids", |value, _| filled(value)),
    ("guidance_scale", |value, _| number(value) != Some(1.0)),
    ("max_time", |_, _| true),
    ("min_p", |value, at| at.do_sample && number(value) != Some(0.0)),
    ("penalty_alpha", |value, at| {
        !at.do_sample && at.num_beams == 1 && at.top_k > 1 && number(value).is_none_or(|alpha| alpha > 0.0)
    }),
    ("remove_invalid_values", |value, _| value != &Value::Bool(false)),
    ("renormalize_logits", |value, _| value != &Value::Bool(false)),
    ("sequence_bias", |value, _| filled(value)),
    ("stop_strings", |value, _| filled(value)),
    ("token_healing", |value, _| value != &Value::Bool(false)),
    ("top_h", |_, at| at.do_sample),
    ("typical_p", |value, at| at.do_sample && number(value).is_none_or(|mass| mass < 1.0)),
    ("watermarking_config", |value, _| filled(value)),
];

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
}

fn cutoff(value: &Value) -> bool {
    number(value).is_none_or(|cutoff| cutoff > 0.0 && cutoff < 1.0)
}

fn filled(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    }
}

/// Whether `key` is an option that must not be ignored unseen.
pub(crate) fn is_known(key: &str) -> bool {
    TABLE.iter().any(|(name, _)| *name == key)
}

/// Fails on the first option (by name) that would change the result.
pub(crate) fn check(found: &BTreeMap<String, Value>, context: Context) -> Result<(), OptionError> {
    for (name, acts) in TABLE {
        if let Some(value) = found.get(*name)
            && !value.is_null()
            && acts(value, context)
        {
            return Err(OptionError::new(*name, OptionProblem::Unsupported { found: value.to_string() }));
        }
    }
    Ok(())
}
