//! How large the parts of a runner are for a batch. [`Room`] and the cache layout say what they consist of.

use std::ops::Range;

use elgen_attention::{Alike, CacheBytes, CacheFormat, CacheLayout, Extras, Kinds, Need, Pass, SlotFormat, Splits};
use elgen_tensor::Arena;

use super::room::{Room, RoomSize};
use crate::error::ModelError;
use crate::outline::Outline;
use crate::space::{Space, StackShape};

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
        self.tokens >= wanted.tokens && self.copies >= wanted.copies && self.extras.hold(wanted.extras)
    }

    /// What is held, unless something else is wanted that it does not serve.
    pub(super) fn kept(held: Option<Self>, wanted: Option<Self>) -> Option<Self> {
        match (held, wanted) {
            (Some(held), Some(wanted)) if !held.serves(&wanted) => Some(wanted),
            (Some(held), _) => Some(held),
            (None, wanted) => wanted,
        }
    }
}

/// What a runner holds from earlier batches and keeps where it serves.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) room: RoomSize,
    /// (self, cross) slots of each slab.
    pub(super) slabs: Vec<(u64, u64)>,
}

impl Footprint {
    /// That of a model which is not loaded.
    pub fn new(
        outline: &Outline,
        kinds: Kinds,
        cache: CacheFormat,
        max_binding_bytes: u64,
        prefill_budget: u64,
    ) -> Self {
        let layout = outline.cache_layout(kinds, cache);
        Self { encoder: outline.encoder, decoder: outline.decoder, layout, max_binding_bytes, prefill_budget }
    }

    /// Counts what a new runner allocates for a batch of `needs` where there are `rows` physical rows, and its uploads; gives the bytes of the
    /// cache slabs, which were counted too.
    ///
    /// # Errors
    /// A sentence larger than a slab can be; tensors wider than a kernel counts.
    pub fn count(&self, arena: &Arena, runs: &[Alike], rows: usize) -> Result<CacheBytes, ModelError> {
        self.count_beside(arena, &Held::default(), runs, rows)
    }

    /// As [`Footprint::count`] for a runner that keeps what it holds where that serves.
    pub(super) fn count_beside(
        &self,
        arena: &Arena,
        held: &Held,
        runs: &[Alike],
        rows: usize,
    ) -> Result<CacheBytes, ModelError> {
        // Slabs of one size that follow each other, as (slots, how many).
        let mut wanted: Vec<((u64, u64), u64)> = Vec::new();
        let mut count = 0_u64;
        self.layout.slab_runs(runs.iter().copied(), self.max_binding_bytes, |slab, slabs| {
            count = slabs.saturating_add(count);
            wanted.push((slab, slabs));
        })?;
        let each = || wanted.iter().flat_map(|(slab, slabs)| std::iter::repeat_n(slab, *slabs as usize));
        let serve =
            count <= held.slabs.len() as u64 && each().zip(&held.slabs).all(|(w, slab)| w.0 <= slab.0 && w.1 <= slab.1);
        let slabs = if serve { held.slabs.iter().map(|slab| (*slab, 1)).collect() } else { wanted };
        let mut caches = CacheBytes::default();
        for (slab, count) in &slabs {
            let bytes = self.layout.count_slabs(arena, *slab, *count)?;
            caches.self_ = caches.self_.saturating_add(bytes.self_);
            caches.cross = caches.cross.saturating_add(bytes.cross);
        }
        let cross_slots = slabs.iter().map(|(slab, _)| slab.1 as usize).max().unwrap_or(0);
        let size = self.batch_room(&held.room, runs, rows, cross_slots);
        Room::default().resize(arena, self, &size)?;
        Ok(caches)
    }

    /// The room of a runner behind the beginning of a batch where there are `rows` physical rows. `cross_slots`: cross slots of the largest
    /// slab.
    pub(super) fn batch_room(&self, held: &RoomSize, runs: &[Alike], rows: usize, cross_slots: usize) -> RoomSize {
        let step = (rows, self.step_extras(cross_slots, longest(runs)));
        let cross_rows = if self.encoder.is_some() { rows.max(held.cross_rows) } else { 0 };
        RoomSize { cross_rows, ..self.packed_room(held, runs, step) }
    }

    /// That of one whose rows are all packed: nothing is decoded step by step. `step`: what its step holds at least.
    pub(super) fn packed_room(&self, held: &RoomSize, runs: &[Alike], step: (usize, Extras)) -> RoomSize {
        let step = held.step.filter(|h| h.0 >= step.0 && h.1.hold(step.1)).unwrap_or(step);
        RoomSize {
            step: Some(step),
            cross_rows: held.cross_rows,
            encode: PackedSize::kept(held.encode, self.encoder.map(|_| self.encode_size(runs))),
            prompt: PackedSize::kept(held.prompt, self.prompt_size(runs, step.1.cross_slots)),
        }
    }

    /// Rows of a decode step that one binding allows for each working tensor. `longest`: the most (source ids, decoder ids) of a sentence.
    pub fn max_rows(&self, longest: (usize, usize)) -> usize {
        Space::per_row(self.decoder, self.step_extras(0, longest)).per_binding(self.max_binding_bytes)
    }

    /// Key splits of sentences with at most so many (source ids, decoder ids).
    fn splits(&self, (source, decoder): (usize, usize)) -> Splits {
        Splits::of(decoder, if self.layout.cross_shape.is_some() { source } else { 0 })
    }

    /// What the working tensors of a step hold. `cross_slots`: those of the largest slab.
    pub(super) fn step_extras(&self, cross_slots: usize, longest: (usize, usize)) -> Extras {
        let works = |shape| self.layout.kinds.cross.works_on_cross_slots(Pass::Step, shape);
        Extras {
            kinds: self.layout.kinds,
            encodes: false,
            pass: Pass::Step,
            cross_slots: if self.layout.cross_shape.as_ref().is_some_and(works) { cross_slots } else { 0 },
            splits: self.splits(longest),
        }
    }

    /// What those of a decoder prompt hold. `cross_slots`: those of the step.
    pub(super) fn prompt_extras(&self, cross_slots: usize, longest: (usize, usize)) -> Extras {
        let splits = Splits { self_: 1, cross: self.splits(longest).cross };
        Extras { kinds: self.layout.kinds, encodes: false, pass: Pass::Prompt, cross_slots, splits }
    }

    /// What those of an encoder hold.
    fn encode_extras(&self) -> Extras {
        Extras { kinds: self.layout.kinds, encodes: true, ..Extras::default() }
    }

    /// The stretches that the encoder runs.
    pub(super) fn encode_chunks(&self, needs: &[Need]) -> Vec<Chunk> {
        let Some(shape) = self.encoder else { return Vec::new() };
        let lengths = needs.iter().map(|need| need.source_len);
        chunks(lengths, self.most_tokens(shape, self.encode_extras()))
    }

    /// The stretches that the decoder runs prompts in, all but their last ids.
    pub(super) fn prompt_chunks(&self, needs: &[Need], cross_slots: usize) -> Vec<Chunk> {
        let lengths = needs.iter().map(|need| need.prompt_len.saturating_sub(1));
        let extras = self.prompt_extras(cross_slots, longest(&Alike::runs(needs)));
        chunks(lengths, self.most_tokens(self.decoder, extras))
    }

    /// What the encoder's stretches need.
    pub(super) fn encode_size(&self, runs: &[Alike]) -> PackedSize {
        let slots = self.layout.cross_slots();
        let tokens = self.encoder.map_or(0, |shape| {
            let limit = self.most_tokens(shape, self.encode_extras());
            largest_chunk(runs.iter().map(|run| (run.need.source_len, run.count)), limit)
        });
        PackedSize { tokens, copies: slots.map_or(1, |slots| copies(runs, slots)), extras: self.encode_extras() }
    }

    /// What the decoder's stretches need; `None` if no prompt has more than one id.
    pub(super) fn prompt_size(&self, runs: &[Alike], cross_slots: usize) -> Option<PackedSize> {
        let extras = self.prompt_extras(cross_slots, longest(runs));
        let limit = self.most_tokens(self.decoder, extras);
        let tokens = largest_chunk(runs.iter().map(|run| (run.need.prompt_len.saturating_sub(1), run.count)), limit);
        let copies = copies(runs, self.layout.self_slots());
        (tokens > 0).then_some(PackedSize { tokens, copies, extras })
    }

    /// Packed rows of a stretch that the budget and one binding allow.
    fn most_tokens(&self, shape: StackShape, extras: Extras) -> usize {
        Space::per_row(shape, extras).within(self.prefill_budget, self.max_binding_bytes)
    }
}

/// Cuts a batch into stretches of at most `limit` packed rows; a sentence is never cut.
pub(super) fn chunks(lengths: impl Iterator<Item = usize>, limit: usize) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = Vec::new();
    for (s, length) in lengths.enumerate() {
        match chunks.last_mut() {
            Some(last) if last.tokens.saturating_add(length) <= limit => {
                last.sentences.end = s + 1;
                last.tokens += length;
            }
            _ => chunks.push(Chunk { sentences: s..s + 1, tokens: length }),
        }
    }
    chunks
}

/// Rows of the largest of [`chunks`], for runs of sentences of one length, as (length, how many). What this costs does not depend on the
/// number of sentences.
fn largest_chunk(runs: impl Iterator<Item = (usize, usize)>, limit: usize) -> usize {
    let (mut largest, mut open) = (0, None);
    for (length, mut count) in runs {
        let fit =
            |used: usize| limit.checked_sub(used).map_or(0, |rest| rest.checked_div(length).unwrap_or(usize::MAX));
        if let Some(used) = open {
            let joining = fit(used).min(count);
            open = Some(used + joining * length);
            largest = largest.max(used + joining * length);
            count -= joining;
        }
        if count > 0 {
            let whole = fit(0).clamp(1, count);
            largest = largest.max(whole * length);
            let rest = count % whole;
            open = Some(length * if rest == 0 { whole } else { rest });
        }
    }
    largest
}

/// The most (source ids, decoder ids) of a sentence.
pub(super) fn longest(runs: &[Alike]) -> (usize, usize) {
    runs.iter().fold((0, 0), |(s, d), Alike { need, .. }| {
        (need.source_len.max(s), need.prompt_len.saturating_add(need.max_new).max(d))
    })
}

/// Lists of slots: one for each copy of what beams could share.
fn copies(runs: &[Alike], slots: SlotFormat) -> usize {
    runs.iter().map(|run| slots.copies(run.need.width)).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_stretch_is_known_without_cutting() {
        for limit in [0, 1, 5, 12] {
            for runs in [
                [(3, 4), (5, 2), (1, 9)],
                [(0, 3), (7, 3), (12, 1)],
                [(13, 2), (1, 1), (0, 5)],
                [(2, 0), (4, 1), (6, 6)],
            ] {
                let lengths = runs.iter().flat_map(|(length, count)| std::iter::repeat_n(*length, *count));
                let expected = chunks(lengths, limit).iter().map(|chunk| chunk.tokens).max().unwrap_or(0);
                assert_eq!(largest_chunk(runs.into_iter(), limit), expected, "{runs:?} {limit}");
            }
        }
        assert_eq!(largest_chunk([(7, usize::MAX)].into_iter(), 100), 98);
        assert_eq!(largest_chunk([(usize::MAX, usize::MAX)].into_iter(), 100), usize::MAX);
        assert_eq!(largest_chunk([(0, usize::MAX)].into_iter(), 100), 0);
    }
}
