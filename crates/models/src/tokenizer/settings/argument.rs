//! The values that a tokenizer's files give to the arguments of its class.

use serde_json::{Map, Number, Value};

use super::token::Token;
use crate::error::excerpt;

/// A value as transformers holds it once the files are read: JSON, in which objects marked as tokens have become tokens.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::tokenizer) enum Argument {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    Token(Token),
    List(Vec<Argument>),
    Object(Map<String, Value>),
}

impl Argument {
    /// JSON as it is: a marked token is still an object.
    pub(super) fn raw(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(value) => Self::Number(value),
            Value::String(value) => Self::Text(value),
            Value::Array(list) => Self::List(list.into_iter().map(Self::raw).collect()),
            Value::Object(fields) => Self::Object(fields),
        }
    }

    /// Makes tokens of the objects that `"__type": "AddedToken"` marks. Those inside other objects stay, see [`Argument::entries`].
    pub(super) fn convert(self) -> Result<Self, String> {
        Ok(match self {
            Self::Object(fields) if fields.get("__type").and_then(Value::as_str) == Some("AddedToken") => {
                Self::Token(Token::from_fields(&fields)?)
            }
            Self::List(list) => Self::List(list.into_iter().map(Self::convert).collect::<Result<_, _>>()?),
            other => other,
        })
    }

    /// The entries of an object.
    pub(in crate::tokenizer) fn entries(&self) -> Option<Result<Vec<(String, Argument)>, String>> {
        let Self::Object(fields) = self else { return None };
        let entry = |(key, value): (&String, &Value)| Ok((key.clone(), Self::raw(value.clone()).convert()?));
        Some(fields.iter().map(entry).collect())
    }

    /// Python's `bool(value)`.
    pub(in crate::tokenizer) fn is_truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Number(number) => number.as_f64() != Some(0.0),
            Self::Text(text) => !text.is_empty(),
            Self::Token(_) => true,
            Self::List(list) => !list.is_empty(),
            Self::Object(fields) => !fields.is_empty(),
        }
    }

    /// Python's `str(value)`, which classes use to write a token into a vocabulary.
    pub(in crate::tokenizer) fn python_str(&self) -> String {
        match self {
            Self::Null => "None".into(),
            Self::Bool(true) => "True".into(),
            Self::Bool(false) => "False".into(),
            Self::Text(text) => text.clone(),
            Self::Token(token) => token.content.clone(),
            Self::Number(number) => number.to_string(),
            Self::List(list) => python_list(list.iter().map(Self::python_repr)),
            Self::Object(fields) => python_object(fields),
        }
    }

    fn python_repr(&self) -> String {
        match self {
            Self::Text(text) => python_text(text),
            other => other.python_str(),
        }
    }

    /// A text or a token.
    pub(in crate::tokenizer) fn is_token(&self) -> bool {
        matches!(self, Self::Text(_) | Self::Token(_))
    }

    /// The token that this value is once it is added: a plain text is special.
    pub(in crate::tokenizer) fn to_token(&self) -> Option<Token> {
        match self {
            Self::Text(content) => Some(Token::new(content.as_str(), true)),
            Self::Token(token) => Some(token.clone()),
            _ => None,
        }
    }

    /// The elements that Python's `list(value)` has.
    pub(in crate::tokenizer) fn elements(&self) -> Option<Vec<Argument>> {
        match self {
            Self::List(list) => Some(list.clone()),
            Self::Text(text) => Some(text.chars().map(|c| Self::Text(c.into())).collect()),
            Self::Object(fields) => Some(fields.keys().map(|key| Self::Text(key.clone())).collect()),
            _ => None,
        }
    }

    /// A short form for messages.
    pub(in crate::tokenizer) fn show(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Bool(value) => value.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("`{}`", excerpt(text)),
            Self::Token(token) => format!("the token `{}`", excerpt(&token.content)),
            Self::List(_) => "a list".into(),
            Self::Object(_) => "an object".into(),
        }
    }
}

fn python_text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let inner = text.replace('\\', "\\\\").replace('\n', "\\n").replace(quote, &format!("\\{quote}"));
    format!("{quote}{inner}{quote}")
}

fn python_list(elements: impl Iterator<Item = String>) -> String {
    format!("[{}]", elements.collect::<Vec<_>>().join(", "))
}

fn python_object(fields: &Map<String, Value>) -> String {
    let field = |(key, value): (&String, &Value)| {
        format!("{}: {}", python_text(key), Argument::raw(value.clone()).python_repr())
    };
    format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Argument;

    #[test]
    fn values_are_written_and_weighed_as_python_does() {
        let raw = |value| Argument::raw(value);
        let object = json!({"content": "it's", "lstrip": false, "n": [1, null, 2.5]});
        assert_eq!(raw(object).python_str(), r#"{'content': "it's", 'lstrip': False, 'n': [1, None, 2.5]}"#);
        assert_eq!(raw(json!(null)).python_str(), "None");
        for (value, truth) in [
            (json!(null), false),
            (json!(0), false),
            (json!(0.0), false),
            (json!(""), false),
            (json!([]), false),
            (json!({}), false),
            (json!(false), false),
            (json!(-1), true),
            (json!("0"), true),
            (json!([0]), true),
        ] {
            assert_eq!(raw(value.clone()).is_truthy(), truth, "{value}");
        }
    }
}
