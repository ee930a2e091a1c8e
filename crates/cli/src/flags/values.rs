//! Parsers of flag values. Each error says what was expected; clap adds the flag and the value.

use elgen_engine::BatchSize;
use elgen_search::{EarlyStopping, ExponentialDecay, SequenceBias, TokenIds};
use serde_json::Value;

use crate::input::value_message;

/// A finite number.
pub(super) fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err("expected a finite number".to_owned()),
    }
}

/// An integer of at least 1.
pub(super) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("expected an integer of at least 1".to_owned()),
    }
}

/// A layer: 0 is the first, -1 the last.
pub(super) fn layer(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| "expected a layer's number, 0 or -1 for example".to_owned())
}

/// An integer of at least 1, or `auto`.
pub(super) fn batch_size(text: &str) -> Result<BatchSize, String> {
    match positive(text) {
        _ if text == "auto" => Ok(BatchSize::Auto),
        Ok(sentences) => Ok(BatchSize::Sentences(sentences)),
        Err(_) => Err("expected an integer of at least 1, or auto".to_owned()),
    }
}

/// `true`, `false` or `never`.
pub(super) fn early_stopping(text: &str) -> Result<EarlyStopping, String> {
    match text {
        "true" => Ok(EarlyStopping::True),
        "false" => Ok(EarlyStopping::False),
        "never" => Ok(EarlyStopping::Never),
        _ => Err("expected true, false or never".to_owned()),
    }
}

/// Token ids separated by commas; the empty text is the empty list.
pub(super) fn token_ids(text: &str) -> Result<TokenIds, String> {
    if text.trim().is_empty() {
        return Ok(TokenIds(Vec::new()));
    }
    text.split(',')
        .map(|id| id.trim().parse().map_err(|_| format!("`{}` is no token id; write ids as 2,7", id.trim())))
        .collect::<Result<_, _>>()
        .map(TokenIds)
}

/// Lists of token ids in JSON; a type of its own, because clap takes a bare `Vec` for a repeated flag.
#[derive(Clone, Debug)]
pub(super) struct Words(pub(super) Vec<Vec<u32>>);

/// `[[5],[6,8]]`
pub(super) fn words(text: &str) -> Result<Words, String> {
    serde_json::from_str(text)
        .map(Words)
        .map_err(|error| format!("{}; write lists of token ids as [[5],[6,8]]", value_message(&error)))
}

/// `[[[5],-2.5],[[6,8],1.0]]`, or a map `{"6,8": 1.0}`
pub(super) fn sequence_bias(text: &str) -> Result<SequenceBias, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("{}; write ids and their bias as [[[5],-2.5],[[6,8],1.0]]", value_message(&error)))
}

/// `20,1.05`, with or without brackets.
pub(super) fn exponential_decay(text: &str) -> Result<ExponentialDecay, String> {
    let inner = text.trim().trim_start_matches(['[', '(']).trim_end_matches([']', ')']);
    let (start, factor) = inner.split_once(',').unwrap_or((inner, ""));
    match (start.trim().parse(), factor.trim().parse::<f64>()) {
        (Ok(start), Ok(factor)) if f64::is_finite(start) && factor.is_finite() => {
            Ok(ExponentialDecay { start, factor })
        }
        _ => Err("expected a number of tokens and a factor such as 20,1.05".to_owned()),
    }
}

/// `num_beams=4`: the option's name, with underscores, and its value. What is no JSON is a text.
pub(super) fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE such as num_beams=4")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((key.trim().replace('-', "_"), value))
}

const UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("pib", 1 << 50),
    ("eib", 1 << 60),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
    ("eb", 1_000_000_000_000_000_000),
];

/// A number of bytes: `16GiB`, `1.5 GB`, `1000000`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|&(_, factor)| factor);
    let exact = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    let rough = number.parse::<f64>().ok().zip(factor).map(|(number, factor)| number * factor as f64);
    if exact.is_none() && rough.is_some_and(|size| size >= u64::MAX as f64) {
        return Err("expected a size below 16EiB".to_owned());
    }
    let size = exact.or(rough.map(|size| size as u64));
    match size {
        Some(size) if size > 0 => Ok(size),
        _ => Err("expected a size such as 16GiB, 500MB or a number of bytes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("16GiB"), Ok(16 << 30));
        assert_eq!(bytes("1.5 gib"), Ok(3 << 29));
        assert_eq!(bytes("500MB"), Ok(500_000_000));
        assert_eq!(bytes("123"), Ok(123));
        assert_eq!(bytes("18446744073709551615"), Ok(u64::MAX));
        assert_eq!((bytes("1PiB"), bytes("15 EiB"), bytes("0.5EiB")), (Ok(1 << 50), Ok(15 << 60), Ok(1 << 59)));
        assert_eq!((bytes("2pb"), bytes("18EB")), (Ok(2_000_000_000_000_000), Ok(18_000_000_000_000_000_000)));
        for beyond in ["16EiB", "16384PiB", "19EB", "17179869184GiB"] {
            assert!(bytes(beyond).unwrap_err().contains("below 16EiB"), "{beyond}");
        }
        for wrong in ["", "GiB", "0", "-1", "1.2.3MB", "5 parsecs", "0.1B", "nan", "1e9"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn id_lists() {
        assert_eq!(token_ids("2,7"), Ok(TokenIds(vec![2, 7])));
        assert_eq!(token_ids("14, 15"), Ok(TokenIds(vec![14, 15])));
        assert_eq!(token_ids(""), Ok(TokenIds(vec![])));
        assert_eq!(token_ids("2,,7"), Err("`` is no token id; write ids as 2,7".to_owned()));
        assert!(token_ids("-1").is_err());
        assert!(token_ids("4294967296").is_err());
    }

    #[test]
    fn word_lists() {
        assert_eq!(words("[[5],[6,8]]").map(|words| words.0), Ok(vec![vec![5], vec![6, 8]]));
        assert_eq!(
            words("[5]").map(|words| words.0),
            Err("invalid type: integer `5`, expected a sequence; write lists of token ids as [[5],[6,8]]".to_owned())
        );
        assert!(words("[[5],").is_err());
    }

    #[test]
    fn biases() {
        let pairs = |text| sequence_bias(text).map(|bias| bias.0);
        assert_eq!(pairs("[[[5],-2.5],[[6,8],1]]"), Ok(vec![(vec![5], -2.5), (vec![6, 8], 1.0)]));
        assert_eq!(pairs(r#"{"(6, 8)": 1.5, "5": 2}"#), Ok(vec![(vec![6, 8], 1.5), (vec![5], 2.0)]));
        assert_eq!(pairs("[[[5],1.0],[[5],2.0]]"), Ok(vec![(vec![5], 2.0)]), "the last one counts");
        for wrong in ["", "[5]", "[[5, 1.0]]", r#"{"five": 1}"#, r#"{"5": "x"}"#] {
            assert!(sequence_bias(wrong).unwrap_err().contains("[[[5],-2.5],[[6,8],1.0]]"), "{wrong}");
        }
    }

    #[test]
    fn decays() {
        let expected = Ok(ExponentialDecay { start: 20.0, factor: 1.05 });
        assert_eq!(exponential_decay("20,1.05"), expected);
        assert_eq!(exponential_decay("[20, 1.05]"), expected);
        for wrong in ["", "20", "1.05,20,3", "inf,1.05", "20,inf", "x,1"] {
            assert!(exponential_decay(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings() {
        let set = |text| setting(text).map(|(key, value)| (key, value.to_string()));
        assert_eq!(set("num_beams=4"), Ok(("num_beams".to_owned(), "4".to_owned())));
        assert_eq!(set("early-stopping=never"), Ok(("early_stopping".to_owned(), "\"never\"".to_owned())));
        assert_eq!(set("stop_strings=a=b"), Ok(("stop_strings".to_owned(), "\"a=b\"".to_owned())));
        assert_eq!(set("eos_token_id=[2,7]"), Ok(("eos_token_id".to_owned(), "[2,7]".to_owned())));
        assert!(setting("num_beams").is_err());
    }

    #[test]
    fn numbers() {
        assert_eq!(finite("-1.5"), Ok(-1.5));
        assert!(finite("inf").is_err() && finite("NaN").is_err() && finite("x").is_err());
        assert_eq!(positive("3"), Ok(3));
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("auto").is_err());
        assert_eq!(early_stopping("never"), Ok(EarlyStopping::Never));
        assert!(early_stopping("maybe").is_err());
    }
}
