//! Finding the slab of a run of rows, and storing packed rows into it.

use elgen_tensor::ops::{Slots, Store};
use elgen_tensor::{Recorder, Rows, Segment, Tensor, TensorError};

use crate::block::Packed;
use crate::caches::{Caches, Slab};
use crate::error::Result;
use crate::slot_format::SlotBuffers;

impl Caches {
    /// The slab of a run of rows.
    ///
    /// # Errors
    /// There is none of that number.
    pub fn slab_of(&self, segment: &Segment) -> Result<&Slab, TensorError> {
        self.slabs().get(segment.slab).ok_or_else(|| lost_slab(segment))
    }

    /// The buffer of decoder layer `layer` in the slab of a run of rows: `[self slots, columns]`.
    ///
    /// # Errors
    /// There is none.
    pub fn self_layer(&self, segment: &Segment, layer: usize) -> Result<&Tensor, TensorError> {
        self.slab_of(segment)?.self_layers.get(layer).ok_or_else(|| lost_slab(segment))
    }

    /// The buffer of cross slots that decoder layer `layer` reads: its own, or the one of all layers. `[cross slots, columns]`.
    ///
    /// # Errors
    /// There is none.
    pub fn cross_layer(&self, segment: &Segment, layer: usize) -> Result<&Tensor, TensorError> {
        let shared = self.layout().cross_slots().is_some_and(|slots| slots.buffers == SlotBuffers::EncoderOutput);
        self.slab_of(segment)?.cross.get(if shared { 0 } else { layer }).ok_or_else(|| lost_slab(segment))
    }
}

/// Where packed rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreTo {
    /// The self slots of this decoder layer.
    SelfLayer(usize),
    /// The cross slots that this decoder layer reads.
    CrossLayer(usize),
}

impl Caches {
    /// Where packed rows are stored, once per copy, slab by slab: columns from `first_column` on, as many as a slot has.
    ///
    /// # Errors
    /// A slab that does not exist or lacks the buffer.
    pub fn prompt_stores<'a>(
        &'a self,
        batch: &'a Packed,
        first_column: usize,
        to: StoreTo,
    ) -> Result<Vec<Store<'a>>, TensorError> {
        let mut stores = Vec::with_capacity(batch.slots.len() * batch.segments.len());
        for slots in &batch.slots {
            for segment in &batch.segments {
                let slab = match to {
                    StoreTo::SelfLayer(layer) => self.self_layer(segment, layer)?,
                    StoreTo::CrossLayer(layer) => self.cross_layer(segment, layer)?,
                };
                let (slots, first, count) = (slots.view(), segment.first as usize, segment.count as usize);
                stores.push(Store { first_column, to: Slots::Packed { slots, first, count }, slab });
            }
        }
        Ok(stores)
    }
}

impl Caches {
    /// Gives `record` where the rows of a decode step are stored in layer `layer`, slab by slab: columns from `first_column` on, as many as a
    /// slot has. Without an allocation where all lie in one slab.
    ///
    /// # Errors
    /// A slab that does not exist or lacks the buffer; those of `record`.
    pub fn step_stores(
        &self,
        rows: &Rows,
        first_column: usize,
        layer: usize,
        record: impl FnOnce(&[Store<'_>]) -> Result<()>,
    ) -> Result<()> {
        let store = |segment: &Segment| -> Result<Store<'_>> {
            Ok(Store { first_column, to: Slots::Step(rows, *segment), slab: self.self_layer(segment, layer)? })
        };
        match rows.segments() {
            [segment] => record(&[store(segment)?]),
            segments => record(&segments.iter().map(store).collect::<Result<Vec<_>>>()?),
        }
    }
}

/// Stores packed rows at their slots: columns of `x` `[tokens, _]` from `first_column` on, as many as a slot has.
///
/// # Errors
/// Shapes that do not fit.
pub fn store_prompt(
    rec: &mut Recorder,
    x: &Tensor,
    first_column: usize,
    batch: &Packed,
    caches: &Caches,
    to: StoreTo,
) -> Result<()> {
    for store in caches.prompt_stores(batch, first_column, to)? {
        store.record(rec, x)?;
    }
    Ok(())
}

/// Stores packed encoder outputs once for all layers, for kinds that keep them.
///
/// # Errors
/// Shapes that do not fit.
pub fn store_encoder_output(rec: &mut Recorder, states: &Tensor, batch: &Packed, caches: &Caches) -> Result<()> {
    match caches.layout().cross_slots() {
        Some(slots) if slots.buffers == SlotBuffers::EncoderOutput => {
            store_prompt(rec, states, 0, batch, caches, StoreTo::CrossLayer(0))
        }
        _ => Ok(()),
    }
}

fn lost_slab(segment: &Segment) -> TensorError {
    TensorError::Shape { op: "attention", message: format!("slab {} does not exist or lacks a buffer", segment.slab) }
}
