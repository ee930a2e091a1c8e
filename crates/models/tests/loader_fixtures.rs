//! Every model of the repository loads: its config describes exactly the tensors of its files.

use std::path::{Path, PathBuf};

use elgen_models::ModelConfig;
use elgen_models::checkpoint::{Checkpoint, StoredDtype, Weights};
use elgen_models::families::{BartConfig, Gpt2Config, OptConfig, Positions, T5Config};
use elgen_models::generation_defaults::{GenerationDefaults, GenerationSource};

fn model_dirs() -> Vec<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut dirs: Vec<PathBuf> = ["tests/fixtures", "demo"]
        .iter()
        .flat_map(|parent| std::fs::read_dir(repository.join(parent)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|dir| dir.join("config.json").is_file())
        .collect();
    dirs.sort();
    dirs
}

fn computes_positions(config: &ModelConfig) -> bool {
    config.downcast_ref::<BartConfig>().is_some_and(|c| c.positions == Positions::Sinusoidal)
}

#[test]
fn configs_and_checkpoints_agree() {
    let dirs = model_dirs();
    assert!(dirs.len() > 5);
    for dir in dirs {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let config = ModelConfig::load(&dir).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let summary = config.summary();
        // Buffers are not parameters, and a file may hold copies of a tied table.
        let not_counted: u64 = checkpoint
            .names()
            .filter(|n| {
                n.ends_with("final_logits_bias")
                    || (n.ends_with("embed_positions.weight") && computes_positions(&config))
                    || n.ends_with(".attn.bias")
                    || n.ends_with("masked_bias")
                    || n.ends_with(".version")
                    || n.ends_with("EncDecAttention.relative_attention_bias.weight")
            })
            .map(|n| checkpoint.info(n).unwrap())
            .filter(|info| !matches!(info.dtype, StoredDtype::Other(_)))
            .map(|info| info.shape.iter().product::<usize>() as u64)
            .sum();
        // Files may hold several names of a tied table.
        let stored: u64 = checkpoint
            .names()
            .filter(|n| {
                ["shared.weight", "embed_tokens.weight", "wte.weight", "lm_head.weight"].iter().any(|t| n.ends_with(t))
            })
            .map(|n| checkpoint.info(n).unwrap().shape.iter().product::<usize>() as u64)
            .sum();
        let (bart, opt) = (config.downcast_ref::<BartConfig>(), config.downcast_ref::<OptConfig>());
        let (first, second, width) = match (bart, opt) {
            (Some(c), _) if !c.share_embeddings => (c.vocab_size, c.decoder_vocab_size, c.d_model),
            (_, Some(c)) => (c.vocab_size, 0, c.word_embed_proj_dim),
            _ => (summary.vocab_size, 0, summary.d_model),
        };
        let head = if summary.tied { 0 } else { summary.vocab_size };
        let tables = ((first + second + head) * width) as u64;
        let unique = checkpoint.parameters() - not_counted - stored + tables;
        assert_eq!(unique, config.parameters().unwrap(), "{name}");

        let (vocab_size, d_model) = (summary.vocab_size, summary.d_model);
        if let Some(config) = bart {
            let weights = Weights::new(&checkpoint, "model.");
            let (source, target) = (config.vocab_size, config.decoder_vocab_size);
            let embeddings = match config.share_embeddings {
                true => weights.shared_embeddings(BartConfig::SUBSTITUTES, vocab_size, d_model, summary.tied),
                false => weights.separate_embeddings(source, target, d_model, summary.tied),
            }
            .unwrap();
            assert_eq!(embeddings.all_shared(), summary.tied && config.share_embeddings, "{name}");
            assert_eq!(embeddings.decoder.name() == embeddings.head.name(), summary.tied, "{name}");
            let positions = [config.position_rows(), d_model];
            let found = weights.optional("decoder.embed_positions.weight", &positions).unwrap();
            assert!(found.is_some() || config.positions == Positions::Sinusoidal, "{name}");
            weights.tensor("encoder.layers.0.fc1.weight", &[config.encoder.ffn_dim, d_model]).unwrap();
        } else if let Some(config) = config.downcast_ref::<Gpt2Config>() {
            let weights = Weights::new(&checkpoint, "transformer.");
            let embeddings = weights.decoder_embeddings("wte.weight", vocab_size, d_model, summary.tied).unwrap();
            assert_eq!(embeddings.all_shared(), summary.tied, "{name}");
            let c_attn = weights.tensor("h.0.attn.c_attn.weight", &[d_model, 3 * d_model]).unwrap();
            c_attn.columns_f32(0..2, &mut vec![0.0; 2 * d_model]).unwrap();
            weights.tensor("h.0.mlp.c_fc.weight", &[d_model, config.n_inner]).unwrap();
        } else if let Some(config) = config.downcast_ref::<T5Config>() {
            let weights = Weights::new(&checkpoint, "");
            let embeddings = weights.shared_embeddings(BartConfig::SUBSTITUTES, vocab_size, d_model, true).unwrap();
            assert_eq!(embeddings.all_shared(), config.scale_decoder_outputs, "{name}");
            let q = "encoder.block.0.layer.0.SelfAttention.q.weight";
            weights.tensor(q, &[config.inner_dim(), d_model]).unwrap();
        } else if let Some(config) = opt {
            let weights = Weights::new(&checkpoint, "model.");
            let embeddings = weights
                .decoder_embeddings("decoder.embed_tokens.weight", vocab_size, config.word_embed_proj_dim, summary.tied)
                .unwrap();
            assert_eq!(embeddings.all_shared(), summary.tied, "{name}");
            weights.tensor("decoder.embed_positions.weight", &[config.position_rows(), d_model]).unwrap();
            weights.tensor("decoder.layers.0.fc1.weight", &[config.ffn_dim, d_model]).unwrap();
        } else {
            panic!("{config:?}")
        }
    }
}

#[test]
fn generation_defaults_come_from_the_right_file() {
    for dir in model_dirs() {
        let config = ModelConfig::load(&dir).unwrap();
        let defaults = GenerationDefaults::load(&dir, &config).unwrap();
        let from_generation_config = matches!(defaults.source, GenerationSource::GenerationConfig(_));
        assert_eq!(from_generation_config, dir.join("generation_config.json").is_file(), "{dir:?}");
        assert!(defaults.options.values().all(|value| !value.is_null()));
    }
}
