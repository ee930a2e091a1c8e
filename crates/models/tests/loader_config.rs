//! `config.json` and `generation_config.json`: keys, defaults, aliases and complaints.

mod loader_support;

use std::path::Path;

use elgen_models::config::{Activation, NormOrder, SpecialTokens};
use elgen_models::families::{BartConfig, Gpt2Config, OptConfig, Positions, T5Config};
use elgen_models::generation_defaults::{GenerationDefaults, GenerationSource};
use elgen_models::{FamilyConfig, ModelConfig, ModelError};
use loader_support::*;
use serde_json::{Value, json};

fn config(value: Value) -> Result<ModelConfig, ModelError> {
    ModelConfig::from_map(value.as_object().unwrap(), Path::new("dir/config.json"))
}

/// A family's own config, and what all configs have.
#[derive(Debug)]
struct Read<T> {
    own: T,
    special_tokens: SpecialTokens,
    dtype: Option<String>,
    all: ModelConfig,
}

impl<T> Read<T> {
    fn parameters(&self) -> u64 {
        self.all.parameters().unwrap()
    }
}

impl<T> std::ops::Deref for Read<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.own
    }
}

fn read<T: FamilyConfig + Clone>(model_type: &str, mut value: Value) -> Result<Read<T>, ModelError> {
    value["model_type"] = json!(model_type);
    config(value).map(|config| Read {
        own: config.downcast_ref::<T>().unwrap_or_else(|| panic!("{config:?}")).clone(),
        special_tokens: config.special_tokens().clone(),
        dtype: config.dtype().map(str::to_owned),
        all: config,
    })
}

fn kin(model_type: &str, value: Value) -> Result<Read<BartConfig>, ModelError> {
    read(model_type, value)
}

fn bart(value: Value) -> Result<Read<BartConfig>, ModelError> {
    read("bart", value)
}

fn opt(value: Value) -> Result<Read<OptConfig>, ModelError> {
    read("opt", value)
}

fn gpt2(value: Value) -> Result<Read<Gpt2Config>, ModelError> {
    read("gpt2", value)
}

fn t5(value: Value) -> Result<Read<T5Config>, ModelError> {
    read("t5", value)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, ModelError>, parts: &[&str]) {
    let message = result.unwrap_err().to_string();
    assert_names(&message, &["dir/config.json"]);
    assert_names(&message, parts);
}

#[test]
fn bart_defaults_are_those_of_bart_large() {
    let config = bart(json!({})).unwrap();
    assert_eq!((config.d_model, config.vocab_size, config.max_position_embeddings), (1024, 50_265, 1024));
    assert_eq!((config.encoder.layers, config.encoder.heads, config.encoder.ffn_dim), (12, 16, 4096));
    assert_eq!(config.decoder, config.encoder);
    assert_eq!(config.activation, Activation::Gelu);
    assert!(!config.scale_embedding && config.tie_word_embeddings);
    assert_eq!(
        config.special_tokens,
        SpecialTokens { bos: Some(0), eos: vec![2], pad: Some(1), decoder_start: Some(2) }
    );
    assert_eq!((config.position_rows(), config.encoder_head_dim(), config.embedding_scale()), (1026, 64, 1.0));
    // The published count of facebook/bart-large.
    assert_eq!(config.parameters(), 406_291_456);
}

#[test]
fn bart_sides_differ() {
    let config = bart(json!({
        "encoder_layers": 12, "decoder_layers": 6, "encoder_attention_heads": 8, "decoder_attention_heads": 4,
        "encoder_ffn_dim": 30, "decoder_ffn_dim": 20, "d_model": 24, "num_hidden_layers": 99, "scale_embedding": true,
        "vocab_size": 50, "max_position_embeddings": 7, "activation_function": "swish", "torch_dtype": "float16",
        "eos_token_id": [2, 5], "pad_token_id": null, "tie_word_embeddings": false, "unknown": {"a": 1}, "is_encoder_decoder": true,
    }))
    .unwrap();
    assert_eq!((config.encoder.layers, config.decoder.layers), (12, 6));
    assert_eq!((config.encoder_head_dim(), config.decoder_head_dim()), (3, 6));
    assert_eq!((config.encoder.ffn_dim, config.decoder.ffn_dim), (30, 20));
    assert_eq!((config.activation, config.dtype.as_deref()), (Activation::Silu, Some("float16")));
    assert_eq!((config.special_tokens.eos.as_slice(), config.special_tokens.pad), (&[2, 5][..], None));
    assert_eq!(config.embedding_scale(), 24_f32.sqrt());
    assert!(!config.tie_word_embeddings);
    assert_eq!(bart(json!({"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4})).unwrap().d_model, 64);
}

#[test]
fn gpt2_defaults_and_aliases() {
    let config = gpt2(json!({})).unwrap();
    assert_eq!((config.n_embd, config.n_layer, config.n_head, config.n_positions), (768, 12, 12, 1024));
    assert_eq!((config.n_inner, config.vocab_size), (3072, 50_257));
    assert_eq!((config.activation, config.layer_norm_epsilon), (Activation::GeluTanh, 1e-5));
    assert_eq!(config.attention_scale(3), 0.125);
    assert_eq!(config.special_tokens.eos, [50_256]);
    // The published count of gpt2.
    assert_eq!(config.parameters(), 124_439_808);

    let config = gpt2(json!({
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16, "n_inner": null,
        "vocab_size": 100, "scale_attn_by_inverse_layer_idx": true, "reorder_and_upcast_attn": true, "dtype": "bfloat16",
        "torch_dtype": "float32", "layer_norm_epsilon": 1e-6,
    }))
    .unwrap();
    assert_eq!((config.n_embd, config.n_layer, config.n_head, config.n_positions), (32, 2, 2, 16));
    assert_eq!((config.n_inner, config.attention_scale(1), config.dtype.as_deref()), (128, 0.125, Some("bfloat16")));
    // The class's default ids lie outside this vocabulary.
    assert_eq!(config.special_tokens, SpecialTokens::default());
    assert_eq!(gpt2(json!({"scale_attn_weights": false})).unwrap().attention_scale(0), 1.0);
    assert_eq!(gpt2(json!({"n_embd": 64, "hidden_size": 64, "n_inner": 7, "n_head": 4})).unwrap().n_inner, 7);
}

#[test]
fn activations_by_their_names() {
    for (name, activation) in [
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_fast", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("gelu_accurate", Activation::GeluTanh),
        ("quick_gelu", Activation::QuickGelu),
        ("relu", Activation::Relu),
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
    ] {
        assert_eq!(gpt2(json!({"activation_function": name})).unwrap().activation, activation);
    }
    refused(bart(json!({"activation_function": "mish"})), &["activation_function", "\"mish\"", "gelu", "relu"]);
}

#[test]
fn t5_defaults_are_those_of_t5_small() {
    let config = t5(json!({})).unwrap();
    assert_eq!((config.d_model, config.d_kv, config.d_ff, config.vocab_size), (512, 64, 2048, 32_128));
    assert_eq!((config.num_layers, config.num_decoder_layers, config.num_heads), (6, 6, 8));
    assert_eq!((config.relative_attention_num_buckets, config.relative_attention_max_distance), (32, 128));
    assert_eq!((config.activation, config.is_gated_act, config.layer_norm_epsilon), (Activation::Relu, false, 1e-6));
    assert!(config.tie_word_embeddings && config.scale_decoder_outputs);
    assert_eq!(config.special_tokens, SpecialTokens { bos: None, eos: vec![1], pad: Some(0), decoder_start: None });
    // The published count of t5-small.
    assert_eq!(config.parameters(), 60_506_624);
    let summary = self::config(json!({"model_type": "t5", "d_kv": 20})).unwrap().summary();
    assert_eq!((summary.positions, summary.head_dim, summary.decoder_heads), (None, 20, 8));
}

#[test]
fn t5_variants() {
    // flan-t5-small: heads together are narrower than the model.
    let flan = json!({
        "d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": null, "num_heads": 6,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false, "torch_dtype": "float32", "decoder_start_token_id": 0,
    });
    let config = t5(flan.clone()).unwrap();
    assert_eq!((config.inner_dim(), config.num_decoder_layers), (384, 8));
    assert_eq!((config.activation, config.is_gated_act), (Activation::GeluTanh, true));
    assert!(!config.tie_word_embeddings && !config.scale_decoder_outputs);
    assert_eq!(config.special_tokens.decoder_start, Some(0));
    // The published count of flan-t5-small.
    assert_eq!(config.parameters(), 76_961_152);
    // transformers 5 writes the same model with tied embeddings and a key of its own.
    let config = t5(json!({"tie_word_embeddings": true, "scale_decoder_outputs": false})).unwrap();
    assert!(config.tie_word_embeddings && !config.scale_decoder_outputs);
    for (name, activation, gated) in [
        ("relu", Activation::Relu, false),
        ("gelu", Activation::Gelu, false),
        ("gated-silu", Activation::Silu, true),
        ("gated-relu", Activation::Relu, true),
        ("gated-gelu_new", Activation::GeluTanh, true),
    ] {
        let config = t5(json!({"feed_forward_proj": name})).unwrap();
        assert_eq!((config.activation, config.is_gated_act), (activation, gated), "{name}");
    }
    refused(t5(json!({"feed_forward_proj": "gated-mish"})), &["feed_forward_proj", "gated-mish", "relu"]);
    refused(t5(json!({"feed_forward_proj": "relu-gated"})), &["feed_forward_proj"]);
    refused(t5(json!({"relative_attention_num_buckets": 3})), &["relative_attention_num_buckets", "at least 4"]);
    refused(t5(json!({"relative_attention_max_distance": 16})), &["relative_attention_max_distance", "16", "exceed"]);
    refused(t5(json!({"relative_attention_max_distance": 1_000_000})), &["relative_attention_max_distance"]);
    refused(t5(json!({"num_layers": 6, "num_hidden_layers": 7})), &["num_hidden_layers", "contradicts"]);
}

#[test]
fn families_differ_in_norms_positions_and_defaults() {
    let marian = kin("marian", json!({})).unwrap();
    assert_eq!((marian.norm_order, marian.embedding_norm), (NormOrder::Post, false));
    assert_eq!((marian.positions, marian.position_rows(), marian.vocab_size), (Positions::Sinusoidal, 1024, 58_101));
    assert_eq!(
        marian.special_tokens,
        SpecialTokens { bos: None, eos: vec![0], pad: Some(58_100), decoder_start: Some(58_100) }
    );
    let mbart = kin("mbart", json!({})).unwrap();
    assert_eq!((mbart.norm_order, mbart.embedding_norm, mbart.position_rows()), (NormOrder::Pre, true, 1026));
    assert_eq!(mbart.special_tokens, SpecialTokens { bos: Some(0), eos: vec![2], pad: Some(1), decoder_start: None });
    let pegasus = kin("pegasus", json!({})).unwrap();
    assert_eq!((pegasus.norm_order, pegasus.embedding_norm), (NormOrder::Pre, false));
    assert_eq!((pegasus.positions, pegasus.vocab_size), (Positions::Sinusoidal, 50_265));
    assert_eq!(pegasus.special_tokens, SpecialTokens { bos: None, eos: vec![1], pad: Some(0), decoder_start: Some(0) });

    // A file of opus-mt base, leftovers included.
    let opus = json!({
        "activation_function": "swish", "add_bias_logits": false, "add_final_layer_norm": false, "bad_words_ids": [[58_100]],
        "d_model": 512, "decoder_attention_heads": 8, "decoder_ffn_dim": 2048, "decoder_layers": 6, "decoder_vocab_size": 58_101,
        "encoder_attention_heads": 8, "encoder_ffn_dim": 2048, "encoder_layers": 6, "max_position_embeddings": 512,
        "normalize_before": false, "normalize_embedding": false, "num_hidden_layers": 6, "scale_embedding": true,
        "static_position_embeddings": true, "vocab_size": 58_101,
    });
    let config = kin("marian", opus).unwrap();
    assert_eq!((config.activation, config.embedding_scale()), (Activation::Silu, 512_f32.sqrt()));
    // The count that transformers gives for this config, without the two computed position tables.
    assert_eq!(config.parameters(), 73_886_208);
}

#[test]
fn marian_may_have_two_vocabularies() {
    let two = json!({"vocab_size": 90, "decoder_vocab_size": 70, "share_encoder_decoder_embeddings": false, "d_model": 32, "pad_token_id": 69});
    let mut value = two.clone();
    value["model_type"] = json!("marian");
    let model = config(value).unwrap();
    assert_eq!((model.vocab_size(), model.source_vocab_size(), model.summary().vocab_size), (70, 90, 70));
    model.check_token_ids(&[89]).unwrap();
    assert_names(&model.check_token_ids(&[90]).unwrap_err().to_string(), &["id 90", "vocabulary of 90"]);
    // A shared table is as long as the encoder's, and the other families know no second one.
    let shared = json!({"vocab_size": 90, "decoder_vocab_size": 70});
    assert_eq!(kin("marian", shared).unwrap().decoder_vocab_size, 90);
    let mut none = two.clone();
    none["decoder_vocab_size"] = json!(0);
    assert_eq!(kin("marian", none).unwrap().decoder_vocab_size, 90);
    let mut padded = two.clone();
    padded["pad_token_id"] = json!(70);
    refused(kin("marian", padded), &["pad_token_id = 70", "vocabulary of 70"]);
    assert_eq!(kin("mbart", two).unwrap().decoder_vocab_size, 90);
}

#[test]
fn opt_defaults_and_variants() {
    let config = opt(json!({})).unwrap();
    assert_eq!((config.hidden_size, config.num_hidden_layers, config.num_attention_heads), (768, 12, 12));
    assert_eq!((config.ffn_dim, config.position_rows(), config.vocab_size), (3072, 2050, 50_272));
    assert_eq!((config.norm_order, config.final_norm, config.projects()), (NormOrder::Pre, true, false));
    assert_eq!((config.activation, config.enable_bias), (Activation::Relu, true));
    assert_eq!(config.special_tokens, SpecialTokens { bos: Some(2), eos: vec![2], pad: Some(1), decoder_start: None });
    // The count that transformers gives for opt-125m's config.
    assert_eq!(config.parameters(), 125_239_296);

    let medium = json!({
        "hidden_size": 1024, "word_embed_proj_dim": 512, "num_hidden_layers": 24, "num_attention_heads": 16, "ffn_dim": 4096,
        "do_layer_norm_before": false,
    });
    let config = opt(medium).unwrap();
    assert_eq!((config.norm_order, config.final_norm, config.projects()), (NormOrder::Post, false, true));
    // The count that transformers gives for opt-350m's config.
    assert_eq!(config.parameters(), 331_196_416);
    assert!(!opt(json!({"_remove_final_layer_norm": true})).unwrap().final_norm);
    refused(opt(json!({"layer_norm_elementwise_affine": false})), &["layer_norm_elementwise_affine = false", "OPT"]);
    refused(opt(json!({"num_attention_heads": 7})), &["num_attention_heads = 7", "hidden_size = 768"]);
}

const ALL: &str = "bart, gpt2, marian, mbart, opt, pegasus, t5";

#[test]
fn unsupported_families_list_the_supported() {
    refused(config(json!({"model_type": "mt5"})), &["\"mt5\"", ALL]);
    refused(config(json!({"model_type": 3})), &["3", ALL]);
    refused(config(json!({})), &["(none)", ALL]);
    refused(config(json!({"architectures": ["T5EncoderModel"]})), &["T5EncoderModel"]);
    let class = json!({"architectures": ["T5ForConditionalGeneration"]});
    assert_eq!(config(class).unwrap().family().model_type, "t5");
    refused(t5(json!({"is_encoder_decoder": false})), &["is_encoder_decoder"]);
    assert_eq!(config(json!({"architectures": ["GPT2LMHeadModel"]})).unwrap().family().model_type, "gpt2");
    refused(gpt2(json!({"add_cross_attention": true})), &["add_cross_attention"]);
    assert_eq!(
        config(json!({"architectures": ["MBartForConditionalGeneration"]})).unwrap().family().model_type,
        "mbart"
    );
    assert_eq!(config(json!({"architectures": ["MarianMTModel"]})).unwrap().family().model_type, "marian");
    assert_eq!(config(json!({"architectures": ["OPTForCausalLM"]})).unwrap().family().model_type, "opt");
    refused(bart(json!({"is_encoder_decoder": false})), &["is_encoder_decoder", "BART"]);
    refused(kin("pegasus", json!({"is_encoder_decoder": false})), &["is_encoder_decoder", "Pegasus"]);
}

#[test]
fn absurd_and_contradictory_values_are_refused() {
    for (value, why) in [
        (json!(0), "at least 1"),
        (json!(-4), "negative"),
        (json!(-4.5), "negative"),
        (json!(2.5), "whole number"),
        (json!("768"), "whole number"),
        (json!([1]), "whole number"),
        (json!(65_537), "larger than 65536"),
        (json!(u64::MAX), "larger than"),
    ] {
        refused(gpt2(json!({"n_embd": value})), &["n_embd = ", &value.to_string(), why]);
        refused(bart(json!({"d_model": value})), &["d_model = ", &value.to_string(), why]);
    }
    refused(gpt2(json!({"n_layer": 1001})), &["n_layer = 1001"]);
    refused(bart(json!({"vocab_size": 10_000_001})), &["vocab_size = 10000001"]);
    refused(bart(json!({"decoder_attention_heads": 7})), &["decoder_attention_heads = 7", "d_model = 1024"]);
    refused(gpt2(json!({"num_attention_heads": 7})), &["num_attention_heads = 7", "n_embd = 768"]);
    refused(gpt2(json!({"n_embd": 64, "hidden_size": 128})), &["hidden_size = 128", "contradicts n_embd = 64"]);
    refused(gpt2(json!({"is_encoder_decoder": true})), &["is_encoder_decoder = true", "no encoder"]);
    refused(bart(json!({"scale_embedding": "yes"})), &["scale_embedding = \"yes\"", "true or false"]);
    refused(gpt2(json!({"layer_norm_epsilon": -1e-5})), &["layer_norm_epsilon"]);
    refused(gpt2(json!({"layer_norm_epsilon": "x"})), &["layer_norm_epsilon"]);
}

#[test]
fn files_are_named_in_errors() {
    let dir = tempfile::tempdir().unwrap();
    let message = || ModelConfig::load(dir.path()).unwrap_err().to_string();
    assert_names(&message(), &[dir.path().to_str().unwrap(), "config.json not found"]);
    write(dir.path(), "config.json", "{\"model_type\": \"bart\",");
    assert_names(&message(), &["config.json", "invalid JSON", "line 1"]);
    write(dir.path(), "config.json", "[]");
    assert_names(&message(), &["config.json", "an object is needed"]);
    write(dir.path(), "config.json", "version https://git-lfs.github.com/spec/v1\n");
    assert_names(&message(), &["config.json", "Git LFS pointer"]);
    write(dir.path(), "config.json", [0xff, 0xfe]);
    assert_names(&message(), &["config.json", "UTF-8"]);
    assert_names(&ModelConfig::load(dir.path().join("no")).unwrap_err().to_string(), &["no", "model directory"]);
}

#[test]
fn token_ids_are_checked_against_the_vocabulary() {
    let config = config(json!({"model_type": "gpt2", "vocab_size": 10, "n_embd": 12})).unwrap();
    config.check_token_ids(&[0, 9]).unwrap();
    assert_names(
        &config.check_token_ids(&[0, 10]).unwrap_err().to_string(),
        &["id 10", "position 1", "vocabulary of 10"],
    );
}

#[test]
fn the_summary_covers_both_kinds() {
    let gpt2 = config(json!({"model_type": "gpt2"})).unwrap();
    let (family, summary) = (gpt2.family().model_type, gpt2.summary());
    assert_eq!((family, summary.encoder_layers, summary.decoder_layers), ("gpt2", 0, 12));
    assert_eq!((summary.positions, summary.vocab_size, summary.tied), (Some(1024), 50_257, true));
    let summary = config(json!({"model_type": "bart", "decoder_layers": 6})).unwrap().summary();
    assert_eq!((summary.encoder_layers, summary.decoder_layers, summary.d_model), (12, 6, 1024));
}

fn generation(config_json: Value, generation_json: Option<Value>) -> Result<GenerationDefaults, ModelError> {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "config.json", config_json.to_string());
    if let Some(value) = generation_json {
        write(dir.path(), "generation_config.json", value.to_string());
    }
    GenerationDefaults::load(dir.path(), &ModelConfig::load(dir.path()).unwrap())
}

#[test]
fn generation_config_wins_alone() {
    let defaults = generation(
        json!({"model_type": "bart", "num_beams": 9}),
        Some(json!({
            "bos_token_id": 0, "eos_token_id": [2, 3], "decoder_start_token_id": 2, "forced_bos_token_id": null, "length_penalty": 2.0,
            "early_stopping": "never", "transformers_version": "5.23.0", "_from_model_config": true, "bad_words_ids": [[5], [6, 8]],
        })),
    )
    .unwrap();
    assert!(
        matches!(&defaults.source, GenerationSource::GenerationConfig(path) if path.ends_with("generation_config.json"))
    );
    assert_eq!(
        Value::Object(defaults.options),
        json!({
            "bos_token_id": 0, "eos_token_id": [2, 3], "decoder_start_token_id": 2, "length_penalty": 2.0, "early_stopping": "never",
            "bad_words_ids": [[5], [6, 8]],
        })
    );
    let expected = SpecialTokens { bos: Some(0), eos: vec![2, 3], pad: None, decoder_start: Some(2) };
    assert_eq!(defaults.special_tokens, expected);
}

#[test]
fn without_it_the_config_and_its_class_speak() {
    let defaults =
        generation(json!({"model_type": "bart", "num_beams": 4, "min_length": null, "d_model": 64}), None).unwrap();
    assert!(matches!(&defaults.source, GenerationSource::ModelConfig(path) if path.ends_with("config.json")));
    assert_eq!(
        Value::Object(defaults.options),
        json!({
            "num_beams": 4, "forced_eos_token_id": 2, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
            "decoder_start_token_id": 2,
        })
    );
    let old = json!({"model_type": "bart", "force_bos_token_to_be_generated": true, "forced_eos_token_id": null, "eos_token_id": null});
    let defaults = generation(old, None).unwrap();
    assert_eq!(defaults.options.get("forced_bos_token_id"), Some(&json!(0)));
    assert!(!defaults.options.contains_key("forced_eos_token_id") && !defaults.options.contains_key("eos_token_id"));
    let defaults = generation(json!({"model_type": "gpt2", "eos_token_id": [7, 8]}), None).unwrap();
    assert_eq!(Value::Object(defaults.options), json!({"bos_token_id": 50_256, "eos_token_id": [7, 8]}));
    assert_eq!(defaults.special_tokens.eos, [7, 8]);
    let defaults = generation(json!({"model_type": "t5", "decoder_start_token_id": 0}), None).unwrap();
    let wanted = json!({"eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 0});
    assert_eq!(Value::Object(defaults.options), wanted);
}

#[test]
fn each_class_forces_its_own_end() {
    let options = |value| generation(value, None).unwrap().options;
    for (family, end) in
        [("bart", Some(2)), ("mbart", Some(2)), ("marian", Some(0)), ("pegasus", Some(1)), ("opt", None)]
    {
        let found = options(json!({"model_type": family}));
        assert_eq!(found.get("forced_eos_token_id"), end.map(|id| json!(id)).as_ref(), "{family}");
        let silent = options(json!({"model_type": family, "forced_eos_token_id": null}));
        assert!(!silent.contains_key("forced_eos_token_id"), "{family}");
    }
    assert!(!options(json!({"model_type": "mbart"})).contains_key("decoder_start_token_id"));
    // The flag of old files is BART's alone.
    assert!(
        !options(json!({"model_type": "mbart", "force_bos_token_to_be_generated": true}))
            .contains_key("forced_bos_token_id")
    );
}

/// Ids that play no part may be anything, in both files and in every form; a value that is no id is refused.
#[test]
fn ids_outside_the_vocabulary_are_left_out() {
    let big = 1_u64 << 40;
    for id in [json!(-1), json!(50_257), json!(big), json!([50_257, -1, big])] {
        let config = gpt2(json!({"eos_token_id": id})).unwrap();
        assert_eq!(config.special_tokens.eos, Vec::<u32>::new(), "{id}");
        let defaults =
            generation(json!({"model_type": "gpt2", "eos_token_id": id}), Some(json!({"eos_token_id": id}))).unwrap();
        assert_eq!((defaults.special_tokens.eos.len(), &defaults.options["eos_token_id"]), (0, &id));
    }
    let ids = json!({"pad_token_id": 99_999, "bos_token_id": -1, "decoder_start_token_id": big, "sep_token_id": "x"});
    let none = SpecialTokens { eos: vec![50_256], ..SpecialTokens::default() };
    assert_eq!(gpt2(ids).unwrap().special_tokens, none);
    assert_eq!(bart(json!({"eos_token_id": [2, 60_000]})).unwrap().special_tokens.eos, [2]);
    for wrong in [json!(5.0), json!("5"), json!(true), json!([5])] {
        refused(gpt2(json!({"bos_token_id": wrong})), &["bos_token_id", "token id"]);
    }
    for wrong in [json!([2, null]), json!([2.0]), json!([[2]]), json!("2")] {
        refused(gpt2(json!({"eos_token_id": wrong})), &["eos_token_id", "token id"]);
    }
    // T5's class declares no such key, so nobody checks its type.
    assert_eq!(t5(json!({"decoder_start_token_id": "5"})).unwrap().special_tokens.decoder_start, None);
}

/// The embeddings of BART's kin and of OPT are made with the padding's row.
#[test]
fn a_padding_row_must_exist_where_embeddings_need_it() {
    for id in [json!(50_265), json!(1_u64 << 40), json!(-50_266)] {
        refused(bart(json!({"pad_token_id": id})), &["pad_token_id = ", "vocabulary of 50265"]);
        refused(kin("pegasus", json!({"pad_token_id": id})), &["pad_token_id = "]);
        let mut opt_id = json!({"pad_token_id": id});
        opt_id["vocab_size"] = json!(50_265);
        refused(opt(opt_id), &["pad_token_id = "]);
        assert!(gpt2(json!({"pad_token_id": id})).is_ok() && t5(json!({"pad_token_id": id})).is_ok());
    }
    for id in [json!(-1), json!(-50_265), json!(null)] {
        assert!(bart(json!({"pad_token_id": id})).is_ok(), "{id}");
    }
}

#[test]
fn t5_reads_what_its_class_reads() {
    let read = |value: Value| t5(value).map(|c| (c.activation, c.is_gated_act));
    let both = json!({"feed_forward_proj": "relu", "dense_act_fn": "silu", "is_gated_act": true});
    assert_eq!(read(both).unwrap(), (Activation::Silu, true));
    assert_eq!(read(json!({"feed_forward_proj": "nope", "dense_act_fn": "relu"})).unwrap(), (Activation::Relu, false));
    assert_eq!(read(json!({"feed_forward_proj": "gated-relu", "is_gated_act": 0})).unwrap(), (Activation::Relu, false));
    refused(t5(json!({"dense_act_fn": "nope"})), &["dense_act_fn", "nope", "relu"]);
    let scaled = |value: Value| t5(value).unwrap().scale_decoder_outputs;
    assert!(scaled(json!({"tie_word_embeddings": null})) && scaled(json!({"tie_word_embeddings": 0})));
    assert!(!scaled(json!({"scale_decoder_outputs": null})) && scaled(json!({"scale_decoder_outputs": 1})));
}

#[test]
fn a_dtype_is_only_a_hint() {
    for value in [json!(3), json!(null), json!(["float16"])] {
        assert_eq!(gpt2(json!({"dtype": value})).unwrap().dtype, None, "{value}");
    }
    assert_eq!(gpt2(json!({"dtype": 3, "torch_dtype": "float16"})).unwrap().dtype.as_deref(), Some("float16"));
}

#[test]
fn a_generation_config_is_an_object() {
    let message = generation(json!({"model_type": "gpt2"}), Some(json!(3))).unwrap_err().to_string();
    assert_names(&message, &["generation_config.json", "an object"]);
}
