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
        if self.tokenizer.is_fallback_byte(id) {
            // The bytes that follow decide what the whole run is.
            return Ok(String::new());
        }
        let text = self.text()?;
        let line_ended = text.ends_with('\n');
        let end = if line_ended || text.chars().next_back().is_some_and(is_chinese) {
            text.len()
        } else {
            match text.rfind(' ') {
                // The clean-up may still take this space away.
                Some(space) if self.tokenizer.clean_up_spaces => space,
                Some(space) => space + 1,
                None => 0,
            }
        };
        let part = text.get(self.given..end).unwrap_or_default().to_owned();
        self.given = self.given.max(end);
        if line_ended {
            // Not so after a token without text, behind which a decoder would again see the beginning of a text.
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

    fn text(&self) -> Result<String, ModelError> {
        self.tokenizer.decode(&self.ids, self.skip_special_tokens)
    }
}

/// Whether `c` is an ideograph: such text has no spaces between words. The blocks are those of transformers' `TextStreamer`.
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F | 0x2B820..=0x2CEAF
        | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}
