//! The arguments of a tokenizer's class: tokenizer_config.json, and for older directories what special_tokens_map.json,
//! added_tokens.json and tokenizer.json say over it, by the rules of `PreTrainedTokenizerBase._from_pretrained`.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::argument::Argument;
use super::token::Token;
use super::{ADDED_TOKENS_FILE, CONFIG_FILE, ROLES, SPECIAL_TOKENS_FILE};
use crate::error::excerpt;
use crate::tokenizer::TOKENIZER_FILE;

pub(in crate::tokenizer) const EXTRA: &str = "extra_special_tokens";
pub(in crate::tokenizer) const ADDITIONAL: &str = "additional_special_tokens";
/// Tokens with names of the model's own, such as `image_token`.
pub(in crate::tokenizer) const NAMED: &str = "model_specific_special_tokens";

/// What is wrong, and in which file.
#[derive(Debug)]
pub(in crate::tokenizer) struct Problem {
    pub(in crate::tokenizer) file: &'static str,
    pub(in crate::tokenizer) reason: String,
}

/// The place of an added token, as its file writes it.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::tokenizer) enum Index {
    Whole(i64),
    /// Written with a point, whatever follows it, or beyond all ids.
    Fraction(f64),
    Text(String),
    Null,
}

impl Index {
    /// Its place among numbers.
    pub(super) fn number(&self) -> f64 {
        match self {
            Self::Whole(number) => *number as f64,
            Self::Fraction(number) => *number,
            Self::Text(_) | Self::Null => 0.0,
        }
    }
}

/// Arguments by name, in the order of their files.
#[derive(Debug, Default)]
pub(in crate::tokenizer) struct Arguments {
    entries: Vec<Option<(String, Argument, &'static str)>>,
    places: HashMap<String, usize>,
    added: Vec<(Index, Token)>,
    added_file: &'static str,
}

/// The files of settings, as far as they are read.
#[derive(Debug, Default)]
pub(super) struct Companions {
    pub(super) config: Map<String, Value>,
    pub(super) special_tokens: Map<String, Value>,
    pub(super) added_tokens: Map<String, Value>,
}

impl Arguments {
    /// Merges the files; `single` is the text of tokenizer.json, if there is one.
    pub(super) fn merge(files: &Companions, single: Option<&str>) -> Result<Self, Problem> {
        let mut arguments = Self { added_file: CONFIG_FILE, ..Self::default() };
        for (key, value) in &files.config {
            let skipped = match key.as_str() {
                "tokenizer_class" | "init_inputs" | "added_tokens_decoder" => true,
                // The template of a tokenizer.json says what they would.
                "add_bos_token" | "add_eos_token" => single.is_some(),
                _ => false,
            };
            if !skipped {
                arguments.set(key, Argument::raw(value.clone()), CONFIG_FILE);
            }
        }
        if !arguments.get(EXTRA).is_some_and(Argument::is_truthy)
            && let Some(list) = arguments.remove(ADDITIONAL)
        {
            arguments.set(EXTRA, list, CONFIG_FILE);
        }
        arguments.gather_named();
        match files.config.get("added_tokens_decoder") {
            Some(decoder) => arguments.read_decoder(decoder)?,
            None => {
                arguments.merge_special_tokens(&files.special_tokens)?;
                arguments.read_added_tokens(&files.added_tokens)?;
                if let Some(text) = single {
                    arguments.read_single(text)?;
                }
            }
        }
        arguments.convert()?;
        Ok(arguments)
    }

    /// The value of an argument, if it was given; `null` is a value.
    pub(in crate::tokenizer) fn get(&self, key: &str) -> Option<&Argument> {
        self.places.get(key).and_then(|place| self.entries[*place].as_ref()).map(|(_, value, _)| value)
    }

    /// All arguments that were given.
    pub(in crate::tokenizer) fn iter(&self) -> impl Iterator<Item = (&str, &Argument)> {
        self.entries.iter().flatten().map(|(key, value, _)| (key.as_str(), value))
    }

    /// A problem with the argument `key`, in the file that gave it.
    pub(in crate::tokenizer) fn problem(&self, key: &str, reason: impl fmt::Display) -> Problem {
        let entry = self.places.get(key).and_then(|place| self.entries[*place].as_ref());
        Problem { file: entry.map_or(CONFIG_FILE, |(_, _, file)| file), reason: format!("{key}: {reason}") }
    }

    /// The problem that `key` has a value of the wrong kind.
    pub(in crate::tokenizer) fn wrong(&self, key: &str, wanted: &str) -> Problem {
        let value = self.get(key).map_or_else(|| "nothing".into(), Argument::show);
        let entry = self.places.get(key).and_then(|place| self.entries[*place].as_ref());
        let file = entry.map_or(CONFIG_FILE, |(_, _, file)| file);
        Problem { file, reason: format!("{} = {value}: must be {wanted}", excerpt(key)) }
    }

    /// The added tokens in the order of the file that has the last word on them.
    pub(in crate::tokenizer) fn added(&self) -> &[(Index, Token)] {
        &self.added
    }

    /// The file of the added tokens.
    pub(in crate::tokenizer) fn added_file(&self) -> &'static str {
        self.added_file
    }

    fn set(&mut self, key: &str, value: Argument, file: &'static str) {
        match self.places.get(key) {
            Some(place) => self.entries[*place] = Some((key.to_owned(), value, file)),
            None => {
                self.places.insert(key.to_owned(), self.entries.len());
                self.entries.push(Some((key.to_owned(), value, file)));
            }
        }
    }

    fn remove(&mut self, key: &str) -> Option<Argument> {
        let place = self.places.remove(key)?;
        self.entries[place].take().map(|(_, value, _)| value)
    }

    /// Moves tokens with names of their own under one key.
    fn gather_named(&mut self) {
        let is_named = |key: &str, value: &Argument| {
            key.ends_with("_token") && !ROLES.contains(&key) && matches!(value, Argument::Text(_))
        };
        let keys: Vec<String> =
            self.iter().filter(|(key, value)| is_named(key, value)).map(|(key, _)| key.to_owned()).collect();
        let mut named = Map::new();
        for key in keys {
            if let Some(Argument::Text(token)) = self.remove(&key) {
                named.insert(key, Value::String(token));
            }
        }
        if let Some(Argument::Object(fields)) = self.get(EXTRA).cloned() {
            self.remove(EXTRA);
            named.extend(fields);
        }
        if !named.is_empty() {
            self.set(NAMED, Argument::Object(named), CONFIG_FILE);
        }
    }

    fn read_decoder(&mut self, decoder: &Value) -> Result<(), Problem> {
        let bad = |reason: String| Problem { file: CONFIG_FILE, reason: format!("added_tokens_decoder: {reason}") };
        let Value::Object(tokens) = decoder else { return Err(bad("must be an object".into())) };
        let mut added = Added::default();
        for (id, token) in tokens {
            let number: i64 = id.trim().parse().map_err(|_| bad(format!("`{}` is not a token id", excerpt(id))))?;
            let Value::Object(fields) = token else {
                return Err(bad(format!("{} is not a token", excerpt(&token.to_string()))));
            };
            added.set(Index::Whole(number), Token::from_fields(fields).map_err(bad)?);
        }
        self.added = added.tokens;
        Ok(())
    }

    /// The older file's entries win over those of tokenizer_config.json, and its lists join.
    fn merge_special_tokens(&mut self, map: &Map<String, Value>) -> Result<(), Problem> {
        let file = SPECIAL_TOKENS_FILE;
        for (key, value) in map {
            let bad = |reason| Problem { file, reason: format!("{}: {reason}", excerpt(key)) };
            let special = |fields: &Map<String, Value>| {
                let mut fields = fields.clone();
                fields.insert("special".into(), Value::Bool(true));
                Token::from_fields(&fields).map(Argument::Token).map_err(bad)
            };
            let value = match value {
                Value::Object(fields) if key != EXTRA => special(fields)?,
                Value::Array(list) if key == EXTRA => {
                    let mut joined = match self.get(EXTRA) {
                        Some(own) if own.is_truthy() => {
                            own.elements().ok_or_else(|| self.wrong(EXTRA, "a list of tokens"))?
                        }
                        _ => Vec::new(),
                    };
                    let mut known: HashSet<String> = joined.iter().map(|token| format!("{token:?}")).collect();
                    for token in list {
                        let token = match token {
                            Value::Object(fields) if fields.contains_key("special") => {
                                return Err(bad("its tokens are special, they may not say so again".into()));
                            }
                            Value::Object(fields) => special(fields)?,
                            other => Argument::raw(other.clone()),
                        };
                        if known.insert(format!("{token:?}")) {
                            joined.push(token);
                        }
                    }
                    Argument::List(joined)
                }
                other => Argument::raw(other.clone()),
            };
            self.set(key, value, file);
        }
        if let Some(Argument::Object(fields)) = self.get(EXTRA).cloned() {
            self.remove(EXTRA);
            let mut named = match self.get(NAMED).cloned() {
                None => Map::new(),
                Some(Argument::Object(named)) => named,
                Some(_) => return Err(self.wrong(NAMED, "an object of tokens")),
            };
            named.extend(fields);
            self.set(NAMED, Argument::Object(named), file);
        }
        Ok(())
    }

    /// Tokens of added_tokens.json are special only if another file names them.
    fn read_added_tokens(&mut self, tokens: &Map<String, Value>) -> Result<(), Problem> {
        if tokens.is_empty() {
            return Ok(());
        }
        self.added_file = ADDED_TOKENS_FILE;
        let roles = ROLES.iter().filter_map(|role| self.get(role).filter(|value| value.is_truthy()));
        let mut special: HashSet<String> = roles.map(Argument::python_str).collect();
        if let Some(list) = self.get(EXTRA).filter(|list| list.is_truthy()) {
            let list = list.elements().ok_or_else(|| self.wrong(EXTRA, "a list of tokens"))?;
            special.extend(list.iter().map(Argument::python_str));
        }
        let mut added = Added::default();
        for (content, id) in tokens {
            let is_special = special.contains(content);
            let token = Token { normalized: Some(!is_special), ..Token::new(content.as_str(), is_special) };
            let index = index(id).ok_or_else(|| Problem {
                file: ADDED_TOKENS_FILE,
                reason: format!("token `{}` needs a number as its id", excerpt(content)),
            })?;
            added.set(index, token);
        }
        self.added = added.tokens;
        Ok(())
    }

    /// The added tokens of tokenizer.json.
    fn read_single(&mut self, text: &str) -> Result<(), Problem> {
        let bad = |reason: String| Problem { file: TOKENIZER_FILE, reason };
        let mut json = serde_json::Deserializer::from_str(text);
        let tokens = json.deserialize_map(AddedTokens).map_err(|error| bad(error.to_string()))?;
        let mut added = Added::from(std::mem::take(&mut self.added));
        if !tokens.is_empty() {
            self.added_file = TOKENIZER_FILE;
        }
        for token in &tokens {
            let Value::Object(fields) = token else { return Err(bad("an added token is no object".into())) };
            let index = fields.get("id").and_then(index).ok_or_else(|| bad("an added token has no id".into()))?;
            added.set(index, Token::from_fields(fields).map_err(bad)?);
        }
        self.added = added.tokens;
        Ok(())
    }

    /// Makes tokens of marked objects, and gives tokens with a role the properties that they have as added tokens.
    fn convert(&mut self) -> Result<(), Problem> {
        for (key, value, file) in self.entries.iter_mut().flatten() {
            let raw = std::mem::replace(value, Argument::Null);
            *value = raw.convert().map_err(|reason| Problem { file, reason: format!("{}: {reason}", excerpt(key)) })?;
        }
        let known: HashMap<&str, &Token> =
            self.added.iter().map(|(_, token)| (token.content.as_str(), token)).collect();
        for role in ROLES {
            let Some(&place) = self.places.get(role) else { continue };
            if let Some((_, value, _)) = &mut self.entries[place]
                && value.is_token()
                && let Some(token) = known.get(value.python_str().as_str())
            {
                *value = Argument::Token((*token).clone());
            }
        }
        Ok(())
    }
}

/// Added tokens by place, a later one in an earlier one's stead.
#[derive(Default)]
struct Added {
    tokens: Vec<(Index, Token)>,
    places: HashMap<String, usize>,
}

impl From<Vec<(Index, Token)>> for Added {
    fn from(tokens: Vec<(Index, Token)>) -> Self {
        let places = (0..).zip(&tokens).map(|(place, (index, _))| (format!("{index:?}"), place)).collect();
        Self { tokens, places }
    }
}

impl Added {
    fn set(&mut self, index: Index, token: Token) {
        match self.places.get(&format!("{index:?}")) {
            Some(place) => self.tokens[*place].1 = token,
            None => {
                self.places.insert(format!("{index:?}"), self.tokens.len());
                self.tokens.push((index, token));
            }
        }
    }
}

fn index(value: &Value) -> Option<Index> {
    match value {
        Value::Null => Some(Index::Null),
        Value::Bool(value) => Some(Index::Whole(i64::from(*value))),
        Value::Number(number) => number.as_i64().map(Index::Whole).or_else(|| number.as_f64().map(Index::Fraction)),
        Value::String(text) => Some(Index::Text(text.clone())),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Passes over everything in a tokenizer.json but its added tokens.
struct AddedTokens;

impl<'de> Visitor<'de> for AddedTokens {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Value>, A::Error> {
        let mut found = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == "added_tokens" {
                found = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}
