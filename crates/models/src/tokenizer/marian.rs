//! Marian's tokenizer: a SentencePiece model for each side, whose pieces are looked up in vocab.json.
//!
//! As `MarianTokenizer` of transformers 5 does it. SentencePiece's own ids are never used for encoding.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use tokenizers::AddedToken;

use super::VOCAB_FILE;
use super::bounds::Bounds;
use super::bpe_files::parse_vocab;
use super::languages::{LanguageRole, unknown};
use super::sentencepiece::{SPACE, SentencePiece};
use super::settings::Settings;
use super::spm_file::{self, SpmFile};
use crate::config::json;
use crate::error::ModelError;

/// Segments texts of the source language.
pub(super) const SOURCE_FILE: &str = "source.spm";
/// Segments texts of the target language.
pub(super) const TARGET_FILE: &str = "target.spm";
/// Ids of the target side where the sides have vocabularies of their own.
const TARGET_VOCAB_FILE: &str = "target_vocab.json";

/// What the files of a Marian tokenizer hold.
pub(super) struct Files<'a> {
    pub(super) source: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) vocab: &'a str,
    pub(super) target_vocab: Option<&'a str>,
}

/// A Marian tokenizer.
#[derive(Debug, Clone)]
pub(super) struct Marian {
    source: SentencePiece,
    target: SentencePiece,
    separate: bool,
    ids: HashMap<String, u32>,
    target_ids: Option<HashMap<String, u32>>,
    /// Tokens of the target side by id.
    tokens: HashMap<u32, String>,
    /// Tokens that are cut out of a text before SentencePiece sees it; the longest first.
    added: Vec<(AddedToken, u32)>,
    special: HashSet<String>,
    end: u32,
    unknown: String,
    languages: [Option<String>; 2],
    /// The target language's token, put before every source text that does not begin with one.
    code: Option<u32>,
}

impl Marian {
    /// Loads `source.spm`, `target.spm`, `vocab.json` and, where the sides are separate, `target_vocab.json`.
    pub(super) fn load(dir: &Path, settings: &Settings) -> Result<Self, ModelError> {
        let target_vocab = settings.separate_vocabs.then_some(TARGET_VOCAB_FILE);
        let wanted: Vec<&str> = [SOURCE_FILE, TARGET_FILE, VOCAB_FILE].into_iter().chain(target_vocab).collect();
        let mut there = Vec::new();
        for name in &wanted {
            if json::is_file(&dir.join(name))? {
                there.push(*name);
            }
        }
        if let Some(missing) = wanted.iter().find(|name| !there.contains(name)) {
            let hint = format!(" (a Marian tokenizer needs {}; there is {})", wanted.join(", "), there.join(", "));
            return Err(ModelError::MissingFile { dir: dir.into(), wanted: (*missing).into(), hint });
        }
        let text = |name: &str| json::read_text(&dir.join(name));
        let target_vocab = target_vocab.map(text).transpose()?;
        let files = Files {
            source: &spm_file::read(&dir.join(SOURCE_FILE))?,
            target: &spm_file::read(&dir.join(TARGET_FILE))?,
            vocab: &text(VOCAB_FILE)?,
            target_vocab: target_vocab.as_deref(),
        };
        Self::from_files(&files, dir, settings)
    }

    /// From the files of the directory `dir`, each with its content.
    pub(super) fn from_files(files: &Files<'_>, dir: &Path, settings: &Settings) -> Result<Self, ModelError> {
        let pieces = |bytes: &[u8], name: &str| {
            let file = dir.join(name);
            SentencePiece::new(SpmFile::from_bytes(bytes, &file)?)
                .map_err(|reason| ModelError::TokenizerFile { file, reason })
        };
        let vocab =
            |text: &str, name: &str| Ok::<_, ModelError>(parse_vocab(&dir.join(name), text)?.into_iter().collect());
        let ids: HashMap<String, u32> = vocab(files.vocab, VOCAB_FILE)?;
        let target_ids: Option<HashMap<String, u32>> =
            files.target_vocab.map(|text| vocab(text, TARGET_VOCAB_FILE)).transpose()?;
        let unusable = |reason: String| ModelError::TokenizerFile { file: dir.join(VOCAB_FILE), reason };
        let token = |role: &str| settings.role(role).unwrap_or_default().to_owned();
        let unknown = token("unk_token");
        let decoding = target_ids.as_ref().unwrap_or(&ids);
        if [&ids, decoding].iter().any(|vocab| !vocab.contains_key(&unknown)) {
            return Err(unusable(format!("the unknown token `{unknown}` has no id")));
        }
        let tokens = decoding.iter().map(|(token, id)| (*id, token.clone())).collect();

        let mut added: Vec<(AddedToken, u32)> = Vec::new();
        let mut next = ids.len() as u32;
        for token in settings.all_tokens() {
            if token.content.is_empty() || added.iter().any(|(other, _)| other.content == token.content) {
                continue;
            }
            let id = ids.get(&token.content).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            added.push((token, id));
        }
        let special = added.iter().filter(|(token, _)| token.special).map(|(token, _)| token.content.clone()).collect();
        let id_of = |content: &str| added.iter().find(|(token, _)| token.content == content).map(|(_, id)| *id);
        let end = id_of(&token("eos_token")).ok_or_else(|| unusable("it has no end token".into()))?;
        added.sort_by_key(|(token, _)| std::cmp::Reverse(token.content.len()));
        let language = |key: &str| settings.text(key).map(str::to_owned);
        Ok(Self {
            source: pieces(files.source, SOURCE_FILE)?,
            target: pieces(files.target, TARGET_FILE)?,
            separate: settings.separate_vocabs,
            ids,
            target_ids,
            tokens,
            added,
            special,
            end,
            unknown,
            languages: [language("source_lang"), language("target_lang")],
            code: None,
        })
    }

    /// What its texts may be.
    pub(super) fn bounds(&self) -> Bounds {
        let [source, target] = [&self.source, &self.target];
        Bounds {
            growth: source.growth().max(target.growth()),
            work: source.work().max(target.work()).saturating_add(self.added.len() as u64),
            ..Bounds::default()
        }
    }

    /// The ids of a source text; `special` puts the end token behind them.
    pub(super) fn encode(&self, text: &str, special: bool) -> Vec<u32> {
        let starts_with_code = split_code(text).is_some();
        let code = self.code.filter(|_| !starts_with_code);
        let mut ids: Vec<u32> = code.into_iter().collect();
        self.push_ids(&mut ids, text, &self.source, &self.ids);
        ids.extend(special.then_some(self.end));
        ids
    }

    /// The ids of a target text, without the end token.
    pub(super) fn encode_target(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        self.push_ids(&mut ids, text, &self.target, self.target_ids.as_ref().unwrap_or(&self.ids));
        ids
    }

    /// The ids of a target text and the end token.
    pub(super) fn encode_labels(&self, text: &str) -> Vec<u32> {
        let mut ids = self.encode_target(text);
        ids.push(self.end);
        ids
    }

    fn push_ids(&self, ids: &mut Vec<u32>, text: &str, model: &SentencePiece, vocab: &HashMap<String, u32>) {
        let unknown = vocab.get(&self.unknown).copied();
        let id_of = |piece: &str| {
            let added = self.added.iter().find(|(token, _)| token.content == piece).map(|(_, id)| *id);
            added.or_else(|| vocab.get(piece).copied()).or(unknown)
        };
        for part in self.split(text) {
            match part {
                Part::Added(id) => ids.push(id),
                Part::Text(text) => {
                    let (code, text) = split_code(text).unwrap_or(("", text));
                    if !code.is_empty() {
                        ids.extend(id_of(code));
                    }
                    ids.extend(model.encode(text).iter().filter_map(|piece| id_of(piece)));
                }
            }
        }
    }

    /// Cuts a text at its added tokens.
    fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let (mut begin, mut at) = (0, 0);
        let mut strip_next = false;
        let push_text = |parts: &mut Vec<Part<'a>>, mut text: &'a str, after: bool, before: bool| {
            if after {
                text = text.trim_start();
            }
            if before {
                text = text.trim_end();
            }
            if !text.is_empty() {
                parts.push(Part::Text(text));
            }
        };
        while at < text.len() {
            let rest = &text[at..];
            let found = self.added.iter().find(|(token, _)| rest.starts_with(token.content.as_str()));
            let end = found.map_or(at, |(token, _)| at + token.content.len());
            let alone = |end: usize| {
                let open = |c: Option<char>| c.is_none_or(|c| c == ' ');
                open(text[..at].chars().next_back()) && open(text[end..].chars().next())
            };
            match found.filter(|(token, _)| !token.single_word || alone(end)) {
                Some((token, id)) => {
                    push_text(&mut parts, &text[begin..at], strip_next, token.lstrip);
                    parts.push(Part::Added(*id));
                    strip_next = token.rstrip;
                    (begin, at) = (end, end);
                }
                None => at += rest.chars().next().map_or(1, char::len_utf8),
            }
        }
        push_text(&mut parts, &text[begin..], strip_next, false);
        parts
    }

    /// The text of target ids. Ids that no file knows are passed over.
    pub(super) fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        let tokens: Vec<&str> = ids.iter().filter_map(|id| self.token(*id)).collect();
        let shown = tokens.iter().copied().filter(|token| !skip_special_tokens || !self.special.contains(*token));
        self.join(shown)
    }

    /// The text of tokens, special ones set off by a space behind them.
    pub(super) fn join<'a>(&self, tokens: impl IntoIterator<Item = &'a str>) -> String {
        let model = self.decoder();
        let mut text = String::new();
        let mut run = Vec::new();
        for token in tokens {
            if self.special.contains(token) {
                text.push_str(&model.decode(run.drain(..)));
                text.push_str(token);
                text.push(' ');
            } else {
                run.push(token);
            }
        }
        text.push_str(&model.decode(run));
        // Pieces that the model does not know still hold their mark.
        let text = text.replace(SPACE, " ");
        text.trim_matches(is_python_space).to_owned()
    }

    /// With one vocabulary, transformers 5 decodes by the source's rules.
    fn decoder(&self) -> &SentencePiece {
        if self.separate { &self.target } else { &self.source }
    }

    /// The target side's token of an id.
    pub(super) fn token(&self, id: u32) -> Option<&str> {
        let added = self.added.iter().find(|(_, other)| *other == id).map(|(token, _)| token.content.as_str());
        added.or_else(|| self.tokens.get(&id).map(String::as_str)).or_else(|| self.decoder().piece(id))
    }

    /// The source side's id of a token.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        let added = self.added.iter().find(|(other, _)| other.content == token).map(|(_, id)| *id);
        added.or_else(|| self.ids.get(token).copied())
    }

    pub(super) fn is_special(&self, token: &str) -> bool {
        self.special.contains(token)
    }

    /// Tokens of the larger side, added ones included.
    pub(super) fn vocab_size(&self) -> usize {
        let largest = |ids: &HashMap<String, u32>| {
            let added = self.added.iter().filter(|(token, _)| !ids.contains_key(&token.content)).count();
            ids.len() + added
        };
        largest(&self.ids).max(self.target_ids.as_ref().map_or(0, largest))
    }

    /// Sets the languages. Only the target has a token, in vocabularies with several targets.
    pub(super) fn set_languages(&mut self, source: Option<&str>, target: Option<&str>) -> Result<(), ModelError> {
        let [own_source, own_target] = &self.languages;
        if let Some(language) = source.filter(|language| Some(*language) != own_source.as_deref()) {
            let known: Vec<&str> = own_source.as_deref().into_iter().collect();
            return Err(unknown(LanguageRole::Source, language, &known));
        }
        let Some(language) = target else { return Ok(()) };
        let code = if split_code(language).is_some_and(|(_, rest)| rest.is_empty()) {
            language.to_owned()
        } else {
            format!(">>{language}<<")
        };
        let code = self.ids.get(&code).copied().filter(|_| !self.separate);
        if code.is_none() && Some(language) != own_target.as_deref() {
            let mut known: Vec<&str> = self.ids.keys().filter_map(|token| code_name(token)).collect();
            known.sort_unstable();
            if known.is_empty() || self.separate {
                known = own_target.as_deref().into_iter().collect();
            }
            return Err(unknown(LanguageRole::Target, language, &known));
        }
        self.code = code;
        Ok(())
    }
}

enum Part<'a> {
    Added(u32),
    Text(&'a str),
}

/// A text that begins with a language code, as `>>fra<<`, in code and rest.
fn split_code(text: &str) -> Option<(&str, &str)> {
    if !text.starts_with(">>") {
        return None;
    }
    text.find("<<").map(|end| text.split_at(end + 2))
}

fn code_name(token: &str) -> Option<&str> {
    token.strip_prefix(">>")?.strip_suffix("<<")
}

/// What Python's `str.strip` takes away: Unicode's white space and the four information separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::split_code;

    #[test]
    fn codes_are_cut_off() {
        assert_eq!(split_code(">>fra<< a"), Some((">>fra<<", " a")));
        assert_eq!(split_code(">>fra a"), None);
        assert_eq!(split_code(" >>fra<<"), None);
    }
}
