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
//!         for new in &report.tokens {
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
mod error;
mod host;
mod host_rows;
mod process;
mod renormalize;
mod results;
mod select;
mod settings;
mod sources;
mod warp;

use elgen_tensor::{
    Buffer, Class, DType, Device, Pending, Readback, Recorder, Rows, Tally, Tensor, TensorError, padded, product,
};

use crate::config::{GenerationConfig, Lengths, Mode};
use crate::error::NotFinite;
use crate::hooks::Hooks;
use crate::hypothesis::Hypothesis;
use crate::twin::task::Task;
use candidates::{Parts, list_bytes};
use host::HostBeams;
use host_rows::HostRows;
use results::{Beams, Slot, Trace};
use settings::{Settings, noise_bytes};
use sources::Sources;

pub use error::SearchError;

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

/// What decides the bytes of a batch beside its sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchTraits {
    /// The host sees each step's tokens: they are reported, or there are stop criteria.
    pub sees_tokens: bool,
    /// There are users' logits processors.
    pub processors: bool,
    /// There is noise from outside.
    pub noise: bool,
    /// Ids of all sources, for the options that look at them.
    pub source_ids: usize,
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

/// The running score of a physical row, and what it continues with.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Running {
    score: f32,
    token: u32,
    /// Beam that it takes over.
    parent: u32,
    /// 0 once the sentence is done.
    grows: u32,
}

/// Beam search's own buffers.
struct BeamState {
    parts: Parts,
    /// `[row]`: [`Running`].
    running: Buffer,
    /// `[active row][part][candidate]`: token, log-probability, and when sampling the drawn key.
    lists: Buffer,
    /// `[sentence][beam]`: [`Slot`].
    finished: Buffer,
}

/// Who takes a batch's steps.
#[derive(Default)]
enum Host {
    /// The device alone.
    #[default]
    Idle,
    Beams(HostBeams),
    Rows(HostRows),
}

/// The state of a search over batches of up to a fixed number of sentences. All buffers are allocated once.
pub struct DeviceSearch {
    device: Device,
    config: GenerationConfig,
    settings: Settings,
    sources: Sources,
    /// `[sentence]`: rows that still work (beam search: 0 or not); 0 is done.
    open: Buffer,
    /// `[new token][row of the batch]`: [`Trace`].
    trace: Buffer,
    beams: Option<BeamState>,
    open_readback: Readback,
    result_readback: Readback,
    max_sentences: usize,
    max_new: usize,
    starts: Vec<Sentence>,
    host: Host,
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
            .field("max_sentences", &self.max_sentences)
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
        config.check_fields()?;
        let (width, candidates) = (config.rows_per_sentence(), config.num_candidates());
        let rows = max_sentences.saturating_mul(width);
        let alloc = |what: &str, bytes: u64| device.alloc(what, Class::Activations, bytes);
        let (trace_bytes, slot_bytes) = kept_bytes(config, rows, max_new);
        let mut result_bytes = trace_bytes;
        let beams = if config.mode.has_beams() {
            if config.mode != Mode::DiverseBeam && width.saturating_add(candidates) > MAX_POOL {
                return Err(SearchError::TooManyBeams { beams: width, candidates, limit: MAX_POOL });
            }
            if width.saturating_mul(config.vocab_size) < candidates {
                return Err(SearchError::VocabularyTooSmall {
                    vocab_size: config.vocab_size,
                    beams: width,
                    candidates,
                });
            }
            let parts = Parts::of(config.vocab_size);
            result_bytes = result_bytes.max(slot_bytes);
            Some(BeamState {
                parts,
                running: alloc("running beams", running_bytes(rows))?,
                lists: alloc("search candidates", list_bytes(rows, config))?,
                finished: alloc("finished beams", slot_bytes)?,
            })
        } else {
            None
        };
        let search = Self {
            device: device.clone(),
            config: config.clone(),
            settings: Settings::new(device, config, max_sentences, max_new, 0)?,
            sources: Sources::default(),
            open: alloc("open sentences", product(&[max_sentences, 4]))?,
            trace: alloc("search trace", trace_bytes)?,
            beams,
            open_readback: device.readback("open sentences", product(&[max_sentences, 4]))?,
            result_readback: device.readback("search results", result_bytes)?,
            max_sentences,
            max_new,
            starts: Vec::new(),
            host: if config.mode == Mode::DiverseBeam {
                Host::Beams(HostBeams::new(device, config, rows, needs_logits(config))?)
            } else {
                Host::Idle
            },
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

    /// Counts what [`DeviceSearch::new`] allocates for these sizes and what a batch of that many sentences adds to it where it begins.
    pub fn tally(
        config: &GenerationConfig,
        max_sentences: usize,
        max_new: usize,
        batch: BatchTraits,
        tally: &mut Tally,
    ) {
        let rows = max_sentences.saturating_mul(config.rows_per_sentence());
        let (trace_bytes, slot_bytes) = kept_bytes(config, rows, max_new);
        let class = Class::Activations;
        let mut result_bytes = trace_bytes;
        if config.mode.has_beams() {
            result_bytes = result_bytes.max(slot_bytes);
            for bytes in [running_bytes(rows), list_bytes(rows, config), slot_bytes] {
                tally.buffer(class, bytes);
            }
            tally.upload(running_bytes(rows).max(slot_bytes));
        }
        let open = product(&[max_sentences, 4]);
        let settings = Settings::bytes(config, max_sentences, max_new);
        let noise = if batch.noise && config.mode.samples() { noise_bytes(config, rows) } else { 0 };
        tally.buffer(class, settings.saturating_add(noise));
        tally.upload(settings.max(noise));
        tally.buffer(class, open);
        tally.buffer(class, trace_bytes);
        tally.readback(open);
        tally.readback(result_bytes);
        if Sources::are_needed(config) && batch.source_ids > 0 {
            let bytes = Sources::most_bytes(max_sentences, batch.source_ids);
            tally.buffer(class, bytes);
            tally.upload(bytes);
        }
        let takes_part = batch.processors || batch.sees_tokens;
        if config.mode == Mode::DiverseBeam || (config.mode.has_beams() && takes_part) {
            HostBeams::tally(config, rows, batch.processors || needs_logits(config), tally);
        } else if takes_part {
            HostRows::tally(config, rows, batch.processors, tally);
        }
    }

    fn compile(&self) -> Result<()> {
        let (device, config) = (&self.device, &self.config);
        process::kernel(device, config)?;
        if config.renormalize_logits {
            renormalize::kernel(device)?;
        }
        match &self.beams {
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
    /// More sentences or new tokens than there is room for, an empty prompt, or one that fills its length.
    pub fn begin(&mut self, starts: &[SentenceStart<'_>]) -> Result<()> {
        if starts.len() > self.max_sentences {
            return Err(SearchError::Batch {
                message: format!("{} sentences, room for {}", starts.len(), self.max_sentences),
            });
        }
        for (i, start) in starts.iter().enumerate() {
            let new = start.lengths.max_length.saturating_sub(start.prompt.len());
            if start.prompt.is_empty() || new == 0 || new > self.max_new {
                let message = format!(
                    "sentence {i}: a prompt of {} ids and a length of {}, room for 1 to {} new ids",
                    start.prompt.len(),
                    start.lengths.max_length,
                    self.max_new
                );
                return Err(SearchError::Batch { message });
            }
        }
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
        self.sources.write(&self.device, &self.config, &self.starts)?;
        self.processes = process::is_needed(&self.config, &self.starts);
        self.steps = 0;
        self.prepare_host()?;
        if starts.is_empty() {
            return Ok(());
        }
        let width = self.width();
        self.settings.write_sentences(&self.device, &self.starts)?;
        self.device.write(&self.open, 0, bytemuck::cast_slice(&vec![width as u32; starts.len()]))?;
        if let Some(beams) = &self.beams {
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

    /// Sees to what the hooks and reports of the coming batch need.
    fn prepare_host(&mut self) -> Result<()> {
        let (device, config, width) = (&self.device, &self.config, self.config.rows_per_sentence());
        let rows = self.max_sentences.saturating_mul(width);
        let (processes, stops) = (!self.hooks.processors.is_empty(), !self.hooks.stop_criteria.is_empty());
        let by_logits = processes || needs_logits(config);
        let old = std::mem::take(&mut self.host);
        self.host = if config.mode.has_beams() {
            match old {
                _ if config.mode != Mode::DiverseBeam && !processes && !stops => Host::Idle,
                Host::Beams(host) if host.is_by_logits() == by_logits => Host::Beams(host),
                _ => Host::Beams(HostBeams::new(device, config, rows, by_logits)?),
            }
        } else {
            match old {
                _ if !self.report_tokens && !processes && !stops => Host::Idle,
                Host::Rows(host) if host.reads_logits() == processes => Host::Rows(host),
                _ => Host::Rows(HostRows::new(device, config, rows, processes)?),
            }
        };
        match &mut self.host {
            Host::Idle => {}
            Host::Beams(host) => host.begin(config, &self.starts),
            Host::Rows(host) => host.begin(&self.starts, width),
        }
        // Where the host draws, it needs no noise on the device.
        let drawn_here = matches!(&self.host, Host::Beams(host) if host.is_by_logits());
        let has_noise = self.hooks.noise.is_some() && config.mode.samples() && !drawn_here;
        if has_noise != self.settings.has_noise() {
            let noise_rows = if has_noise { rows } else { 0 };
            self.settings = Settings::new(device, config, self.max_sentences, self.max_new, noise_rows)?;
        }
        Ok(())
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

    /// Records what follows a decode step: `logits` `[active rows or more, V]` f32 are turned into scores in place,
    /// every active row takes its next token, and `rows` stands for the next step. Sentences that are done stay as they
    /// are.
    ///
    /// # Errors
    /// Logits, tables or active rows that do not fit the search; or the host takes part in this batch's steps, which needs
    /// [`DeviceSearch::step`].
    pub fn record_step(&mut self, rec: &mut Recorder, rows: &mut Rows, logits: &Tensor) -> Result<()> {
        if !matches!(self.host, Host::Idle) || self.settings.has_noise() {
            let message = "diverse beams, hooks and reports need whole steps".to_owned();
            return Err(SearchError::Batch { message });
        }
        self.check_step(rec, rows, logits)?;
        self.record_checked(rec, rows, logits)
    }

    /// Rows that kernels take on trust: those of the batch's sentences, with room for all ids that they may get (of ids beyond the vocabulary
    /// the kernels themselves keep off). Looked at once, until the rows begin anew.
    fn check_rows(&mut self, rows: &Rows) -> Result<()> {
        if self.checked_rows == Some(rows.begun()) {
            return Ok(());
        }
        let width = self.width();
        for row in 0..self.batch_rows() {
            let (sentence, start) = (row / width, &self.starts[row / width]);
            let fits = rows.start(row as u32).is_some_and(|(state, max_length)| {
                let place = [state.sentence, state.beam, state.width].map(|number| number as usize);
                place == [sentence, row % width, width]
                    && [state.prompt_len, state.length] == [start.prompt.len() as u32; 2]
                    && max_length >= start.lengths.max_length
            });
            if !fits {
                let message = format!(
                    "row {row} did not begin as row {} of sentence {sentence} with a prompt of {} ids and room for {}",
                    row % width,
                    start.prompt.len(),
                    start.lengths.max_length
                );
                return Err(SearchError::Batch { message });
            }
        }
        self.checked_rows = Some(rows.begun());
        Ok(())
    }

    fn check_step(&mut self, rec: &Recorder, rows: &Rows, logits: &Tensor) -> Result<()> {
        self.check_rows(rows)?;
        if self.advanced_in.is_some_and(|id| id != rec.id()) {
            let message = "the recording of the step before goes on with this one, and was not given".to_owned();
            return Err(SearchError::Batch { message });
        }
        let (width, count) = (self.width(), rows.count());
        let longest = self.starts.iter().map(|start| start.lengths.max_length).max().unwrap_or(0);
        let batch = self.batch_rows();
        let problem = if logits.dtype != DType::F32 || logits.cols != self.config.vocab_size || logits.rows < count {
            Some(format!("logits {} for {count} rows and {} ids", logits.describe(), self.config.vocab_size))
        } else if rows.max_length() < longest {
            Some(format!("tables of {} ids for sequences of {longest}", rows.max_length()))
        } else if self.config.mode.has_beams() && !complete(rows.active_rows(), width, batch) {
            Some(format!("{count} active rows that are not whole sentences of {width} rows in a batch of {batch}"))
        } else if rows.active_rows().iter().any(|row| *row as usize >= batch) || !rows.active_rows().is_sorted() {
            Some(format!("{count} active rows that are not in order or not in a batch of {batch}"))
        } else {
            None
        };
        match problem {
            Some(message) => Err(SearchError::Batch { message }),
            None => Ok(()),
        }
    }

    fn record_checked(&mut self, rec: &mut Recorder, rows: &mut Rows, logits: &Tensor) -> Result<()> {
        self.steps += 1;
        if self.processes {
            self.process(rec, rows, logits)?;
        }
        self.warp(rec, rows, logits)?;
        if let Some(beams) = &self.beams {
            candidates::candidates(rec, self, beams, rows, logits)?;
            beam_step::beam_step(rec, self, beams, rows)?;
            advance::advance(rec, beams, rows)?;
            rows.flip();
        } else {
            select::select(rec, self, rows, logits)?;
        }
        Ok(())
    }

    /// Rows 2 to 15 of §4.
    fn process(&self, rec: &mut Recorder, rows: &Rows, logits: &Tensor) -> Result<()> {
        process::process(rec, &self.config, &self.settings, &self.sources, rows, &self.open, logits)
    }

    /// Rows 17 to 26 of §4, as far as options ask for them.
    fn warp(&self, rec: &mut Recorder, rows: &Rows, logits: &Tensor) -> Result<()> {
        warp::warp(rec, &self.config, &self.settings, rows, &self.open, logits)?;
        if self.config.renormalize_logits {
            renormalize::renormalize(rec, rows, &self.open, logits)?;
        }
        Ok(())
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

    /// Takes a recording that ends in a model's decode step, adds what follows, submits it and waits; the recorder goes on with the next
    /// step. `logits` are turned into scores in place, every active row takes its next token, and `rows` stands for the next step. With stop
    /// criteria or reports, rows without beams that have ended are active no more.
    ///
    /// # Errors
    /// Logits, tables or active rows that do not fit the search; the device failed; a hook failed.
    pub fn step(&mut self, rec: &mut Recorder, rows: &mut Rows, logits: &Tensor) -> Result<StepReport<'_>> {
        self.check_step(rec, rows, logits)?;
        self.new_tokens.clear();
        if self.settings.has_noise() {
            self.write_noise(rec, rows)?;
        }
        // Taken out while it works on the rest.
        let mut host = std::mem::take(&mut self.host);
        let stepped = match &mut host {
            Host::Beams(beams) => self.step_beams(beams, rec, rows, logits),
            Host::Rows(sequences) => self.step_rows(sequences, rec, rows, logits),
            Host::Idle => self.record_checked(rec, rows, logits).and_then(|()| self.submit(rec).map(drop)),
        };
        if !matches!(host, Host::Idle) {
            self.steps += 1;
        }
        self.advanced_in = matches!(host, Host::Beams(_)).then_some(rec.id());
        self.host = host;
        stepped?;
        Ok(StepReport { done: &self.done, tokens: &self.new_tokens })
    }

    /// Uploads the noise of the coming step, one padded row of the vocabulary for each active row.
    fn write_noise(&self, rec: &mut Recorder, rows: &Rows) -> Result<()> {
        let (vocab, ld, width) = (self.config.vocab_size, padded(self.config.vocab_size), self.width());
        let mut noise = vec![1.0; rows.count() * ld];
        for (row, out) in rows.active_rows().iter().zip(noise.chunks_mut(ld)) {
            let row = *row as usize;
            self.task(row / width).noise(row % width, self.steps, &mut out[..vocab]);
        }
        self.settings.write_noise(rec, &noise)
    }

    /// Submits a recording, waits for it, and tells which sentences of the batch are done: the one thing that the host reads of a step.
    ///
    /// # Errors
    /// The device failed.
    pub fn submit(&mut self, rec: &mut Recorder) -> Result<&[bool]> {
        let pending = self.record_done(rec)?;
        rec.submit()?;
        self.see_done(rec, pending)
    }

    /// Records what tells which sentences are done, for [`DeviceSearch::see_done`].
    ///
    /// # Errors
    /// What was recorded before was not seen.
    pub fn record_done(&self, rec: &mut Recorder) -> Result<Pending> {
        Ok(rec.read_back(&self.open_readback, &self.open, 0, self.starts.len() as u64 * 4)?)
    }

    /// Waits for what [`DeviceSearch::record_done`] recorded, and tells which sentences of the batch are done.
    ///
    /// # Errors
    /// The recording was not submitted; the device failed.
    pub fn see_done(&mut self, rec: &mut Recorder, pending: Pending) -> Result<&[bool]> {
        let done = &mut self.done;
        rec.see(pending, |bytes| {
            for (done, rows) in done.iter_mut().zip(bytes.chunks_exact(4)) {
                *done = rows == [0; 4];
            }
        })?;
        Ok(&self.done)
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
        let steps = self.steps.min(self.max_new);
        if rows == 0 || steps == 0 {
            return Ok(vec![Ok(Vec::new()); self.starts.len()]);
        }
        match &self.host {
            Host::Idle => {}
            Host::Beams(host) => return Ok(host.finish(&self.config, |sentence| self.task(sentence))),
            Host::Rows(host) => return Ok(host.finish(&self.starts, self.width())),
        }
        if self.beams.is_some() {
            self.submit(&mut self.device.recorder())?;
        }
        let trace: Vec<Trace> = self.read(&self.trace, trace_bytes(rows, steps))?;
        match &self.beams {
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
        Ok(self.device.recorder().submit_and_see(&self.result_readback, from, bytes, read)?)
    }
}

fn trace_bytes(rows: usize, new_tokens: usize) -> u64 {
    product(&[rows, new_tokens, size_of::<Trace>()])
}

fn slot_bytes(rows: usize) -> u64 {
    product(&[rows, size_of::<Slot>()])
}

fn running_bytes(rows: usize) -> u64 {
    product(&[rows, size_of::<Running>()])
}

/// Bytes of the trace and of the finished slots, which diverse beams have on the host.
fn kept_bytes(config: &GenerationConfig, rows: usize, max_new: usize) -> (u64, u64) {
    match config.mode {
        Mode::DiverseBeam => (0, 0),
        Mode::Beam | Mode::BeamSample => (trace_bytes(rows, max_new), slot_bytes(rows)),
        Mode::Greedy | Mode::Sample => (trace_bytes(rows, max_new), 0),
    }
}

/// Whether the host must see whole rows of logits: what diverse beams subtract comes before the processors, and the effect of
/// these on it cannot be told from a list of candidates.
fn needs_logits(config: &GenerationConfig) -> bool {
    config.mode == Mode::DiverseBeam
        && (config.encoder_repetition_penalty != 1.0
            || config.exponential_decay_length_penalty.is_some()
            || config.remove_invalid_values
            || config.renormalize_logits
            || !config.sequence_bias.is_empty())
}

/// Whether the rows are whole sentences of `width` rows in order, all within the batch.
fn complete(active: &[u32], width: usize, batch: usize) -> bool {
    active.len().is_multiple_of(width)
        && active.chunks(width).all(|rows| {
            let first = rows[0] as usize;
            first.is_multiple_of(width)
                && first + width <= batch
                && rows.iter().enumerate().all(|(beam, row)| *row as usize == first + beam)
        })
}
