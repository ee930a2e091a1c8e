//! The families that there are, and the reading of model directories by them.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::config::{CONFIG_FILE, ConfigKeys, SpecialTokens};
use crate::error::{ConfigError, ModelError, excerpt};
use crate::families::{BartConfig, Gpt2Config, OptConfig, T5Config, bart};
use crate::family::{Family, ModelConfig};
use crate::json;
use crate::tokenizer::{Tokenizer, TokenizerClass};

/// The families of this crate.
static FAMILIES: [Family; 7] = [
    Family {
        model_type: "bart",
        class_prefix: "Bart",
        is_encoder_decoder: true,
        tokenizer: TokenizerClass::Roberta,
        special_tokens: || SpecialTokens { bos: Some(0), eos: vec![2], pad: Some(1), decoder_start: Some(2) },
        undeclared_ids: &[],
        forced_eos: Some(2),
        forces_bos: Some("force_bos_token_to_be_generated"),
        published: &[("bart-", "facebook")],
        read: |keys| Ok(Arc::new(BartConfig::from_keys(keys, &bart::BART)?)),
    },
    Family {
        model_type: "gpt2",
        class_prefix: "GPT2",
        is_encoder_decoder: false,
        tokenizer: TokenizerClass::Gpt2,
        special_tokens: || SpecialTokens { bos: Some(50_256), eos: vec![50_256], pad: None, decoder_start: None },
        undeclared_ids: &[],
        forced_eos: None,
        forces_bos: None,
        published: &[("distilgpt2", "distilbert"), ("gpt2", "openai-community")],
        read: |keys| Ok(Arc::new(Gpt2Config::from_keys(keys)?)),
    },
    Family {
        model_type: "marian",
        class_prefix: "Marian",
        is_encoder_decoder: true,
        tokenizer: TokenizerClass::Marian,
        special_tokens: || SpecialTokens { bos: None, eos: vec![0], pad: Some(58_100), decoder_start: Some(58_100) },
        undeclared_ids: &[],
        forced_eos: Some(0),
        forces_bos: None,
        published: &[("opus-mt-", "Helsinki-NLP")],
        read: |keys| Ok(Arc::new(BartConfig::from_keys(keys, &bart::MARIAN)?)),
    },
    Family {
        model_type: "mbart",
        class_prefix: "MBart",
        is_encoder_decoder: true,
        tokenizer: TokenizerClass::MBart,
        special_tokens: || SpecialTokens { bos: Some(0), eos: vec![2], pad: Some(1), decoder_start: None },
        undeclared_ids: &[],
        forced_eos: Some(2),
        forces_bos: None,
        published: &[("mbart-", "facebook")],
        read: |keys| Ok(Arc::new(BartConfig::from_keys(keys, &bart::MBART)?)),
    },
    Family {
        model_type: "opt",
        class_prefix: "OPT",
        is_encoder_decoder: false,
        tokenizer: TokenizerClass::Gpt2,
        special_tokens: || SpecialTokens { bos: Some(2), eos: vec![2], pad: Some(1), decoder_start: None },
        undeclared_ids: &[],
        forced_eos: None,
        forces_bos: None,
        published: &[("opt-", "facebook")],
        read: |keys| Ok(Arc::new(OptConfig::from_keys(keys)?)),
    },
    Family {
        model_type: "pegasus",
        class_prefix: "Pegasus",
        is_encoder_decoder: true,
        tokenizer: TokenizerClass::Pegasus,
        special_tokens: || SpecialTokens { bos: None, eos: vec![1], pad: Some(0), decoder_start: Some(0) },
        undeclared_ids: &["bos_token_id"],
        forced_eos: Some(1),
        forces_bos: None,
        published: &[("pegasus-", "google")],
        read: |keys| Ok(Arc::new(BartConfig::from_keys(keys, &bart::PEGASUS)?)),
    },
    Family {
        model_type: "t5",
        class_prefix: "T5For",
        is_encoder_decoder: true,
        tokenizer: TokenizerClass::T5,
        special_tokens: || SpecialTokens { bos: None, eos: vec![1], pad: Some(0), decoder_start: None },
        undeclared_ids: &["bos_token_id", "decoder_start_token_id"],
        forced_eos: None,
        forces_bos: None,
        published: &[("t5-", "google-t5"), ("flan-t5-", "google")],
        read: |keys| Ok(Arc::new(T5Config::from_keys(keys)?)),
    },
];

/// Tokenizer classes of models that no family here runs: texts can be made into ids all the same.
const OTHER_TOKENIZERS: [(&str, TokenizerClass); 3] =
    [("mt5", TokenizerClass::T5), ("switch_transformers", TokenizerClass::T5), ("mbart50", TokenizerClass::MBart50)];

/// The families that model directories are read by. A value: whoever adds families hands it on.
///
/// ```
/// use elgen_models::Families;
/// # fn main() -> Result<(), elgen_models::ModelError> {
/// let json = serde_json::json!({ "model_type": "gpt2", "n_layer": 24 });
/// let config = Families::built_in().config_from_map(json.as_object().unwrap(), "config.json".as_ref())?;
/// assert_eq!((config.family().model_type, config.summary().decoder_layers), ("gpt2", 24));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Families {
    families: Vec<&'static Family>,
}

impl Families {
    /// The families of this crate.
    pub fn built_in() -> Self {
        Self { families: FAMILIES.iter().collect() }
    }

    /// These and `family`, which goes before those that it shares names with.
    #[must_use]
    pub fn with(mut self, family: &'static Family) -> Self {
        self.families.push(family);
        self
    }

    /// The families, those that were added last.
    pub fn families(&self) -> &[&'static Family] {
        &self.families
    }

    /// The family of this `model_type`.
    pub fn family(&self, model_type: &str) -> Option<&'static Family> {
        self.find(|family| family.model_type == model_type)
    }

    fn find(&self, is: impl Fn(&Family) -> bool) -> Option<&'static Family> {
        self.families.iter().rev().copied().find(|family| is(family))
    }

    /// Reads `config.json` of the directory `dir`.
    ///
    /// # Errors
    /// The file is missing, cannot be read or is no JSON object; a family that is not there; values that are no good.
    pub fn config(&self, dir: impl AsRef<Path>) -> Result<ModelConfig, ModelError> {
        Ok(self.config_with_fields(dir)?.0)
    }

    /// [`Families::config`], and the fields of the file.
    ///
    /// # Errors
    /// As there.
    pub fn config_with_fields(&self, dir: impl AsRef<Path>) -> Result<(ModelConfig, Map<String, Value>), ModelError> {
        let dir = dir.as_ref();
        match json::read_object(dir, CONFIG_FILE)? {
            Some(map) => Ok((self.config_from_map(&map, &dir.join(CONFIG_FILE))?, map)),
            None => {
                let wanted = if dir.is_dir() { CONFIG_FILE } else { "model directory" };
                Err(ModelError::MissingFile { dir: dir.into(), wanted: wanted.into(), hint: String::new() })
            }
        }
    }

    /// Reads the config file `path`, whatever its name.
    ///
    /// # Errors
    /// As [`Families::config`].
    pub fn config_from_file(&self, path: impl AsRef<Path>) -> Result<ModelConfig, ModelError> {
        let path = path.as_ref();
        self.config_from_map(&json::parse_object(path, &json::read_text(path)?)?, path)
    }

    /// Interprets the content of a config file; `path` is named in errors. The family is the one that `model_type` names; files without the key
    /// are told by the class in `architectures`.
    ///
    /// # Errors
    /// A family that is not there; values that are no good.
    pub fn config_from_map(&self, map: &Map<String, Value>, path: &Path) -> Result<ModelConfig, ModelError> {
        let named = map.get("model_type").filter(|value| !value.is_null());
        let architecture = map.get("architectures").and_then(|list| list.get(0)).and_then(Value::as_str);
        let found = match (named, architecture) {
            (Some(value), _) => value.as_str().and_then(|model_type| self.family(model_type)),
            (None, Some(class)) => self.find(|family| class.starts_with(family.class_prefix)),
            (None, None) => None,
        };
        let family = found.ok_or_else(|| {
            ModelError::from(ConfigError::UnsupportedModelType {
                file: path.into(),
                model_type: match (named, architecture) {
                    (Some(value), _) => excerpt(&value.to_string()),
                    (None, Some(class)) => format!("of architecture \"{}\"", excerpt(class)),
                    (None, None) => "(none)".into(),
                },
                supported: self.families.iter().map(|family| family.model_type).collect::<Vec<_>>().join(", "),
            })
        })?;
        ModelConfig::read(family, &ConfigKeys { file: path, map })
    }

    /// The tokenizer class that transformers registers for models of this `model_type`, whether or not a family here runs them.
    pub fn tokenizer_class(&self, model_type: &str) -> TokenizerClass {
        let other = || OTHER_TOKENIZERS.iter().find(|(name, _)| *name == model_type).map(|(_, class)| *class);
        let own = self.family(model_type).map(|family| family.tokenizer);
        own.or_else(other).unwrap_or(TokenizerClass::Generic)
    }

    /// What a model is called on the hub that people know by a name without its publisher; `None` if no family knows the name.
    pub fn hub_name(&self, name: &str) -> Option<String> {
        let published = self.families.iter().flat_map(|family| family.published);
        published
            .copied()
            .find(|(start, _)| name.starts_with(start))
            .map(|(_, publisher)| format!("{publisher}/{name}"))
    }

    /// Loads the tokenizer of a model directory without the model: the family is the `model_type` of `config.json`, if there is one.
    ///
    /// # Errors
    /// As for [`Tokenizer::load`]; a directory without a tokenizer is one too, and the message names the files that were looked for.
    pub fn tokenizer(&self, dir: impl AsRef<Path>) -> Result<Tokenizer, ModelError> {
        let dir = dir.as_ref();
        let config = json::read_object(dir, CONFIG_FILE)?.unwrap_or_default();
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let class = self.tokenizer_class(model_type);
        match Tokenizer::load(dir, class)? {
            Some(tokenizer) => Ok(tokenizer),
            None => Err(ModelError::MissingFile {
                dir: dir.into(),
                wanted: Tokenizer::wanted_files(dir, class)?.into(),
                hint: String::new(),
            }),
        }
    }
}

impl Default for Families {
    fn default() -> Self {
        Self::built_in()
    }
}

impl ModelConfig {
    /// [`Families::config`] by the families of this crate.
    ///
    /// # Errors
    /// As there.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        Families::built_in().config(dir)
    }

    /// [`Families::config_with_fields`] by the families of this crate.
    ///
    /// # Errors
    /// As there.
    pub fn load_with_fields(dir: impl AsRef<Path>) -> Result<(Self, Map<String, Value>), ModelError> {
        Families::built_in().config_with_fields(dir)
    }

    /// [`Families::config_from_file`] by the families of this crate.
    ///
    /// # Errors
    /// As there.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        Families::built_in().config_from_file(path)
    }

    /// [`Families::config_from_map`] by the families of this crate.
    ///
    /// # Errors
    /// As there.
    pub fn from_map(map: &Map<String, Value>, path: &Path) -> Result<Self, ModelError> {
        Families::built_in().config_from_map(map, path)
    }
}

impl Tokenizer {
    /// [`Families::tokenizer`] by the families of this crate.
    ///
    /// # Errors
    /// As there.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        Families::built_in().tokenizer(dir)
    }

    /// [`Tokenizer::load`] by the `model_type` of `config.json`, for families that this crate cannot run too. An unknown `model_type` is no error:
    /// the files then speak for themselves.
    ///
    /// # Errors
    /// As there.
    pub fn load_for(dir: impl AsRef<Path>, model_type: &str) -> Result<Option<Self>, ModelError> {
        Self::load(dir, Families::built_in().tokenizer_class(model_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(registry: &Families, value: &Value) -> Result<ModelConfig, ModelError> {
        registry.config_from_map(value.as_object().expect("an object"), Path::new("config.json"))
    }

    #[test]
    fn a_family_that_is_added_is_read_by_its_row() {
        static KIN: Family = Family {
            model_type: "kin",
            class_prefix: "GPT2Kin",
            is_encoder_decoder: false,
            tokenizer: TokenizerClass::Roberta,
            special_tokens: || SpecialTokens { eos: vec![3], ..SpecialTokens::default() },
            undeclared_ids: &["bos_token_id"],
            forced_eos: None,
            forces_bos: None,
            published: &[],
            read: |keys| Ok(Arc::new(Gpt2Config::from_keys(keys)?)),
        };
        let (plain, registry) = (Families::built_in(), Families::built_in().with(&KIN));
        let file = serde_json::json!({"model_type": "kin", "n_layer": 3, "bos_token_id": "any"});
        let found = config(&registry, &file).expect("a family that is there");
        assert_eq!((found.family().model_type, found.summary().decoder_layers), ("kin", 3));
        assert_eq!(found.special_tokens().eos, [3]);
        assert_eq!(registry.tokenizer_class("kin"), TokenizerClass::Roberta);
        // Its prefix is the longer one: it is asked first.
        let by_class = serde_json::json!({"architectures": ["GPT2KinLMHeadModel"]});
        assert_eq!(config(&registry, &by_class).expect("a family").family().model_type, "kin");
        assert_eq!(config(&plain, &by_class).expect("a family").family().model_type, "gpt2");
        let message = config(&plain, &file).expect_err("a family that is not there").to_string();
        assert!(message.ends_with("(supported: bart, gpt2, marian, mbart, opt, pegasus, t5)"), "{message}");
        assert_eq!(plain.tokenizer_class("kin"), TokenizerClass::Generic);
    }

    #[test]
    fn every_tokenizer_class_has_a_model_type() {
        let types = ["", "gpt2", "bart", "t5", "pegasus", "mbart", "mbart50", "marian"];
        assert_eq!(types.map(|name| Families::built_in().tokenizer_class(name)), TokenizerClass::ALL);
        let kin = ["opt", "mt5", "switch_transformers"].map(|name| Families::built_in().tokenizer_class(name));
        assert_eq!(kin, [TokenizerClass::Gpt2, TokenizerClass::T5, TokenizerClass::T5]);
    }
}
