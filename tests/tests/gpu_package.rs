//! Every test that needs a device in one executable, for `scripts/gpu-package`: one copy of the engine instead of a dozen.

#![allow(clippy::duplicate_mod, reason = "each suite of the search brings the support module that it also has alone")]

mod accuracy_el;
mod alignments;
mod attention_bias;
mod attention_biases;
mod attention_blocks;
mod attention_probabilities;
mod caches;
mod coop_el_attend;
mod coop_matrix_fma;
mod coop_models;
mod counts_el;
mod counts_mha;
mod demo_bart;
mod demo_gpt2;
#[path = "../../crates/search/tests/device_beam_sample.rs"]
mod device_beam_sample;
#[path = "../../crates/search/tests/device_finite.rs"]
mod device_finite;
#[path = "../../crates/search/tests/device_hooks.rs"]
mod device_hooks;
#[path = "../../crates/search/tests/device_processors.rs"]
mod device_processors;
#[path = "../../crates/search/tests/device_vs_twin.rs"]
mod device_vs_twin;
#[path = "../../crates/search/tests/diverse.rs"]
mod diverse;
mod el_equals_mha;
mod engine_any_options;
mod engine_architecture;
mod engine_backoff;
mod engine_cancel;
mod engine_encode;
mod engine_events;
mod engine_examples;
mod engine_random;
mod engine_references;
mod engine_request_options;
mod engine_score;
mod engine_threads;
mod finite;
mod kernel_align;
mod kernel_attend;
mod kernel_combine;
mod kernel_el_attend;
mod kernel_embed;
mod kernel_fill_random;
mod kernel_layer_norm;
mod kernel_linear;
mod kernel_live_keys;
mod kernel_mha_attend;
mod kernel_peaks;
mod kernel_product;
mod kernel_store;
mod kernel_token_logprobs;
mod kl_kinds;
mod memory;
mod memory_outline;
mod memory_plan;
mod memory_resident;
mod parity_fixtures;
mod parity_real_bart;
mod parity_search;
mod parity_states;
mod pool_reuse;
mod processor_kernels;
mod recording;
mod soundness;
mod step_cost;
mod sweep_config;
mod weight_formats;
