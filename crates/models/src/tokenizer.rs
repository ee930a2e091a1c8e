//! Text to token ids and back, from `tokenizer.json` or from `vocab.json` and `merges.txt`.

mod bpe_files;
mod settings;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::template::TemplateProcessing;

use crate::config::{ModelFamily, json};
use crate::error::ModelError;
pub(crate) use settings::Settings;

/// Name of the one-file form of a tokenizer.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Name of the vocabulary of a byte-level BPE tokenizer in two files.
pub const VOCAB_FILE: &str = "vocab.json";
/// Name of the merges of a byte-level BPE tokenizer in two files.
pub const MERGES_FILE: &str = "merges.txt";

/// A model's tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    file: PathBuf,
    clean_up_spaces: bool,
}

impl Tokenizer {
    /// Loads the tokenizer of the directory `dir`; `None` if it has none. `tokenizer.json` wins over the two-file form, to which
    /// `family` gives the special tokens around a text: `<s> A </s>` for BART, none for GPT-2. `tokenizer_config.json` is honoured
    /// as transformers 5 does.
    pub fn load(dir: impl AsRef<Path>, family: ModelFamily) -> Result<Option<Self>, ModelError> {
        let dir = dir.as_ref();
        let settings = Settings::load(dir, family)?;
        let single = dir.join(TOKENIZER_FILE);
        if json::is_file(&single)? {
            let text = json::read_text(&single)?;
            return Self::from_tokenizer_json(&text, single, &settings).map(Some);
        }
        match (json::is_file(&dir.join(VOCAB_FILE))?, json::is_file(&dir.join(MERGES_FILE))?) {
            (false, false) => Ok(None),
            (true, true) => Self::from_bpe_files(dir, &settings).map(Some),
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
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(text.as_bytes())).map_err(unusable)?;
        // Callers decide about lengths; a length in the file would cut or pad silently.
        inner.with_padding(None);
        guarded(|| inner.with_truncation(None).map(|_| ())).map_err(unusable)?;
        if let (Some(add), Some(PreTokenizerWrapper::ByteLevel(split))) =
            (settings.prefix_space_override, inner.get_pre_tokenizer())
        {
            let split = split.add_prefix_space(add);
            inner.with_pre_tokenizer(Some(split));
        }
        guarded(|| settings.add_tokens(&mut inner)).map_err(unusable)?;
        if settings.replaces_template {
            set_template(&mut inner, settings).map_err(unusable)?;
        }
        Ok(Self::finish(inner, file, settings))
    }

    fn from_bpe_files(dir: &Path, settings: &Settings) -> Result<Self, ModelError> {
        let (vocab, merges) = (dir.join(VOCAB_FILE), dir.join(MERGES_FILE));
        let texts = (json::read_text(&vocab)?, json::read_text(&merges)?);
        Self::from_bpe_texts((&vocab, &texts.0), (&merges, &texts.1), settings)
    }

    /// From files and their contents.
    pub(crate) fn from_bpe_texts(
        vocab: (&Path, &str),
        merges: (&Path, &str),
        settings: &Settings,
    ) -> Result<Self, ModelError> {
        let inner = bpe_files::build(vocab, merges, settings)?;
        Ok(Self::finish(inner, vocab.0.into(), settings))
    }

    fn finish(inner: tokenizers::Tokenizer, file: PathBuf, settings: &Settings) -> Self {
        // Written for WordPiece: on BPE it deletes spaces of the text, so transformers 5 ignores it there.
        let is_bpe = matches!(inner.get_model(), ModelWrapper::BPE(_));
        let clean_up_spaces = settings.clean_up_spaces && (!is_bpe || settings.clean_up_spaces_of_bpe);
        Self { inner, file, clean_up_spaces }
    }

    /// The token ids of `text`, special tokens of the family's template included. Never cut.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.encode_with(text, true)
    }

    /// The token ids of `text` alone, without the template's special tokens: what a decoder prefix needs.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.encode_with(text, false)
    }

    fn encode_with(&self, text: &str, special: bool) -> Result<Vec<u32>, ModelError> {
        guarded(|| self.inner.encode_fast(text, special))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|reason| ModelError::Tokenize { action: "encode the text", reason })
    }

    /// The text of `ids`. Ids without a token decode as nothing, bytes that are not UTF-8 as U+FFFD.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, ModelError> {
        let text = guarded(|| self.inner.decode(ids, skip_special_tokens))
            .map_err(|reason| ModelError::Tokenize { action: "decode the ids", reason })?;
        Ok(if self.clean_up_spaces { clean_up_tokenization(&text) } else { text })
    }

    /// Number of tokens, added ones included. May differ from the rows of the model's embedding table.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of exactly this token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of this id as the vocabulary writes it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The file that it was loaded from.
    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// Puts the beginning and end tokens that `settings` ask for around every text.
fn set_template(inner: &mut tokenizers::Tokenizer, settings: &Settings) -> Result<(), String> {
    let mut pieces = vec!["$A".to_owned()];
    let mut special = Vec::new();
    let mut named = |token: &Option<String>| -> Result<Option<String>, String> {
        let Some(token) = token else { return Ok(None) };
        let id = inner.token_to_id(token).ok_or_else(|| format!("token `{token}` has no id"))?;
        special.push((token.clone(), id));
        Ok(Some(token.clone()))
    };
    if let Some(bos) = named(&settings.template_bos)? {
        pieces.insert(0, bos);
    }
    if let Some(eos) = named(&settings.template_eos)? {
        pieces.push(eos);
    }
    let template = guarded(|| {
        let mut builder = TemplateProcessing::builder();
        Ok(builder.try_single(pieces)?.special_tokens(special).build()?)
    })?;
    inner.with_post_processor(Some(template));
    Ok(())
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
