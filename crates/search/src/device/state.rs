//! The buffers of a search: the one list of them, allocated for its batches or counted for a plan.

use elgen_tensor::{Arena, Buffer, Class, Readback, product};

use super::candidates::{Parts, list_bytes};
use super::host::HostBeams;
use super::host_rows::HostRows;
use super::results::{Slot, Trace};
use super::settings::Settings;
use super::sources::Sources;
use super::{MAX_POOL, Result, SearchError};
use crate::config::{GenerationConfig, Mode};

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

impl BatchTraits {
    /// Who takes the steps.
    fn steps(&self, config: &GenerationConfig) -> Steps {
        let takes_part = self.processors || self.sees_tokens;
        if config.mode == Mode::DiverseBeam || (config.mode.has_beams() && takes_part) {
            Steps::Beams { by_logits: self.processors || needs_logits(config) }
        } else if takes_part {
            Steps::Rows { logits: self.processors }
        } else {
            Steps::Device
        }
    }

    /// Whether the host computes scores from whole rows of logits.
    pub(super) fn reads_logits(&self, config: &GenerationConfig) -> bool {
        matches!(self.steps(config), Steps::Beams { by_logits: true } | Steps::Rows { logits: true })
    }

    /// Rows of noise on the device, of `rows` that there are. Where the host draws, it needs none.
    fn noise_rows(&self, config: &GenerationConfig, rows: usize) -> usize {
        let drawn_here = self.steps(config) == Steps::Beams { by_logits: true };
        if self.noise && config.mode.samples() && !drawn_here { rows } else { 0 }
    }
}

/// Who takes a batch's steps, and what it reads for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Steps {
    Device,
    Beams { by_logits: bool },
    Rows { logits: bool },
}

/// What takes a batch's steps beside the device.
#[derive(Default)]
pub(super) enum Host {
    /// The device alone.
    #[default]
    Idle,
    Beams(HostBeams),
    Rows(HostRows),
}

impl Host {
    fn build(arena: &Arena, config: &GenerationConfig, rows: usize, steps: Steps) -> Result<Self> {
        Ok(match steps {
            Steps::Device => Self::Idle,
            Steps::Beams { by_logits } => Self::Beams(HostBeams::build(arena, config, rows, by_logits)?),
            Steps::Rows { logits } => Self::Rows(HostRows::build(arena, config, rows, logits)?),
        })
    }

    fn steps(&self) -> Steps {
        match self {
            Self::Idle => Steps::Device,
            Self::Beams(host) => Steps::Beams { by_logits: host.is_by_logits() },
            Self::Rows(host) => Steps::Rows { logits: host.reads_logits() },
        }
    }
}

/// The running score of a physical row, and what it continues with.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Running {
    pub(super) score: f32,
    pub(super) token: u32,
    /// Beam that it takes over.
    pub(super) parent: u32,
    /// 0 once the sentence is done.
    pub(super) grows: u32,
}

/// Beam search's own buffers.
pub(super) struct BeamState {
    pub(super) parts: Parts,
    /// `[row]`: [`Running`].
    pub(super) running: Buffer,
    /// `[active row][part][candidate]`: token, log-probability, and when sampling the drawn key.
    pub(super) lists: Buffer,
    /// `[sentence][beam]`: [`Slot`].
    pub(super) finished: Buffer,
}

impl BeamState {
    fn build(arena: &Arena, config: &GenerationConfig, rows: usize) -> Result<Self> {
        let (running, finished) = (running_bytes(rows), kept_slots(config, rows));
        arena.will_upload(running.max(finished));
        let buffer = |what: &str, bytes: u64| arena.buffer(what, Class::Activations, bytes);
        Ok(Self {
            parts: Parts::of(config.vocab_size),
            running: buffer("running beams", running)?,
            lists: buffer("search candidates", list_bytes(rows, config))?,
            finished: buffer("finished beams", finished)?,
        })
    }
}

/// All buffers of a search over batches of up to a fixed number of sentences: on a device they make a [`super::DeviceSearch`]; counted they
/// tell what that would take.
pub struct SearchBuffers {
    /// Where they come from.
    pub(super) arena: Arena,
    pub(super) config: GenerationConfig,
    pub(super) max_sentences: usize,
    pub(super) max_new: usize,
    pub(super) settings: Settings,
    pub(super) sources: Sources,
    /// `[sentence]`: rows that still work (beam search: 0 or not); 0 is done.
    pub(super) open: Buffer,
    /// `[new token][row of the batch]`: [`Trace`].
    pub(super) trace: Buffer,
    pub(super) beams: Option<BeamState>,
    pub(super) open_readback: Readback,
    pub(super) result_readback: Readback,
    pub(super) host: Host,
}

impl std::fmt::Debug for SearchBuffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SearchBuffers")
            .field("mode", &self.config.mode)
            .field("max_sentences", &self.max_sentences)
            .finish_non_exhaustive()
    }
}

impl SearchBuffers {
    /// Allocates or counts everything for batches with these traits of up to `max_sentences` sentences with up to `max_new` new tokens each.
    /// Batches with other traits change it where they begin.
    ///
    /// # Errors
    /// Buffers that do not fit; on a device also what [`super::DeviceSearch::new`] refuses.
    pub fn build(
        arena: &Arena,
        config: &GenerationConfig,
        max_sentences: usize,
        max_new: usize,
        batch: BatchTraits,
    ) -> Result<Self> {
        if arena.device().is_some() {
            check(config)?;
        }
        let rows = max_sentences.saturating_mul(config.rows_per_sentence());
        let (trace_bytes, open_bytes) = (kept_trace(config, rows, max_new), product(&[max_sentences, 4]));
        let (beams, slot_bytes) = match config.mode.has_beams() {
            true => (Some(BeamState::build(arena, config, rows)?), kept_slots(config, rows)),
            false => (None, 0),
        };
        arena.will_upload(open_bytes);
        let mut sources = Sources::default();
        if batch.source_ids > 0 {
            // If no id comes twice.
            sources.reserve(arena, config, max_sentences, batch.source_ids.saturating_mul(2))?;
        }
        Ok(Self {
            settings: Settings::build(arena, config, max_sentences, max_new, batch.noise_rows(config, rows))?,
            sources,
            open: arena.buffer("open sentences", Class::Activations, open_bytes)?,
            trace: arena.buffer("search trace", Class::Activations, trace_bytes)?,
            open_readback: arena.readback("open sentences", open_bytes)?,
            result_readback: arena.readback("search results", trace_bytes.max(slot_bytes))?,
            beams,
            host: Host::build(arena, config, rows, batch.steps(config))?,
            arena: arena.clone(),
            config: config.clone(),
            max_sentences,
            max_new,
        })
    }

    /// Sees to what a batch with these traits needs.
    pub(super) fn prepare(&mut self, batch: BatchTraits) -> Result<()> {
        let rows = self.max_sentences.saturating_mul(self.config.rows_per_sentence());
        let steps = batch.steps(&self.config);
        if self.host.steps() != steps {
            self.host = Host::Idle;
            self.host = Host::build(&self.arena, &self.config, rows, steps)?;
        }
        let noise_rows = batch.noise_rows(&self.config, rows);
        if self.settings.has_noise() != (noise_rows > 0) {
            self.settings = Settings::build(&self.arena, &self.config, self.max_sentences, self.max_new, noise_rows)?;
        }
        Ok(())
    }
}

/// Refuses what the kernels cannot run.
fn check(config: &GenerationConfig) -> Result<()> {
    config.check_fields()?;
    if !config.mode.has_beams() {
        return Ok(());
    }
    let (width, candidates) = (config.rows_per_sentence(), config.num_candidates());
    if config.mode != Mode::DiverseBeam && width.saturating_add(candidates) > MAX_POOL {
        return Err(SearchError::TooManyBeams { beams: width, candidates, limit: MAX_POOL });
    }
    if width.saturating_mul(config.vocab_size) < candidates {
        return Err(SearchError::VocabularyTooSmall { vocab_size: config.vocab_size, beams: width, candidates });
    }
    Ok(())
}

pub(super) fn trace_bytes(rows: usize, new_tokens: usize) -> u64 {
    product(&[rows, new_tokens, size_of::<Trace>()])
}

pub(super) fn slot_bytes(rows: usize) -> u64 {
    product(&[rows, size_of::<Slot>()])
}

pub(super) fn running_bytes(rows: usize) -> u64 {
    product(&[rows, size_of::<Running>()])
}

/// Bytes of the trace, which diverse beams have on the host.
fn kept_trace(config: &GenerationConfig, rows: usize, max_new: usize) -> u64 {
    if config.mode == Mode::DiverseBeam { 0 } else { trace_bytes(rows, max_new) }
}

/// Bytes of the finished slots of beams, which diverse ones have on the host.
fn kept_slots(config: &GenerationConfig, rows: usize) -> u64 {
    if config.mode == Mode::DiverseBeam { 0 } else { slot_bytes(rows) }
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
