//! Bounds on what a tokenizer's files and a text may cost together: memory and time stay in proportion to both.
//!
//! Files may hold anything: a normaliser that makes a text a thousand times as long, three times over; pieces of a megabyte; pieces that
//! are the beginnings of one another, a thousand deep. What no tokenizer needs is refused at load, before anything is built of it; what is
//! merely dear bounds the texts.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::charsmap::Charsmap;

/// Bytes of a text that are tokenised at once, unless the caller says otherwise. The `tokenizers` crate takes about 150 bytes for each.
pub const DEFAULT_TEXT_BYTES: usize = 2 << 20;

/// How many times as long a text may become. Those of published tokenizers reach some 100 by this conservative count.
const MOST_GROWTH: u64 = 1000;
/// Bytes that may be put before each part of a text.
const MOST_PREPENDED: usize = 1000;
/// What all added tokens together may become, in bytes.
const MOST_ADDED_BYTES: u64 = 64 << 20;
/// The longest piece of a Unigram model in bytes. SentencePiece's are up to 16 characters; some models add a few hundred of one kind.
pub(super) const MOST_PIECE_BYTES: usize = 1024;
/// The longest word that WordPiece looks at, whose time grows with the square.
const MOST_WORD_CHARS: u64 = 10_000;
/// A normalised text may have as many times the bytes of the longest text.
const NORMALISED: u64 = 16;
/// What a model may look at for each byte of a text, in bytes, however long the text.
const FREE_WORK: u64 = 1024;
/// What it may look at for a text in all where that is more, for each byte of the longest text.
const MOST_WORK: u64 = 2048;

/// What the texts of a tokenizer may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes that are tokenised at once.
    pub(super) text_bytes: usize,
    /// How many times as long the normaliser can make a text, at most.
    pub(super) growth: u64,
    /// Bytes that the model looks at for one byte of text, at most.
    pub(super) work: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { text_bytes: DEFAULT_TEXT_BYTES, growth: 1, work: 1 }
    }
}

impl Bounds {
    /// Bytes of the longest part that is tokenised at once.
    pub(super) fn part_bytes(&self) -> usize {
        let grown = (self.text_bytes as u64).saturating_mul(NORMALISED) / self.growth.max(1);
        usize::try_from(grown).unwrap_or(usize::MAX).min(self.text_bytes)
    }

    /// Bytes of the longest text, whatever parts it has.
    pub(super) fn whole_bytes(&self) -> usize {
        if self.work <= FREE_WORK {
            return usize::MAX;
        }
        let work = (self.text_bytes as u64).saturating_mul(MOST_WORK);
        usize::try_from(work / self.work).unwrap_or(usize::MAX)
    }
}

/// Checks the tokenizer.json `text` before anything is built of it; the answer is how many times as long its normaliser can make a text.
pub(super) fn check_json(text: &str) -> Result<u64, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let found = json.deserialize_map(File).map_err(|error| error.to_string())?;
    let added = found.added_bytes.saturating_add(found.added.saturating_mul(found.prepended as u64));
    if added.saturating_mul(found.growth) > MOST_ADDED_BYTES {
        return Err(format!(
            "its normaliser can make the {} bytes of its added tokens more than {MOST_ADDED_BYTES}",
            found.added_bytes
        ));
    }
    Ok(found.growth)
}

/// How many times as long a character map can make a text: each of its keys has a byte at least.
pub(super) fn charsmap_growth(charsmap: &[u8]) -> Result<u64, String> {
    check_growth(Charsmap::parse(charsmap)?.longest_replacement() as u64)
}

/// The longest chain of pieces that begin one another, as the sum of their bytes: what a Unigram model looks at in one place of a text.
pub(super) fn chain_bytes<'a>(pieces: impl Iterator<Item = &'a str>) -> u64 {
    let mut pieces: Vec<&str> = pieces.collect();
    pieces.sort_unstable();
    let (mut chain, mut bytes, mut most): (Vec<&str>, u64, u64) = (Vec::new(), 0, 1);
    for piece in pieces {
        while let Some(last) = chain.last().filter(|last| !piece.starts_with(**last)) {
            bytes -= last.len() as u64;
            chain.pop();
        }
        chain.push(piece);
        bytes += piece.len() as u64;
        most = most.max(bytes);
    }
    most
}

/// Refuses a piece of a Unigram model that is too long to be built into a tree of its bytes.
pub(super) fn check_piece(piece: &str) -> Result<(), String> {
    match piece.len() {
        length if length > MOST_PIECE_BYTES => {
            Err(format!("a piece of {length} bytes; a Unigram model may have up to {MOST_PIECE_BYTES}"))
        }
        _ => Ok(()),
    }
}

fn check_growth(growth: u64) -> Result<u64, String> {
    if growth > MOST_GROWTH {
        return Err(format!(
            "its normaliser can make a text {growth} times as long; up to {MOST_GROWTH} times is supported"
        ));
    }
    Ok(growth.max(1))
}

/// How many times as long the steps of a normaliser, or of a decoder, make a text at most. Also adds what they put before it.
fn growth(steps: &Value, prepended: &mut usize) -> Result<u64, String> {
    let text = |key: &str| steps.get(key).and_then(Value::as_str);
    if let Value::Array(steps) = steps {
        return steps.iter().try_fold(1_u64, |all, step| check_growth(all.saturating_mul(growth(step, prepended)?)));
    }
    let own = match text("type") {
        Some("Sequence") => {
            let nested = ["normalizers", "decoders"].iter().find_map(|key| steps.get(key));
            nested.map_or(Ok(1), |nested| growth(nested, prepended))?
        }
        Some("Replace") => {
            let content = text("content").map_or(0, str::len) as u64;
            match steps.pointer("/pattern/String").and_then(Value::as_str) {
                Some(pattern) if !pattern.is_empty() => content.div_ceil(pattern.len() as u64),
                // A pattern may match nothing, between any two bytes.
                _ => content + 1,
            }
        }
        Some("Prepend") => {
            *prepended = prepended.saturating_add(text("prepend").map_or(0, str::len));
            if *prepended > MOST_PREPENDED {
                return Err(format!(
                    "its normaliser puts {prepended} bytes before a text; up to {MOST_PREPENDED} are supported"
                ));
            }
            1
        }
        Some("Precompiled") => match text("precompiled_charsmap") {
            Some(map) => {
                let bytes =
                    STANDARD.decode(map).map_err(|error| format!("its character map is not base64: {error}"))?;
                charsmap_growth(&bytes)?
            }
            None => 1,
        },
        // The longest compatibility decomposition makes 33 bytes of 3; printable bytes are two at most; a case three times as long.
        Some("NFKC" | "NFKD") => 11,
        Some("NFC" | "NFD" | "BertNormalizer" | "Lowercase") => 3,
        Some("ByteLevel") => 2,
        _ => 1,
    };
    check_growth(own)
}

/// What of a tokenizer.json is looked at.
#[derive(Default)]
struct Found {
    growth: u64,
    prepended: usize,
    added: u64,
    added_bytes: u64,
}

struct File;

impl<'de> Visitor<'de> for File {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut found = Found { growth: 1, ..Found::default() };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "normalizer" => {
                    found.growth = growth(&map.next_value()?, &mut found.prepended).map_err(A::Error::custom)?;
                }
                "decoder" => {
                    growth(&map.next_value()?, &mut 0)
                        .map_err(|reason| A::Error::custom(reason.replace("normaliser", "decoder")))?;
                }
                "added_tokens" => {
                    let tokens: Vec<Value> = map.next_value::<Option<_>>()?.unwrap_or_default();
                    found.added = tokens.len() as u64;
                    let contents = tokens.iter().filter_map(|token| token.get("content")?.as_str());
                    found.added_bytes = contents.map(|content| content.len() as u64).sum();
                }
                "model" => map.next_value_seed(Model)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// Passes over a model, looking at the pieces of a Unigram model, which are a list, and at the words of WordPiece.
struct Model;

impl<'de> serde::de::DeserializeSeed<'de> for Model {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Model {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a model")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "vocab" => map.next_value_seed(Vocabulary)?,
                "max_input_chars_per_word" => match map.next_value::<Value>()?.as_u64() {
                    Some(most) if most > MOST_WORD_CHARS => {
                        let reason =
                            format!("max_input_chars_per_word is {most}; up to {MOST_WORD_CHARS} are supported");
                        return Err(A::Error::custom(reason));
                    }
                    _ => {}
                },
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The vocabulary of a model: pairs of a piece and a score, or an object with ids, which is passed over.
struct Vocabulary;

impl<'de> serde::de::DeserializeSeed<'de> for Vocabulary {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Vocabulary {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pieces: A) -> Result<(), A::Error> {
        while let Some(piece) = pieces.next_element::<Value>()? {
            if let Some(piece) = piece.get(0).and_then(Value::as_str) {
                check_piece(piece).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(normalizer: Value) -> Result<u64, String> {
        check_json(&json!({ "normalizer": normalizer, "added_tokens": [{ "content": "</s>" }] }).to_string())
    }

    fn replace(pattern: &str, content: &str) -> Value {
        json!({ "type": "Replace", "pattern": { "String": pattern }, "content": content })
    }

    #[test]
    fn usual_normalisers_grow_a_little() {
        assert_eq!(check_json("{}"), Ok(1));
        assert_eq!(checked(Value::Null), Ok(1));
        assert_eq!(checked(replace(" ", "▁")), Ok(3));
        assert_eq!(checked(replace("``", "\"")), Ok(1));
        let regex = json!({ "type": "Replace", "pattern": { "Regex": " {2,}" }, "content": " " });
        let sequence =
            json!({ "type": "Sequence", "normalizers": [{ "type": "NFKC" }, regex, { "type": "Lowercase" }] });
        assert_eq!(checked(sequence), Ok(66));
    }

    #[test]
    fn what_explodes_is_refused() {
        let thousand = "a".repeat(1000);
        assert_eq!(checked(replace("a", &thousand)), Ok(1000));
        let thrice = json!({ "type": "Sequence", "normalizers": vec![replace("a", &thousand); 3] });
        assert!(checked(thrice.clone()).unwrap_err().contains("1000000 times as long; up to 1000"));
        // Nested, and in a decoder.
        let nested = json!({ "type": "Sequence", "normalizers": [{ "type": "NFC" }, thrice] });
        assert!(checked(nested).is_err());
        let decoder = json!({ "decoder": replace("a", &"a".repeat(2000)) }).to_string();
        assert!(check_json(&decoder).unwrap_err().contains("its decoder can make"));
        assert!(
            checked(json!({ "type": "Prepend", "prepend": "a".repeat(1001) }))
                .unwrap_err()
                .contains("1001 bytes before")
        );
        assert_eq!(checked(json!({ "type": "Prepend", "prepend": "▁" })), Ok(1));
        let tokens: Vec<_> = (0..1000).map(|i| json!({ "content": format!("{i:0>100}") })).collect();
        let added = |normalizer| check_json(&json!({ "added_tokens": tokens, "normalizer": normalizer }).to_string());
        assert!(added(replace("a", &thousand)).unwrap_err().contains("100000 bytes of its added tokens"));
        assert!(added(replace("a", "▁")).is_ok());
    }

    #[test]
    fn models_that_take_forever_are_refused() {
        let unigram =
            |piece: &str| json!({ "model": { "type": "Unigram", "vocab": [["a", -1.0], [piece, -2]] } }).to_string();
        assert_eq!(check_json(&unigram(&"b".repeat(1024))), Ok(1));
        assert!(check_json(&unigram(&"b".repeat(1025))).unwrap_err().contains("a piece of 1025 bytes"));
        // Others look a token up as a whole.
        assert!(check_json(&json!({ "model": { "vocab": { "b".repeat(5000): 1 } } }).to_string()).is_ok());
        let words = |most: u64| check_json(&json!({ "model": { "max_input_chars_per_word": most } }).to_string());
        assert!(words(100).is_ok() && words(1 << 40).unwrap_err().contains("max_input_chars_per_word"));
    }

    #[test]
    fn chains_are_as_deep_as_pieces_begin_one_another() {
        assert_eq!(chain_bytes([].into_iter()), 1);
        assert_eq!(chain_bytes(["ab", "abc", "b", "abd", "a", "abcde"].into_iter()), 1 + 2 + 3 + 5);
        let nested: Vec<String> = (1..=999).map(|n| "a".repeat(n)).collect();
        assert_eq!(chain_bytes(nested.iter().map(String::as_str)), 999 * 1000 / 2);
    }

    #[test]
    fn bounds_of_texts() {
        let usual = Bounds { growth: 66, work: 408, ..Bounds::default() };
        assert_eq!((usual.part_bytes(), usual.whole_bytes()), ((2 << 20) * 16 / 66, usize::MAX));
        assert_eq!(Bounds::default().part_bytes(), 2 << 20);
        let deep = Bounds { work: 499_500, ..Bounds::default() };
        assert_eq!(deep.whole_bytes(), 8598);
        let huge = Bounds { text_bytes: usize::MAX, growth: u64::MAX, work: u64::MAX };
        assert_eq!((huge.part_bytes(), huge.whole_bytes()), (1, 1));
    }
}
