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
    pub(crate) groups: usize,
}

/// Whether a value that is not null changes anything.
type Acts = fn(&Value, Context) -> bool;

/// Option, when it acts, and what it asks for.
const TABLE: &[(&str, Acts, &str)] = &[
    ("constraints", |value, _| filled(value), "constrained beam search"),
    ("dola_layers", |value, _| filled(value), "contrasting layers"),
    ("force_words_ids", |value, _| filled(value), "constrained beam search"),
    ("guidance_scale", |value, _| number(value) != Some(1.0), "classifier-free guidance"),
    (
        "penalty_alpha",
        |value, at| !at.do_sample && at.num_beams == 1 && at.top_k > 1 && number(value).is_none_or(|alpha| alpha > 0.0),
        "contrastive search",
    ),
    (
        "token_healing",
        |value, _| value != &Value::Bool(false) && number(value) != Some(0.0),
        "repairing the prompt's last token",
    ),
    ("watermarking_config", |value, _| filled(value), "watermarking"),
];

/// Whether an option acts, whatever its value.
type ActsIn = fn(Context) -> bool;

/// Options that act in some modes alone, when, and what their values have to be. A checkpoint's value of another type waits until then.
const WAITING: &[(&str, ActsIn, &str)] = &[
    ("temperature", |at| at.do_sample, "a number"),
    ("top_k", |at| at.do_sample, "a non-negative integer"),
    ("top_p", |at| at.do_sample, "a number"),
    ("min_p", |at| at.do_sample, "a number"),
    ("top_h", |at| at.do_sample, "a number"),
    ("typical_p", |at| at.do_sample, "a number"),
    ("epsilon_cutoff", |at| at.do_sample, "a number"),
    ("eta_cutoff", |at| at.do_sample, "a number"),
    ("length_penalty", |at| at.num_beams > 1, "a number"),
    ("num_beam_groups", |at| at.num_beams > 1, "a non-negative integer"),
    ("diversity_penalty", |at| at.groups > 1, "a number"),
];

/// Whether a value of `key` that has the wrong type may be kept until the option acts.
pub(crate) fn may_wait(key: &str) -> bool {
    WAITING.iter().any(|(name, ..)| *name == key)
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64()
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
    TABLE.iter().any(|(name, ..)| *name == key)
}

/// Fails on the first option (by name) that would change the result.
pub(crate) fn check(found: &BTreeMap<String, Value>, context: Context) -> Result<(), OptionError> {
    for (name, acts, what) in TABLE {
        if let Some(value) = found.get(*name)
            && !value.is_null()
            && acts(value, context)
        {
            return Err(OptionError::new(*name, OptionProblem::Unsupported { found: format!("{value} ({what})") }));
        }
    }
    for (name, acts, expected) in WAITING {
        if let Some(value) = found.get(*name)
            && acts(context)
        {
            return Err(OptionError::wrong_type(name, value, expected));
        }
    }
    Ok(())
}
