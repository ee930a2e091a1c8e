//! A model at work: its caches, its working tensors, and the admission of batches. Implements [`DecodeStep`], so a search can drive it.

mod align;
mod footprint;
mod hidden;
mod packing;
mod room;
mod score;

use std::ops::Range;
use std::sync::Arc;

use elgen_attention::{Alike, CacheBytes, Caches, Need, Placement, Step};
use elgen_search::device::DecodeStep;
use elgen_tensor::{Arena, Device, RecordStats, Recorder, RowStart, Rows, Table, Tensor, TensorError, product};

use crate::architecture::{Architecture, PassCx, Probe};
use crate::config::check_ids;
use crate::error::ModelError;
use footprint::{Chunk, Held};
use packing::PackedInput;
use room::Room;

pub use align::{Alignment, Continuation};
pub use footprint::{DEFAULT_PREFILL_BUDGET, Footprint, prefill_budget};
pub use score::{LogitRows, SeeLogits};

/// Sees the final hidden states of a stretch of sentences, in order, when they have been computed.
type SeeStates<'a> = &'a mut dyn FnMut(&Tensor, Range<usize>) -> Result<RecordStats, ModelError>;

/// One sentence to admit.
#[derive(Clone, Copy, Debug)]
pub struct Sentence<'a> {
    /// Encoder input; empty for decoder-only models.
    pub source: &'a [u32],
    /// Decoder prompt: the start token, or the prompt of a decoder-only model. Never empty.
    pub prompt: &'a [u32],
    /// Ids that may be generated at most.
    pub max_new: usize,
}

/// A model with its caches, for one batch at a time of up to a fixed number of rows.
#[derive(Debug)]
pub struct Runner {
    device: Device,
    model: Arc<dyn Architecture>,
    caches: Caches,
    footprint: Footprint,
    room: Room,
    placements: Vec<Placement>,
}

impl Runner {
    /// A runner without working tensors; they come with the first batch and grow with larger ones.
    pub fn new(device: &Device, model: Arc<dyn Architecture>, prefill_budget: u64) -> Self {
        let layout = model.cache_layout();
        let footprint = Footprint {
            encoder: model.encoder_shape(),
            decoder: model.decoder_shape(),
            layout,
            max_binding_bytes: device.capabilities().max_binding_bytes,
            prefill_budget,
        };
        Self {
            device: device.clone(),
            model,
            caches: Caches::new(device, layout),
            footprint,
            room: Room::default(),
            placements: Vec::new(),
        }
    }

    /// The model.
    pub fn model(&self) -> &dyn Architecture {
        &*self.model
    }

    /// The caches.
    pub fn caches(&self) -> &Caches {
        &self.caches
    }

    /// What decides the bytes of a batch.
    pub fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// Counts all that this runner holds once it has begun a batch of `needs` where there are `rows` physical rows; what it holds from earlier
    /// batches is kept where that serves. Gives the bytes of the cache slabs, which were counted too.
    ///
    /// # Errors
    /// A sentence larger than a slab can be.
    pub fn count(&self, arena: &Arena, needs: &[Need], rows: usize) -> Result<CacheBytes, ModelError> {
        let held = Held { room: self.room.size(), slabs: self.caches.slab_slots().collect() };
        self.footprint.count_beside(arena, &held, &Alike::runs(needs), rows)
    }

    /// Bytes of cache slabs and working tensors that are held between batches.
    pub fn held_bytes(&self) -> u64 {
        let arena = Arena::counting(self.footprint.max_binding_bytes);
        // What is there can be counted.
        let counted = Room::default().resize(&arena, &self.footprint, &self.room.size());
        counted.map_or(u64::MAX, |()| arena.tally().usage().total.saturating_add(self.caches.slab_bytes()))
    }

    /// Admits a batch: reserves its cache slots, encodes the sources and runs the decoder prompts but for their last ids. Sentence `s` gets
    /// the physical rows `s * width ..` of `rows`. A batch that is still admitted is released first.
    ///
    /// # Errors
    /// Ids outside the vocabulary, an empty prompt, more rows than `rows` has; out of memory; a sentence larger than a slab or a binding; the
    /// device failed. Nothing stays admitted then.
    pub fn begin(
        &mut self,
        rows: &mut Rows,
        sentences: &[Sentence<'_>],
        width: usize,
    ) -> Result<RecordStats, ModelError> {
        self.end();
        let result = self.admit(rows, sentences, width);
        if result.is_err() {
            self.end();
        }
        result
    }

    /// Gives back what the batch reserved.
    pub fn end(&mut self) {
        for placement in self.placements.drain(..) {
            self.caches.release(placement);
        }
    }

    /// Gives back all memory that it holds, for a batch that must do with less; the next one allocates anew.
    pub fn clear(&mut self) {
        self.end();
        self.caches.clear();
        self.room = Room::default();
    }

    /// Shrinks the batch, for what `rec` records from here on, to these sentences (indices of [`Runner::begin`]); of their rows, those that are active stay so.
    ///
    /// # Errors
    /// The device failed.
    pub fn keep(
        &self,
        rec: &mut Recorder,
        rows: &mut Rows,
        sentences: impl Iterator<Item = usize>,
        width: usize,
    ) -> Result<(), ModelError> {
        let mut kept = vec![false; self.placements.len()];
        for sentence in sentences {
            if let Some(kept) = kept.get_mut(sentence) {
                *kept = true;
            }
        }
        Ok(rows.retain(rec, |row| kept.get(row as usize / width.max(1)).is_some_and(|kept| *kept))?)
    }

    fn admit(&mut self, rows: &mut Rows, sentences: &[Sentence<'_>], width: usize) -> Result<RecordStats, ModelError> {
        self.check(sentences)?;
        let wanted = product(&[sentences.len(), width]);
        if wanted > rows.capacity() as u64 {
            let message = format!("{} sentences of {width} rows for {} places", sentences.len(), rows.capacity());
            return Err(TensorError::Shape { op: "begin", message }.into());
        }
        self.place(sentences, width)?;
        let mut starts = Vec::with_capacity(wanted as usize);
        let mut cross = Vec::with_capacity(wanted as usize);
        for (s, (placement, sentence)) in self.placements.iter().zip(sentences).enumerate() {
            for beam in 0..width as u32 {
                starts.push(RowStart {
                    state: placement.row(s as u32, beam),
                    prompt: sentence.prompt,
                    slab: placement.slab,
                    max_length: placement.max_length(),
                });
                cross.push(placement.cross_range(beam));
            }
        }
        rows.begin(&self.device, &starts)?;
        let size = self.footprint.batch_room(&self.room.size(), &self.runs(), rows.capacity(), self.largest_slab());
        self.room.resize(&Arena::from(&self.device), &self.footprint, &size)?;
        let mut stats = RecordStats::default();
        if let Some(ranges) = &mut self.room.cross_ranges {
            ranges.write(&self.device, &cross)?;
        }
        if self.model.encoder_shape().is_some() {
            stats += self.encode(sentences, None)?;
        }
        stats += self.prefill(sentences, None)?;
        Ok(stats)
    }

    /// Refuses what kernels would take on trust: ids that are no rows of their tables, and empty prompts.
    fn check(&self, sentences: &[Sentence<'_>]) -> Result<(), ModelError> {
        let (sources, targets) = (self.model.source_vocab_size(), self.model.limits().vocab_size);
        for (number, sentence) in sentences.iter().enumerate() {
            if sentence.prompt.is_empty() {
                let message = format!("sentence {number} has no prompt");
                return Err(TensorError::Shape { op: "begin", message }.into());
            }
            check_ids(sentence.source, sources)?;
            check_ids(sentence.prompt, targets)?;
        }
        Ok(())
    }

    /// Reserves cache slots for each sentence.
    fn place(&mut self, sentences: &[Sentence<'_>], width: usize) -> Result<(), ModelError> {
        let needs: Vec<Need> = sentences.iter().map(|s| need(s, width)).collect();
        self.caches.prepare(&needs)?;
        for need in needs {
            let placement = self.caches.admit(need)?;
            self.placements.push(placement);
        }
        Ok(())
    }

    /// Makes room for packed rows of what is placed, and for no decode step but of what mha-nocache recomputes.
    fn prepare_packed(&mut self) -> Result<(), ModelError> {
        let step = (1, self.footprint.step_extras(self.largest_slab(), (0, 0)));
        let size = self.footprint.packed_room(&self.room.size(), &self.runs(), step);
        self.room.resize(&Arena::from(&self.device), &self.footprint, &size)
    }

    /// What is placed.
    fn runs(&self) -> Vec<Alike> {
        Alike::runs(&self.needs())
    }

    fn needs(&self) -> Vec<Need> {
        self.placements.iter().map(Placement::need).collect()
    }

    /// Cross slots of the largest slab.
    fn largest_slab(&self) -> usize {
        self.caches.slabs().iter().filter_map(|s| s.cross.first()).map(|x| x.rows).max().unwrap_or(0)
    }

    fn encode(
        &mut self,
        sentences: &[Sentence<'_>],
        mut see: Option<SeeStates<'_>>,
    ) -> Result<RecordStats, ModelError> {
        let chunks = self.footprint.encode_chunks(&self.needs());
        let Some(packed) = &self.room.encode else { return Ok(RecordStats::default()) };
        let (mut stats, mut rec) = (RecordStats::default(), self.device.recorder());
        for chunk in chunks {
            let PackedInput { ids, batch } = self.pack(&mut rec, packed, sentences, &chunk, true)?;
            let mut cx = PassCx::new(&mut rec, &self.caches, &packed.space);
            let states = self.model.encode(&mut cx, ids.view(), &batch)?;
            rec.submit()?;
            stats += rec.take_stats();
            if let Some(see) = &mut see {
                stats += see(states, chunk.sentences)?;
            }
        }
        Ok(stats)
    }

    fn prefill(
        &mut self,
        sentences: &[Sentence<'_>],
        mut see: Option<SeeStates<'_>>,
    ) -> Result<RecordStats, ModelError> {
        let cross_slots = self.room.step.as_ref().map_or(0, |s| s.extras.cross_slots);
        let chunks = self.footprint.prompt_chunks(&self.needs(), cross_slots);
        let Some(packed) = &self.room.prompt else { return Ok(RecordStats::default()) };
        let (mut stats, mut rec) = (RecordStats::default(), self.device.recorder());
        for chunk in chunks.into_iter().filter(|c| c.tokens > 0) {
            let PackedInput { ids, batch } = self.pack(&mut rec, packed, sentences, &chunk, false)?;
            let mut cx = PassCx::new(&mut rec, &self.caches, &packed.space);
            let states = self.model.prefill(&mut cx, ids.view(), &batch)?;
            rec.submit()?;
            stats += rec.take_stats();
            if let Some(see) = &mut see {
                stats += see(states, chunk.sentences)?;
            }
        }
        Ok(stats)
    }

    /// Records a decode step and lets `probe` see its hidden states.
    ///
    /// # Errors
    /// Shapes that do not fit, or no batch has begun.
    pub fn step_with_probe(
        &self,
        rec: &mut Recorder,
        rows: &Rows,
        logits: &Tensor,
        mut probe: Probe<'_>,
    ) -> Result<(), ModelError> {
        let space = self.room.step.as_ref().ok_or_else(|| no_batch("step"))?;
        let step = Step { rows, cross_ranges: self.room.cross_ranges.as_ref().map(Table::view) };
        self.model.step(&mut PassCx::new(rec, &self.caches, space).with_probe(probe.reborrow()), step, logits)
    }

    /// Encodes the sources of the admitted batch again, in one stretch, and lets `probe` see the hidden states.
    ///
    /// # Errors
    /// Sentences that are not those of the batch; as [`Runner::begin`].
    pub fn encode_with_probe(
        &self,
        sentences: &[Sentence<'_>],
        mut probe: Probe<'_>,
    ) -> Result<RecordStats, ModelError> {
        let packed = match &self.room.encode {
            Some(packed) => packed,
            None if self.model.encoder_shape().is_none() => return Ok(RecordStats::default()),
            None => return Err(no_batch("encode").into()),
        };
        self.check(sentences)?;
        let lengths = sentences.iter().map(|s| s.source.len());
        if !lengths.eq(self.placements.iter().map(|placement| placement.need().source_len)) {
            let message = format!("{} sentences that are not the {} admitted", sentences.len(), self.placements.len());
            return Err(TensorError::Shape { op: "encode", message }.into());
        }
        let tokens = sentences.iter().map(|s| s.source.len()).sum();
        let mut rec = self.device.recorder();
        let chunk = Chunk { sentences: 0..sentences.len(), tokens };
        let PackedInput { ids, batch } = self.pack(&mut rec, packed, sentences, &chunk, true)?;
        let mut cx = PassCx::new(&mut rec, &self.caches, &packed.space).with_probe(probe.reborrow());
        self.model.encode(&mut cx, ids.view(), &batch)?;
        rec.submit()?;
        Ok(rec.take_stats())
    }
}

fn no_batch(op: &'static str) -> TensorError {
    TensorError::Shape { op, message: "no batch has begun".to_owned() }
}

fn need(sentence: &Sentence<'_>, width: usize) -> Need {
    Need { prompt_len: sentence.prompt.len(), max_new: sentence.max_new, width, source_len: sentence.source.len() }
}

impl DecodeStep for Runner {
    type Error = ModelError;

    fn vocab_size(&self) -> usize {
        self.model.limits().vocab_size
    }

    fn step(&mut self, rec: &mut Recorder, rows: &Rows, logits: &Tensor) -> Result<(), ModelError> {
        self.step_with_probe(rec, rows, logits, Probe::none())
    }
}
