//! What a program needs around a model: load it, batch requests, stream, stop, and count what it costs.
//!
//! ```no_run
//! use elgen_engine::{GenerationOptions, Model, SessionOptions};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load("demo/bart-eng-fra", &SessionOptions::default())?;
//! let config = model.config(&GenerationOptions { num_beams: Some(4), ..GenerationOptions::default() })?;
//! for generation in model.generate(&["I was born in 1979.", "Where are you?"], &config)? {
//!     println!("{:?}", generation.sequences[0].text);
//! }
//! # Ok(()) }
//! ```
//!
//! A [`Model`] is shared by threads; each that generates has a [`Session`], a decoding context on the model's weights. A
//! session tells [`Events`]: results as they come, tokens, notices. Any number of requests may be given at once:
//!
//! ```no_run
//! use std::path::Path;
//! use elgen_engine::{GenerationOptions, Request, RunOptions, Session, SessionOptions, on_done};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut session = Session::load(Path::new("demo/bart-eng-fra"), &SessionOptions::default())?;
//! let config = session.model().config(&GenerationOptions::default())?;
//! let requests = [Request::new(0, "I was born in 1979.")];
//! session.generate(&requests, &config, &RunOptions::default(), &mut on_done(|_, result| match result {
//!     Ok(generation) => println!("{:?}", generation.sequences[0].text),
//!     Err(error) => eprintln!("{error}"),
//! }))?;
//! # Ok(()) }
//! ```

mod backoff;
mod batch;
pub mod bench;
mod bisect;
mod cancel;
mod capacity;
mod config_only;
mod context;
mod cpu_load;
mod description;
mod device_class;
mod devices;
mod encode;
mod error;
mod events;
mod generate;
pub mod hub;
mod inspect;
mod max_time;
mod metrics;
mod model;
mod options;
mod plan;
mod prepare;
mod registry;
mod request;
mod score;
mod session;
mod stop_strings;
mod stream;
mod totals;

pub use cancel::CancelToken;
pub use config_only::ConfigOnly;
pub use description::{ModelDescription, OptionSource, describe};
pub use device_class::{MeasuredClass, Measurement, OnMeasurement, device_class, measure_device};
pub use devices::{DeviceReport, best_device, devices};
pub use elgen_attention::planner::{ATTEND_FLOPS, Curve, DeviceClass, LINEAR_FLOPS};
pub use encode::HiddenStates;
pub use error::{EngineError, ErrorKind};
pub use events::{Events, Notice, OnDone, StreamedToken, on_done};
pub use inspect::{InspectedFile, Inspection, KindBytes, inspect};
pub use metrics::{AttentionKinds, Metrics, PeakBytes, PeakCacheBytes, PerStep, Seconds};
pub use model::{Model, ModelParts, open_device};
pub use options::{AttentionChoice, BatchSize, DtypeChoice, Expected, RunOptions, SessionOptions};
pub use plan::{
    AttentionPlan, BatchWorkload, Comparison, ElBreakEven, MemoryPlan, PlanRow, PlannedBytes, PlannedKinds, compared,
};
pub use registry::Registry;
pub use request::{Generation, Input, Request, RequestOptions, Sequence};
pub use score::{
    CorpusScore, CorpusSummary, Divergence, RunComparison, RunFileError, RunHeader, RunReader, RunWriter, SavedRecord,
    ScoreInput, ScoreRequest, SeeRow, TargetScore, TextWindows, WholeText, kl_divergence,
};
pub use session::Session;
pub use stop_strings::{StopStringCriterion, TokenBytes};

// What programs need beside: options, hooks, and what a model tells of itself.
pub use elgen_attention::{CacheFormat, Formats, Kind, Kinds};
pub use elgen_models::{ModelConfig, Tokenizer};
pub use elgen_search::hooks;
pub use elgen_search::hooks::{AllowedTokens, Hooks, LogitsProcessor, NoiseSource, SequenceView, Stage, StopCriterion};
pub use elgen_search::{
    EarlyStopping, ExponentialDecay, FinishReason, GenerationConfig, GenerationOptions, Mode, ModelLimits, NotFinite,
    OptionError, OptionProblem, SequenceBias, TokenIds,
};
pub use elgen_tensor::{Cooperative, Device, WeightFormat};
