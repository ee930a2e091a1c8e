//! What `tokenizer_config.json` and its older companions say about a tokenizer.
//!
//! The files are merged into the arguments of a class as transformers merges them; then the class settles what they mean for the
//! form that the tokenizer has.

mod argument;
mod arguments;
mod options;
mod special_tokens;
mod token;

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::class::TokenizerClass;
use crate::error::{ModelError, TokenizerError, excerpt};
use crate::json;
pub(super) use argument::Argument;
use arguments::Companions;
pub(super) use arguments::{Arguments, Index, Problem};
pub(super) use options::Options;
pub(super) use special_tokens::SpecialTokens;
pub(super) use token::Token;

const CONFIG_FILE: &str = "tokenizer_config.json";
/// Older directories keep the special tokens here.
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
/// Older directories keep added tokens here, as `{token: id}`.
const ADDED_TOKENS_FILE: &str = "added_tokens.json";
/// Some directories name the tokenizer's class here alone.
const MODEL_CONFIG_FILE: &str = "config.json";

/// In the order in which transformers gives ids to those that the vocabulary lacks.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The settings of a directory.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The class whose rules hold for files other than tokenizer.json.
    pub(super) class: TokenizerClass,
    /// Whether tokenizer.json holds as it is, because its class has no rules of its own.
    pub(super) generic: bool,
    dir: PathBuf,
    files: Companions,
}

/// What a tokenizer's own files add to the settings.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form<'a> {
    /// The text of tokenizer.json, and the token that it pads with.
    Single { text: &'a str, padding: Option<&'a str> },
    /// The tokens that a SentencePiece model marks.
    Pieces(&'a [Token]),
    /// Files that add nothing; for Marian the text of a tokenizer.json beside them.
    Files { single: Option<&'a str> },
}

/// What the settings mean for a tokenizer of some form.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) class: TokenizerClass,
    pub(super) options: Options,
    pub(super) special: SpecialTokens,
    arguments: Arguments,
}

impl Settings {
    pub(crate) fn load(dir: &Path, own: TokenizerClass) -> Result<Self, ModelError> {
        let config = json::read_object(dir, CONFIG_FILE)?.unwrap_or_default();
        let bad = |reason: String| ModelError::from(TokenizerError::File { file: dir.join(CONFIG_FILE), reason });
        let declared = match config.get("tokenizer_class") {
            Some(Value::String(name)) => Some(name.clone()).filter(|name| !name.is_empty()),
            None | Some(Value::Null) => None,
            Some(other) => {
                return Err(bad(format!("tokenizer_class = {}: must be a text", excerpt(&other.to_string()))));
            }
        };
        let declared = match declared {
            Some(name) => Some(name),
            None => json::read_object(dir, MODEL_CONFIG_FILE)?
                .and_then(|model| Some(model.get("tokenizer_class")?.as_str()?.to_owned())),
        };
        // A name that is there but empty is that of an unknown class.
        let declared = declared.or_else(|| config.get("tokenizer_class")?.as_str().map(str::to_owned));
        let mut class = TokenizerClass::resolve(declared.as_deref(), own);
        let generic = class == TokenizerClass::Generic;
        if generic {
            class = own;
        }
        if !matches!(config.get("auto_map"), None | Some(Value::Object(_) | Value::Array(_))) {
            return Err(bad("auto_map: must be an object".into()));
        }
        match config.get("init_inputs") {
            None => {}
            Some(Value::Array(list)) if generic || list.is_empty() => {}
            Some(_) => return Err(bad("init_inputs: must be an empty list".into())),
        }
        let mut files = Companions { config, ..Companions::default() };
        if !files.config.contains_key("added_tokens_decoder") {
            files.special_tokens = json::read_object(dir, SPECIAL_TOKENS_FILE)?.unwrap_or_default();
            files.added_tokens = json::read_object(dir, ADDED_TOKENS_FILE)?.unwrap_or_default();
        }
        Ok(Self { class, generic, dir: dir.to_owned(), files })
    }

    /// What they mean for a tokenizer of this form.
    pub(super) fn rules(&self, form: Form<'_>) -> Result<Rules, ModelError> {
        self.settle(form).map_err(|problem| self.problem(problem))
    }

    /// The error of a problem with one of the files.
    pub(super) fn problem(&self, problem: Problem) -> ModelError {
        ModelError::from(TokenizerError::File { file: self.dir.join(problem.file), reason: problem.reason })
    }

    fn settle(&self, form: Form<'_>) -> Result<Rules, Problem> {
        let (single, pieces, padding, class) = match form {
            // A Marian tokenizer has no tokenizer.json of its own; one that is there speaks for itself.
            Form::Single { text, padding } if self.generic || self.class == TokenizerClass::Marian => {
                (Some(text), None, padding, TokenizerClass::Generic)
            }
            Form::Single { text, .. } => (Some(text), None, None, self.class),
            Form::Pieces(pieces) => (None, Some(pieces), None, self.class),
            Form::Files { single } => (single, None, None, self.class),
        };
        let arguments = Arguments::merge(&self.files, single)?;
        let options = Options::read(class, &arguments, single.is_some())?;
        let special = SpecialTokens::resolve(class, &options, &arguments, pieces, padding)?;
        Ok(Rules { class, options, special, arguments })
    }
}

impl Rules {
    /// The argument that a role has, null included: what goes into a vocabulary, whatever is special in the end.
    pub(super) fn role_argument(&self, role: &str) -> Argument {
        special_tokens::role_of(self.class, &self.arguments, role).unwrap_or(Argument::Null)
    }

    /// Any other argument.
    pub(super) fn argument(&self, key: &str) -> Option<&Argument> {
        self.arguments.get(key)
    }

    /// The added tokens of the files, each with its place.
    pub(super) fn added(&self) -> &[(Index, Token)] {
        self.arguments.added()
    }

    /// The problem with one of the added tokens.
    pub(super) fn added_problem(&self, reason: String) -> Problem {
        Problem { file: self.arguments.added_file(), reason }
    }

    /// Adds the tokens that files and class name.
    pub(super) fn add_tokens(&self, inner: &mut tokenizers::Tokenizer) -> Result<(), Problem> {
        let existing = inner.get_added_tokens_decoder().into_values().map(|token| token.content);
        let tokens = self.special.to_add(&self.arguments, existing)?;
        super::guarded(|| inner.add_tokens(tokens)).map_err(|reason| self.added_problem(reason))?;
        inner.set_encode_special_tokens(self.options.split_special_tokens);
        Ok(())
    }

    /// The id of a token, or that of the unknown token.
    pub(super) fn id_or_unknown(&self, inner: &tokenizers::Tokenizer, token: &str) -> Option<u32> {
        inner.token_to_id(token).or_else(|| inner.token_to_id(&self.special.role("unk_token")?))
    }

    /// The id of a role's token.
    pub(super) fn role_id(&self, inner: &tokenizers::Tokenizer, role: &str) -> Result<u32, String> {
        let token = self.special.role(role).ok_or_else(|| format!("the config leaves {role} without a token"))?;
        self.id_or_unknown(inner, &token).ok_or_else(|| format!("{role} `{}` has no id", excerpt(&token)))
    }
}
