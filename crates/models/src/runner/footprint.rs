//! What a batch takes, before anything is allocated. The runner allocates by the same rules.

use std::ops::Range;

use elgen_attention::{CacheBytes, CacheLayout, Extras, Kind, Kinds, Need};
use elgen_tensor::{Class, DType, Tally};

use crate::error::ModelError;
use crate::layers::{Space, StackShape};
use crate::outline::Outline;

/// Bytes of working tensors that an encoder or prefill micro-batch may take, unless one sentence alone needs more.
pub const DEFAULT_PREFILL_BUDGET: u64 = 128 << 20;

/// The budget of micro-batches under a memory limit: at most an eighth of it.
pub fn prefill_budget(memory_limit: u64) -> u64 {
    DEFAULT_PREFILL_BUDGET.min(memory_limit / 8)
}

/// What decides the bytes of a [`crate::Runner`] beside the sentences of its batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Footprint {
    /// Widths of the encoder's working tensors; `None` for decoder-only models.
    pub encoder: Option<StackShape>,
    /// Widths of the decoder's working tensors.
    pub decoder: StackShape,
    /// What the caches hold.
    pub layout: CacheLayout,
    /// Bytes that one binding holds.
    pub max_binding_bytes: u64,
    /// Bytes of working tensors of a micro-batch.
    pub prefill_budget: u64,
}

/// A stretch of sentences whose packed rows run together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) sentences: Range<usize>,
    pub(super) tokens: usize,
}

/// Working tensors and index buffers of packed rows: what decides their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PackedSize {
    pub(super) tokens: usize,
    /// Lists of slots.
    pub(super) copies: usize,
    pub(super) extras: Extras,
}

impl PackedSize {
    /// True if buffers of this size also serve `wanted`.
    pub(super) fn serves(&self, wanted: &Self) -> bool {
        self.tokens >= wanted.tokens
            && self.copies >= wanted.copies
            && self.extras.memory_slots >= wanted.extras.memory_slots
    }

    /// Counts the buffers and their uploads.
    pub(super) fn tally(&self, shape: StackShape, tally: &mut Tally) {
        Space::tally(shape, self.tokens, self.extras, tally);
        let tokens = self.tokens as u64;
        // Ids with positions, numbers, ranges, groups, cross ranges, and the lists of slots.
        let slots = std::iter::repeat_n(4, self.copies);
        for bytes in [8, 4, 8, 8, 8].into_iter().chain(slots).map(|each| tokens * each) {
            tally.buffer(Class::Activations, bytes);
            tally.upload(bytes);
        }
    }
}

/// What a runner holds from earlier batches and keeps where it serves.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) encode: Option<PackedSize>,
    pub(super) prompt: Option<PackedSize>,
    /// Rows of a step and what their working tensors were made for.
    pub(super) step: Option<(usize, Extras)>,
    /// (self, cross) slots of each slab.
    pub(super) slabs: Vec<(u64, u64)>,
    pub(super) cross_ranges: u64,
}

impl Footprint {
    /// That of a model which is not loaded.
    pub fn new(outline: &Outline, kinds: Kinds, dtype: DType, max_binding_bytes: u64, prefill_budget: u64) -> Self {
        let layout = outline.cache_layout(kinds, dtype);
        Self { encoder: outline.encoder, decoder: outline.decoder, layout, max_binding_bytes, prefill_budget }
    }

    /// Counts what a new runner allocates for a batch of `needs` where there are `rows` physical rows, and its uploads; gives the bytes of the
    /// cache slabs, which the tally holds too.
    ///
    /// # Errors
    /// A sentence larger than a slab can be.
    pub fn tally(&self, needs: &[Need], rows: usize, tally: &mut Tally) -> Result<CacheBytes, ModelError> {
        self.tally_beside(&Held::default(), needs, rows, tally)
    }

    /// As [`Footprint::tally`] for a runner that keeps what it holds where that serves.
    pub(super) fn tally_beside(
        &self,
        held: &Held,
        needs: &[Need],
        rows: usize,
        tally: &mut Tally,
    ) -> Result<CacheBytes, ModelError> {
        let wanted = self.layout.slabs(needs.iter().copied(), self.max_binding_bytes)?;
        let serve = wanted.len() <= held.slabs.len()
            && wanted.iter().zip(&held.slabs).all(|(w, slab)| w.0 <= slab.0 && w.1 <= slab.1);
        let slabs = if serve { &held.slabs } else { &wanted };
        let mut caches = CacheBytes::default();
        for slab in slabs {
            let bytes = self.layout.slab_bytes(*slab);
            let layers = [(self.layout.layers, bytes.self_), (self.layout.cross_buffers(), bytes.cross)];
            for (buffers, bytes) in layers.into_iter().filter(|(buffers, _)| *buffers > 0) {
                tally.buffers(Class::Cache, bytes, bytes / buffers as u64);
            }
            caches.self_ += bytes.self_;
            caches.cross += bytes.cross;
        }
        let memory_slots = slabs.iter().map(|slab| slab.1 as usize).max().unwrap_or(0);

        let mut step = (rows, self.step_extras(memory_slots));
        if let Some(held) = held.step.filter(|h| h.0 >= step.0 && h.1.memory_slots >= step.1.memory_slots) {
            step = held;
        }
        Space::tally(self.decoder, step.0, step.1, tally);

        if let Some(shape) = self.encoder {
            let ranges = (rows as u64 * 8).max(held.cross_ranges);
            tally.buffer(Class::Cache, ranges);
            tally.upload(ranges);
            let size = self.encode_size(needs);
            held.encode.filter(|held| held.serves(&size)).unwrap_or(size).tally(shape, tally);
        }
        if let Some(size) = self.prompt_size(needs, step.1.memory_slots) {
            held.prompt.filter(|held| held.serves(&size)).unwrap_or(size).tally(self.decoder, tally);
        }
        Ok(caches)
    }

    /// Rows of a decode step that one binding allows for each working tensor.
    pub fn max_rows(&self) -> usize {
        Space::max_rows(self.max_binding_bytes, self.decoder, self.step_extras(0))
    }

    /// What the working tensors of a step hold. `memory_slots`: cross slots of the largest slab.
    pub(super) fn step_extras(&self, memory_slots: usize) -> Extras {
        let cross = self.layout.cross.map(|(_, kind)| kind);
        Extras {
            el: self.layout.self_kind == Kind::El || cross == Some(Kind::El),
            el_prefill: false,
            memory_slots: if cross == Some(Kind::MhaNocache) { memory_slots } else { 0 },
        }
    }

    /// What those of a decoder prompt hold. `memory_slots`: those of the step.
    fn prompt_extras(&self, memory_slots: usize) -> Extras {
        Extras {
            el: self.layout.cross.is_some_and(|(_, kind)| kind == Kind::El),
            el_prefill: self.layout.self_kind == Kind::El,
            memory_slots,
        }
    }

    /// The stretches that the encoder runs.
    pub(super) fn encode_chunks(&self, needs: &[Need]) -> Vec<Chunk> {
        let Some(shape) = self.encoder else { return Vec::new() };
        self.chunks(needs.iter().map(|need| need.source_len), shape, Extras::default())
    }

    /// The stretches that the decoder runs prompts in, all but their last ids.
    pub(super) fn prompt_chunks(&self, needs: &[Need], memory_slots: usize) -> Vec<Chunk> {
        let lengths = needs.iter().map(|need| need.prompt_len.saturating_sub(1));
        self.chunks(lengths, self.decoder, self.prompt_extras(memory_slots))
    }

    /// What the encoder's stretches need.
    pub(super) fn encode_size(&self, needs: &[Need]) -> PackedSize {
        let replicates = self.layout.cross.is_some_and(|(_, kind)| kind.replicates());
        let tokens = largest(&self.encode_chunks(needs));
        PackedSize { tokens, copies: copies(needs, replicates), extras: Extras::default() }
    }

    /// What the decoder's stretches need; `None` if no prompt has more than one id.
    pub(super) fn prompt_size(&self, needs: &[Need], memory_slots: usize) -> Option<PackedSize> {
        let tokens = largest(&self.prompt_chunks(needs, memory_slots));
        let copies = copies(needs, self.layout.self_kind.replicates());
        (tokens > 0).then(|| PackedSize { tokens, copies, extras: self.prompt_extras(memory_slots) })
    }

    /// Cuts a batch into stretches whose packed rows fit the budget and one binding; a sentence is never cut.
    fn chunks(&self, lengths: impl Iterator<Item = usize>, shape: StackShape, extras: Extras) -> Vec<Chunk> {
        let by_budget = (self.prefill_budget / Space::bytes_per_row(shape, extras).max(1)) as usize;
        let limit = by_budget.min(Space::max_rows(self.max_binding_bytes, shape, extras));
        let mut chunks: Vec<Chunk> = Vec::new();
        for (s, length) in lengths.enumerate() {
            match chunks.last_mut() {
                Some(last) if last.tokens + length <= limit => {
                    last.sentences.end = s + 1;
                    last.tokens += length;
                }
                _ => chunks.push(Chunk { sentences: s..s + 1, tokens: length }),
            }
        }
        chunks
    }
}

fn largest(chunks: &[Chunk]) -> usize {
    chunks.iter().map(|chunk| chunk.tokens).max().unwrap_or(0)
}

/// Lists of slots: one for each copy of what beams could share.
fn copies(needs: &[Need], replicates: bool) -> usize {
    if replicates { needs.iter().map(|need| need.width).max().unwrap_or(1) } else { 1 }
}
