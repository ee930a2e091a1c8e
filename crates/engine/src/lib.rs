//! What a program needs around a model: a session that loads it, batches requests, and counts what it costs.
//!
//! ```no_run
//! use std::path::Path;
//! use std::sync::atomic::AtomicBool;
//! use elgen_engine::{Input, Request, RunOptions, Session, SessionOptions};
//! use elgen_search::GenerationOptions;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut session = Session::load(Path::new("demo/bart-eng-fra"), &SessionOptions::default())?;
//! let asked = GenerationOptions { num_beams: Some(4), ..GenerationOptions::default() };
//! let (config, _warnings) = asked.or(session.checkpoint_options().clone()).resolve(&session.limits())?;
//! let requests = [Request { ordinal: 0, input: Input::Text("I was born in 1979.".into()) }];
//! session.generate(&requests, &config, &RunOptions::default(), &AtomicBool::new(false), &mut |_, result| match result {
//!     Ok(generation) => println!("{:?}", generation.sequences[0].text),
//!     Err(error) => eprintln!("{error}"),
//! })?;
//! # Ok(()) }
//! ```

mod batch;
mod devices;
mod error;
pub mod hub;
mod inspect;
mod prepare;
mod session;
mod types;

pub use devices::{DeviceReport, devices};
pub use error::EngineError;
pub use inspect::{InspectedFile, Inspection, KindBytes, inspect};
pub use session::{ModelDescription, Session, describe};
pub use types::*;
