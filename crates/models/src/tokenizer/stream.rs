//! Text from ids that come one at a time.

use super::Tokenizer;
use crate::error::ModelError;

/// Gives the text of a growing sequence of ids in parts, each as soon as it is certain: whole words, whole lines, and single
/// Chinese characters. The parts together are what [`Tokenizer::decode`] makes of all the ids.
///
/// It decodes the ids since the last line end anew at every step and holds back the last word, as transformers' `TextStreamer`
/// does. Unlike there, the token of the line end is kept before the new line: decoders drop a space at the beginning of what
/// they get, and would drop those of the lines.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special_tokens: bool,
    /// Since the last line end, its token included.
    ids: Vec<u32>,
    /// Bytes of the text of `ids` that were given.
    given: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special_tokens: bool) -> Self {
        Self { tokenizer, skip_special_tokens, ids: Vec::new(), given: 0 }
    }

    /// Takes the next id; returns the text that is now certain, often none.
    pub fn push(&mut self, id: u32) -> Result<String, ModelError> {
        self.ids.push(id);
        if self.is_silent(id) || self.tokenizer.is_fallback_byte(id) {
            // The bytes that follow decide what a run of bytes is; a silent id does not end it.
            return Ok(String::new());
        }
        let text = self.text()?;
        let line_ended = text.ends_with('\n');
        let end = if line_ended || text.chars().next_back().is_some_and(is_chinese) {
            text.len()
        } else {
            end_of_words(&text, self.tokenizer.clean_up_spaces)
        };
        let part = text.get(self.given..end).unwrap_or_default().to_owned();
        self.given = self.given.max(end);
        if line_ended {
            // Only a token that ends the line by itself can stand for what was before it.
            let last = self.tokenizer.decode(&[id], self.skip_special_tokens)?;
            if last.ends_with('\n') {
                self.ids = vec![id];
                self.given = last.len();
            }
        }
        Ok(part)
    }

    /// Returns what was held back. The stream is then as new.
    pub fn flush(&mut self) -> Result<String, ModelError> {
        let text = self.text()?;
        let part = text.get(self.given..).unwrap_or_default().to_owned();
        self.ids.clear();
        self.given = 0;
        Ok(part)
    }

    /// Whether an id adds nothing, whatever stands beside it.
    fn is_silent(&self, id: u32) -> bool {
        (self.skip_special_tokens && self.tokenizer.is_special(id)) || self.tokenizer.id_to_token(id).is_none()
    }

    fn text(&self) -> Result<String, ModelError> {
        self.tokenizer.decode(&self.ids, self.skip_special_tokens)
    }
}

/// How many bytes of `text` are certain when a word may still grow: those up to the last space.
///
/// The clean-up takes spaces away before punctuation and inside contractions, in several passes: what looks like ` n ' t` ends
/// as `n't`. With it, the space itself waits, and so do words that are made of nothing but `n` and apostrophes.
fn end_of_words(text: &str, clean_up: bool) -> usize {
    let mut space = text.rfind(' ');
    if !clean_up {
        return space.map_or(0, |space| space + 1);
    }
    while let Some(end) = space {
        let previous = text[..end].rfind(' ');
        let word = &text[previous.map_or(0, |place| place + 1)..end];
        if word.contains(|c| !matches!(c, 'n' | '\'')) {
            return end;
        }
        space = previous;
    }
    0
}

/// Whether `c` is an ideograph: such text has no spaces between words. The blocks are those of transformers' `TextStreamer`.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F | 0x2B820..=0x2CEAF
        | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}
