//! Alignments of sequences that a search has found: they run once more, as packed prompts, up to one cross-attention block.
//!
//! A step would have to keep `[rows, source]` weights for each position of every beam until the search ends, more than EL's whole cross
//! cache, to use those of a few hypotheses. Run again, only what is returned is computed, in stretches, and no beam order can be wrong. The
//! sources are not encoded again: the sentences are still admitted.

use elgen_attention::{Extras, Probabilities};
use elgen_tensor::{Arena, Class, DType, Readback, Tensor, TensorError};

use super::Runner;
use super::footprint::{PackedSize, chunks};
use super::packing::{PackedInput, PackedSpace};
use super::room::RoomSize;
use crate::architecture::PassCx;
use crate::config::check_ids;
use crate::error::ModelError;
use crate::space::{PerRow, Space, per_row_extras};

/// What a sentence of the admitted batch went on with.
#[derive(Clone, Copy, Debug)]
pub struct Continuation<'a> {
    /// Its number, as [`Runner::begin`] counted.
    pub sentence: usize,
    /// Its decoder prompt.
    pub prompt: &'a [u32],
    /// The ids behind the prompt.
    pub token_ids: &'a [u32],
}

impl Continuation<'_> {
    /// Ids that are fed: nothing follows the last one.
    pub(super) fn fed(&self) -> usize {
        (self.prompt.len() + self.token_ids.len()).saturating_sub(1)
    }
}

/// `[new ids][source ids]`: for each new id the weights of the position that predicts it.
pub type Alignment = Vec<Vec<f32>>;

/// What the probabilities of `rows` packed rows over sources of up to `longest` ids go to.
struct Means {
    /// `[rows, longest]`.
    mean: Tensor,
    readback: Readback,
}

impl Means {
    fn build(arena: &Arena, rows: usize, longest: usize) -> Result<Self, ModelError> {
        let mean = arena.tensor("alignments", Class::Activations, rows, longest, DType::F32)?;
        let readback = arena.readback("alignments", mean.buffer.bytes())?;
        Ok(Self { mean, readback })
    }
}

impl Runner {
    /// The cross-attention weights of decoder layer `layer`, averaged over heads, for continuations of the admitted batch. Each has
    /// a prompt and the batch stays admitted.
    ///
    /// # Errors
    /// A model without cross-attention, a layer or a sentence that does not exist, ids outside the vocabulary, out of memory, or the device failed.
    pub fn align(&mut self, continuations: &[Continuation<'_>], layer: usize) -> Result<Vec<Alignment>, ModelError> {
        let layout = self.caches.layout();
        if layout.cross_shape.is_none() {
            return Err(ModelError::NoCrossAttention);
        }
        if layer >= layout.layers {
            return Err(ModelError::NoSuchLayer {
                layer: i32::try_from(layer).unwrap_or(i32::MAX),
                layers: layout.layers,
            });
        }
        if let Some(broken) = continuations.iter().find(|c| c.prompt.is_empty() || c.sentence >= self.placements.len())
        {
            let message = format!(
                "sentence {} of {}, a prompt of {} ids",
                broken.sentence,
                self.placements.len(),
                broken.prompt.len()
            );
            return Err(TensorError::Shape { op: "align", message }.into());
        }
        let vocab = self.model.limits().vocab_size;
        for continuation in continuations {
            check_ids(continuation.prompt, vocab)?;
            // The last id is not fed: it may be an end that no table holds.
            let fed = continuation.token_ids.len().saturating_sub(1);
            check_ids(&continuation.token_ids[..fed], vocab)?;
        }
        let source = |c: &Continuation<'_>| self.placements[c.sentence].cross_range(0).count as usize;
        let longest = continuations.iter().map(source).max().unwrap_or(0);
        let lengths = continuations.iter().map(Continuation::fed);
        let cross_slots = self.room.step.as_ref().map_or(0, |s| s.extras.cross_slots);
        let extras = self.footprint.prompt_extras(cross_slots, (longest, 0));
        let limit = self.align_row(extras, longest).within(self.free_budget(), self.footprint.max_binding_bytes);
        let chunks = chunks(lengths, limit);
        let rows = chunks.iter().map(|c| c.tokens).max().unwrap_or(0);
        if rows == 0 || longest == 0 {
            return Ok(vec![Alignment::new(); continuations.len()]);
        }
        let copies = self.placements.iter().map(|p| p.copies().0).max().unwrap_or(1);
        let size = PackedSize { tokens: rows, copies, extras };
        let held = self.room.size();
        let size = RoomSize { prompt: PackedSize::kept(held.prompt, Some(size)), ..held };
        let arena = Arena::from(&self.device);
        self.room.resize(&arena, &self.footprint, &size)?;
        let Some(packed) = &self.room.prompt else { return Ok(Vec::new()) };
        let Means { mean, readback } = Means::build(&arena, rows, longest)?;
        let stride = mean.ld() as u64 * 4;
        let (mut found, mut rec) = (Vec::with_capacity(continuations.len()), self.device.recorder());
        for chunk in chunks {
            let these = &continuations[chunk.sentences];
            if chunk.tokens == 0 {
                found.extend(these.iter().map(|_| Alignment::new()));
                continue;
            }
            let PackedInput { ids, batch } = self.pack_continuations(&mut rec, packed, these)?;
            let out = Probabilities { mean: &mean, log_sum_exp: None };
            let mut cx = PassCx::new(&mut rec, &self.caches, &packed.space);
            self.model.align(&mut cx, ids.view(), &batch, layer, &out)?;
            let bytes = rec.submit_and_read(&readback, &mean.buffer, chunk.tokens as u64 * stride)?;
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
            let mut rows = values.chunks(mean.ld());
            for continuation in these {
                let keys = source(continuation);
                let own = rows.by_ref().take(continuation.fed()).skip(continuation.prompt.len() - 1);
                found.push(own.map(|row| row[..keys].to_vec()).collect());
            }
        }
        Ok(found)
    }

    /// The prefill's budget, or half of what is free if that is less: the search is over, and to run it again in smaller batches would
    /// cost far more than smaller stretches do.
    fn free_budget(&self) -> u64 {
        let pool = self.device.pool();
        let held = self
            .room
            .prompt
            .as_ref()
            .map_or(0, |p| p.space.rows as u64 * Space::per_row(self.footprint.decoder, p.space.extras).bytes);
        self.footprint.prefill_budget.min((pool.limit().saturating_sub(pool.current().total) + held) / 2)
    }

    /// What a packed row takes, with its probabilities.
    fn align_row(&self, extras: Extras, source: usize) -> PerRow {
        PerRow::of(|arena, rows| {
            Space::build(arena, self.footprint.decoder, rows, per_row_extras(extras))?;
            Means::build(arena, rows, source).map(drop)
        })
    }

    /// Counts what [`Runner::align`] takes at most for continuations of `tokens` fed ids in sum and `longest` at most, over sources of
    /// `source` ids at most.
    ///
    /// # Errors
    /// Tensors wider than a kernel counts.
    pub fn count_align(&self, arena: &Arena, tokens: usize, longest: usize, source: usize) -> Result<(), ModelError> {
        let extras = self.footprint.prompt_extras(0, (source, 0));
        let limit = self.align_row(extras, source).within(self.footprint.prefill_budget, arena.max_binding_bytes());
        let rows = tokens.min(limit.max(longest));
        PackedSpace::build(arena, self.footprint.decoder, PackedSize { tokens: rows, copies: 1, extras })?;
        Means::build(arena, rows, source).map(drop)
    }
}
