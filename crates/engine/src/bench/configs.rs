//! The models of the EL-attention paper and their neighbours as configs inside the binary, and narrower versions of them.

use std::path::Path;

use elgen_models::ModelError;
use serde_json::{Map, Value};

use crate::config_only::ConfigOnly;
use crate::error::EngineError;

/// Names and configs. Sizes are those of the public checkpoints of these names. `transformer-270m` is the paper's "transformer 270M", whose
/// shape is not known: Vaswani et al.'s big Transformer (2017) with 30,522 ids (BERT's uncased vocabulary) and separate embeddings for
/// encoder, decoder and head has 270 million parameters.
pub const BUILTIN_CONFIGS: [(&str, &str); 9] = [
    (
        "bart-large",
        r#"{"model_type": "bart", "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16, "decoder_attention_heads": 16, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "vocab_size": 50265, "max_position_embeddings": 1024, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}"#,
    ),
    (
        "bart-base",
        r#"{"model_type": "bart", "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12, "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072, "vocab_size": 50265, "max_position_embeddings": 1024, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}"#,
    ),
    (
        "transformer-270m",
        r#"{"model_type": "marian", "d_model": 1024, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 16, "decoder_attention_heads": 16, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096, "activation_function": "relu", "scale_embedding": true, "vocab_size": 30522, "decoder_vocab_size": 30522, "share_encoder_decoder_embeddings": false, "tie_word_embeddings": false, "max_position_embeddings": 1024, "eos_token_id": 0, "forced_eos_token_id": 0, "pad_token_id": 1, "decoder_start_token_id": 1}"#,
    ),
    (
        "gpt2",
        r#"{"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256}"#,
    ),
    (
        "gpt2-medium",
        r#"{"model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16, "n_positions": 1024, "vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256}"#,
    ),
    (
        "gpt2-large",
        r#"{"model_type": "gpt2", "n_embd": 1280, "n_layer": 36, "n_head": 20, "n_positions": 1024, "vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256}"#,
    ),
    (
        "gpt2-xl",
        r#"{"model_type": "gpt2", "n_embd": 1600, "n_layer": 48, "n_head": 25, "n_positions": 1024, "vocab_size": 50257, "bos_token_id": 50256, "eos_token_id": 50256}"#,
    ),
    (
        "t5-small",
        r#"{"model_type": "t5", "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8, "vocab_size": 32128, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}"#,
    ),
    (
        "t5-base",
        r#"{"model_type": "t5", "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12, "vocab_size": 32128, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}"#,
    ),
];

/// Widths that [`scaled_config`] divides; layers, heads and positions stay.
const WIDTHS: [&str; 12] = [
    "d_model",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "vocab_size",
    "decoder_vocab_size",
    "n_embd",
    "n_inner",
    "d_kv",
    "d_ff",
    "hidden_size",
    "ffn_dim",
    "word_embed_proj_dim",
];

/// The config of this name in [`BUILTIN_CONFIGS`], `scale` times narrower.
///
/// # Errors
/// No such name; as [`scaled_config`].
pub fn builtin_config(name: &str, scale: usize) -> Result<ConfigOnly, EngineError> {
    match BUILTIN_CONFIGS.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => scaled_config(text, Path::new(name), scale),
        None => {
            let known: Vec<&str> = BUILTIN_CONFIGS.iter().map(|(known, _)| *known).collect();
            let reason = format!("no built-in config; there are {}", known.join(", "));
            Err(ModelError::Json { file: name.into(), reason }.into())
        }
    }
}

/// A config with the model's widths and its vocabulary divided by `scale`, rounded down. Layers, heads and positions stay, so that ratios between
/// attention kinds do, in what they cache and in the number of dispatches. Ids beyond the vocabulary become its last one. `path` is
/// named in errors.
///
/// # Errors
/// A config that is damaged or not supported, also because the heads do not divide the narrower width.
pub fn scaled_config(text: &str, path: &Path, scale: usize) -> Result<ConfigOnly, EngineError> {
    if scale <= 1 {
        return ConfigOnly::parse(text, path);
    }
    let mut map: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| ModelError::Json { file: path.into(), reason: error.to_string() })?;
    for key in WIDTHS {
        if let Some(width) = map.get_mut(key)
            && let Some(full) = width.as_u64()
        {
            *width = Value::from((full / scale as u64).max(1));
        }
    }
    let last = map.get("vocab_size").and_then(Value::as_u64).map(|size| size.saturating_sub(1));
    for (key, value) in &mut map {
        if let (true, Some(last), Some(id)) = (key.ends_with("_token_id"), last, value.as_u64()) {
            *value = Value::from(id.min(last));
        }
    }
    ConfigOnly::parse(&Value::Object(map).to_string(), path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_models_have_their_sizes() {
        // Millions of parameters: the paper's figures, and those that the checkpoints are known by.
        let known = [
            ("bart-large", 406.3),
            ("bart-base", 139.4),
            ("transformer-270m", 270.0),
            ("gpt2", 124.4),
            ("gpt2-medium", 354.8),
            ("gpt2-large", 774.0),
            ("gpt2-xl", 1557.6),
            ("t5-small", 60.5),
            ("t5-base", 222.9),
        ];
        assert_eq!(known.map(|(name, _)| name), BUILTIN_CONFIGS.map(|(name, _)| name));
        for (name, millions) in known {
            let found = builtin_config(name, 1).unwrap().config().parameters().unwrap() as f64 / 1e6;
            assert!((found - millions).abs() < 0.005 * millions, "{name}: {found}");
        }
    }

    #[test]
    fn narrow_models_keep_layers_and_heads() {
        for (name, _) in BUILTIN_CONFIGS {
            let (full, narrow) = (builtin_config(name, 1).unwrap(), builtin_config(name, 8).unwrap());
            let (full, narrow) = (full.config().summary(), narrow.config().summary());
            assert_eq!((full.d_model / 8, full.vocab_size / 8), (narrow.d_model, narrow.vocab_size), "{name}");
            assert_eq!((full.decoder_heads, full.decoder_layers), (narrow.decoder_heads, narrow.decoder_layers));
            assert_eq!((full.ffn_dim / 8, full.positions), (narrow.ffn_dim, narrow.positions), "{name}");
        }
        assert!(builtin_config("bart-huge", 1).unwrap_err().to_string().contains("bart-large"));
        let odd = builtin_config("bart-large", 7).unwrap_err().to_string();
        assert!(odd.contains("bart-large"), "{odd}");
    }
}
