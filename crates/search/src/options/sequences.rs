//! Options that are written as pairs, maps or lists.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Biases of sequences of token ids (`sequence_bias`), each sequence once, in the order of its first appearance.
///
/// As JSON a list of `[[ids], bias]`. Hugging Face's other form, a map from tuples, has no JSON of its own; it is read with
/// the ids as the key's text, `{"5, 6": -1.5}`, brackets and parentheses around them allowed. As in a map, the last
/// bias of a sequence that is named twice counts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct SequenceBias(#[serde(serialize_with = "super::values::written_biases")] pub Vec<(Vec<u32>, f64)>);

impl TryFrom<Value> for SequenceBias {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let pairs: Vec<(Vec<u32>, f64)> = match &value {
            Value::Object(map) => map
                .into_iter()
                .map(|(ids, bias)| {
                    let bias = bias.as_f64().ok_or_else(|| format!("the bias of {ids:?} is no number"))?;
                    Ok((parse_key(ids)?, bias))
                })
                .collect::<Result<_, String>>()?,
            Value::Array(pairs) => pairs
                .iter()
                .map(|pair| match pair.as_array().map(Vec::as_slice) {
                    Some([ids, bias]) => super::values::ids(ids).zip(bias.as_f64()),
                    _ => None,
                })
                .collect::<Option<_>>()
                .ok_or("pairs of [ids] and a bias are needed")?,
            _ => return Err("a list of [[ids], bias] is needed".to_owned()),
        };
        let mut distinct = Vec::<(Vec<u32>, f64)>::with_capacity(pairs.len());
        for (ids, bias) in pairs {
            match distinct.iter_mut().find(|(known, _)| *known == ids) {
                Some((_, known)) => *known = bias,
                None => distinct.push((ids, bias)),
            }
        }
        Ok(Self(distinct))
    }
}

/// The ids in a key such as `5`, `5, 6`, `(5, 6)`, `(5,)` or `[5, 6]`.
fn parse_key(key: &str) -> Result<Vec<u32>, String> {
    let inner = key.trim().trim_start_matches(['(', '[']).trim_end_matches([')', ']']).trim();
    let inner = inner.strip_suffix(',').unwrap_or(inner);
    let id = |id: &str| id.trim().parse().map_err(|_| format!("{key:?} holds no token ids"));
    if inner.is_empty() { Ok(Vec::new()) } else { inner.split(',').map(id).collect() }
}

/// `exponential_decay_length_penalty`, as JSON `[start, factor]`: where more than `start` new tokens are there, an EOS score `s` grows
/// by `|s| (factor ^ (new tokens - start) - 1)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct ExponentialDecay {
    /// New tokens that are left alone; may be a fraction, or negative.
    pub start: f64,
    /// What the growth is a power of; below 1 the score sinks.
    pub factor: f64,
}

impl ExponentialDecay {
    /// The smallest number of new tokens at which it acts.
    #[must_use]
    pub fn first(&self) -> usize {
        // A cast saturates: below 0 it acts from the beginning on.
        (self.start.floor() + 1.0) as usize
    }

    /// Whether the power is a number for every count of tokens: that of a negative factor is one only where the exponent is whole.
    #[must_use]
    pub(crate) fn is_defined(&self) -> bool {
        self.start.is_finite() && self.factor.is_finite() && (self.factor >= 0.0 || self.start.fract() == 0.0)
    }

    /// `factor ^ (new_tokens - start) - 1`, the power in f64, then rounded: what `|s|` is multiplied by behind this many new tokens, at
    /// least [`ExponentialDecay::first`].
    #[must_use]
    pub fn growth(&self, new_tokens: usize) -> f32 {
        (self.factor.powf(new_tokens as f64 - self.start) - 1.0) as f32
    }
}

impl TryFrom<Value> for ExponentialDecay {
    type Error = &'static str;

    /// As in Hugging Face, whatever follows the two numbers is passed over.
    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let number = |place: usize| value.get(place).and_then(super::values::number);
        match (number(0), number(1)) {
            (Some(start), Some(factor)) if value.is_array() => Ok(Self { start, factor }),
            _ => Err("two numbers are needed"),
        }
    }
}

impl From<ExponentialDecay> for Value {
    fn from(decay: ExponentialDecay) -> Self {
        let whole = decay.start.fract() == 0.0 && decay.start.abs() < 9e15;
        let start = if whole { Self::from(decay.start as i64) } else { Self::from(decay.start) };
        Self::from(vec![start, Self::from(decay.factor)])
    }
}

/// `stop_strings`: one text or several.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "OneOrMany")]
pub struct StopStrings(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl From<OneOrMany> for StopStrings {
    fn from(texts: OneOrMany) -> Self {
        match texts {
            OneOrMany::One(text) => Self(vec![text]),
            OneOrMany::Many(texts) => Self(texts),
        }
    }
}

impl From<Vec<String>> for StopStrings {
    fn from(texts: Vec<String>) -> Self {
        Self(texts)
    }
}
