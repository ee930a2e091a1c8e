//! Languages of multilingual models.

use clap::Args;
use elgen_engine::{EngineError, ModelDescription};
use elgen_models::{LanguageRole, LanguageTokens, ModelError, Tokenizer, TokenizerError};

use crate::error::CliError;

/// The languages that were typed.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Languages")]
pub(crate) struct LanguageFlags {
    /// Language of the texts that are read, as the tokenizer writes it: en_XX
    #[arg(long, value_name = "CODE")]
    pub(crate) src_lang: Option<String>,

    /// Language of the texts that are written: ro_RO, or fra for a Marian model with several targets
    #[arg(long, value_name = "CODE")]
    pub(crate) tgt_lang: Option<String>,
}

impl LanguageFlags {
    /// Whether any language was typed.
    pub(crate) fn any(&self) -> bool {
        self.src_lang.is_some() || self.tgt_lang.is_some()
    }

    /// The tokenizer of a model, set to the languages that were typed, and what these ask for; `None` if none was.
    pub(crate) fn open_tokenizer(
        &self,
        model: &ModelDescription,
        max_text_bytes: usize,
    ) -> Result<Option<(Tokenizer, LanguageTokens)>, CliError> {
        if !self.any() {
            return Ok(None);
        }
        let dir = model.dir();
        let mut tokenizer = match Tokenizer::load(dir, model.config.family().tokenizer).map_err(EngineError::from)? {
            Some(tokenizer) => tokenizer,
            // This says what was looked for.
            None => Tokenizer::open(dir).map_err(EngineError::from)?,
        };
        tokenizer.set_max_text_bytes(max_text_bytes);
        let tokens = self.apply(&mut tokenizer)?;
        Ok(Some((tokenizer, tokens)))
    }

    /// Sets the languages of a tokenizer; an error names the flag.
    pub(crate) fn apply(&self, tokenizer: &mut Tokenizer) -> Result<LanguageTokens, CliError> {
        tokenizer.set_languages(self.src_lang.as_deref(), self.tgt_lang.as_deref()).map_err(|error| match error {
            ModelError::Tokenizer(TokenizerError::Language { role, language, why }) => {
                let flag = match role {
                    LanguageRole::Source => "--src-lang",
                    LanguageRole::Target => "--tgt-lang",
                };
                CliError::Usage(format!("{flag} {language}: {why}"))
            }
            other => CliError::Failed(other.to_string()),
        })
    }
}
