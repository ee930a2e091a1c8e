//! Generation options and the search that turns a model's logits into text: greedy, multinomial sampling and beam search,
//! with the semantics of Hugging Face `generate()` 5.23.
//!
//! [`GenerationOptions`] are what people and checkpoints write, [`GenerationConfig`] is what a search runs on, and
//! [`twin`] is the definition of every rule, on the CPU and one sentence at a time:
//!
//! ```
//! use elgen_search::{GenerationOptions, ModelLimits, twin};
//!
//! let model = twin::ToyModel { vocab: 50, seed: 7 };
//! let limits = ModelLimits { vocab_size: model.vocab, max_position_embeddings: Some(64), is_encoder_decoder: true };
//! let asked = GenerationOptions { num_beams: Some(4), max_new_tokens: Some(10), ..Default::default() };
//! let checkpoint = GenerationOptions { decoder_start_token_id: Some(2), eos_token_id: Some(3.into()), ..Default::default() };
//!
//! let (config, warnings) = asked.or(checkpoint).resolve(&limits)?;
//! assert!(warnings.is_empty());
//! let prompt = [2];
//! let found = twin::generate(&config, config.lengths(prompt.len())?, &prompt, 0, &mut |rows| {
//!     rows.iter().map(|row| model.logits(row.tokens)).collect()
//! })?;
//! assert!(found[0].token_ids.len() <= 10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;

pub mod device;
mod device_processor;
mod error;
pub mod hooks;
mod hypothesis;
mod options;
pub mod twin;

pub use config::{GenerationConfig, Lengths, Mode, ModelLimits, Warning};
pub use error::{NotFinite, OptionError, OptionProblem, TwinError};
pub use hooks::Hooks;
pub use hypothesis::{FinishReason, Hypothesis};
pub use options::{EarlyStopping, ExponentialDecay, GenerationOptions, SequenceBias, StopStrings, TokenIds};
