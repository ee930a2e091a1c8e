//! What a batch will take, before anything is allocated.

use elgen_attention::{Extras, Kind, Splits};

use super::{Runner, Sentence};
use crate::layers::{Space, StackShape};

impl Runner {
    /// Bytes that a sentence of `width` rows adds to a batch: its cache slots and the working tensors of its rows in a
    /// decode step. `longest`: the most (source ids, decoder ids) of a sentence of the batch.
    pub fn sentence_bytes(&self, sentence: &Sentence<'_>, width: usize, longest: (usize, usize)) -> u64 {
        let layout = self.caches.layout();
        let cache = Self::cache_need(layout, sentence, width);
        let recomputed = match layout.cross {
            Some((shape, Kind::MhaNocache)) => sentence.source.len() as u64 * 2 * shape.inner() as u64 * 4,
            _ => 0,
        };
        // 8 bytes: the range of a row's cross slots.
        let row = Space::bytes_per_row(self.model.decoder_shape(), self.step_extras(0, longest)) + 8;
        cache.self_ + cache.cross + recomputed + width as u64 * row
    }

    /// Bytes of the working tensors that encode sources of `sources` ids and run prompts of `prompts` ids, the longest
    /// sentence having `longest` (source, prompt) ids.
    pub fn packed_bytes(&self, sources: usize, prompts: usize, longest: (usize, usize)) -> u64 {
        let layout = self.caches.layout();
        let part = |shape: StackShape, extras: Extras, tokens: usize, longest: usize| {
            // 36 bytes: id and position, number, two ranges, a group and a slot.
            let row = Space::bytes_per_row(shape, extras) + 36;
            (tokens as u64 * row).min(self.prefill_budget.max(longest as u64 * row))
        };
        let encoder = self.model.encoder_shape().map_or(0, |shape| part(shape, Extras::default(), sources, longest.0));
        let extras = Extras {
            el: layout.cross.is_some_and(|(_, kind)| kind == Kind::El),
            el_prefill: layout.self_kind == Kind::El,
            memory_slots: 0,
            splits: Splits { self_: 1, cross: self.splits((longest.0, 1)).cross },
        };
        encoder + part(self.model.decoder_shape(), extras, prompts, longest.1.saturating_sub(1))
    }

    /// Bytes of cache slabs and working tensors that are held between batches.
    pub fn held_bytes(&self) -> u64 {
        let decoder = self.model.decoder_shape();
        let of = |space: &Space, shape: StackShape| space.rows as u64 * Space::bytes_per_row(shape, space.extras);
        let encode = self.encode_space.as_ref().zip(self.model.encoder_shape()).map_or(0, |(p, s)| of(&p.space, s));
        let prompt = self.prompt_space.as_ref().map_or(0, |p| of(&p.space, decoder));
        let step = self.step_space.as_ref().map_or(0, |space| of(space, decoder));
        self.caches.slab_bytes() + encode + prompt + step
    }
}
