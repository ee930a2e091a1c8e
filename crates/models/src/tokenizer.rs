//! Text to token ids and back, as transformers 5 does it for the same directory.
//!
//! A tokenizer is read from `tokenizer.json`, from `vocab.json` and `merges.txt` (byte-level BPE), from a SentencePiece model
//! (T5, Pegasus, mBART), or from the two SentencePiece models and `vocab.json` of a Marian model.

mod bounds;
mod bpe_files;
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
mod unigram;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::template::TemplateProcessing;

use crate::config::{CONFIG_FILE, ModelFamily, json};
use crate::error::ModelError;
use bounds::Bounds;
pub use bounds::DEFAULT_TEXT_BYTES;
use class::Class;
pub(crate) use class::MODEL_TYPES;
pub use languages::{LanguageRole, LanguageTokens};
use marian::Marian;
use pieces::ByteTokens;
pub(crate) use settings::Settings;
pub use stream::TextStream;

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
    class: Class,
    file: PathBuf,
    clean_up_spaces: bool,
    byte_tokens: ByteTokens,
    bounds: Bounds,
    label_ends: Option<LabelEnds>,
}

/// The special tokens around a text in the target language, where they are not those of the source language.
#[derive(Debug, Clone)]
struct LabelEnds {
    before: Vec<u32>,
    after: Vec<u32>,
}

#[derive(Debug, Clone)]
enum Core {
    /// Anything that the tokenizers crate runs.
    Pipeline(Box<tokenizers::Tokenizer>),
    Marian(Box<Marian>),
}

impl Tokenizer {
    /// Loads the tokenizer of the directory `dir`; `None` if it has none. `tokenizer.json` wins over other forms, to which
    /// `family` gives the special tokens around a text: `<s> A </s>` for BART, none for GPT-2. `tokenizer_config.json` is honoured
    /// as transformers 5 does.
    pub fn load(dir: impl AsRef<Path>, family: ModelFamily) -> Result<Option<Self>, ModelError> {
        Self::load_for(dir, family.model_type())
    }

    /// Loads the tokenizer of a model directory without the model: the family is the `model_type` of `config.json`, if there is one.
    ///
    /// # Errors
    /// As for [`Tokenizer::load`]; a directory without a tokenizer is one too, and the message names the files that were looked for.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        let dir = dir.as_ref();
        let config = json::read_object(dir, CONFIG_FILE)?.unwrap_or_default();
        let model_type = config.get("model_type").and_then(serde_json::Value::as_str).unwrap_or_default();
        match Self::load_for(dir, model_type)? {
            Some(tokenizer) => Ok(tokenizer),
            None => Err(ModelError::MissingFile {
                dir: dir.into(),
                wanted: Settings::load(dir, model_type)?.class.wanted_files().into(),
                hint: String::new(),
            }),
        }
    }

    /// [`Tokenizer::load`] by the `model_type` of `config.json`, for families that this crate cannot run too. An unknown
    /// `model_type` is no error: the files then speak for themselves.
    pub fn load_for(dir: impl AsRef<Path>, model_type: &str) -> Result<Option<Self>, ModelError> {
        let dir = dir.as_ref();
        let settings = Settings::load(dir, model_type)?;
        let single = dir.join(TOKENIZER_FILE);
        let has_single = json::is_file(&single)?;
        let there = |name: &str| json::is_file(&dir.join(name));
        if settings.class == Class::Marian {
            let pair = there(marian::SOURCE_FILE)?;
            if pair || (!has_single && (there(marian::TARGET_FILE)? || there(VOCAB_FILE)?)) {
                let core = Core::Marian(Box::new(Marian::load(dir, &settings)?));
                return Ok(Some(Self::finish(core, dir.join(VOCAB_FILE), &settings)));
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

    /// From `text`, the content of `file`.
    pub(crate) fn from_tokenizer_json(text: &str, file: PathBuf, settings: &Settings) -> Result<Self, ModelError> {
        let unusable = |reason| ModelError::TokenizerFile { file: file.clone(), reason };
        charsmap::check_maps(text).map_err(unusable)?;
        let growth = bounds::check_json(text).map_err(unusable)?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(text.as_bytes())).map_err(unusable)?;
        // Callers decide about lengths; a length in the file would cut or pad silently.
        inner.with_padding(None);
        guarded(|| inner.with_truncation(None).map(|_| ())).map_err(unusable)?;
        if settings.class.is_unigram() && !settings.generic {
            unigram::rebuild(&mut inner, settings).map_err(unusable)?;
            set_class_template(&mut inner, settings).map_err(unusable)?;
            return Ok(Self::finish(Core::Pipeline(Box::new(inner)), file, settings).grown(growth));
        }
        if let (Some(add), Some(PreTokenizerWrapper::ByteLevel(split))) =
            (settings.prefix_space_override, inner.get_pre_tokenizer())
        {
            let split = split.add_prefix_space(add);
            inner.with_pre_tokenizer(Some(split));
        }
        guarded(|| settings.add_tokens(&mut inner)).map_err(unusable)?;
        if settings.replaces_template {
            set_template(&mut inner, settings.template_bos.as_slice(), settings.template_eos.as_slice())
                .map_err(unusable)?;
        }
        Ok(Self::finish(Core::Pipeline(Box::new(inner)), file, settings).grown(growth))
    }

    /// From `bytes`, the content of the SentencePiece model `file`, by the rules of a Unigram class.
    pub(crate) fn from_spm(bytes: &[u8], file: PathBuf, settings: &Settings) -> Result<Self, ModelError> {
        let (mut inner, growth) = unigram::from_spm(bytes, &file, settings)?;
        set_class_template(&mut inner, settings)
            .map_err(|reason| ModelError::TokenizerFile { file: file.clone(), reason })?;
        Ok(Self::finish(Core::Pipeline(Box::new(inner)), file, settings).grown(growth))
    }

    /// Marian's, from the content of a SentencePiece model, used for both sides, and of `vocab.json`.
    pub(crate) fn from_marian(model: &[u8], vocab: &str, dir: &Path, settings: &Settings) -> Result<Self, ModelError> {
        let files = marian::Files { source: model, target: model, vocab, target_vocab: None };
        let core = Core::Marian(Box::new(Marian::from_files(&files, dir, settings)?));
        Ok(Self::finish(core, dir.join(VOCAB_FILE), settings))
    }

    /// From `vocab.json` and `merges.txt`, each with its content.
    pub(crate) fn from_bpe_texts(
        vocab: (&Path, &str),
        merges: (&Path, &str),
        settings: &Settings,
    ) -> Result<Self, ModelError> {
        let inner = bpe_files::build(vocab, merges, settings)?;
        Ok(Self::finish(Core::Pipeline(Box::new(inner)), vocab.0.into(), settings))
    }

    fn finish(core: Core, file: PathBuf, settings: &Settings) -> Self {
        // Written for WordPiece: on BPE it deletes spaces of the text, so transformers 5 ignores it there.
        let is_bpe = matches!(&core, Core::Pipeline(inner) if matches!(inner.get_model(), ModelWrapper::BPE(_)));
        let clean_up_spaces = settings.clean_up_spaces && (!is_bpe || settings.clean_up_spaces_of_bpe);
        let byte_tokens = match &core {
            Core::Pipeline(inner) => ByteTokens::of(inner.get_decoder()),
            Core::Marian(_) => ByteTokens::None,
        };
        let class = if settings.generic { Class::Generic } else { settings.class };
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
        Self { core, class, file, clean_up_spaces, byte_tokens, bounds, label_ends: None }
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
    /// the target language that was set; in none, they get the special tokens of a source.
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
                .map_err(|reason| ModelError::Tokenize { action: "decode the ids", reason })?,
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
    /// [`ModelError::Language`] if the tokenizer has no such language; nothing is changed then.
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
        id_of(LanguageRole::Source, source)?;
        let target = id_of(LanguageRole::Target, target)?;
        if let Some(source) = source {
            set_language_template(inner, class, source)
                .map_err(|reason| ModelError::TokenizerFile { file: self.file.clone(), reason })?;
        }
        if let (Some(target), Some(end)) = (target, inner.token_to_id("</s>")) {
            self.label_ends = Some(match class {
                Class::MBart50 => LabelEnds { before: vec![target], after: vec![end] },
                _ => LabelEnds { before: Vec::new(), after: vec![end, target] },
            });
        }
        Ok(match class {
            Class::MBart50 => LanguageTokens { forced_bos_token_id: target, ..LanguageTokens::default() },
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
            Core::Marian(marian) => marian.is_special(&token),
        }
    }

    /// The file that it was loaded from.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// Puts the tokens `before` and `after` around every text.
fn set_template(
    inner: &mut tokenizers::Tokenizer,
    before: &[impl AsRef<str>],
    after: &[impl AsRef<str>],
) -> Result<(), String> {
    let mut special = Vec::new();
    for token in before.iter().map(AsRef::as_ref).chain(after.iter().map(AsRef::as_ref)) {
        let id = inner.token_to_id(token).ok_or_else(|| format!("token `{token}` has no id"))?;
        special.push((token.to_owned(), id));
    }
    let (before, after) = (before.iter().map(AsRef::as_ref), after.iter().map(AsRef::as_ref));
    let pieces: Vec<String> = before.chain(["$A"]).chain(after).map(str::to_owned).collect();
    let template = guarded(|| {
        let mut builder = TemplateProcessing::builder();
        Ok(builder.try_single(pieces)?.special_tokens(special).build()?)
    })?;
    inner.with_post_processor(Some(template));
    Ok(())
}

/// The template of a Unigram class.
fn set_class_template(inner: &mut tokenizers::Tokenizer, settings: &Settings) -> Result<(), String> {
    match settings.class {
        Class::MBart | Class::MBart50 => {
            let source = settings.text("src_lang").unwrap_or(languages::DEFAULT_SOURCE);
            set_language_template(inner, settings.class, source)
        }
        Class::T5 => set_template(inner, &[""; 0], &["</s>"]),
        _ => set_template(inner, &[""; 0], settings.role("eos_token").as_slice()),
    }
}

fn set_language_template(inner: &mut tokenizers::Tokenizer, class: Class, source: &str) -> Result<(), String> {
    match class {
        Class::MBart50 => set_template(inner, &[source], &["</s>"]),
        _ => set_template(inner, &[""; 0], &["</s>", source]),
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
