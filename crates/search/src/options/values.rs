//! What a JSON value means for an option, by Hugging Face's rules: Python takes a boolean for a number, compares 1 with 1.0, and looks at
//! few ids before they are used.

use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{EarlyStopping, ExponentialDecay, SequenceBias, StopStrings, TokenIds};

/// A type that an option can have, with the words that an error uses for it.
pub(super) trait OptionType: Sized {
    const EXPECTED: &'static str;

    /// The value of `option`, if `value` is one.
    fn read(option: &str, value: &Value) -> Option<Self>;
}

/// A number; a boolean is 0 or 1.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        other => other.as_f64(),
    }
}

/// A number without a fraction, in whatever way it is written; a boolean is 0 or 1.
fn whole(value: &Value) -> Option<i128> {
    match value {
        Value::Bool(flag) => Some(i128::from(*flag)),
        Value::Number(number) => {
            let exact = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
            exact.or_else(|| number.as_f64().filter(|x| x.fract() == 0.0).map(|x| x as i128))
        }
        _ => None,
    }
}

/// A token id. Numbers that are no id of any vocabulary are kept, because most of them play no part in a run: a negative one as its two's
/// complement, one beyond the range of `i32` as that range's end ([`written`] gives them back).
fn id(value: &Value) -> Option<u32> {
    let number = whole(value)?.clamp(i128::from(i32::MIN), i128::from(i32::MAX));
    Some(number as i32 as u32)
}

/// A list of token ids.
pub(super) fn ids(value: &Value) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(id).collect()
}

/// An id as it was written, if it is within the range of `i32`.
pub(crate) fn written(id: u32) -> i32 {
    id as i32
}

pub(super) fn written_id<S: Serializer>(id: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    id.map(written).serialize(serializer)
}

pub(super) fn written_ids<S: Serializer>(ids: &Option<Vec<u32>>, serializer: S) -> Result<S::Ok, S::Error> {
    ids.as_ref().map(|ids| signed(ids)).serialize(serializer)
}

pub(super) fn written_lists<S: Serializer>(lists: &Option<Vec<Vec<u32>>>, serializer: S) -> Result<S::Ok, S::Error> {
    lists.as_ref().map(|lists| lists.iter().map(|ids| signed(ids)).collect::<Vec<_>>()).serialize(serializer)
}

pub(super) fn written_list<S: Serializer>(ids: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    signed(ids).serialize(serializer)
}

pub(super) fn written_biases<S: Serializer>(biases: &[(Vec<u32>, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut pairs = serializer.serialize_seq(Some(biases.len()))?;
    for (ids, bias) in biases {
        pairs.serialize_element(&(signed(ids), bias))?;
    }
    pairs.end()
}

fn signed(ids: &[u32]) -> Vec<i32> {
    ids.iter().copied().map(written).collect()
}

impl OptionType for usize {
    const EXPECTED: &'static str = "a non-negative integer";

    fn read(option: &str, value: &Value) -> Option<Self> {
        let number = whole(value)?;
        // Where 0 is off, so is what lies below.
        const OFF: [&str; 4] = ["min_length", "min_new_tokens", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"];
        let number = if OFF.contains(&option) { number.max(0) } else { number };
        (number >= 0).then(|| Self::try_from(number).unwrap_or(Self::MAX))
    }
}

impl OptionType for u64 {
    const EXPECTED: &'static str = "a non-negative integer";

    fn read(_: &str, value: &Value) -> Option<Self> {
        value.as_u64()
    }
}

impl OptionType for u32 {
    const EXPECTED: &'static str = "a token id";

    fn read(option: &str, value: &Value) -> Option<Self> {
        match value {
            // One for each row of a batch, of which there is one.
            Value::Array(ids) if option != "pad_token_id" => match &ids[..] {
                [single] => id(single),
                _ => None,
            },
            other => id(other),
        }
    }
}

impl OptionType for f64 {
    const EXPECTED: &'static str = "a number";

    fn read(_: &str, value: &Value) -> Option<Self> {
        number(value)
    }
}

impl OptionType for bool {
    const EXPECTED: &'static str = "true or false";

    /// Hugging Face samples where `do_sample` is not zero; the other flags act where they are `true` itself.
    fn read(option: &str, value: &Value) -> Option<Self> {
        match value {
            Value::Bool(flag) => Some(*flag),
            Value::Number(_) => Some(option == "do_sample" && number(value) != Some(0.0)),
            _ => None,
        }
    }
}

impl OptionType for EarlyStopping {
    const EXPECTED: &'static str = "true, false or \"never\"";

    fn read(_: &str, value: &Value) -> Option<Self> {
        Self::try_from(value.clone()).ok()
    }
}

impl OptionType for TokenIds {
    const EXPECTED: &'static str = "a token id or a list of token ids";

    fn read(_: &str, value: &Value) -> Option<Self> {
        id(value).map(|id| vec![id]).or_else(|| ids(value)).map(Self)
    }
}

impl OptionType for Vec<u32> {
    const EXPECTED: &'static str = "a list of token ids";

    fn read(_: &str, value: &Value) -> Option<Self> {
        ids(value)
    }
}

impl OptionType for Vec<Vec<u32>> {
    const EXPECTED: &'static str = "a list of lists of token ids";

    fn read(_: &str, value: &Value) -> Option<Self> {
        value.as_array()?.iter().map(ids).collect()
    }
}

impl OptionType for SequenceBias {
    const EXPECTED: &'static str = "a list of [[token ids], bias]";

    fn read(_: &str, value: &Value) -> Option<Self> {
        Self::try_from(value.clone()).ok()
    }
}

impl OptionType for ExponentialDecay {
    const EXPECTED: &'static str = "[start, factor]";

    fn read(_: &str, value: &Value) -> Option<Self> {
        Self::try_from(value.clone()).ok()
    }
}

impl OptionType for StopStrings {
    const EXPECTED: &'static str = "a string or a list of strings";

    fn read(_: &str, value: &Value) -> Option<Self> {
        serde_json::from_value(value.clone()).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_in_every_spelling() {
        let count = |value: Value| usize::read("max_length", &value);
        assert_eq!(
            [json!(20), json!(20.0), json!(true), json!(2e1)].map(count),
            [Some(20), Some(20), Some(1), Some(20)]
        );
        assert_eq!([json!(20.5), json!("20"), json!(-1), json!([20])].map(count), [None; 4]);
        assert_eq!(count(json!(1e300)), Some(usize::MAX));
        assert_eq!(usize::read("min_length", &json!(-1)), Some(0));
        assert_eq!([json!(1), json!(true), json!("1")].map(|v| f64::read("top_p", &v)), [Some(1.0), Some(1.0), None]);
    }

    #[test]
    fn flags_as_numbers() {
        let flag = |option, value: Value| bool::read(option, &value);
        assert_eq!(
            [json!(0), json!(1), json!(2.0)].map(|v| flag("do_sample", v)),
            [Some(false), Some(true), Some(true)]
        );
        assert_eq!([json!(0), json!(1)].map(|v| flag("renormalize_logits", v)), [Some(false); 2]);
        assert_eq!(flag("do_sample", json!("true")), None);
    }

    #[test]
    fn ids_that_no_vocabulary_holds() {
        for (value, kept) in
            [(json!(-1), -1), (json!(1_u64 << 40), i32::MAX), (json!(-(1_i64 << 40)), i32::MIN), (json!(7.0), 7)]
        {
            assert_eq!(id(&value).map(written), Some(kept), "{value}");
        }
        assert_eq!(ids(&json!([3, null])), None);
        assert_eq!(ids(&json!([3, "4"])), None);
    }

    #[test]
    fn one_id_may_stand_in_a_list() {
        assert_eq!(u32::read("decoder_start_token_id", &json!([5])), Some(5));
        assert_eq!(u32::read("decoder_start_token_id", &json!([5, 6])), None);
        assert_eq!(u32::read("pad_token_id", &json!([5])), None);
    }
}
