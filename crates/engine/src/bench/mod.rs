//! Measuring models: trials, what running one costs, and the settings of the EL-attention paper.
//!
//! ```no_run
//! use elgen_engine::bench::{BatchRows, Outcome, Sources, Trial, builtin_config, measure};
//! use elgen_engine::{Model, SessionOptions};
//! # fn main() -> Result<(), elgen_engine::EngineError> {
//! let model = Model::random(&builtin_config("bart-base", 1)?, 0, &SessionOptions::default())?;
//! let mut trial = Trial::new(Sources::Fixed(512), 32, 4);
//! trial.batch = BatchRows::Largest;
//! if let Outcome::Measured(cost) = measure(&model, &trial)? {
//!     println!("{} sentences: {:.1} ± {:.1} a second", cost.batch, cost.samples_per_second.mean, cost.samples_per_second.deviation);
//! }
//! # Ok(()) }
//! ```
//!
//! Outputs are forced to their length: EOS is banned before it, so that random weights, which mean nothing, do the same work for each
//! kind of attention.

mod configs;
mod measure;
mod presets;
mod sources;
mod spread;

pub use configs::{BUILTIN_CONFIGS, builtin_config, scaled_config};
pub use measure::{BatchRows, Outcome, Peaks, RunCost, Trial, measure, peaks};
pub use presets::{PRESETS, Preset};
pub use sources::Sources;
pub use spread::Spread;
