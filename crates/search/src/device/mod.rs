//! The search on the device: what [`crate::twin`] defines, for a whole batch, with nothing read back but one word per
//! sentence and step.
//!
//! [`DeviceSearch`] records the kernels between a model's logits and its next step:
//!
//! | mode | kernels of one step |
//! |---|---|
//! | greedy | `process`, `renormalize` (each only if an option needs it), `select` |
//! | sampling | `process`, the warpers, `renormalize` (likewise), `select` |
//! | beam | `process`, `renormalize` (likewise), `candidates`, `beam_step`, `advance` |
//! | beam sampling | `process`, the warpers, `renormalize` (likewise), `candidates`, `beam_step`, `advance` |
//! | diverse beam | `process`, `candidates`; the host takes the step; `advance` |
//!
//! What the host plugs in (see [`crate::hooks`]) makes it read more:
//!
//! | plugged in | greedy, sampling | beams |
//! |---|---|---|
//! | token reports, stop criteria | the step's tokens instead of the open sentences | lists of candidates; the host takes the step |
//! | logits processors | also the logits, which go back processed | logits; the host takes the step |
//! | noise | nothing; noise goes to the device | the same |
//!
//! A sentence that is done is never touched again, so steps may be recorded ahead of knowing which sentences are, and a
//! result does not depend on the rest of the batch. The kernels work on the rows that [`Rows`] lists as active, in order,
//! with beams all rows of a sentence or none. Where the host sees the tokens of greedy search and sampling, a row that has
//! ended leaves the active rows at once.
//!
//! ```no_run
//! use elgen_search::GenerationConfig;
//! use elgen_search::device::{DecodeStep, DeviceSearch, Found, SearchError, SentenceStart};
//! use elgen_tensor::{Class, DType, Device, Rows};
//!
//! /// Runs a batch whose rows have begun.
//! fn run<M: DecodeStep>(
//!     device: &Device,
//!     config: &GenerationConfig,
//!     model: &mut M,
//!     rows: &mut Rows,
//!     starts: &[SentenceStart],
//! ) -> Result<Vec<Found>, M::Error>
//! where
//!     M::Error: From<SearchError>,
//! {
//!     let mut search = DeviceSearch::new(device, config, starts.len(), 64)?;
//!     let logits = device.tensor("logits", Class::Activations, rows.count(), model.vocab_size(), DType::F32)?;
//!     // Without beams, every token can be had as it comes.
//!     search.report_tokens(!config.mode.has_beams());
//!     search.begin(starts)?;
//!     let mut rec = device.recorder();
//!     loop {
//!         model.step(&mut rec, rows, &logits)?;
//!         let report = search.step(&mut rec, rows, &logits)?;
//!         for new in report.tokens {
//!             println!("sentence {}, sample {}: {} ({})", new.sentence, new.row, new.token, new.logprob);
//!         }
//!         if report.done.iter().all(|done| *done) {
//!             return Ok(search.finish()?);
//!         }
//!     }
//! }
//! ```

mod advance;
mod beam_step;
mod cancel;
mod candidates;
mod device_processors;
mod error;
mod host;
mod host_rows;
mod process;
mod renormalize;
mod results;
mod select;
mod settings;
mod sources;
mod state;
mod step;
mod warp;

use elgen_tensor::{Buffer, Device, Recorder, Rows, Tensor, TensorError};

use crate::config::{GenerationConfig, Lengths, Mode};
use crate::error::NotFinite;
use crate::hooks::Hooks;
use crate::hypothesis::Hypothesis;
use crate::twin::task::Task;
use results::{Beams, Slot, Trace};
use state::{BeamState, Host, Running, running_bytes, slot_bytes, trace_bytes};

pub use error::SearchError;
pub use state::{BatchTraits, SearchBuffers};

/// Shorthand for results of this module.
pub type Result<T, E = SearchError> = std::result::Result<T, E>;

/// What a sentence gives: its hypotheses, unless its scores were not finite.
pub type Found = Result<Vec<Hypothesis>, NotFinite>;

/// Beams plus candidates of a sentence at most: `beam_step` has one invocation for each.
pub const MAX_POOL: usize = 256;

/// A model that can be searched: one decode step on the device.
pub trait DecodeStep {
    /// Why a step fails.
    type Error: From<TensorError>;

    /// Number of token ids `V`.
    fn vocab_size(&self) -> usize;

    /// Records one decode step of the active rows: feeds `tokens[row][length - 1]` and writes `logits` `[active rows,
    /// V]` f32, row `i` being that of physical row `active[i]`, with pad columns of 0.
    ///
    /// # Errors
    /// The model's own.
    fn step(&mut self, rec: &mut Recorder, rows: &Rows, logits: &Tensor) -> Result<(), Self::Error>;
}

/// What the search must know of a sentence of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentenceStart<'a> {
    /// The input's number among all of a run: its random numbers depend on it, not on the batch.
    pub ordinal: u64,
    /// Its lengths, from [`GenerationConfig::lengths`].
    pub lengths: Lengths,
    /// Its decoder prompt.
    pub prompt: &'a [u32],
    /// Its encoder input; the prompt of a decoder-only model.
    pub source: &'a [u32],
}

/// What the search keeps of a sentence of the running batch.
struct Sentence {
    ordinal: u64,
    lengths: Lengths,
    prompt: Vec<u32>,
    source: Vec<u32>,
}

/// A token that a step appended (greedy search and sampling).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewToken {
    /// Index of the sentence in the batch.
    pub sentence: usize,
    /// Which sample of the sentence.
    pub row: usize,
    /// The token.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
}

/// What the host learns from a step.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct StepReport<'a> {
    /// For each sentence of the batch whether it is done.
    pub done: &'a [bool],
    /// What the step appended, if [`DeviceSearch::report_tokens`] asked for it.
    pub tokens: &'a [NewToken],
}

/// The state of a search over batches of up to a fixed number of sentences. All buffers are allocated once.
pub struct DeviceSearch {
    device: Device,
    config: GenerationConfig,
    buffers: SearchBuffers,
    starts: Vec<Sentence>,
    hooks: Hooks,
    report_tokens: bool,
    /// For each sentence of the batch whether it is done.
    done: Vec<bool>,
    /// What the last step appended.
    new_tokens: Vec<NewToken>,
    /// The recorder that holds what the host decided in the last step.
    advanced_in: Option<u64>,
    /// Sentences of the batch that were cancelled, and what they had by then.
    cancelled: Vec<(usize, Found)>,
    /// [`Rows::begun`] of the rows that were found to be those of the batch.
    checked_rows: Option<u64>,
    /// Whether this batch needs `process`.
    processes: bool,
    steps: usize,
}

impl std::fmt::Debug for DeviceSearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceSearch")
            .field("mode", &self.config.mode)
            .field("max_sentences", &self.buffers.max_sentences)
            .finish_non_exhaustive()
    }
}

impl DeviceSearch {
    /// Allocates everything for batches of up to `max_sentences` sentences with up to `max_new` new tokens each, and
    /// compiles the kernels.
    ///
    /// # Errors
    /// Options that cannot be run ([`GenerationConfig::check_fields`]), more beams than the kernels take, a vocabulary smaller than the
    /// candidates, or buffers that do not fit.
    pub fn new(device: &Device, config: &GenerationConfig, max_sentences: usize, max_new: usize) -> Result<Self> {
        let batch = BatchTraits::default();
        Self::over(SearchBuffers::build(&device.into(), config, max_sentences, max_new, batch)?)
    }

    /// A search with these buffers, on their device. Compiles the kernels.
    ///
    /// # Errors
    /// Buffers that were counted; a kernel that the device refuses.
    pub fn over(buffers: SearchBuffers) -> Result<Self> {
        let Some(device) = buffers.arena.device().cloned() else {
            return Err(SearchError::Batch { message: "the buffers of a search were counted, not allocated".into() });
        };
        let search = Self {
            device,
            config: buffers.config.clone(),
            buffers,
            starts: Vec::new(),
            hooks: Hooks::default(),
            report_tokens: false,
            done: Vec::new(),
            new_tokens: Vec::new(),
            advanced_in: None,
            checked_rows: None,
            cancelled: Vec::new(),
            processes: false,
            steps: 0,
        };
        search.compile()?;
        Ok(search)
    }

    fn compile(&self) -> Result<()> {
        let (device, config) = (&self.device, &self.config);
        process::kernel(device, config)?;
        if config.renormalize_logits {
            renormalize::kernel(device)?;
        }
        match &self.buffers.beams {
            Some(beams) => {
                candidates::kernel(device, config)?;
                if config.mode != Mode::DiverseBeam {
                    beam_step::kernel(device, config, beams.parts)?;
                }
                advance::kernel(device)?;
            }
            None => {
                select::kernel(device, config)?;
            }
        }
        warp::compile(device, config)
    }

    /// Rows of each sentence, its beams or samples.
    pub fn width(&self) -> usize {
        self.config.rows_per_sentence()
    }

    /// Rows of the running batch: the stride of the trace.
    fn batch_rows(&self) -> usize {
        self.starts.len() * self.width()
    }

    /// Starts a batch: sentence `s` owns the physical rows `s * width .. (s + 1) * width`.
    ///
    /// # Errors
    /// More sentences or new tokens than there is room for, an empty prompt, or one that fills its length; a processor on the device that
    /// cannot run in this search.
    pub fn begin(&mut self, starts: &[SentenceStart<'_>]) -> Result<()> {
        if starts.len() > self.buffers.max_sentences {
            return Err(SearchError::Batch {
                message: format!("{} sentences, room for {}", starts.len(), self.buffers.max_sentences),
            });
        }
        for (i, start) in starts.iter().enumerate() {
            let new = start.lengths.max_length.saturating_sub(start.prompt.len());
            if start.prompt.is_empty() || new == 0 || new > self.buffers.max_new {
                let message = format!(
                    "sentence {i}: a prompt of {} ids and a length of {}, room for 1 to {} new ids",
                    start.prompt.len(),
                    start.lengths.max_length,
                    self.buffers.max_new
                );
                return Err(SearchError::Batch { message });
            }
        }
        device_processors::check(&self.hooks, &self.config, self.traits())?;
        self.cancelled.clear();
        self.starts.clear();
        self.starts.extend(starts.iter().map(|start| Sentence {
            ordinal: start.ordinal,
            lengths: start.lengths,
            prompt: start.prompt.to_vec(),
            source: start.source.to_vec(),
        }));
        self.done.clear();
        self.done.resize(starts.len(), false);
        self.new_tokens.clear();
        self.advanced_in = None;
        self.checked_rows = None;
        self.buffers.sources.write(&self.device, &self.config, &self.starts)?;
        self.processes = process::is_needed(&self.config, &self.starts);
        self.steps = 0;
        self.buffers.prepare(self.traits())?;
        match &mut self.buffers.host {
            Host::Idle => {}
            Host::Beams(host) => host.begin(&self.config, &self.starts),
            Host::Rows(host) => host.begin(&self.starts, self.config.rows_per_sentence()),
        }
        if starts.is_empty() {
            return Ok(());
        }
        let width = self.width();
        self.buffers.settings.write_sentences(&self.device, &self.starts)?;
        self.device.write(&self.buffers.open, 0, bytemuck::cast_slice(&vec![width as u32; starts.len()]))?;
        if let Some(beams) = &self.buffers.beams {
            // Copies of the prompt would yield the same candidates, so only the first of each group may compete in the first
            // step.
            let group = width / self.config.num_beam_groups;
            let first = |beam: usize| if beam.is_multiple_of(group) { 0.0 } else { settings::MASKED };
            let running: Vec<Running> = (0..starts.len() * width)
                .map(|row| Running { score: first(row % width), token: 0, parent: (row % width) as u32, grows: 0 })
                .collect();
            self.device.write(&beams.running, 0, bytemuck::cast_slice(&running))?;
            if self.config.mode != Mode::DiverseBeam {
                self.device.write(
                    &beams.finished,
                    0,
                    bytemuck::cast_slice(&vec![Slot::EMPTY; starts.len() * width]),
                )?;
            }
        }
        Ok(())
    }

    /// Those of the coming batch. Its sources have been seen to.
    fn traits(&self) -> BatchTraits {
        let (processors, stops) = (&self.hooks.processors, &self.hooks.stop_criteria);
        BatchTraits {
            sees_tokens: !stops.is_empty() || (self.report_tokens && !self.config.mode.has_beams()),
            processors: !processors.is_empty(),
            noise: self.hooks.noise.is_some(),
            source_ids: 0,
        }
    }

    /// A sentence of the batch as the host's code takes it.
    fn task(&self, sentence: usize) -> Task<'_> {
        let start = &self.starts[sentence];
        Task {
            config: &self.config,
            lengths: start.lengths,
            ordinal: start.ordinal,
            source: &start.source,
            prompt_len: start.prompt.len(),
            hooks: &self.hooks,
        }
    }

    /// Plugs in hooks for the batches that begin from now on; what they need is allocated there. Ends a batch that runs. Every mode can have
    /// every hook; noise without sampling has no effect.
    pub fn set_hooks(&mut self, hooks: Hooks) {
        self.hooks = hooks;
        self.starts.clear();
    }

    /// Whether [`DeviceSearch::step`] reports the tokens that it appends (greedy search and sampling), in the batches that
    /// begin from now on.
    pub fn report_tokens(&mut self, report: bool) {
        self.report_tokens = report;
    }

    /// Reads the sequences of the batch: for each sentence `num_return_sequences`, for beam search the best first, or that its scores
    /// were not finite.
    ///
    /// Sentences that are not done yet give what they have so far: each sample, or the best of finished and running hypotheses, as if
    /// the running ones ended here. Those that had not ended are [`FinishReason::Cancelled`](crate::FinishReason::Cancelled); in beam
    /// search all are, for the order among them was not settled, and there may be fewer.
    ///
    /// # Errors
    /// The device failed, or its trace is broken.
    pub fn finish(&mut self) -> Result<Vec<Found>> {
        let mut found = self.found()?;
        for (sentence, then) in &self.cancelled {
            found[*sentence].clone_from(then);
        }
        Ok(found)
    }

    fn found(&mut self) -> Result<Vec<Found>> {
        let rows = self.batch_rows();
        let steps = self.steps.min(self.buffers.max_new);
        if rows == 0 || steps == 0 {
            return Ok(vec![Ok(Vec::new()); self.starts.len()]);
        }
        match &self.buffers.host {
            Host::Idle => {}
            Host::Beams(host) => return Ok(host.finish(&self.config, |sentence| self.task(sentence))),
            Host::Rows(host) => return Ok(host.finish(&self.starts, self.width())),
        }
        if self.buffers.beams.is_some() {
            self.submit(&mut self.device.recorder())?;
        }
        let trace: Vec<Trace> = self.read(&self.buffers.trace, trace_bytes(rows, steps))?;
        match &self.buffers.beams {
            Some(beams) => {
                let slots: Vec<Slot> = self.read(&beams.finished, slot_bytes(rows))?;
                let running: Vec<Running> = self.read(&beams.running, running_bytes(rows))?;
                let batch = Beams { trace: &trace, rows, steps, slots: &slots, running: &running };
                results::beams(&self.config, &batch, &self.done)
            }
            None => Ok(results::appended(&self.config, &self.starts, &trace, rows)),
        }
    }

    fn read<T: bytemuck::Pod>(&self, from: &Buffer, bytes: u64) -> Result<Vec<T>> {
        let read = |bytes: &[u8]| bytemuck::pod_collect_to_vec(bytes);
        Ok(self.device.recorder().submit_and_see(&self.buffers.result_readback, from, bytes, read)?)
    }
}
