//! Text to token ids and back, as transformers 5 does it for the same directory.
//!
//! A tokenizer is read from `tokenizer.json`, from `vocab.json` and `merges.txt` (byte-level BPE), from a SentencePiece model
//! (T5, Pegasus, mBART), or from the two SentencePiece models and `vocab.json` of a Marian model.

mod bounds;
mod byte_level;
mod charsmap;
mod class;
mod languages;
mod marian;
mod parts;
mod pieces;
mod sentencepiece;
mod settings;
mod spm_file;
mod stream;
mod template;
mod unigram;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tokenizers::models::ModelWrapper;

use crate::error::{LanguageRole, ModelError, TokenizerError};
use crate::json;
use bounds::Bounds;
pub use bounds::DEFAULT_TEXT_BYTES;
pub use class::TokenizerClass;
pub use languages::LanguageTokens;
use marian::Marian;
use pieces::ByteTokens;
pub(crate) use settings::Settings;
use settings::{Form, Rules};
pub use stream::TextStream;
use template::LabelEnds;

/// Name of the one-file form of a tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Name of the vocabulary of a byte-level BPE tokenizer in two files, and of a Marian tokenizer.
pub const VOCAB_FILE: &str = "vocab.json";
/// Name of the merges of a byte-level BPE tokenizer in two files.
pub const MERGES_FILE: &str = "merges.txt";

/// A model's tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    core: Core,
    class: TokenizerClass,
    file: PathBuf,
    clean_up_spaces: bool,
    byte_tokens: ByteTokens,
    bounds: Bounds,
    /// The end token of the classes with languages.
    end: Option<u32>,
    label_ends: Option<LabelEnds>,
}

#[derive(Debug, Clone)]
enum Core {
    /// Anything that the tokenizers crate runs.
    Pipeline(Box<tokenizers::Tokenizer>),
    Marian(Box<Marian>),
}

impl Tokenizer {
    /// Loads the tokenizer of the directory `dir`; `None` if it has none. `tokenizer.json` wins over other forms, to which the class
    /// gives the special tokens around a text: `<s> A </s>` for BART, none for GPT-2. `tokenizer_config.json` is honoured as transformers 5 does;
    /// `class` is that of a directory which names none.
    ///
    /// # Errors
    /// Files that cannot be read or used; one of several that is missing.
    pub fn load(dir: impl AsRef<Path>, class: TokenizerClass) -> Result<Option<Self>, ModelError> {
        let dir = dir.as_ref();
        let settings = Settings::load(dir, class)?;
        let single = dir.join(TOKENIZER_FILE);
        let has_single = json::is_file(&single)?;
        let there = |name: &str| json::is_file(&dir.join(name));
        if settings.class == TokenizerClass::Marian && !(settings.generic && has_single) {
            let pair = there(marian::SOURCE_FILE)?;
            if pair || (!has_single && (there(marian::TARGET_FILE)? || there(VOCAB_FILE)?)) {
                let single = if has_single { Some(json::read_text(&single)?) } else { None };
                let (marian, rules) = Marian::load(dir, &settings, single.as_deref())?;
                return Ok(Some(Self::finish(Core::Marian(Box::new(marian)), dir.join(VOCAB_FILE), &rules)));
            }
        }
        if has_single {
            let text = json::read_text(&single)?;
            return Self::from_tokenizer_json(&text, single, &settings).map(Some);
        }
        if let Some(name) = settings.class.model_file() {
            let file = dir.join(name);
            if !json::is_file(&file)? {
                return Ok(None);
            }
            return Self::from_spm(&spm_file::read(&file)?, file, &settings).map(Some);
        }
        match (there(VOCAB_FILE)?, there(MERGES_FILE)?) {
            (false, false) => Ok(None),
            (true, true) => {
                let (vocab, merges) = (dir.join(VOCAB_FILE), dir.join(MERGES_FILE));
                let texts = (json::read_text(&vocab)?, json::read_text(&merges)?);
                Self::from_bpe_texts((&vocab, &texts.0), (&merges, &texts.1), &settings).map(Some)
            }
            (has_vocab, _) => {
                let (wanted, other) = if has_vocab { (MERGES_FILE, VOCAB_FILE) } else { (VOCAB_FILE, MERGES_FILE) };
                let hint = format!(" (there is {other}, which needs it)");
                Err(ModelError::MissingFile { dir: dir.into(), wanted: wanted.into(), hint })
            }
        }
    }

    /// The files that make a tokenizer of the directory `dir`, in words.
    pub(crate) fn wanted_files(dir: &Path, class: TokenizerClass) -> Result<&'static str, ModelError> {
        Ok(Settings::load(dir, class)?.class.wanted_files())
    }

    /// From `text`, the content of `file`.
    pub(crate) fn from_tokenizer_json(text: &str, file: PathBuf, settings: &Settings) -> Result<Self, ModelError> {
        let unusable = |reason| ModelError::from(TokenizerError::File { file: file.clone(), reason });
        charsmap::check_maps(text).map_err(unusable)?;
        let growth = bounds::check_json(text).map_err(unusable)?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(text.as_bytes())).map_err(unusable)?;
        let padding = inner.get_padding().map(|padding| padding.pad_token.clone());
        // Callers decide about lengths; a length in the file would cut or pad silently.
        inner.with_padding(None);
        guarded(|| inner.with_truncation(None).map(|_| ())).map_err(unusable)?;
        let rules = settings.rules(Form::Single { text, padding: padding.as_deref() })?;
        match rules.class {
            TokenizerClass::Gpt2 | TokenizerClass::Roberta => {
                inner = byte_level::rebuild(&inner, &rules).map_err(unusable)?;
            }
            class if class.is_unigram() => inner = unigram::rebuild(&inner, &rules).map_err(unusable)?,
            _ => {}
        }
        Ok(Self::from_pipeline(inner, file, settings, &rules)?.grown(growth))
    }

    /// From `bytes`, the content of the SentencePiece model `file`, by the rules of a Unigram class.
    pub(crate) fn from_spm(bytes: &[u8], file: PathBuf, settings: &Settings) -> Result<Self, ModelError> {
        let (inner, rules, growth) = unigram::from_spm(bytes, &file, settings)?;
        Ok(Self::from_pipeline(inner, file, settings, &rules)?.grown(growth))
    }

    /// Marian's, from the content of a SentencePiece model, used for both sides, and of `vocab.json`.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn from_marian(model: &[u8], vocab: &str, dir: &Path, settings: &Settings) -> Result<Self, ModelError> {
        let files = marian::Files { source: model, target: model, vocab, target_vocab: None };
        let rules = settings.rules(Form::Files { single: None })?;
        let core = Core::Marian(Box::new(Marian::from_files(&files, dir, settings, &rules)?));
        Ok(Self::finish(core, dir.join(VOCAB_FILE), &rules))
    }

    /// From `vocab.json` and `merges.txt`, each with its content.
    pub(crate) fn from_bpe_texts(
        vocab: (&Path, &str),
        merges: (&Path, &str),
        settings: &Settings,
    ) -> Result<Self, ModelError> {
        let (inner, rules) = byte_level::from_files(vocab, merges, settings)?;
        Self::from_pipeline(inner, vocab.0.into(), settings, &rules)
    }

    /// Adds the special tokens and sets the template.
    fn from_pipeline(
        mut inner: tokenizers::Tokenizer,
        file: PathBuf,
        settings: &Settings,
        rules: &Rules,
    ) -> Result<Self, ModelError> {
        rules.add_tokens(&mut inner).map_err(|problem| settings.problem(problem))?;
        template::set(&mut inner, rules)
            .map_err(|reason| ModelError::from(TokenizerError::File { file: file.clone(), reason }))?;
        Ok(Self::finish(Core::Pipeline(Box::new(inner)), file, rules))
    }

    fn finish(core: Core, file: PathBuf, rules: &Rules) -> Self {
        // Written for WordPiece: on BPE it deletes spaces of the text, so transformers 5 ignores it there.
        let is_bpe = matches!(&core, Core::Pipeline(inner) if matches!(inner.get_model(), ModelWrapper::BPE(_)));
        let options = &rules.options;
        let clean_up_spaces = options.clean_up_spaces && (!is_bpe || options.clean_up_spaces_of_bpe);
        let byte_tokens = match &core {
            Core::Pipeline(inner) => ByteTokens::of(inner.get_decoder()),
            Core::Marian(_) => ByteTokens::None,
        };
        let (mut end, mut label_ends) = (None, None);
        if let (Core::Pipeline(inner), TokenizerClass::MBart | TokenizerClass::MBart50) = (&core, rules.class) {
            end = rules.role_id(inner, "eos_token").ok();
            let target = options.target_language.as_deref().and_then(|language| inner.token_to_id(language));
            label_ends = end.zip(target).map(|(end, target)| template::label_ends(rules.class, target, end));
        }
        let bounds = match &core {
            Core::Pipeline(inner) => match inner.get_model() {
                ModelWrapper::Unigram(model) => {
                    let work = bounds::chain_bytes(model.iter().map(|(piece, _)| piece.as_str()));
                    Bounds { work, ..Bounds::default() }
                }
                _ => Bounds::default(),
            },
            Core::Marian(marian) => marian.bounds(),
        };
        Self { core, class: rules.class, file, clean_up_spaces, byte_tokens, bounds, end, label_ends }
    }

    /// Texts may become so many times as long.
    fn grown(mut self, growth: u64) -> Self {
        self.bounds.growth = growth;
        self
    }

    /// The most bytes of a text that are tokenised at once, [`DEFAULT_TEXT_BYTES`] unless this is called: for each of them tokenising
    /// takes some 150 bytes of memory. Texts of byte-level BPE and Unigram tokenizers are tokenised in parts if they have words to cut
    /// between, and may be as long as they like.
    pub fn set_max_text_bytes(&mut self, bytes: usize) {
        self.bounds.text_bytes = bytes;
    }

    /// [`Tokenizer::encode`]; `None` for a long text that was seen to have more than `most` ids before its end.
    pub fn encode_up_to(&self, text: &str, most: usize) -> Result<Option<Vec<u32>>, ModelError> {
        self.encode_bounded(text, true, most)
    }

    /// The token ids of `text`, special tokens of the family's template included. Never cut.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.encode_with(text, true)
    }

    /// The token ids of `text` alone, without the template's special tokens.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.encode_with(text, false)
    }

    /// The token ids of `text` as the decoder writes it, without special tokens: what a decoder prefix needs. Differs from
    /// [`Tokenizer::encode_plain`] for Marian, whose sides are segmented by models of their own.
    pub fn encode_target(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        match &self.core {
            Core::Pipeline(_) => self.encode_with(text, false),
            Core::Marian(marian) => self.check_text(text).map(|()| marian.encode_target(text)),
        }
    }

    /// The token ids of `text` as a decoder learned to write it, special tokens included: the labels of training. They are in
    /// the target language that was set, or else that of the settings; in none, they get the special tokens of a source.
    pub fn encode_labels(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        match (&self.core, &self.label_ends) {
            (Core::Pipeline(_), None) => self.encode_with(text, true),
            (Core::Pipeline(_), Some(LabelEnds { before, after })) => {
                Ok([before.as_slice(), &self.encode_with(text, false)?, after].concat())
            }
            (Core::Marian(marian), _) => self.check_text(text).map(|()| marian.encode_labels(text)),
        }
    }

    fn encode_with(&self, text: &str, special: bool) -> Result<Vec<u32>, ModelError> {
        Ok(self.encode_bounded(text, special, usize::MAX)?.unwrap_or_default())
    }

    fn encode_bounded(&self, text: &str, special: bool, most: usize) -> Result<Option<Vec<u32>>, ModelError> {
        match &self.core {
            Core::Pipeline(inner) => parts::encode(inner, &self.bounds, text, special, most),
            Core::Marian(marian) => self.check_text(text).map(|()| Some(marian.encode(text, special))),
        }
    }

    /// Refuses a text that is too long for a tokenizer that takes texts as a whole.
    fn check_text(&self, text: &str) -> Result<(), ModelError> {
        parts::check(text.len(), self.bounds.part_bytes().min(self.bounds.whole_bytes()))
    }

    /// The text of `ids`. Ids without a token decode as nothing, bytes that are not UTF-8 as U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, ModelError> {
        let text = match &self.core {
            Core::Pipeline(inner) => guarded(|| inner.decode(ids, skip_special_tokens))
                .map_err(|reason| ModelError::from(TokenizerError::Tokenize { action: "decode the ids", reason }))?,
            Core::Marian(marian) => marian.decode(ids, skip_special_tokens),
        };
        Ok(if self.clean_up_spaces { clean_up_tokenization(&text) } else { text })
    }

    /// A decoder that takes ids one at a time and gives text as soon as it is certain.
    pub fn stream(&self, skip_special_tokens: bool) -> TextStream<'_> {
        TextStream::new(self, skip_special_tokens)
    }

    /// Sets the languages that texts are read and written in, as typed by a user: `en_XX` for mBART, `fra` or `>>fra<<` for a
    /// Marian vocabulary with several targets. `None` leaves a language as it is. Texts encoded from now on have the source's
    /// token (mBART) or the target's (Marian); what mBART's target asks of generation is returned.
    ///
    /// # Errors
    /// [`TokenizerError::Language`] if the tokenizer has no such language; nothing is changed then.
    pub fn set_languages(&mut self, source: Option<&str>, target: Option<&str>) -> Result<LanguageTokens, ModelError> {
        let class = self.class;
        let inner = match &mut self.core {
            Core::Marian(marian) => {
                marian.set_languages(source, target)?;
                return Ok(LanguageTokens::default());
            }
            Core::Pipeline(inner) => inner,
        };
        let known: Vec<&str> = languages::codes_of(class).filter(|code| inner.token_to_id(code).is_some()).collect();
        let id_of = |role: LanguageRole, language: Option<&str>| match language {
            None => Ok(None),
            Some(code) if known.contains(&code) => Ok(inner.token_to_id(code)),
            Some(language) => Err(languages::unknown(role, language, &known)),
        };
        let source = id_of(LanguageRole::Source, source)?;
        let target = id_of(LanguageRole::Target, target)?;
        if let Some(end) = self.end {
            if let Some(source) = source {
                template::set_language(inner, class, source, end)
                    .map_err(|reason| ModelError::from(TokenizerError::File { file: self.file.clone(), reason }))?;
            }
            if let Some(target) = target {
                self.label_ends = Some(template::label_ends(class, target, end));
            }
        }
        Ok(match class {
            TokenizerClass::MBart50 => LanguageTokens { forced_bos_token_id: target, ..LanguageTokens::default() },
            _ => LanguageTokens { decoder_start_token_id: target, ..LanguageTokens::default() },
        })
    }

    /// Number of tokens, added ones included. May differ from the rows of the model's embedding table.
    pub fn vocab_size(&self) -> usize {
        match &self.core {
            Core::Pipeline(inner) => inner.get_vocab_size(true),
            Core::Marian(marian) => marian.vocab_size(),
        }
    }

    /// The id of exactly this token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        match &self.core {
            Core::Pipeline(inner) => inner.token_to_id(token),
            Core::Marian(marian) => marian.id(token),
        }
    }

    /// The token of this id as the vocabulary writes it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        match &self.core {
            Core::Pipeline(inner) => inner.id_to_token(id),
            Core::Marian(marian) => marian.token(id).map(str::to_owned),
        }
    }

    /// Whether this id is a special token, which `decode` can skip.
    pub fn is_special(&self, id: u32) -> bool {
        let Some(token) = self.id_to_token(id) else { return false };
        match &self.core {
            Core::Pipeline(inner) => inner.get_added_vocabulary().is_special_token(&token),
            Core::Marian(marian) => marian.is_special(id),
        }
    }

    /// The file that it was loaded from.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// The replacements of `clean_up_tokenization` in transformers, in its order.
fn clean_up_tokenization(text: &str) -> String {
    const REPLACEMENTS: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    REPLACEMENTS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Runs a call of the tokenizers crate, which panics on some contradictory files, and turns either failure into its reason.
fn guarded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        // Messages quote the file, its line ends included.
        Ok(Err(error)) => Err(error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")),
        Err(_) => Err("its parts contradict each other".into()),
    }
}
