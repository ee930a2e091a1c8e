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
pub struct SequenceBias(pub Vec<(Vec<u32>, f64)>);

impl TryFrom<Value> for SequenceBias {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let pairs: Vec<(Vec<u32>, f64)> = match value {
            Value::Object(map) => map
                .into_iter()
                .map(|(ids, bias)| {
                    let bias = bias.as_f64().ok_or_else(|| format!("the bias of {ids:?} is no number"))?;
                    Ok((parse_key(&ids)?, bias))
                })
                .collect::<Result<_, String>>()?,
            list => serde_json::from_value(list).map_err(|error| error.to_string())?,
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

/// `exponential_decay_length_penalty`, as JSON `[start, factor]`: from the new token behind `start` of them on, an EOS
/// score `s` grows by `|s| (factor ^ (tokens beyond start) - 1)`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "(usize, f64)", into = "(usize, f64)")]
pub struct ExponentialDecay {
    /// New tokens that are left alone.
    pub start: usize,
    /// What the growth is a power of; below 1 the score sinks.
    pub factor: f64,
}

impl ExponentialDecay {
    /// `factor ^ beyond - 1`, the power in f64, then rounded: what `|s|` is multiplied by, `beyond` tokens behind the start.
    #[must_use]
    pub fn growth(&self, beyond: usize) -> f32 {
        (self.factor.powf(beyond as f64) - 1.0) as f32
    }
}

impl From<(usize, f64)> for ExponentialDecay {
    fn from((start, factor): (usize, f64)) -> Self {
        Self { start, factor }
    }
}

impl From<ExponentialDecay> for (usize, f64) {
    fn from(decay: ExponentialDecay) -> Self {
        (decay.start, decay.factor)
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
