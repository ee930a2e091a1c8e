//! What the caches of a model hold: slots, slabs of them, and what a sentence reserves.

use elgen_tensor::{Arena, Class, Tensor, TensorError, product};

use crate::error::AttentionError;
use crate::kind::{Kinds, Place};
use crate::shape::Shape;
use crate::slot_format::{CacheFormat, SlotFormat};

/// What a model needs from its caches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheLayout {
    /// Decoder layers.
    pub layers: usize,
    /// The attention kinds.
    pub kinds: Kinds,
    /// Shape of the decoder's self-attention.
    pub self_shape: Shape,
    /// Shape of cross-attention; `None` for decoder-only models.
    pub cross_shape: Option<Shape>,
    /// How caches are stored.
    pub format: CacheFormat,
}

impl CacheLayout {
    /// What self-attention caches for a position.
    pub fn self_slots(&self) -> SlotFormat {
        self.kinds.self_.slots(Place::SelfAttention, &self.self_shape, self.format)
    }

    /// What cross-attention caches for a source position; `None` for decoder-only models.
    pub fn cross_slots(&self) -> Option<SlotFormat> {
        self.cross_shape.as_ref().map(|shape| self.kinds.cross.slots(Place::CrossAttention, shape, self.format))
    }

    /// Bytes of one self slot over all layers (docs/el-attention.md §1.5: `2 L E s` or `L D s`).
    pub fn self_slot_bytes(&self) -> u64 {
        let slots = self.self_slots();
        slots.bytes().saturating_mul(slots.buffers_of(self.layers) as u64)
    }

    /// Bytes of one cross slot over all layers (docs/el-attention.md §1.5: `2 L E s` or `D s`).
    pub fn cross_slot_bytes(&self) -> u64 {
        self.cross_slots().map_or(0, |slots| slots.bytes().saturating_mul(slots.buffers_of(self.layers) as u64))
    }

    /// Bytes of the largest buffers that a slab of (self, cross) slots needs, those included that cross-attention works on. What
    /// kernels cannot count is larger than any binding.
    fn largest_buffers(&self, (self_slots, cross_slots): (u64, u64)) -> (u64, u64) {
        let counted = |build: &dyn Fn(&Arena) -> Result<(), TensorError>| {
            let arena = Arena::counting(u64::MAX);
            build(&arena).map_or(u64::MAX, |()| arena.tally().largest_binding())
        };
        let self_ = counted(&|arena| self.self_layers(arena, self_slots).map(drop));
        let cross = counted(&|arena| {
            self.cross_layers(arena, cross_slots)?;
            match &self.cross_shape {
                Some(shape) => self.kinds.cross.cross_scratch(arena, shape, cross_slots as usize),
                None => Ok(()),
            }
        });
        (self_, cross)
    }

    /// Slots of one slab that one binding holds and kernels can count: (self, cross).
    fn slab_limits(&self, max_binding_bytes: u64) -> (u64, u64) {
        let (self_, cross) = self.largest_buffers((1, 1));
        let slots = |slot: u64| max_binding_bytes.checked_div(slot).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
        (slots(self_), slots(cross))
    }

    /// The slabs that hold these sentences, admitted in order, where a binding holds `max_binding_bytes`: (self, cross) slots of each. Nothing
    /// is lost between sentences; a slab ends where the next sentence would not fit.
    ///
    /// # Errors
    /// A sentence larger than a slab can be.
    pub fn slabs(
        &self,
        needs: impl IntoIterator<Item = Need>,
        max_binding_bytes: u64,
    ) -> Result<Vec<(u64, u64)>, AttentionError> {
        let mut slabs = Vec::new();
        let runs = needs.into_iter().map(|need| Alike { need, count: 1 });
        self.slab_runs(runs, max_binding_bytes, |slab, count| slabs.extend(std::iter::repeat_n(slab, count as usize)))?;
        Ok(slabs)
    }

    /// As [`CacheLayout::slabs`] for runs of sentences that need the same: `see` gets each slab and how many of that size follow each other.
    /// What this costs does not depend on the number of sentences.
    ///
    /// # Errors
    /// As [`CacheLayout::slabs`].
    pub fn slab_runs(
        &self,
        runs: impl IntoIterator<Item = Alike>,
        max_binding_bytes: u64,
        mut see: impl FnMut((u64, u64), u64),
    ) -> Result<(), AttentionError> {
        let (self_limit, cross_limit) = self.slab_limits(max_binding_bytes);
        // How many sentences more fit a slab.
        let fits = |used: (u64, u64), (s, c): (u64, u64)| {
            let part = |limit: u64, used: u64, each: u64| (limit - used).checked_div(each).unwrap_or(u64::MAX);
            part(self_limit, used.0, s).min(part(cross_limit, used.1, c))
        };
        let filled = |(s, c): (u64, u64), count: u64| (s * count, c * count);
        let mut last: Option<(u64, u64)> = None;
        for Alike { need, count } in runs {
            let slots = self.slots(&need);
            let mut count = count as u64;
            if slots.0 > self_limit || slots.1 > cross_limit {
                return Err(self.too_large(slots.0, slots.1, max_binding_bytes));
            }
            if let Some(open) = &mut last {
                let joining = fits(*open, slots).min(count);
                let more = filled(slots, joining);
                *open = (open.0 + more.0, open.1 + more.1);
                count -= joining;
            }
            if count == 0 {
                continue;
            }
            if let Some(full) = last.take() {
                see(full, 1);
            }
            // Whole slabs, and what is left opens the last one.
            let whole = fits((0, 0), slots).min(count);
            let (slabs, rest) = (count / whole, count % whole);
            let (slabs, open) = if rest == 0 { (slabs - 1, whole) } else { (slabs, rest) };
            if slabs > 0 {
                see(filled(slots, whole), slabs);
            }
            last = Some(filled(slots, open));
        }
        if let Some(open) = last {
            see(open, 1);
        }
        Ok(())
    }

    /// Allocates or counts the buffers of `slots` self slots, one per layer.
    pub(crate) fn self_layers(&self, arena: &Arena, slots: u64) -> Result<Vec<Tensor>, TensorError> {
        buffers(arena, "self", self.layers, slots, &self.self_slots())
    }

    /// Allocates or counts those of `slots` cross slots.
    pub(crate) fn cross_layers(&self, arena: &Arena, slots: u64) -> Result<Vec<Tensor>, TensorError> {
        self.cross_slots().map_or_else(|| Ok(Vec::new()), |format| buffers(arena, "cross", self.layers, slots, &format))
    }

    /// Counts `count` slabs of (self, cross) slots, and gives their bytes. On a device, nothing.
    ///
    /// # Errors
    /// Slots wider than a kernel counts.
    pub fn count_slabs(
        &self,
        arena: &Arena,
        (self_slots, cross_slots): (u64, u64),
        count: u64,
    ) -> Result<CacheBytes, TensorError> {
        type Part = fn(&CacheLayout, &Arena, u64) -> Result<Vec<Tensor>, TensorError>;
        let part = |build: Part, slots: u64| {
            let one = arena.times(count, |one| {
                build(self, one, slots)?;
                Ok::<u64, TensorError>(one.tally().usage().total)
            })?;
            Ok::<u64, TensorError>(one.unwrap_or(0).saturating_mul(count))
        };
        Ok(CacheBytes { self_: part(Self::self_layers, self_slots)?, cross: part(Self::cross_layers, cross_slots)? })
    }

    fn too_large(&self, self_slots: u64, cross_slots: u64, limit: u64) -> AttentionError {
        let (self_bytes, cross_bytes) = self.largest_buffers((self_slots, cross_slots));
        let asked = self_bytes.max(cross_bytes);
        AttentionError::SentenceTooLarge { positions: self_slots.max(cross_slots), asked, limit }
    }

    /// Slots that a sentence reserves: (self, cross).
    pub fn slots(&self, need: &Need) -> (u64, u64) {
        let prompts = self.self_slots().copies(need.width);
        let generated = product(&[need.width, need.max_new.saturating_sub(1)]);
        let sources = self.cross_slots().map_or(0, |slots| slots.copies(need.width));
        (product(&[prompts, need.prompt_len]).saturating_add(generated), product(&[sources, need.source_len]))
    }
}

/// The buffers of `slots` slots of `layers` layers.
fn buffers(
    arena: &Arena,
    what: &str,
    layers: usize,
    slots: u64,
    format: &SlotFormat,
) -> Result<Vec<Tensor>, TensorError> {
    arena.each(format.buffers_of(layers), |arena, layer| {
        let what = format!("{what} cache, layer {layer}");
        arena.tensor(&what, Class::Cache, slots as usize, format.columns, format.format.dtype())
    })
}

/// Bytes of caches, by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheBytes {
    /// Decoder self-attention.
    pub self_: u64,
    /// Cross-attention.
    pub cross: u64,
}

/// What one sentence needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Ids of the decoder prompt.
    pub prompt_len: usize,
    /// Ids that may be generated at most.
    pub max_new: usize,
    /// Rows: beams or samples.
    pub width: usize,
    /// Encoder positions; 0 for decoder-only models.
    pub source_len: usize,
}

/// Sentences that follow each other and need the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alike {
    /// What each of them needs.
    pub need: Need,
    /// How many they are.
    pub count: usize,
}

impl Alike {
    /// Sentences by runs of those that need the same.
    pub fn runs(needs: &[Need]) -> Vec<Self> {
        needs.chunk_by(|a, b| a == b).map(|run| Self { need: run[0], count: run.len() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    fn layout(self_kind: Kind, cross: Kind) -> CacheLayout {
        let shape = Shape::new(8, 2, 4, 1.0);
        let (kinds, format) = (Kinds::new(self_kind, cross), CacheFormat::F32);
        CacheLayout { layers: 3, kinds, self_shape: shape, cross_shape: Some(shape), format }
    }

    /// One sentence after the other: what [`CacheLayout::slab_runs`] knows without walking.
    fn one_by_one(layout: &CacheLayout, runs: &[Alike], binding: u64) -> Vec<(u64, u64)> {
        let (self_limit, cross_limit) = layout.slab_limits(binding);
        let mut slabs: Vec<(u64, u64)> = Vec::new();
        for need in runs.iter().flat_map(|run| std::iter::repeat_n(run.need, run.count)) {
            let (s, c) = layout.slots(&need);
            match slabs.last_mut() {
                Some(last) if last.0 + s <= self_limit && last.1 + c <= cross_limit => {
                    *last = (last.0 + s, last.1 + c);
                }
                _ => slabs.push((s, c)),
            }
        }
        slabs
    }

    #[test]
    fn slabs_of_runs_are_those_of_their_sentences() {
        let needs = [(1, 1, 1, 0), (1, 5, 2, 3), (4, 1, 3, 7), (2, 9, 1, 1)]
            .map(|(prompt_len, max_new, width, source_len)| Need { prompt_len, max_new, width, source_len });
        for (self_kind, cross) in
            [(Kind::MHA, Kind::EL), (Kind::MHA_REPLICATED, Kind::MHA_NOCACHE), (Kind::EL, Kind::MHA)]
        {
            let layout = layout(self_kind, cross);
            for binding in [1600, 2000, 5000, 1 << 20] {
                for counts in [[0, 1, 2, 3], [5, 0, 7, 1], [1, 30, 1, 30], [9, 9, 9, 9]] {
                    let runs: Vec<Alike> =
                        needs.iter().zip(counts).map(|(need, count)| Alike { need: *need, count }).collect();
                    let mut found = Vec::new();
                    let see = |slab, count: u64| found.extend(std::iter::repeat_n(slab, count as usize));
                    layout.slab_runs(runs.iter().copied(), binding, see).expect("sentences that fit");
                    assert_eq!(found, one_by_one(&layout, &runs, binding), "{self_kind} {cross} {binding} {counts:?}");
                    let all = runs.iter().flat_map(|run| std::iter::repeat_n(run.need, run.count));
                    assert_eq!(found, layout.slabs(all, binding).expect("sentences that fit"));
                }
            }
        }
    }

    #[test]
    fn slabs_of_any_number_of_sentences_are_counted_at_once() {
        let layout = layout(Kind::MHA, Kind::MHA);
        let need = Need { prompt_len: 1, max_new: 20, width: 4, source_len: 30 };
        let mut slabs = (0_u64, 0_u64);
        let run = Alike { need, count: usize::MAX };
        layout
            .slab_runs([run, run], 1 << 20, |_, count| slabs = (slabs.0 + 1, slabs.1.saturating_add(count)))
            .expect("fits");
        assert!(slabs.0 <= 5 && slabs.1 > 1 << 50, "{slabs:?}");
        let endless = Need { max_new: usize::MAX, ..need };
        assert!(layout.slabs([endless], u64::MAX).is_err());
    }
}
