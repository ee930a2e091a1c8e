//! Marian's tokenizer: a SentencePiece model for each side, whose pieces are looked up in vocab.json.
//!
//! As `MarianTokenizer` of transformers 5 does it. SentencePiece's own ids are never used for encoding.

mod added;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::VOCAB_FILE;
use super::bounds::Bounds;
use super::byte_level::parse_vocab;
use super::languages::unknown;
use super::sentencepiece::{SPACE, SentencePiece};
use super::settings::{Form, Rules, Settings};
use super::spm_file::{self, SpmFile};
use crate::error::{LanguageRole, ModelError, TokenizerError, excerpt};
use crate::json;
use added::AddedTokens;

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
    added: AddedTokens,
    /// Ids that decoding without special tokens passes over.
    skipped: HashSet<u32>,
    /// Whether added tokens in a text are ordinary text.
    splits_special: bool,
    end: u32,
    unknown: String,
    languages: [Option<String>; 2],
    /// The target language's token, put before every source text that does not begin with one.
    code: Option<u32>,
}

impl Marian {
    /// Loads `source.spm`, `target.spm`, `vocab.json` and, where the sides are separate, `target_vocab.json`. `single` is the text
    /// of a tokenizer.json beside them, of which only the added tokens count.
    pub(super) fn load(dir: &Path, settings: &Settings, single: Option<&str>) -> Result<(Self, Rules), ModelError> {
        let rules = settings.rules(Form::Files { single })?;
        let target_vocab = rules.options.separate_vocabs.then_some(TARGET_VOCAB_FILE);
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
        Ok((Self::from_files(&files, dir, settings, &rules)?, rules))
    }

    /// From the files of the directory `dir`, each with its content.
    pub(super) fn from_files(
        files: &Files<'_>,
        dir: &Path,
        settings: &Settings,
        rules: &Rules,
    ) -> Result<Self, ModelError> {
        let pieces = |bytes: &[u8], name: &str| {
            let file = dir.join(name);
            SentencePiece::new(SpmFile::from_bytes(bytes, &file)?)
                .map_err(|reason| ModelError::from(TokenizerError::File { file, reason }))
        };
        let vocab =
            |text: &str, name: &str| Ok::<_, ModelError>(parse_vocab(&dir.join(name), text)?.into_iter().collect());
        let ids: HashMap<String, u32> = vocab(files.vocab, VOCAB_FILE)?;
        let target_ids: Option<HashMap<String, u32>> =
            files.target_vocab.map(|text| vocab(text, TARGET_VOCAB_FILE)).transpose()?;
        let unusable = |reason: String| ModelError::from(TokenizerError::File { file: dir.join(VOCAB_FILE), reason });
        let named = rules.role_argument("unk_token").python_str();
        // A name of the model's own may take the role over.
        let unknown = rules.special.role("unk_token").unwrap_or_default();
        let decoding = target_ids.as_ref().unwrap_or(&ids);
        for token in [&named, &unknown] {
            if [&ids, decoding].iter().any(|vocab| !vocab.contains_key(token)) {
                return Err(unusable(format!("the unknown token `{}` has no id", excerpt(token))));
            }
        }
        let tokens = decoding.iter().map(|(token, id)| (*id, token.clone())).collect();
        let added = AddedTokens::new(rules, &ids).map_err(|problem| settings.problem(problem))?;
        let id_of =
            |token: &str| added.id(token).or_else(|| ids.get(token).copied()).or_else(|| ids.get(&unknown).copied());
        let end = rules.special.role("eos_token").and_then(|token| id_of(&token));
        let end = end.ok_or_else(|| unusable("it has no end token".into()))?;
        let skipped = added.special().filter_map(id_of).collect();
        let [source_language, target_language] = [&rules.options.source_language, &rules.options.target_language];
        Ok(Self {
            source: pieces(files.source, SOURCE_FILE)?,
            target: pieces(files.target, TARGET_FILE)?,
            separate: rules.options.separate_vocabs,
            ids,
            target_ids,
            tokens,
            added,
            skipped,
            splits_special: rules.options.split_special_tokens,
            end,
            unknown,
            languages: [source_language.clone(), target_language.clone()],
            code: None,
        })
    }

    /// What its texts may be.
    pub(super) fn bounds(&self) -> Bounds {
        let [source, target] = [&self.source, &self.target];
        Bounds {
            growth: source.growth().max(target.growth()),
            work: source.work().max(target.work()).saturating_add(self.added.work()),
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
        let id_of = |piece: &str| self.added.id(piece).or_else(|| vocab.get(piece).copied()).or(unknown);
        let push_pieces = |ids: &mut Vec<u32>, text: &str| {
            let (code, text) = split_code(text).unwrap_or(("", text));
            if !code.is_empty() {
                ids.extend(id_of(code));
            }
            ids.extend(model.encode(text).iter().filter_map(|piece| id_of(piece)));
        };
        if self.splits_special {
            return push_pieces(ids, text);
        }
        for part in self.added.split(text) {
            match self.added.id(&part) {
                Some(id) => ids.push(id),
                None => push_pieces(ids, &part),
            }
        }
    }

    /// The text of target ids. Ids that no file knows are passed over.
    pub(super) fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        let shown = ids.iter().filter(|id| !skip_special_tokens || !self.skipped.contains(id));
        self.join(shown.filter_map(|id| self.token(*id)))
    }

    /// The text of tokens, special ones set off by a space behind them.
    pub(super) fn join<'a>(&self, tokens: impl IntoIterator<Item = &'a str>) -> String {
        let model = self.decoder();
        let mut text = String::new();
        let mut run = Vec::new();
        for token in tokens {
            if self.added.is_special(token) {
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
        let token = self.added.token(id).or_else(|| self.tokens.get(&id).map(String::as_str));
        token.or_else(|| self.decoder().piece(id))
    }

    /// The source side's id of a token.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.ids.get(token).copied())
    }

    pub(super) fn is_special(&self, id: u32) -> bool {
        self.skipped.contains(&id)
    }

    /// Tokens of the larger side, added ones included.
    pub(super) fn vocab_size(&self) -> usize {
        let largest = |ids: &HashMap<String, u32>| {
            let added = self.added.contents().filter(|token| !ids.contains_key(*token)).count();
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
