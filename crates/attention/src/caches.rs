//! The caches of a model: slabs, and the slots of admitted sentences.
//!
//! A *slab* holds whole sentences: one buffer per layer for the decoder's self-attention and, for encoder-decoder models, one per layer
//! or one in all for cross-attention, as the kinds say ([`crate::SlotFormat`]). Each buffer is below one binding; kernels are dispatched per
//! slab. A slot of MHA holds key and value side by side, `[2 * inner]`; a slot of EL holds one hidden state, `[d_model]`.

use elgen_tensor::{Arena, Class, Device, Range, RowState, Tensor, TensorError};

use crate::error::{AttentionError, Result};
use crate::layout::{CacheBytes, CacheLayout, Need};
use crate::slots::FreeList;

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
    self_copies: usize,
    cross_copies: usize,
}

impl Placement {
    /// The state of row `beam` of this sentence, fed with its whole prompt.
    pub fn row(&self, sentence: u32, beam: u32) -> RowState {
        let (prompt, own) = (self.need.prompt_len as u32, self.self_copies > 1);
        RowState {
            sentence,
            beam,
            width: self.need.width as u32,
            length: prompt,
            live: prompt,
            prompt_len: prompt,
            prompt_base: self.self_first + if own { beam * prompt } else { 0 },
            gen_base: self.self_first + self.prompt_slots + beam,
            owns_prompt: u32::from(own || beam == 0),
            limit: prompt + self.need.max_new.saturating_sub(1) as u32,
        }
    }

    /// The cross slots of row `beam`.
    pub fn cross_range(&self, beam: u32) -> Range {
        let length = self.need.source_len as u32;
        Range::new(self.cross_first + if self.cross_copies > 1 { beam * length } else { 0 }, length)
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
        (self.self_copies, self.cross_copies)
    }
}

/// One slab: buffers for a number of self and cross slots.
#[derive(Debug)]
pub struct Slab {
    /// Per layer: `[self slots, columns]`.
    pub self_layers: Vec<Tensor>,
    /// Per layer, or one of the encoder output for all: `[cross slots, columns]`.
    pub cross: Vec<Tensor>,
    self_capacity: u64,
    cross_capacity: u64,
    self_free: FreeList,
    cross_free: FreeList,
    bytes: u64,
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
        let (self_copies, cross_copies) = (
            self.layout.self_slots().copies(need.width),
            self.layout.cross_slots().map_or(1, |slots| slots.copies(need.width)),
        );
        Ok(Placement {
            slab,
            need,
            self_first,
            self_slots: s as u32,
            prompt_slots: (need.prompt_len * self_copies) as u32,
            cross_first,
            cross_slots: c as u32,
            self_copies,
            cross_copies,
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
