//! BART, mBART, Marian, Pegasus, T5, GPT-2 and OPT from unchanged Hugging Face directories: config, weights, tokenizer and graph.
//!
//! ```no_run
//! use elgen_attention::Kind;
//! use elgen_models::{Checkpoint, Kinds, ModelConfig, load};
//! use elgen_tensor::{DType, Device, DeviceOptions};
//! # fn main() -> Result<(), elgen_models::ModelError> {
//! let config = ModelConfig::load("demo/bart-eng-fra")?;
//! let checkpoint = Checkpoint::open("demo/bart-eng-fra")?;
//! let device = Device::open(&DeviceOptions::default())?;
//! let model = load(&device, &config, &checkpoint, Kinds::both(Kind::EL), DType::F32)?;
//! println!("{} ids, {} decoder layers", model.limits().vocab_size, model.cache_layout().layers);
//! # Ok(()) }
//! ```

mod architecture;
pub mod checkpoint;
pub mod config;
mod embeddings;
mod error;
pub mod families;
mod family;
mod feed_forward;
pub mod files;
#[cfg(feature = "testing")]
pub mod fuzzing;
pub mod generation_defaults;
mod json;
mod loader;
mod outline;
mod positions;
pub mod registry;
mod runner;
mod space;
mod stack;
pub mod tokenizer;
mod transformer;

pub use architecture::{Architecture, PassCx, Probe, ProbeFn};
pub use checkpoint::Checkpoint;
pub use elgen_attention::{Formats, Kinds};
pub use embeddings::InputEmbeddings;
pub use error::{CheckpointError, ConfigError, HeaderProblem, LanguageRole, ModelError, TokenizerError};
pub use family::{Family, FamilyConfig, LoadArgs, ModelConfig, ModelSummary, load};
pub use generation_defaults::{GenerationDefaults, GenerationSource};
pub use outline::Outline;
pub use registry::Families;
pub use runner::{
    Alignment, Continuation, DEFAULT_PREFILL_BUDGET, Footprint, LogitRows, Runner, SeeLogits, Sentence, prefill_budget,
};
pub use space::{Space, StackShape};
pub use tokenizer::{DEFAULT_TEXT_BYTES, LanguageTokens, TextStream, Tokenizer, TokenizerClass};
