//! Typed access to the keys of a config with one way of complaining.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Activation, SpecialTokens, activation, activation_names};
use crate::error::{ConfigError, ModelError, excerpt};

/// The largest accepted number of layers of a stack.
pub(crate) const MAX_LAYERS: usize = 1_000;
/// The largest accepted model width, in elements.
pub(crate) const MAX_WIDTH: usize = 65_536;
/// The largest accepted inner width of a feed-forward block, in elements.
pub(crate) const MAX_FFN: usize = 1 << 20;
/// The largest accepted vocabulary or position table, in rows.
pub(crate) const MAX_ROWS: usize = 10_000_000;

/// The keys of a config file.
#[derive(Debug, Clone, Copy)]
pub struct ConfigKeys<'a> {
    /// The file, for messages.
    pub file: &'a Path,
    /// Its content.
    pub map: &'a Map<String, Value>,
}

impl<'a> ConfigKeys<'a> {
    /// The value of `key`; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The error that `key` has a value which is no good, and why.
    pub fn error(&self, key: &str, why: impl Into<String>) -> ModelError {
        let value = self.map.get(key).map_or_else(|| "(class default)".into(), |value| excerpt(&value.to_string()));
        ModelError::from(ConfigError::Key { file: self.file.into(), key: key.into(), value, why: why.into() })
    }

    /// A count from 1 to `max` under the first of `names`; the others are aliases and may not contradict it.
    ///
    /// # Errors
    /// No whole number, one out of range, or aliases that contradict each other.
    pub fn count(&self, names: &[&str], default: usize, max: usize) -> Result<usize, ModelError> {
        let mut found: Option<(&str, usize)> = None;
        for &name in names {
            let Some(value) = self.get(name) else { continue };
            let number = self.whole_number(name, value)?;
            if number == 0 {
                return Err(self.error(name, "must be at least 1"));
            }
            if number > max as u64 {
                return Err(self.error(name, format!("is larger than {max}, which no model of this family is")));
            }
            // At most `max`, so it fits.
            let number = number as usize;
            match found {
                Some((first, other)) if other != number => {
                    return Err(self.error(name, format!("contradicts {first} = {other}")));
                }
                _ => found = Some((name, number)),
            }
        }
        Ok(found.map_or(default, |(_, number)| number))
    }

    fn whole_number(&self, key: &str, value: &Value) -> Result<u64, ModelError> {
        value.as_u64().ok_or_else(|| {
            let why = match value {
                Value::Number(number) if number.as_f64().is_some_and(|n| n < 0.0) => "must not be negative",
                _ => "must be a whole number",
            };
            self.error(key, why)
        })
    }

    /// A flag.
    ///
    /// # Errors
    /// The value is neither true nor false.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.error(key, "must be true or false")),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// The value is no text.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.error(key, "must be a string")),
        }
    }

    /// The epsilon of norms.
    ///
    /// # Errors
    /// The value is no number, negative, or beyond f32.
    pub fn epsilon(&self, key: &str, default: f32) -> Result<f32, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_f64() {
            Some(number) if number >= 0.0 && (number as f32).is_finite() => Ok(number as f32),
            _ => Err(self.error(key, "must be a number, 0 or more")),
        }
    }

    /// The name of an activation function.
    ///
    /// # Errors
    /// A name that is not known.
    pub fn activation(&self, key: &str, default: Activation) -> Result<Activation, ModelError> {
        let Some(name) = self.text(key)? else { return Ok(default) };
        activation(name)
            .ok_or_else(|| self.error(key, format!("is not implemented (implemented: {})", activation_names())))
    }

    /// `dtype`, or its older name `torch_dtype`; only a hint, so a value that is no name is passed over.
    pub fn dtype(&self) -> Option<String> {
        let name = |key| self.get(key).and_then(Value::as_str);
        let name = name("dtype").or_else(|| name("torch_dtype"))?;
        Some(name.trim_start_matches("torch.").to_owned())
    }

    /// The four special ids; one that the file does not mention is the class's default. Ids that the vocabulary does not hold are left out:
    /// most files have some, and where one has no part in a run it may be anything. `loose` are keys that the family's class does not
    /// declare, whose values may have any type.
    ///
    /// # Errors
    /// A value that is no token id.
    pub fn special_tokens(
        &self,
        defaults: &SpecialTokens,
        vocab_size: usize,
        loose: &[&str],
    ) -> Result<SpecialTokens, ModelError> {
        let held = |id: &u32| (*id as usize) < vocab_size;
        let read = |key: &str, value: &Value| match self.token_id(key, value, vocab_size) {
            Err(_) if loose.contains(&key) => Ok(None),
            read => read,
        };
        let one = |key: &str, default: Option<u32>| match self.map.get(key) {
            None => Ok(default.filter(held)),
            Some(Value::Null) => Ok(None),
            Some(value) => read(key, value),
        };
        let eos = match self.map.get("eos_token_id") {
            None => defaults.eos.iter().copied().filter(held).collect(),
            Some(Value::Null) => Vec::new(),
            Some(Value::Array(ids)) => {
                let read = ids.iter().map(|id| read("eos_token_id", id)).collect::<Result<Vec<_>, _>>()?;
                read.into_iter().flatten().collect()
            }
            Some(id) => Vec::from_iter(read("eos_token_id", id)?),
        };
        Ok(SpecialTokens {
            bos: one("bos_token_id", defaults.bos)?,
            eos,
            pad: one("pad_token_id", defaults.pad)?,
            decoder_start: one("decoder_start_token_id", defaults.decoder_start)?,
        })
    }

    /// The id, or `None` where the vocabulary does not hold it.
    fn token_id(&self, key: &str, value: &Value, vocab_size: usize) -> Result<Option<u32>, ModelError> {
        if value.as_i64().is_none() && value.as_u64().is_none() {
            return Err(self.error(key, "must be a token id, or null"));
        }
        Ok(value.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < vocab_size))
    }

    /// Refuses a `pad_token_id` that is no row of a table of `rows` rows, for the families whose embeddings are made with it; a negative
    /// one counts from the end.
    ///
    /// # Errors
    /// There is no such row.
    pub fn check_padding(&self, rows: usize) -> Result<(), ModelError> {
        const KEY: &str = "pad_token_id";
        let Some(value) = self.get(KEY) else { return Ok(()) };
        let rows = rows as i64;
        match value.as_i64() {
            Some(id) if (-rows..rows).contains(&id) => Ok(()),
            _ => Err(self.error(KEY, format!("is outside the vocabulary of {rows}, where the embeddings need it"))),
        }
    }

    /// Whether Python would take the value for true; absent and null are not.
    pub fn truthy(&self, key: &str) -> bool {
        match self.get(key) {
            None => false,
            Some(Value::Bool(flag)) => *flag,
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(fields)) => !fields.is_empty(),
            Some(Value::Null) => false,
        }
    }

    /// Refuses a decoder-only model that says it has an encoder.
    ///
    /// # Errors
    /// It says so.
    pub fn no_encoder(&self) -> Result<(), ModelError> {
        const KEY: &str = "is_encoder_decoder";
        if self.truthy(KEY) { Err(self.error(KEY, "this family has no encoder")) } else { Ok(()) }
    }
}
