//! SentencePiece's precompiled character map: a trie of byte strings, each with its replacement.
//!
//! The `tokenizers` crate applies such a map grapheme by grapheme, SentencePiece takes the longest match at every place. They
//! differ on a letter with two combining marks, of which only the first has a composed form.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Matches looked at in one place, as many as SentencePiece looks at.
const MAX_MATCHES: usize = 32;
/// Bytes of a text that are followed from one place: a trie may lead back into itself, and no key of a map is as long.
const MAX_KEY_BYTES: usize = 256;

/// A map in the form of Darts-clone's double array, followed by the replacements, each ended by a zero byte.
#[derive(Debug, Clone)]
pub(super) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

impl Charsmap {
    /// Reads the map from its bytes: the trie's length in bytes as little-endian u32, the trie, the replacements.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or("its character map is cut off")?;
        let length = u32::from_le_bytes(*length) as usize;
        let (trie, replacements) = rest.split_at_checked(length).ok_or("its character map is cut off")?;
        let (units, []) = trie.as_chunks::<4>() else {
            return Err("the trie of its character map is no sequence of 4-byte units".into());
        };
        let replacements =
            std::str::from_utf8(replacements).map_err(|_| "the replacements of its character map are not UTF-8")?;
        Ok(Self {
            units: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            replacements: replacements.into(),
        })
    }

    /// Bytes of the longest replacement.
    pub(super) fn longest_replacement(&self) -> usize {
        self.replacements.split('\0').map(str::len).max().unwrap_or(0)
    }

    /// The longest beginning of `text` that has a replacement: its length in bytes and the replacement.
    pub(super) fn longest_match(&self, text: &str) -> Option<(usize, &str)> {
        let mut found = None;
        let mut matches = 0;
        let mut place = offset(*self.units.first()?);
        for (index, byte) in text.bytes().take(MAX_KEY_BYTES).enumerate() {
            place ^= usize::from(byte);
            let Some(&unit) = self.units.get(place) else { break };
            // The sign bit marks leaves, whose label no byte equals.
            if unit & 0x8000_00FF != u32::from(byte) {
                break;
            }
            place ^= offset(unit);
            if unit >> 8 & 1 == 1 {
                let Some(&leaf) = self.units.get(place) else { break };
                found = Some((index + 1, (leaf & 0x7FFF_FFFF) as usize));
                matches += 1;
                if matches == MAX_MATCHES {
                    break;
                }
            }
        }
        let (length, start) = found?;
        let replacement = self.replacements.get(start..)?;
        let end = replacement.find('\0').unwrap_or(replacement.len());
        // A match may not end inside a character; a well-formed map has none that does.
        text.is_char_boundary(length).then_some((length, &replacement[..end]))
    }
}

/// Checks the character maps in the normaliser of the tokenizer.json `text`. The `tokenizers` crate allocates whatever length such a
/// map claims, up to 8 GiB for one of a few bytes.
pub(super) fn check_maps(text: &str) -> Result<(), String> {
    let mut json = serde_json::Deserializer::from_str(text);
    json.deserialize_map(Normalizers).map_err(|error| error.to_string())
}

/// Passes over everything in a tokenizer.json but its normaliser.
struct Normalizers;

impl<'de> Visitor<'de> for Normalizers {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "normalizer" {
                check_maps_in(&map.next_value()?).map_err(A::Error::custom)?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

fn check_maps_in(normalizer: &Value) -> Result<(), String> {
    match normalizer {
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| match value {
            Value::String(map) if key == "precompiled_charsmap" => {
                let bytes =
                    STANDARD.decode(map).map_err(|error| format!("its character map is not base64: {error}"))?;
                Charsmap::parse(&bytes).map(|_| ())
            }
            value => check_maps_in(value),
        }),
        Value::Array(steps) => steps.iter().try_for_each(check_maps_in),
        _ => Ok(()),
    }
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) << ((unit & (1 << 9)) >> 6)) as usize
}
