//! What a single token contributes to a text, for matching stop strings.

use tokenizers::{Decoder, DecoderWrapper};

use super::{Core, Tokenizer, guarded};
use crate::error::{ModelError, TokenizerError};

/// Stands before a token, so that decoders do not take it for the beginning of a text.
const BASE: &str = "abcdef";

/// How a vocabulary spells bytes that are no whole character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ByteTokens {
    /// Not at all.
    None,
    /// Every token is a sequence of bytes, each written as a printable character.
    Level,
    /// Tokens such as `<0x0A>` are a byte each.
    Fallback,
}

impl ByteTokens {
    /// By the decoder; where it has both forms, `<0x0A>` is the one.
    pub(super) fn of(decoder: Option<&DecoderWrapper>) -> Self {
        fn parts(decoder: &DecoderWrapper, found: &mut Vec<ByteTokens>) {
            match decoder {
                DecoderWrapper::ByteLevel(_) => found.push(ByteTokens::Level),
                DecoderWrapper::ByteFallback(_) => found.push(ByteTokens::Fallback),
                DecoderWrapper::Sequence(sequence) => {
                    sequence.get_decoders().iter().for_each(|inner| parts(inner, found));
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        decoder.into_iter().for_each(|decoder| parts(decoder, &mut found));
        [Self::Fallback, Self::Level].into_iter().find(|kind| found.contains(kind)).unwrap_or(Self::None)
    }
}

impl Tokenizer {
    /// The bytes that a token contributes in the middle of a text, by the rules of transformers' `StopStringCriteria`: a
    /// byte-level token gives its raw bytes, `<0x0A>` of a byte-fallback vocabulary one byte, a piece's `▁` a space. A special
    /// token gives its own spelling, as it does there; see [`Tokenizer::is_special`]. `None` for an id without a token.
    pub fn token_bytes(&self, id: u32) -> Result<Option<Vec<u8>>, ModelError> {
        let Some(token) = self.id_to_token(id) else { return Ok(None) };
        let raw = match self.byte_tokens {
            ByteTokens::None => None,
            ByteTokens::Level => token.chars().map(byte_of).collect(),
            ByteTokens::Fallback => fallback_byte(&token).map(|byte| vec![byte]),
        };
        match raw {
            Some(bytes) => Ok(Some(bytes)),
            None => self.text_behind_base(token).map(|text| Some(text.into_bytes())),
        }
    }

    /// [`Tokenizer::token_bytes`] as text; bytes that are no whole character are U+FFFD.
    pub fn token_text(&self, id: u32) -> Result<Option<String>, ModelError> {
        let bytes = self.token_bytes(id)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Whether this token is one byte of what the vocabulary cannot spell, of a character perhaps.
    pub(super) fn is_fallback_byte(&self, id: u32) -> bool {
        let byte = || self.id_to_token(id).and_then(|token| fallback_byte(&token));
        match &self.core {
            Core::Pipeline(_) => self.byte_tokens == ByteTokens::Fallback && byte().is_some(),
            Core::Marian(_) => byte().is_some(),
        }
    }

    fn text_behind_base(&self, token: String) -> Result<String, ModelError> {
        let base = self.encode_plain(BASE)?;
        let mut tokens: Vec<String> = base.iter().filter_map(|id| self.id_to_token(*id)).collect();
        tokens.push(token.clone());
        let text = match &self.core {
            Core::Marian(marian) => marian.join(tokens.iter().map(String::as_str)),
            Core::Pipeline(inner) => match inner.get_decoder() {
                Some(decoder) => guarded(|| decoder.decode(tokens)).map_err(|reason| {
                    ModelError::from(TokenizerError::Tokenize { action: "decode the ids", reason })
                })?,
                None => tokens.join(" "),
            },
        };
        // A vocabulary that cannot spell the base gives the token by itself.
        Ok(text.find(BASE).map_or(token, |place| text[place + BASE.len()..].to_owned()))
    }
}

/// The byte that byte-level vocabularies write as `c`: printable Latin-1 characters stand for themselves, the other bytes for
/// the characters from U+0100 on, in order.
fn byte_of(c: char) -> Option<u8> {
    let is_itself = |code: u32| matches!(code, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let code = u32::from(c);
    if is_itself(code) {
        return u8::try_from(code).ok();
    }
    let place = code.checked_sub(0x100)?;
    (0..=0xFF_u8).filter(|byte| !is_itself(u32::from(*byte))).nth(place as usize)
}

fn fallback_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2 && hex.bytes().all(|digit| digit.is_ascii_hexdigit())).then(|| u8::from_str_radix(hex, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let bytes: Vec<u8> = (0..0x200).filter_map(|code| byte_of(char::from_u32(code)?)).collect();
        let mut sorted = bytes.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..=255).collect::<Vec<u8>>());
        assert_eq!(
            (byte_of('Ġ'), byte_of('Ċ'), byte_of('a'), byte_of('好')),
            (Some(b' '), Some(b'\n'), Some(b'a'), None)
        );
    }

    #[test]
    fn byte_tokens_have_two_digits() {
        assert_eq!(fallback_byte("<0x0A>"), Some(10));
        assert_eq!(fallback_byte("<0xff>"), Some(255));
        for other in ["<0xA>", "<0x+1>", "0x0A", "<0x0A", "<0xGG>"] {
            assert_eq!(fallback_byte(other), None, "{other}");
        }
    }
}
