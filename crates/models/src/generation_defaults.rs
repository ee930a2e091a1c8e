//! Where a model's own generation options come from: `generation_config.json`, else the generation keys of `config.json` together
//! with the defaults of the family's config class.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::config::{CONFIG_FILE, ConfigKeys, SpecialTokens};
use crate::error::ModelError;
use crate::family::{Family, ModelConfig};
use crate::json;

/// Name of the file with generation options in a model directory.
pub const GENERATION_CONFIG_FILE: &str = "generation_config.json";

/// Hugging Face's names of generation options, as older directories have them in `config.json`.
const OPTION_KEYS: [&str; 52] = [
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "early_stopping",
    "max_time",
    "stop_strings",
    "do_sample",
    "num_beams",
    "num_beam_groups",
    "penalty_alpha",
    "dola_layers",
    "low_memory",
    "use_cache",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "diversity_penalty",
    "repetition_penalty",
    "encoder_repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "force_words_ids",
    "constraints",
    "renormalize_logits",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    "sequence_bias",
    "token_healing",
    "guidance_scale",
    "watermarking_config",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "output_logits",
    "return_dict_in_generate",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "decoder_start_token_id",
];

/// The file that generation options were taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GenerationSource {
    /// `generation_config.json`; `config.json` then has no say.
    GenerationConfig(PathBuf),
    /// The generation keys of `config.json` and the config class's defaults.
    ModelConfig(PathBuf),
}

impl GenerationSource {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::GenerationConfig(path) | Self::ModelConfig(path) => path,
        }
    }
}

/// The generation options that a model directory asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationDefaults {
    /// Options by Hugging Face's names, as they are in the file; nulls are dropped, the special ids are among them.
    pub options: Map<String, Value>,
    /// Where they come from.
    pub source: GenerationSource,
    /// The special ids among them that the vocabulary holds.
    pub special_tokens: SpecialTokens,
}

impl GenerationDefaults {
    /// Reads the options of the directory `dir`, whose `config.json` is `config`.
    pub fn load(dir: impl AsRef<Path>, config: &ModelConfig) -> Result<Self, ModelError> {
        let dir = dir.as_ref();
        // With two vocabularies, the padding may be the encoder's; ids that a search uses are checked against the logits when it begins.
        let ids = config.vocab_size().max(config.source_vocab_size());
        if let Some(map) = json::read_object(dir, GENERATION_CONFIG_FILE)? {
            return Self::from_generation_config(map, dir.join(GENERATION_CONFIG_FILE), ids);
        }
        match json::read_object(dir, CONFIG_FILE)? {
            Some(map) => Self::from_model_config(&map, dir.join(CONFIG_FILE), config.family(), ids),
            None => Err(ModelError::MissingFile {
                dir: dir.into(),
                wanted: format!("{GENERATION_CONFIG_FILE} or {CONFIG_FILE}"),
                hint: String::new(),
            }),
        }
    }

    /// [`GenerationDefaults::load`] where `config.json` was read: `fields` are its own.
    pub fn load_beside(dir: &Path, fields: &Map<String, Value>, config: &ModelConfig) -> Result<Self, ModelError> {
        match json::read_object(dir, GENERATION_CONFIG_FILE)? {
            Some(map) => {
                let ids = config.vocab_size().max(config.source_vocab_size());
                Self::from_generation_config(map, dir.join(GENERATION_CONFIG_FILE), ids)
            }
            None => Self::from_config_map(fields, &dir.join(CONFIG_FILE), config),
        }
    }

    /// The options that a `config.json` with the content `map` gives where there is no `generation_config.json`; `path` is named in errors.
    pub fn from_config_map(map: &Map<String, Value>, path: &Path, config: &ModelConfig) -> Result<Self, ModelError> {
        let ids = config.vocab_size().max(config.source_vocab_size());
        Self::from_model_config(map, path.to_owned(), config.family(), ids)
    }

    pub(crate) fn from_generation_config(
        map: Map<String, Value>,
        path: PathBuf,
        vocab_size: usize,
    ) -> Result<Self, ModelError> {
        // Types are for who reads the options: here a float may stand for an id.
        let ids = ["bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"];
        let special_tokens =
            ConfigKeys { file: &path, map: &map }.special_tokens(&SpecialTokens::default(), vocab_size, &ids)?;
        let note = |key: &str| key.starts_with('_') || key == "transformers_version";
        let options = map.into_iter().filter(|(key, value)| !value.is_null() && !note(key)).collect();
        Ok(Self { options, source: GenerationSource::GenerationConfig(path), special_tokens })
    }

    pub(crate) fn from_model_config(
        map: &Map<String, Value>,
        path: PathBuf,
        family: &Family,
        vocab_size: usize,
    ) -> Result<Self, ModelError> {
        let keys = ConfigKeys { file: &path, map };
        let special_tokens = keys.special_tokens(&(family.special_tokens)(), vocab_size, family.undeclared_ids)?;
        let mut options: Map<String, Value> = OPTION_KEYS
            .iter()
            .filter_map(|&key| Some((key.to_owned(), map.get(key).filter(|value| !value.is_null())?.clone())))
            .collect();
        class_forced_ids(map, family, &special_tokens, vocab_size, &mut options);
        add_class_ids(&special_tokens, &mut options);
        Ok(Self { options, source: GenerationSource::ModelConfig(path), special_tokens })
    }
}

/// The config classes of the encoder-decoder families force an id at the end; BART's older files have a flag for the beginning.
/// Transformers 4 (checked with 4.57.6) applies the class's id where `config.json` does not name the key; 5.23 looks at the file alone.
fn class_forced_ids(
    map: &Map<String, Value>,
    family: &Family,
    special_tokens: &SpecialTokens,
    vocab_size: usize,
    options: &mut Map<String, Value>,
) {
    let forced_eos = family.forced_eos.filter(|id| (*id as usize) < vocab_size);
    if let (false, Some(id)) = (map.contains_key("forced_eos_token_id"), forced_eos) {
        options.insert("forced_eos_token_id".into(), json!(id));
    }
    let force_bos = family.forces_bos.and_then(|key| map.get(key)).and_then(Value::as_bool).unwrap_or(false);
    if let (true, false, Some(bos)) = (force_bos, options.contains_key("forced_bos_token_id"), special_tokens.bos) {
        options.insert("forced_bos_token_id".into(), json!(bos));
    }
}

/// Ids that only the config class names.
fn add_class_ids(special_tokens: &SpecialTokens, options: &mut Map<String, Value>) {
    let eos = match special_tokens.eos.as_slice() {
        [] => None,
        [id] => Some(json!(id)),
        ids => Some(json!(ids)),
    };
    let ids = [
        ("bos_token_id", special_tokens.bos.map(|id| json!(id))),
        ("eos_token_id", eos),
        ("pad_token_id", special_tokens.pad.map(|id| json!(id))),
        ("decoder_start_token_id", special_tokens.decoder_start.map(|id| json!(id))),
    ];
    for (key, id) in ids {
        if let Some(id) = id {
            options.entry(key).or_insert(id);
        }
    }
}
