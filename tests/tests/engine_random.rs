//! Models with random weights: every family from its config alone, and the same model for each attention kind and dtype.

use std::path::Path;

use elgen_engine::{AttentionChoice, ConfigOnly, DtypeChoice, Generation, Model, SessionOptions};
use elgen_search::GenerationOptions;
use elgen_tensor::Class;

/// Small models with odd widths: padded heads, several layers, both orders of norms.
const CONFIGS: [&str; 9] = [
    r#"{"model_type": "bart", "d_model": 60, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 6, "encoder_ffn_dim": 96, "decoder_ffn_dim": 64, "vocab_size": 203, "max_position_embeddings": 64}"#,
    r#"{"model_type": "mbart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 203, "max_position_embeddings": 64, "decoder_start_token_id": 3}"#,
    r#"{"model_type": "marian", "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 203, "max_position_embeddings": 64, "decoder_start_token_id": 202, "pad_token_id": 202, "eos_token_id": 0, "scale_embedding": true}"#,
    r#"{"model_type": "pegasus", "d_model": 32, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "vocab_size": 203, "max_position_embeddings": 64}"#,
    r#"{"model_type": "t5", "d_model": 48, "d_kv": 10, "num_heads": 3, "d_ff": 80, "num_layers": 2, "vocab_size": 203, "decoder_start_token_id": 0}"#,
    r#"{"model_type": "t5", "d_model": 48, "d_kv": 16, "num_heads": 3, "d_ff": 80, "num_layers": 2, "vocab_size": 203, "decoder_start_token_id": 0, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false}"#,
    r#"{"model_type": "gpt2", "n_embd": 60, "n_layer": 2, "n_head": 6, "vocab_size": 203, "n_positions": 64, "bos_token_id": 202, "eos_token_id": 202}"#,
    r#"{"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 203, "n_positions": 64, "bos_token_id": 202, "eos_token_id": 202, "tie_word_embeddings": false}"#,
    r#"{"model_type": "opt", "hidden_size": 32, "word_embed_proj_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 64, "vocab_size": 203, "max_position_embeddings": 64, "do_layer_norm_before": false}"#,
];

fn model(text: &str, seed: u64, attention: AttentionChoice, dtype: DtypeChoice) -> Model {
    let config = ConfigOnly::parse(text, Path::new("config.json")).unwrap();
    let options = SessionOptions::default()
        .with_attention(attention)
        .with_dtype(dtype)
        .with_device(std::env::var("ELGEN_TEST_DEVICE").ok())
        .with_checked_shaders(true);
    Model::random(&config, seed, &options).unwrap()
}

fn generate(model: &Model) -> Vec<Generation> {
    let asked = GenerationOptions {
        num_beams: Some(3),
        min_new_tokens: Some(10),
        max_new_tokens: Some(10),
        ..Default::default()
    };
    let inputs = [vec![5, 17, 4, 99, 33, 7], vec![150, 6]];
    model.generate(&inputs, &model.config(&asked).unwrap()).unwrap()
}

#[test]
fn every_family_is_the_same_model_for_each_kind() {
    for text in CONFIGS {
        let mha = generate(&model(text, 5, AttentionChoice::MHA, DtypeChoice::F32));
        for kind in [AttentionChoice::EL, AttentionChoice::MHA_REPLICATED] {
            let other = generate(&model(text, 5, kind, DtypeChoice::F32));
            for (a, b) in mha.iter().zip(&other) {
                let (a, b) = (&a.sequences[0], &b.sequences[0]);
                assert_eq!(a.token_ids, b.token_ids, "{kind:?}: {text}");
                assert!((a.score - b.score).abs() <= 1e-4 * a.score.abs().max(1.0), "{} {} {text}", a.score, b.score);
            }
        }
        let sequence = &mha[0].sequences[0];
        assert_eq!(sequence.token_ids.len(), 10, "{text}");
        // Neither certain of everything nor without an opinion.
        let mean = sequence.token_logprobs.iter().sum::<f32>() / 10.0;
        assert!(
            sequence.token_logprobs.iter().all(|x| x.is_finite()) && (-5.0..-0.01).contains(&mean),
            "{mean} {text}"
        );
        assert_ne!(sequence.score, mha[1].sequences[0].score, "the source has no effect: {text}");
    }
}

#[test]
fn seeds_differ_and_repeat() {
    let run = |seed| generate(&model(CONFIGS[0], seed, AttentionChoice::EL, DtypeChoice::F32));
    assert_eq!(run(1), run(1));
    assert_ne!(run(1)[0].sequences[0].token_ids, run(2)[0].sequences[0].token_ids);
}

#[test]
fn f16_holds_the_same_weights() {
    // The weights are exact in f16: only caches and products differ.
    for text in [CONFIGS[0], CONFIGS[6]] {
        let f32 = generate(&model(text, 5, AttentionChoice::MHA, DtypeChoice::F32));
        let f16 = generate(&model(text, 5, AttentionChoice::MHA, DtypeChoice::F16));
        for (a, b) in f32.iter().zip(&f16) {
            let (a, b) = (a.sequences[0].token_logprobs[0], b.sequences[0].token_logprobs[0]);
            assert!((a - b).abs() < 2e-2, "{a} and {b}: {text}");
        }
    }
}

#[test]
fn weights_have_their_full_size_and_no_staging() {
    let model = model(CONFIGS[0], 1, AttentionChoice::MHA, DtypeChoice::F32);
    let parameters = model.model_config().parameters().unwrap();
    let held = model.device().pool().current();
    let weights = held.of(Class::Weights);
    assert!(weights >= 4 * parameters, "{weights} bytes for {parameters} parameters");
    assert_eq!(held.of(Class::Staging), 0);
}
