//! Ending a sequence where its text contains a given string (`StopStringCriteria`, docs/generation.md §7).

use std::fmt;
use std::sync::Arc;

use elgen_models::Tokenizer;
use elgen_search::hooks::{SequenceView, StopCriterion};

use crate::error::EngineError;

/// The bytes that each token adds to a text. Cheap to clone.
#[derive(Clone)]
pub struct TokenBytes(Arc<[Option<Box<[u8]>>]>);

impl TokenBytes {
    /// Asks `bytes` for each id below `vocab_size`; `None` for ids without a token.
    pub fn new(vocab_size: usize, bytes: impl Fn(u32) -> Option<Vec<u8>>) -> Self {
        Self((0..vocab_size as u32).map(|id| bytes(id).map(Vec::into_boxed_slice)).collect())
    }

    /// The table of a tokenizer.
    ///
    /// # Errors
    /// A token that the tokenizer cannot decode.
    pub fn of_tokenizer(tokenizer: &Tokenizer) -> Result<Self, EngineError> {
        let ids = 0..tokenizer.vocab_size() as u32;
        let bytes = ids.map(|id| Ok(tokenizer.token_bytes(id)?.map(Vec::into_boxed_slice)));
        Ok(Self(bytes.collect::<Result<_, EngineError>>()?))
    }

    /// The bytes of a token.
    pub fn of(&self, id: u32) -> Option<&[u8]> {
        self.0.get(id as usize)?.as_deref()
    }
}

impl fmt::Debug for TokenBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenBytes({} ids)", self.0.len())
    }
}

/// Ends a sequence when its text contains one of the strings and the string ends inside the last token, which may go on
/// behind it. The string may begin in the prompt. Compared as bytes, so a string may end inside a character of the text.
#[derive(Debug)]
pub struct StopStringCriterion {
    table: TokenBytes,
    strings: Vec<Vec<u8>>,
    longest: usize,
}

impl StopStringCriterion {
    /// As in Hugging Face, strings of which no token can end any are refused; a single one among others never matches.
    ///
    /// # Errors
    /// [`EngineError::StopString`] names the first string if no token can end any of them.
    pub fn new(strings: &[String], table: TokenBytes) -> Result<Self, EngineError> {
        let possible = |text: &String| table.0.iter().flatten().any(|token| can_end(token, text.as_bytes()));
        if let (Some(first), false) = (strings.first(), strings.iter().any(possible)) {
            return Err(EngineError::StopString { text: first.clone() });
        }
        let longest = strings.iter().map(String::len).max().unwrap_or(0);
        Ok(Self { table, strings: strings.iter().map(|s| s.clone().into_bytes()).collect(), longest })
    }

    /// Whether the text of `ids` contains one of the strings, ending inside the last token.
    pub fn matches(&self, ids: &[u32]) -> bool {
        let Some((last, before)) = ids.split_last() else { return false };
        let Some(last) = self.table.of(*last).filter(|bytes| !bytes.is_empty()) else { return false };
        // The end of the text before the last token, as far as a string that ends in the token can reach.
        let mut tail: Vec<&[u8]> = vec![last];
        let mut known = 0;
        for id in before.iter().rev() {
            if known + 1 >= self.longest {
                break;
            }
            // What an id without a token says is not known, so no string reaches across it.
            let Some(bytes) = self.table.of(*id) else { break };
            known += bytes.len();
            tail.push(bytes);
        }
        let text: Vec<u8> = tail.into_iter().rev().flatten().copied().collect();
        self.strings.iter().any(|string| {
            // An occurrence that begins here or later ends inside the last token.
            let first = (known + 1).saturating_sub(string.len());
            text[first..].windows(string.len()).any(|part| part == string)
        })
    }
}

impl StopCriterion for StopStringCriterion {
    fn should_stop(&self, sequence: &SequenceView<'_>) -> bool {
        self.matches(sequence.token_ids)
    }
}

/// Whether `string` can end inside `token`: it lies in it, or an end of the string is a beginning of the token.
fn can_end(token: &[u8], string: &[u8]) -> bool {
    if string.is_empty() {
        return false;
    }
    token.windows(string.len()).any(|part| part == string)
        || (1..=string.len().min(token.len())).any(|n| string.ends_with(&token[..n]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: [&[u8]; 8] = [b"st", b"op", b"opper", b"o", b"p", b"", b"x stop y", b"\xc3\xa9"];

    fn table() -> TokenBytes {
        TokenBytes::new(10, |id| VOCABULARY.get(id as usize).map(|bytes| bytes.to_vec()))
    }

    fn matches(strings: &[&str], ids: &[u32]) -> bool {
        let strings: Vec<String> = strings.iter().map(|s| (*s).to_owned()).collect();
        StopStringCriterion::new(&strings, table()).unwrap().matches(ids)
    }

    #[test]
    fn a_string_must_end_inside_the_last_token() {
        assert!(matches(&["stop"], &[0, 1]));
        assert!(matches(&["stop"], &[4, 0, 3, 4]));
        assert!(matches(&["stop"], &[0, 2]), "the last token may go on");
        assert!(matches(&["stop"], &[6]), "all in one token");
        assert!(!matches(&["stop"], &[0, 1, 0]), "it ended earlier");
        assert!(!matches(&["stop"], &[0, 1, 5]), "a token without bytes ends nothing");
        assert!(matches(&["stop"], &[0, 5, 5, 1]), "tokens without bytes in between");
        assert!(!matches(&["stop"], &[0, 9, 1]), "across an id without a token");
        assert!(!matches(&["stop"], &[1]) && !matches(&["stop"], &[]));
        assert!(matches(&["never", "op"], &[1]));
        assert!(!matches(&["oppo"], &[1]) && !matches(&["pp"], &[4]));
        assert!(matches(&["pp"], &[4, 4]) && matches(&["pp"], &[2]));
        assert!(matches(&["é"], &[7]) && !matches(&["é"], &[0]));
    }

    #[test]
    fn a_string_that_no_token_can_end_is_named() {
        for text in ["stoz", "", "z"] {
            let error = StopStringCriterion::new(&[text.into()], table()).unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
            assert!(StopStringCriterion::new(&["op".into(), text.into()], table()).is_ok(), "another string can end");
        }
    }
}
