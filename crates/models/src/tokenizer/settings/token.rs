//! A token with its properties, as transformers' `AddedToken`.

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::error::excerpt;

/// A token that is cut out of texts as it is. What is not given follows transformers' defaults.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::tokenizer) struct Token {
    pub(in crate::tokenizer) content: String,
    pub(in crate::tokenizer) special: bool,
    /// `None`: only if it is not special, whenever that is decided.
    pub(in crate::tokenizer) normalized: Option<bool>,
    pub(in crate::tokenizer) single_word: bool,
    pub(in crate::tokenizer) lstrip: bool,
    pub(in crate::tokenizer) rstrip: bool,
}

impl Token {
    /// With no property but whether it is special.
    pub(in crate::tokenizer) fn new(content: impl Into<String>, special: bool) -> Self {
        Self { content: content.into(), special, normalized: None, single_word: false, lstrip: false, rstrip: false }
    }

    /// From an object of its properties; fields of other names are passed over.
    pub(in crate::tokenizer) fn from_fields(fields: &Map<String, Value>) -> Result<Self, String> {
        let content = match fields.get("content") {
            None | Some(Value::Null) => "",
            Some(Value::String(content)) => content,
            Some(other) => return Err(format!("a token's content = {}: must be a text", excerpt(&other.to_string()))),
        };
        let flag = |key: &str| match fields.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(format!(
                "token `{}`: {key} = {}: must be true or false",
                excerpt(content),
                excerpt(&other.to_string())
            )),
        };
        Ok(Self {
            content: content.to_owned(),
            special: flag("special")?.unwrap_or(false),
            normalized: flag("normalized")?,
            single_word: flag("single_word")?.unwrap_or(false),
            lstrip: flag("lstrip")?.unwrap_or(false),
            rstrip: flag("rstrip")?.unwrap_or(false),
        })
    }

    /// What the `tokenizers` crate takes.
    pub(in crate::tokenizer) fn added(&self) -> AddedToken {
        let token = AddedToken::from(self.content.as_str(), self.special)
            .single_word(self.single_word)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip);
        match self.normalized {
            Some(normalized) => token.normalized(normalized),
            None => token,
        }
    }
}
