//! Typed access to the keys of a config with one way of complaining.

use std::path::Path;

use serde_json::{Map, Value};

use super::{Activation, SpecialTokens};
use crate::error::{ModelError, excerpt};

/// The largest accepted number of layers of a stack.
pub(super) const MAX_LAYERS: usize = 1_000;
/// The largest accepted model width, in elements.
pub(super) const MAX_WIDTH: usize = 65_536;
/// The largest accepted inner width of a feed-forward block, in elements.
pub(super) const MAX_FFN: usize = 1 << 20;
/// The largest accepted vocabulary or position table, in rows.
pub(super) const MAX_ROWS: usize = 10_000_000;

pub(crate) struct Keys<'a> {
    pub(crate) file: &'a Path,
    pub(crate) map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// The value of `key`; null counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn error(&self, key: &str, why: impl Into<String>) -> ModelError {
        let value = self.map.get(key).map_or_else(|| "(class default)".into(), |value| excerpt(&value.to_string()));
        ModelError::Config { file: self.file.into(), key: key.into(), value, why: why.into() }
    }

    /// A count from 1 to `max` under the first of `names`; the others are aliases and may not contradict it.
    pub(super) fn count(&self, names: &[&str], default: usize, max: usize) -> Result<usize, ModelError> {
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

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.error(key, "must be true or false")),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.error(key, "must be a string")),
        }
    }

    pub(super) fn epsilon(&self, key: &str, default: f32) -> Result<f32, ModelError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_f64() {
            Some(number) if (0.0..1.0).contains(&number) => Ok(number as f32),
            _ => Err(self.error(key, "must be a number from 0 to 1")),
        }
    }

    pub(super) fn activation(&self, key: &str, default: Activation) -> Result<Activation, ModelError> {
        let Some(name) = self.text(key)? else { return Ok(default) };
        Activation::from_name(name)
            .ok_or_else(|| self.error(key, format!("is not implemented (implemented: {})", Activation::names())))
    }

    /// `dtype`, or its older name `torch_dtype`.
    pub(super) fn dtype(&self) -> Result<Option<String>, ModelError> {
        let name = match self.text("dtype")? {
            None => self.text("torch_dtype")?,
            name => name,
        };
        Ok(name.map(|name| name.trim_start_matches("torch.").to_owned()))
    }

    /// The four special ids; one that the file does not mention is the class's default, as far as the vocabulary reaches.
    pub(crate) fn special_tokens(
        &self,
        defaults: &SpecialTokens,
        vocab_size: usize,
    ) -> Result<SpecialTokens, ModelError> {
        let one = |key: &str, default: Option<u32>| match self.map.get(key) {
            None => Ok(default.filter(|&id| (id as usize) < vocab_size)),
            Some(Value::Null) => Ok(None),
            Some(value) => self.token_id(key, value, vocab_size).map(Some),
        };
        let eos = match self.map.get("eos_token_id") {
            None => defaults.eos.iter().copied().filter(|&id| (id as usize) < vocab_size).collect(),
            Some(Value::Null) => Vec::new(),
            Some(Value::Array(ids)) => {
                ids.iter().map(|id| self.token_id("eos_token_id", id, vocab_size)).collect::<Result<_, _>>()?
            }
            Some(id) => vec![self.token_id("eos_token_id", id, vocab_size)?],
        };
        Ok(SpecialTokens {
            bos: one("bos_token_id", defaults.bos)?,
            eos,
            pad: one("pad_token_id", defaults.pad)?,
            decoder_start: one("decoder_start_token_id", defaults.decoder_start)?,
        })
    }

    fn token_id(&self, key: &str, value: &Value, vocab_size: usize) -> Result<u32, ModelError> {
        let id = self.whole_number(key, value)?;
        match u32::try_from(id) {
            Ok(id) if (id as usize) < vocab_size => Ok(id),
            _ => Err(self.error(key, format!("is outside the vocabulary of {vocab_size}"))),
        }
    }
}
