//! Text of a sequence that is still growing.

use elgen_models::Tokenizer;

use crate::error::EngineError;

/// Turns the ids of one sequence into pieces of text as they come. A decoder looks at what precedes a token (a leading space
/// is dropped at the start of a text only), so each piece is decoded behind the ids of the piece before.
#[derive(Debug, Default)]
pub(crate) struct TextPieces {
    ids: Vec<u32>,
    /// `ids[context..told]` were told last and are the context of what follows.
    context: usize,
    told: usize,
}

impl TextPieces {
    /// Takes an id; the text that is now certain. A character that is not complete yet waits for its other bytes.
    pub(crate) fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, EngineError> {
        self.ids.push(id);
        self.piece(tokenizer, false)
    }

    /// What was held back.
    pub(crate) fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, EngineError> {
        self.piece(tokenizer, true)
    }

    fn piece(&mut self, tokenizer: &Tokenizer, last: bool) -> Result<String, EngineError> {
        let known = tokenizer.decode(&self.ids[self.context..self.told], true)?;
        let text = tokenizer.decode(&self.ids[self.context..], true)?;
        let Some(new) = text.strip_prefix(known.as_str()).filter(|new| !new.is_empty()) else {
            return Ok(String::new());
        };
        if new.ends_with('\u{fffd}') && !last {
            return Ok(String::new());
        }
        (self.context, self.told) = (self.told, self.ids.len());
        Ok(new.to_owned())
    }
}
