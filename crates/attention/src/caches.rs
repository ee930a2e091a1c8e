//! The caches of a model: slabs, slots, and what each kind reserves.
//!
//! A *slab* holds whole sentences: one buffer per layer for the decoder's self-attention and, for encoder-decoder models, one per layer
//! (MHA) or one in all (EL, mha-nocache) for cross-attention. Each buffer is below one binding; kernels are dispatched per slab.
//! A slot of MHA holds key and value side by side, `[2 * inner]`; a slot of EL holds one hidden state, `[d_model]`.

use elgen_tensor::{Arena, Class, DType, Device, Range, RowState, Tensor, TensorError, padded, product};

use crate::error::{AttentionError, Result};
use crate::kind::{Kind, Shape};
use crate::slots::FreeList;

/// What a model needs from its caches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheLayout {
    /// Decoder layers.
    pub layers: usize,
    /// Shape of the decoder's self-attention.
    pub self_shape: Shape,
    /// Kind of the decoder's self-attention.
    pub self_kind: Kind,
    /// Shape and kind of cross-attention; `None` for decoder-only models.
    pub cross: Option<(Shape, Kind)>,
    /// Element storage.
    pub dtype: DType,
}

impl CacheLayout {
    /// Elements of one self slot in one layer.
    pub fn self_width(&self) -> usize {
        slot_width(self.self_shape, self.self_kind)
    }

    /// Elements of one cross slot in one buffer.
    pub fn cross_width(&self) -> usize {
        self.cross.map_or(0, |(shape, kind)| match kind {
            Kind::El | Kind::MhaNocache => padded(shape.d_model),
            Kind::Mha | Kind::MhaReplicated => shape.inner().saturating_mul(2),
        })
    }

    /// Buffers that hold a cross slot: one per layer for cached keys and values, one in all for encoder outputs.
    pub fn cross_buffers(&self) -> usize {
        self.cross.map_or(0, |(_, kind)| match kind {
            Kind::El | Kind::MhaNocache => 1,
            Kind::Mha | Kind::MhaReplicated => self.layers,
        })
    }

    /// Element storage of cross slots: mha-nocache projects the encoder output again at each step and keeps it in f32.
    pub fn cross_dtype(&self) -> DType {
        match self.cross {
            Some((_, Kind::MhaNocache)) => DType::F32,
            _ => self.dtype,
        }
    }

    /// Bytes of one self slot over all layers (docs/el-attention.md §1.5: `2 L E s` or `L D s`).
    pub fn self_slot_bytes(&self) -> u64 {
        product(&[self.layers, self.self_width(), self.dtype.bytes() as usize])
    }

    /// Bytes of one cross slot over all layers (docs/el-attention.md §1.5: `2 L E s` or `D s`).
    pub fn cross_slot_bytes(&self) -> u64 {
        product(&[self.cross_buffers(), self.cross_width(), self.cross_dtype().bytes() as usize])
    }

    /// Bytes of the largest buffers that a slab of (self, cross) slots needs, those included that mha-nocache makes of its cross slots. What
    /// kernels cannot count is larger than any binding.
    fn largest_buffers(&self, (self_slots, cross_slots): (u64, u64)) -> (u64, u64) {
        let counted = |build: &dyn Fn(&Arena) -> Result<(), TensorError>| {
            let arena = Arena::counting(u64::MAX);
            build(&arena).map_or(u64::MAX, |()| arena.tally().largest_binding())
        };
        let self_ = counted(&|arena| self.self_layers(arena, self_slots).map(drop));
        let cross = counted(&|arena| {
            self.cross_layers(arena, cross_slots)?;
            match self.cross {
                Some((shape, Kind::MhaNocache)) => recomputed(arena, shape, cross_slots as usize).map(drop),
                _ => Ok(()),
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
    fn self_layers(&self, arena: &Arena, slots: u64) -> Result<Vec<Tensor>, TensorError> {
        buffers(arena, "self", self.layers, slots, self.self_width(), self.dtype)
    }

    /// Allocates or counts those of `slots` cross slots.
    fn cross_layers(&self, arena: &Arena, slots: u64) -> Result<Vec<Tensor>, TensorError> {
        buffers(arena, "cross", self.cross_buffers(), slots, self.cross_width(), self.cross_dtype())
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
        let width = need.width;
        let prompts = if self.self_kind.replicates() { width } else { 1 };
        let generated = product(&[width, need.max_new.saturating_sub(1)]);
        let sources = match self.cross {
            Some((_, kind)) if kind.replicates() => width,
            Some(_) => 1,
            None => 0,
        };
        (product(&[prompts, need.prompt_len]).saturating_add(generated), product(&[sources, need.source_len]))
    }
}

/// One buffer of `slots` slots for each of `layers` layers.
fn buffers(
    arena: &Arena,
    what: &str,
    layers: usize,
    slots: u64,
    width: usize,
    dtype: DType,
) -> Result<Vec<Tensor>, TensorError> {
    arena.each(layers, |arena, layer| {
        arena.tensor(&format!("{what} cache, layer {layer}"), Class::Cache, slots as usize, width, dtype)
    })
}

/// Allocates or counts one layer's cross keys and values, made anew at each step: `[slots, 2 * inner]`.
pub(crate) fn recomputed(arena: &Arena, shape: Shape, slots: usize) -> Result<Tensor, TensorError> {
    let (what, columns) = ("recomputed cross keys and values", shape.inner().saturating_mul(2));
    arena.tensor(what, Class::Activations, slots, columns, DType::F32)
}

fn slot_width(shape: Shape, kind: Kind) -> usize {
    match kind {
        Kind::El => padded(shape.d_model),
        Kind::Mha | Kind::MhaReplicated | Kind::MhaNocache => shape.inner().saturating_mul(2),
    }
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

/// Where an admitted sentence lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Slab number.
    pub slab: usize,
    need: Need,
    self_first: u32,
    self_slots: u32,
    prompt_slots: u32,
    cross_first: u32,
    cross_slots: u32,
    replicate_self: bool,
    replicate_cross: bool,
}

impl Placement {
    /// The state of row `beam` of this sentence, fed with its whole prompt.
    pub fn row(&self, sentence: u32, beam: u32) -> RowState {
        let prompt = self.need.prompt_len as u32;
        RowState {
            sentence,
            beam,
            width: self.need.width as u32,
            length: prompt,
            live: prompt,
            prompt_len: prompt,
            prompt_base: self.self_first + if self.replicate_self { beam * prompt } else { 0 },
            gen_base: self.self_first + self.prompt_slots + beam,
            owns_prompt: u32::from(self.replicate_self || beam == 0),
            limit: prompt + self.need.max_new.saturating_sub(1) as u32,
        }
    }

    /// The cross slots of row `beam`.
    pub fn cross_range(&self, beam: u32) -> Range {
        let length = self.need.source_len as u32;
        Range::new(self.cross_first + if self.replicate_cross { beam * length } else { 0 }, length)
    }

    /// Ids that a row has at most: its slots were reserved for so many.
    pub fn max_length(&self) -> usize {
        self.need.prompt_len.saturating_add(self.need.max_new)
    }

    /// What the sentence asked for.
    pub fn need(&self) -> Need {
        self.need
    }

    /// Copies of the prompt and of the source that are stored.
    pub fn copies(&self) -> (usize, usize) {
        let width = self.need.width;
        (if self.replicate_self { width } else { 1 }, if self.replicate_cross { width } else { 1 })
    }
}

/// One slab: buffers for a number of self and cross slots.
#[derive(Debug)]
pub struct Slab {
    /// Per layer: `[self slots, self_width]`.
    pub self_layers: Vec<Tensor>,
    /// Per layer (MHA) or once (EL, mha-nocache): `[cross slots, cross_width]`.
    pub cross: Vec<Tensor>,
    self_capacity: u64,
    cross_capacity: u64,
    self_free: FreeList,
    cross_free: FreeList,
    bytes: u64,
}

/// Bytes reserved by admitted sentences, by place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheBytes {
    /// Decoder self-attention.
    pub self_: u64,
    /// Cross-attention.
    pub cross: u64,
}

/// The caches of one model.
#[derive(Debug)]
pub struct Caches {
    device: Device,
    layout: CacheLayout,
    slabs: Vec<Slab>,
    admitted: usize,
    reserved: CacheBytes,
    peak: CacheBytes,
    peak_slack: u64,
}

impl Caches {
    /// Empty caches; slabs come with [`Caches::prepare`] or [`Caches::admit`].
    pub fn new(device: &Device, layout: CacheLayout) -> Self {
        Self {
            device: device.clone(),
            layout,
            slabs: Vec::new(),
            admitted: 0,
            reserved: CacheBytes::default(),
            peak: CacheBytes::default(),
            peak_slack: 0,
        }
    }

    /// What was asked for.
    pub fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    /// The slabs, by number.
    pub fn slabs(&self) -> &[Slab] {
        &self.slabs
    }

    /// Bytes reserved now: reserved slots times slot bytes.
    pub fn bytes(&self) -> CacheBytes {
        self.reserved
    }

    /// The most bytes reserved so far.
    pub fn peak_bytes(&self) -> CacheBytes {
        self.peak
    }

    /// The most bytes in slabs beyond reserved slots, seen at an admission.
    pub fn peak_slack(&self) -> u64 {
        self.peak_slack
    }

    /// Makes room for a batch: keeps the slabs if `needs` fit into them, otherwise (only while nothing is admitted) replaces them by slabs
    /// that hold this batch. After this, admitting `needs` in order allocates nothing.
    ///
    /// # Errors
    /// Out of memory, or a sentence larger than a slab can be.
    pub fn prepare(&mut self, needs: &[Need]) -> Result<()> {
        let wanted = self.layout.slabs(needs.iter().copied(), self.device.capabilities().max_binding_bytes)?;
        let enough = wanted.len() <= self.slabs.len()
            && wanted.iter().zip(&self.slabs).all(|(w, slab)| w.0 <= slab.self_capacity && w.1 <= slab.cross_capacity);
        if self.admitted > 0 || enough {
            return Ok(());
        }
        // No slab shrinks, so that batches of changing size settle; where that is too much, the slabs hold exactly this batch.
        let old = |i: usize| self.slabs.get(i).map_or((0, 0), |s: &Slab| (s.self_capacity, s.cross_capacity));
        let grown =
            wanted.iter().enumerate().map(|(i, (s, c))| ((*s).max(old(i).0), (*c).max(old(i).1))).collect::<Vec<_>>();
        if grown != wanted && self.replace_slabs(&grown).is_ok() {
            return Ok(());
        }
        self.replace_slabs(&wanted)
    }

    /// Old slabs go first, so that the peak is that of the larger batch, not of both.
    fn replace_slabs(&mut self, sizes: &[(u64, u64)]) -> Result<()> {
        self.slabs.clear();
        let result = sizes.iter().try_for_each(|(s, c)| self.add_slab(*s, *c));
        if result.is_err() {
            self.slabs.clear();
        }
        result
    }

    fn add_slab(&mut self, self_slots: u64, cross_slots: u64) -> Result<()> {
        let l = self.layout;
        // Before the first of perhaps many buffers.
        let plan = Arena::counting(self.device.capabilities().max_binding_bytes);
        let bytes = l.count_slabs(&plan, (self_slots, cross_slots), 1)?;
        let (asked, pool) = (bytes.self_.saturating_add(bytes.cross), self.device.pool());
        let used = pool.current().total;
        if asked > pool.limit().saturating_sub(used) {
            let what = format!("a cache slab of {} layers", l.layers);
            return Err(TensorError::MemoryLimit { what, class: Class::Cache, asked, used, limit: pool.limit() }.into());
        }
        let arena = Arena::from(&self.device);
        let slab = Slab {
            self_layers: l.self_layers(&arena, self_slots)?,
            cross: l.cross_layers(&arena, cross_slots)?,
            self_capacity: self_slots,
            cross_capacity: cross_slots,
            self_free: FreeList::new(self_slots as u32),
            cross_free: FreeList::new(cross_slots as u32),
            bytes: asked,
        };
        self.slabs.push(slab);
        Ok(())
    }

    /// Reserves the slots of a sentence, in the first slab that has room, else in a new one.
    ///
    /// # Errors
    /// Out of memory, or a sentence larger than a slab can be.
    pub fn admit(&mut self, need: Need) -> Result<Placement> {
        let (s, c) = self.layout.slots(&need);
        self.layout.slabs([need], self.device.capabilities().max_binding_bytes)?;
        let fits = |slab: &Slab| slab.self_free.fits(s as u32) && slab.cross_free.fits(c as u32);
        let slab = match self.slabs.iter().position(fits) {
            Some(at) => at,
            None => {
                self.add_slab(s, c)?;
                self.slabs.len() - 1
            }
        };
        let place = &mut self.slabs[slab];
        let (Some(self_first), Some(cross_first)) = (place.self_free.take(s as u32), place.cross_free.take(c as u32))
        else {
            return Err(AttentionError::Shape(format!("slab {slab} lost the room for {s} and {c} slots")));
        };
        self.admitted += 1;
        // The slots lie in buffers that are there.
        self.reserved.self_ += s * self.layout.self_slot_bytes();
        self.reserved.cross += c * self.layout.cross_slot_bytes();
        self.peak.self_ = self.peak.self_.max(self.reserved.self_);
        self.peak.cross = self.peak.cross.max(self.reserved.cross);
        self.peak_slack = self.peak_slack.max(self.slab_bytes() - self.reserved.self_ - self.reserved.cross);
        let replicate_self = self.layout.self_kind.replicates();
        Ok(Placement {
            slab,
            need,
            self_first,
            self_slots: s as u32,
            prompt_slots: (need.prompt_len * if replicate_self { need.width } else { 1 }) as u32,
            cross_first,
            cross_slots: c as u32,
            replicate_self,
            replicate_cross: self.layout.cross.is_some_and(|(_, kind)| kind.replicates()),
        })
    }

    /// Gives a sentence's slots back.
    pub fn release(&mut self, placement: Placement) {
        let slab = &mut self.slabs[placement.slab];
        slab.self_free.give(placement.self_first, placement.self_slots);
        slab.cross_free.give(placement.cross_first, placement.cross_slots);
        self.admitted -= 1;
        self.reserved.self_ -= u64::from(placement.self_slots) * self.layout.self_slot_bytes();
        self.reserved.cross -= u64::from(placement.cross_slots) * self.layout.cross_slot_bytes();
    }

    /// Frees the slabs, if nothing is admitted.
    pub fn clear(&mut self) {
        if self.admitted == 0 {
            self.slabs.clear();
        }
    }

    /// (self, cross) slots of each slab.
    pub fn slab_slots(&self) -> impl Iterator<Item = (u64, u64)> {
        self.slabs.iter().map(|slab| (slab.self_capacity, slab.cross_capacity))
    }

    /// Bytes of all slabs.
    pub fn slab_bytes(&self) -> u64 {
        self.slabs.iter().map(|slab| slab.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(self_kind: Kind, cross: Kind) -> CacheLayout {
        let shape = Shape { d_model: 8, num_heads: 2, head_dim: 4, scale: 1.0 };
        CacheLayout { layers: 3, self_shape: shape, self_kind, cross: Some((shape, cross)), dtype: DType::F32 }
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
            [(Kind::Mha, Kind::El), (Kind::MhaReplicated, Kind::MhaNocache), (Kind::El, Kind::Mha)]
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
        let layout = layout(Kind::Mha, Kind::Mha);
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
