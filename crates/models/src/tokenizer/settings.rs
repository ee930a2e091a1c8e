//! What `tokenizer_config.json` and its older companions add to a tokenizer's own files.

use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::class::Class;
use crate::config::json;
use crate::error::{ModelError, excerpt};

const CONFIG_FILE: &str = "tokenizer_config.json";
/// Older directories keep the special tokens here.
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
/// Older directories keep added tokens here, as `{token: id}`.
const ADDED_TOKENS_FILE: &str = "added_tokens.json";
/// Some directories name the tokenizer's class here alone.
const MODEL_CONFIG_FILE: &str = "config.json";
/// Far above any published number of sentinel or pretraining tokens.
const MAX_CLASS_TOKENS: u64 = 100_000;

/// In the order in which transformers gives ids to those that the vocabulary lacks.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

#[derive(Debug)]
pub(crate) struct Settings {
    /// The class whose rules hold for files other than tokenizer.json.
    pub(super) class: Class,
    /// Whether tokenizer.json holds as it is, because its class has no rules of its own.
    pub(super) generic: bool,
    /// Whether byte-level BPE from files puts a space before a text.
    pub(super) add_prefix_space: bool,
    /// The same for a tokenizer.json, where the class named in the config overrides the file.
    pub(super) prefix_space_override: Option<bool>,
    pub(super) clean_up_spaces: bool,
    pub(super) clean_up_spaces_of_bpe: bool,
    /// Whether the config replaces the template that the family or tokenizer.json has.
    pub(super) replaces_template: bool,
    pub(super) template_bos: Option<String>,
    pub(super) template_eos: Option<String>,
    /// Special tokens by role, as far as a file or (for BPE files) the family names them.
    named: Vec<(&'static str, AddedToken)>,
    additional: Vec<AddedToken>,
    /// Which of the roles are the class's defaults, to be used where the class builds the tokenizer.
    defaults: Vec<(&'static str, AddedToken)>,
    /// Marian: whether the sides have vocabularies of their own.
    pub(super) separate_vocabs: bool,
    /// T5: number of sentinel tokens.
    pub(super) extra_ids: u32,
    /// Pegasus: ids before those of the SentencePiece model.
    pub(super) offset: u32,
    config: Map<String, Value>,
}

impl Settings {
    pub(crate) fn load(dir: &Path, model_type: &str) -> Result<Self, ModelError> {
        let config = json::read_object(dir, CONFIG_FILE)?.unwrap_or_default();
        let older = json::read_object(dir, SPECIAL_TOKENS_FILE)?.unwrap_or_default();
        let added = json::read_object(dir, ADDED_TOKENS_FILE)?.unwrap_or_default();
        let bad = |file: &str, reason| ModelError::TokenizerFile { file: dir.join(file), reason };

        let class = config.get("tokenizer_class").and_then(Value::as_str);
        let declared = match class {
            Some(name) => Some(name.to_owned()),
            None => json::read_object(dir, MODEL_CONFIG_FILE)?
                .and_then(|model| Some(model.get("tokenizer_class")?.as_str()?.to_owned())),
        };
        let mut class = Class::resolve(declared.as_deref(), model_type);
        let is_generic = class == Class::Generic;
        if is_generic {
            class = Class::of_model_type(model_type);
        }

        let flag = |key: &str| match config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(value) => {
                Err(bad(CONFIG_FILE, format!("{key} = {}: must be true or false", excerpt(&value.to_string()))))
            }
        };
        let mut named = Vec::new();
        for role in ROLES {
            // A role that the config sets to null has no token, whatever the older file says.
            let (file, value) = match config.get(role) {
                Some(value) => (CONFIG_FILE, Some(value)),
                None => (SPECIAL_TOKENS_FILE, older.get(role)),
            };
            if let Some(value) = value.filter(|value| !value.is_null()) {
                let mut token = special_token(value).map_err(|reason| bad(file, format!("{role}: {reason}")))?;
                token.lstrip |= role == "mask_token" && value.is_string() && class.strips_before_mask();
                named.push((role, token));
            }
        }
        let mut additional = added_in_config(&config).map_err(|reason| bad(CONFIG_FILE, reason))?;
        additional.extend(added_in_older_file(&added).map_err(|reason| bad(ADDED_TOKENS_FILE, reason))?);

        let mut defaults = class.default_tokens();
        defaults.retain(|(role, _)| !config.contains_key(*role) && named.iter().all(|(known, _)| known != role));

        let prefix_space = flag("add_prefix_space")?;
        let named_class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
        let rebuilt =
            matches!(named_class.trim_end_matches("Fast"), "GPT2Tokenizer" | "BartTokenizer" | "RobertaTokenizer");
        let generic = matches!(named_class, "TokenizersBackend" | "PreTrainedTokenizerFast");
        let number = |key: &str, default: u32| match config.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => {
                value.as_u64().filter(|number| *number <= MAX_CLASS_TOKENS).map(|number| number as u32).ok_or_else(
                    || {
                        bad(
                            CONFIG_FILE,
                            format!(
                                "{key} = {}: must be a whole number up to {MAX_CLASS_TOKENS}",
                                excerpt(&value.to_string())
                            ),
                        )
                    },
                )
            }
        };
        let (add_bos, add_eos) = (flag("add_bos_token")?, flag("add_eos_token")?);
        let token_of = |role: &str, wanted: Option<bool>| {
            let tokens = named.iter().chain(defaults.iter().filter(|_| !generic));
            let token = tokens.into_iter().find(|(known, _)| *known == role)?;
            wanted.unwrap_or(false).then(|| token.1.content.clone())
        };
        Ok(Self {
            class,
            generic: is_generic,
            separate_vocabs: flag("separate_vocabs")?.unwrap_or(false),
            extra_ids: number("extra_ids", 100)?,
            offset: number("offset", 103)?,
            add_prefix_space: prefix_space.unwrap_or(false),
            prefix_space_override: match (prefix_space, rebuilt, generic) {
                (_, true, _) => Some(prefix_space.unwrap_or(false)),
                (_, _, true) => None,
                (explicit, _, _) => explicit,
            },
            clean_up_spaces: flag("clean_up_tokenization_spaces")?.unwrap_or(false),
            clean_up_spaces_of_bpe: flag("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output")?
                .unwrap_or(false),
            // BART's own class and those of Unigram set their template regardless of these keys.
            replaces_template: matches!(class, Class::Gpt2 | Class::Generic)
                && (add_bos.is_some() || add_eos.is_some()),
            template_bos: token_of("bos_token", add_bos),
            template_eos: token_of("eos_token", add_eos),
            named,
            additional,
            defaults,
            config,
        })
    }

    /// The text under `key` of tokenizer_config.json: a string, or the content of a token.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        let value = self.config.get(key)?;
        value.as_str().or_else(|| value.get("content")?.as_str())
    }

    /// Every token that a file or the class names: those with a role, then the additional ones.
    pub(super) fn all_tokens(&self) -> impl Iterator<Item = AddedToken> {
        let of_role = |role: &&str| self.named.iter().chain(&self.defaults).find(|(known, _)| known == role);
        ROLES.iter().filter_map(of_role).map(|(_, token)| token).chain(&self.additional).cloned()
    }

    /// The token of `role`, by a file or else by the class.
    pub(super) fn role(&self, role: &str) -> Option<&str> {
        let found = self.named.iter().chain(&self.defaults).find(|(known, _)| *known == role);
        found.map(|(_, token)| token.content.as_str())
    }

    /// Makes the tokens that the config's files name special in a tokenizer read from tokenizer.json.
    pub(super) fn add_tokens(&self, inner: &mut tokenizers::Tokenizer) -> tokenizers::Result<()> {
        self.add(inner, false, Vec::new())
    }

    /// The same for a tokenizer that the class builds: with the class's default special tokens and then the tokens `more`.
    pub(super) fn add_tokens_and_defaults(
        &self,
        inner: &mut tokenizers::Tokenizer,
        more: Vec<AddedToken>,
    ) -> tokenizers::Result<()> {
        self.add(inner, true, more)
    }

    fn add(
        &self,
        inner: &mut tokenizers::Tokenizer,
        with_defaults: bool,
        more: Vec<AddedToken>,
    ) -> tokenizers::Result<()> {
        let known = inner.get_added_tokens_decoder();
        let is_known = |token: &AddedToken| known.values().any(|other| other.content == token.content);
        let mut tokens: Vec<AddedToken> = self.additional.iter().filter(|token| !is_known(token)).cloned().collect();
        for role in ROLES {
            let defaults = self.defaults.iter().filter(|_| with_defaults);
            let Some((_, token)) = self.named.iter().chain(defaults).find(|(known, _)| *known == role) else {
                continue;
            };
            match tokens.iter_mut().find(|other| other.content == token.content) {
                Some(other) => other.special = true,
                None if !is_known(token) => tokens.push(token.clone()),
                None => {}
            }
        }
        for token in more {
            if !is_known(&token) && tokens.iter().all(|other| other.content != token.content) {
                tokens.push(token);
            }
        }
        inner.add_tokens(tokens).map(|_| ())
    }
}

/// A token given as a string or as an object with its properties; special in either case.
fn special_token(value: &Value) -> Result<AddedToken, String> {
    added_token(value).map(|token| token.special(true))
}

fn added_token(value: &Value) -> Result<AddedToken, String> {
    match value {
        Value::String(content) => Ok(AddedToken::from(content.as_str(), true)),
        Value::Object(map) => {
            let content = map.get("content").and_then(Value::as_str).ok_or("a token needs a content")?;
            let flag = |key: &str, default: bool| map.get(key).and_then(Value::as_bool).unwrap_or(default);
            Ok(AddedToken::from(content, flag("special", false))
                .single_word(flag("single_word", false))
                .lstrip(flag("lstrip", false))
                .rstrip(flag("rstrip", false))
                .normalized(flag("normalized", true)))
        }
        other => Err(format!("{} is not a token", excerpt(&other.to_string()))),
    }
}

/// `added_tokens_decoder` in the order of its ids, then the additional special tokens.
fn added_in_config(config: &Map<String, Value>) -> Result<Vec<AddedToken>, String> {
    let mut by_id = Vec::new();
    if let Some(Value::Object(tokens)) = config.get("added_tokens_decoder") {
        for (id, token) in tokens {
            let number: u32 =
                id.parse().map_err(|_| format!("added_tokens_decoder: `{}` is not a token id", excerpt(id)))?;
            by_id.push((number, added_token(token).map_err(|reason| format!("added_tokens_decoder: {reason}"))?));
        }
    }
    by_id.sort_by_key(|(id, _)| *id);
    let mut tokens: Vec<AddedToken> = by_id.into_iter().map(|(_, token)| token).collect();
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        if let Some(Value::Array(list)) = config.get(key) {
            for value in list {
                let token = special_token(value).map_err(|reason| format!("{key}: {reason}"))?;
                if tokens.iter().all(|other| other.content != token.content) {
                    tokens.push(token);
                }
            }
        }
    }
    Ok(tokens)
}

fn added_in_older_file(added: &Map<String, Value>) -> Result<Vec<AddedToken>, String> {
    let mut by_id = Vec::new();
    for (token, id) in added {
        let id = id.as_u64().ok_or_else(|| format!("token `{}` needs a whole number as its id", excerpt(token)))?;
        by_id.push((id, AddedToken::from(token.as_str(), false)));
    }
    by_id.sort_by_key(|(id, _)| *id);
    Ok(by_id.into_iter().map(|(_, token)| token).collect())
}
