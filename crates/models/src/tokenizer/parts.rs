//! Long texts in parts: the ids are those of the whole text, the memory is that of a part.
//!
//! A text is cut in front of a space between two words, where the pre-tokenizer begins a new word whatever stands around. That is known
//! for byte-level BPE and for the Unigram classes, not for whatever a tokenizer.json can put together; a tokenizer that is not known is
//! never given parts.

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{AddedToken, Encoding, Token};

use super::bounds::Bounds;
use super::guarded;
use crate::error::{ModelError, TokenizerError};

/// Bytes of a part, or a little more.
const PART_BYTES: usize = 256 << 10;

/// Encodes a text, in parts if it is long. `None` if it has more than `most` ids, as far as that is seen before the end.
pub(super) fn encode(
    inner: &tokenizers::Tokenizer,
    bounds: &Bounds,
    text: &str,
    special: bool,
    most: usize,
) -> Result<Option<Vec<u32>>, ModelError> {
    check(text.len(), bounds.whole_bytes())?;
    encode_parts(inner, bounds, text, special, most, PART_BYTES.min(bounds.part_bytes() / 2))
}

fn encode_parts(
    inner: &tokenizers::Tokenizer,
    bounds: &Bounds,
    text: &str,
    special: bool,
    most: usize,
    part_bytes: usize,
) -> Result<Option<Vec<u32>>, ModelError> {
    let run = |part: &str, special| {
        guarded(|| inner.encode_fast(part, special))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|reason| ModelError::from(TokenizerError::Tokenize { action: "encode the text", reason }))
    };
    if text.len() <= part_bytes || !can_be_cut(inner) {
        check(text.len(), bounds.part_bytes())?;
        return run(text, special).map(Some);
    }
    let (mut ids, after) = if special { ends(inner)? } else { (Vec::new(), Vec::new()) };
    let mut rest = text;
    while !rest.is_empty() {
        let end = place(rest, part_bytes);
        let (part, behind) = rest.split_at(end);
        check(part.len(), bounds.part_bytes())?;
        ids.extend(run(part, false)?);
        rest = behind;
        if ids.len() > most {
            return Ok(None);
        }
    }
    ids.extend(after);
    Ok(Some(ids))
}

/// Refuses a text, or a part of one, that is too long.
pub(super) fn check(bytes: usize, limit: usize) -> Result<(), ModelError> {
    if bytes > limit { Err(ModelError::from(TokenizerError::TextTooLong { bytes, limit })) } else { Ok(()) }
}

/// The special tokens before and behind a text, told by a text of one token that no vocabulary has.
fn ends(inner: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>), ModelError> {
    const TEXT: u32 = u32::MAX;
    let text = Encoding::from_tokens(vec![Token::new(TEXT, "a".to_owned(), (0, 1))], 0);
    let around = guarded(|| inner.post_process(text, None, true))
        .map_err(|reason| ModelError::from(TokenizerError::Tokenize { action: "encode the text", reason }))?;
    let ids = around.get_ids();
    let at = ids.iter().position(|id| *id == TEXT).unwrap_or(ids.len());
    Ok((ids[..at].to_vec(), ids.get(at + 1..).unwrap_or_default().to_vec()))
}

/// The first place from `least` on where a text may be cut; its end if there is none.
fn place(text: &str, least: usize) -> usize {
    let bytes = text.as_bytes();
    let from = (0..=least.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let mut before = None;
    for (at, c) in text[from..].char_indices() {
        if c == ' ' && before.is_some_and(ends_word) && bytes.get(from + at + 1).is_some_and(u8::is_ascii_alphanumeric)
        {
            return from + at;
        }
        before = Some(c);
    }
    text.len()
}

/// Letters that nothing combines with a space: Latin, Greek, Cyrillic, and digits.
fn ends_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || (matches!(c, '\u{c0}'..='\u{24f}' | '\u{370}'..='\u{52f}') && c.is_alphabetic())
}

fn can_be_cut(inner: &tokenizers::Tokenizer) -> bool {
    inner.get_normalizer().is_none_or(looks_at_words_alone)
        && inner.get_pre_tokenizer().is_some_and(begins_words_at_spaces)
        && inner.get_added_tokens_decoder().values().all(is_one_word)
}

/// Normalisers that do to a word what they do to it in a text.
fn looks_at_words_alone(normalizer: &NormalizerWrapper) -> bool {
    match normalizer {
        NormalizerWrapper::Precompiled(_)
        | NormalizerWrapper::NFC(_)
        | NormalizerWrapper::NFKC(_)
        | NormalizerWrapper::NFD(_)
        | NormalizerWrapper::NFKD(_) => true,
        NormalizerWrapper::Replace(replace) => {
            // The one space at a cut is not two.
            let pattern = serde_json::to_value(replace).ok().and_then(|value| value.get("pattern").cloned());
            let pattern = pattern.and_then(|pattern| serde_json::from_value::<ReplacePattern>(pattern).ok());
            pattern.is_some_and(|pattern| match pattern {
                ReplacePattern::Regex(text) => text == " {2,}" || text == "\n",
                ReplacePattern::String(_) => false,
            })
        }
        NormalizerWrapper::Sequence(steps) => steps.as_ref().iter().all(looks_at_words_alone),
        _ => false,
    }
}

/// Pre-tokenizers that begin a word at a single space before a letter or digit.
fn begins_words_at_spaces(split: &PreTokenizerWrapper) -> bool {
    match split {
        PreTokenizerWrapper::ByteLevel(level) => level.use_regex,
        PreTokenizerWrapper::Metaspace(metaspace) => metaspace.split,
        PreTokenizerWrapper::Sequence(steps) => match steps.as_ref() {
            [PreTokenizerWrapper::WhitespaceSplit(_), PreTokenizerWrapper::Metaspace(metaspace)] => metaspace.split,
            _ => false,
        },
        _ => false,
    }
}

/// An added token that no cut goes through, and that takes no space behind a cut.
fn is_one_word(token: &AddedToken) -> bool {
    let plain = |c: char| c.is_ascii_graphic() || c.is_alphanumeric() || c == '▁';
    token.content.chars().all(plain) && !(token.rstrip && token.content.chars().next_back().is_some_and(ends_word))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Core, Tokenizer};
    use super::*;

    /// The tokenizers of the fixtures and the demos, with their names and whether texts are cut for them.
    fn tokenizers() -> Vec<(String, Tokenizer)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let fixtures = root.join("tests/fixtures/tokenizers");
        let of = |dir: &Path, model_type: &str| {
            let found = Tokenizer::load_for(dir, model_type).unwrap().unwrap();
            (format!("{} as {model_type}", dir.display()), found)
        };
        vec![
            of(&fixtures.join("bpe-files"), "bart"),
            of(&fixtures.join("bpe-json"), "bart"),
            of(&fixtures.join("unigram"), "t5"),
            of(&fixtures.join("unigram"), "pegasus"),
            of(&fixtures.join("fairseq"), "mbart"),
            of(&fixtures.join("t5-json"), "t5"),
            of(&root.join("demo/gpt2-stories"), "gpt2"),
            of(&root.join("demo/bart-eng-fra"), "bart"),
        ]
    }

    #[test]
    fn parts_give_the_ids_of_the_whole() {
        let words = "The dog's 12 houses, don't  you? \u{e9}t\u{e9} na\u{ef}ve \u{41c}\u{43e}\u{441}\u{43a}\u{432}\u{430} a\u{301} b \n\n x\ty <mask> z</s> a <s>b \u{4e2d}\u{6587} c d <extra_id_0> e \u{fb01}ne \u{2581}f \u{1f600} g   h";
        let mut cut = 0;
        for (name, tokenizer) in tokenizers() {
            let Core::Pipeline(inner) = &tokenizer.core else { panic!("{name}") };
            cut += usize::from(can_be_cut(inner));
            // Every place of the words comes to be the place of a cut.
            for shift in 0..words.len() {
                let text = format!("{}{}", "a ".repeat(shift), [words; 3].join(" "));
                for special in [false, true] {
                    let whole = inner.encode_fast(text.as_str(), special).unwrap().get_ids().to_vec();
                    let parts = encode_parts(inner, &Bounds::default(), &text, special, usize::MAX, 40).unwrap();
                    assert_eq!(parts.as_ref(), Some(&whole), "{name}: {text:?}");
                }
            }
        }
        assert!(cut >= 6, "{cut}");
    }

    #[test]
    fn long_texts_end_where_there_are_too_many_ids() {
        let (_, tokenizer) = tokenizers().pop().unwrap();
        let text = "word ".repeat(200_000);
        assert_eq!(tokenizer.encode_up_to(&text, 128).unwrap(), None);
        let all = tokenizer.encode(&text).unwrap();
        assert!(all.len() > 200_000);
        assert_eq!(tokenizer.encode_up_to(&text, all.len()).unwrap(), Some(all));
    }

    #[test]
    fn what_cannot_be_cut_has_a_limit() {
        let (_, mut tokenizer) = tokenizers().pop().unwrap();
        tokenizer.set_max_text_bytes(10_000);
        let refused = tokenizer.encode(&"a".repeat(10_001)).unwrap_err();
        assert!(
            matches!(refused, ModelError::Tokenizer(TokenizerError::TextTooLong { bytes: 10_001, limit: 10_000 })),
            "{refused}"
        );
        assert!(tokenizer.encode(&"a".repeat(10_000)).is_ok());
        // Words are cut between.
        assert!(tokenizer.encode(&"word ".repeat(10_000)).is_ok());
        let refused = tokenizer.encode(&format!("{}{}", "word ".repeat(3000), "a".repeat(20_000))).unwrap_err();
        assert!(
            matches!(refused, ModelError::Tokenizer(TokenizerError::TextTooLong { limit: 10_000, .. })),
            "{refused}"
        );
    }

    #[test]
    fn texts_are_cut_between_words() {
        assert_eq!(place("one two three", 0), 3);
        assert_eq!(place("one two three", 4), 7);
        assert_eq!(place("one two three", 8), 13, "no space before its end");
        // Two spaces, marks, a combining accent, a letter that is not ASCII behind the space.
        let text = "one  two, <three> \u{301}x. 4\tétés été f";
        assert_eq!(place(text, 0), text.rfind(" f").unwrap());
        assert_eq!(place("été", 1), 5);
        assert_eq!(place("", 7), 0);
    }
}
