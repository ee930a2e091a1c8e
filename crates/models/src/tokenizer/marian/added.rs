//! Marian's added tokens: their ids, which of them are special, and where they stand in a text.
//!
//! As `PythonBackend` of transformers 5 keeps them, whose rules are not those of the `tokenizers` crate.

use std::collections::{HashMap, HashSet};

use super::is_python_space;
use crate::error::excerpt;
use crate::tokenizer::settings::{Index, Problem, Rules, Token};

/// Tokens that are cut out of a text before SentencePiece sees it.
#[derive(Debug, Clone)]
pub(super) struct AddedTokens {
    by_id: HashMap<u32, Token>,
    ids: HashMap<String, u32>,
    /// Contents by their first character, the longest first.
    by_first: HashMap<char, Vec<String>>,
    special: HashSet<String>,
}

impl AddedTokens {
    /// Those that the files name, at the ids that they give, then the special tokens that have none yet: at the vocabulary's id,
    /// or behind all of it.
    pub(super) fn new(rules: &Rules, vocab: &HashMap<String, u32>) -> Result<Self, Problem> {
        let mut by_id: HashMap<u32, Token> = HashMap::new();
        let mut ids: HashMap<String, u32> = HashMap::new();
        for (index, token) in rules.added() {
            let id = match index {
                Index::Whole(number) => u32::try_from(*number).ok(),
                _ => None,
            };
            let id = id.ok_or_else(|| {
                let shown = match index {
                    Index::Whole(number) => number.to_string(),
                    Index::Fraction(number) => format!("{number:?}"),
                    Index::Text(text) => format!("`{}`", excerpt(text)),
                    Index::Null => "null".into(),
                };
                let reason = format!("token `{}` has the id {shown}: must be a whole number", excerpt(&token.content));
                rules.added_problem(reason)
            })?;
            by_id.insert(id, token.clone());
            ids.insert(token.content.clone(), id);
        }
        let special = rules.special.all();
        let added: HashSet<&str> = by_id.values().map(|token| token.content.as_str()).collect();
        let mut next = (vocab.len() + added.iter().filter(|content| !vocab.contains_key(**content)).count()) as u32;
        let missing: Vec<&String> =
            special.iter().filter(|content| !content.is_empty() && !ids.contains_key(*content)).collect();
        for content in missing {
            let id = vocab.get(content).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            by_id.insert(id, Token::new(content.as_str(), true));
            ids.insert(content.clone(), id);
        }
        let mut by_first: HashMap<char, Vec<String>> = HashMap::new();
        for token in by_id.values() {
            if let Some(first) = token.content.chars().next() {
                by_first.entry(first).or_default().push(token.content.clone());
            }
        }
        for tokens in by_first.values_mut() {
            tokens.sort_unstable_by_key(|content| std::cmp::Reverse(content.len()));
            tokens.dedup();
        }
        Ok(Self { by_id, ids, by_first, special: special.into_iter().collect() })
    }

    /// Bytes that are compared in one place of a text, at most.
    pub(super) fn work(&self) -> u64 {
        let all = |tokens: &Vec<String>| tokens.iter().map(|content| content.len() as u64).sum();
        self.by_first.values().map(all).max().unwrap_or(0)
    }

    /// The id of a token.
    pub(super) fn id(&self, content: &str) -> Option<u32> {
        self.ids.get(content).copied()
    }

    /// The token of an id.
    pub(super) fn token(&self, id: u32) -> Option<&str> {
        self.by_id.get(&id).map(|token| token.content.as_str())
    }

    /// The contents of all of them.
    pub(super) fn contents(&self) -> impl Iterator<Item = &str> {
        self.ids.keys().map(String::as_str)
    }

    /// Whether a token is set off in a decoded text: those with a role and those of the list. One that is only marked as special
    /// is not.
    pub(super) fn is_special(&self, content: &str) -> bool {
        self.special.contains(content)
    }

    /// The special tokens' contents.
    pub(super) fn special(&self) -> impl Iterator<Item = &str> {
        self.special.iter().map(String::as_str)
    }

    /// Cuts a text into added tokens and what is between them.
    pub(super) fn split(&self, text: &str) -> Vec<String> {
        let mut parts = self.cut(text);
        for i in 0..parts.len() {
            let Some(token) = self.ids.get(&parts[i]).and_then(|id| self.by_id.get(id)) else { continue };
            let (left, right) = (i.checked_sub(1), Some(i + 1).filter(|next| *next < parts.len()));
            let left = left.filter(|left| !parts[*left].is_empty());
            let right = right.filter(|right| !parts[*right].is_empty());
            let (before, after) = (left.map(|left| parts[left].clone()), right.map(|right| parts[right].clone()));
            if let (true, Some(right), Some(after)) = (token.rstrip, right, &after) {
                parts[right] = after.trim_start_matches(is_python_space).to_owned();
            }
            if let (true, Some(left), Some(before)) = (token.lstrip, left, &before) {
                parts[left] = before.trim_end_matches(is_python_space).to_owned();
            }
            if token.single_word {
                // Beside anything but a space it is part of that word. The neighbours count as they were.
                if let (Some(left), Some(before)) = (left, &before)
                    && !before.ends_with(' ')
                {
                    let word = std::mem::take(&mut parts[i]);
                    parts[left].push_str(&word);
                } else if let (Some(right), Some(after)) = (right, &after)
                    && !after.starts_with(' ')
                {
                    let word = std::mem::take(&mut parts[i]);
                    parts[right].insert_str(0, &word);
                }
            }
        }
        parts.retain(|part| !part.is_empty());
        parts
    }

    /// Cuts at the first token of those that begin earliest, the longest first.
    fn cut(&self, text: &str) -> Vec<String> {
        let mut parts = Vec::new();
        let (mut begin, mut at) = (0, 0);
        while let Some(first) = text[at..].chars().next() {
            let found =
                self.by_first.get(&first).and_then(|tokens| tokens.iter().find(|token| text[at..].starts_with(*token)));
            match found {
                Some(token) => {
                    if begin < at {
                        parts.push(text[begin..at].to_owned());
                    }
                    parts.push(token.clone());
                    at += token.len();
                    begin = at;
                }
                None => at += first.len_utf8(),
            }
        }
        if begin < text.len() {
            parts.push(text[begin..].to_owned());
        }
        parts
    }
}
