//! A model at work: its caches, its working tensors, and the admission of batches. Implements [`DecodeStep`], so a search can drive it.

mod align;
mod footprint;
mod hidden;
mod packing;
mod score;

use std::ops::Range;
use std::sync::Arc;

use elgen_attention::{Alike, CacheBytes, Caches, Need, Placement, Step};
use elgen_search::device::DecodeStep;
use elgen_tensor::{
    Arena, Class, Device, Range as Slots, RecordStats, Recorder, RowStart, Rows, Table, Tally, Tensor, TensorError,
    product,
};

use crate::architecture::{Architecture, Probe};
use crate::config::check_ids;
use crate::error::ModelError;
use crate::space::{Space, StackShape};
use footprint::{Chunk, Held};
use packing::{PackedInput, PackedSpace};

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
    encode_space: Option<PackedSpace>,
    prompt_space: Option<PackedSpace>,
    step_space: Option<Space>,
    cross_ranges: Option<Table<Slots>>,
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
            encode_space: None,
            prompt_space: None,
            step_space: None,
            cross_ranges: None,
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
    /// batches is kept where that serves. Gives the bytes of the cache slabs, which the tally holds too.
    ///
    /// # Errors
    /// A sentence larger than a slab can be.
    pub fn tally(&self, needs: &[Need], rows: usize, tally: &mut Tally) -> Result<CacheBytes, ModelError> {
        self.footprint.tally_beside(&self.held(), &Alike::runs(needs), rows, tally)
    }

    /// Bytes of cache slabs and working tensors that are held between batches.
    pub fn held_bytes(&self) -> u64 {
        let held = self.held();
        let mut tally = Tally::default();
        if let Some((rows, extras)) = held.step {
            Space::tally(self.footprint.decoder, rows, extras, &mut tally);
        }
        let encode = held.encode.zip(self.footprint.encoder);
        for (size, shape) in encode.into_iter().chain(held.prompt.map(|size| (size, self.footprint.decoder))) {
            size.tally(shape, &mut tally);
        }
        self.caches.slab_bytes().saturating_add(held.cross_ranges).saturating_add(tally.usage().total)
    }

    fn held(&self) -> Held {
        Held {
            encode: self.encode_space.as_ref().map(PackedSpace::size),
            prompt: self.prompt_space.as_ref().map(PackedSpace::size),
            step: self.step_space.as_ref().map(|space| (space.rows, space.extras)),
            slabs: self.caches.slab_slots().collect(),
            cross_ranges: self.cross_ranges.as_ref().map_or(0, Table::bytes),
        }
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
        self.encode_space = None;
        self.prompt_space = None;
        self.step_space = None;
        self.cross_ranges = None;
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
        let needs: Vec<Need> = self.placements.iter().map(Placement::need).collect();
        self.prepare_step(rows.capacity(), footprint::longest(&Alike::runs(&needs)))?;
        let mut stats = RecordStats::default();
        if let Some(encoder) = self.model.encoder_shape() {
            let mut ranges = match self.cross_ranges.take() {
                Some(table) if table.capacity() >= rows.capacity() => table,
                // The smaller one is free before the larger one is asked for.
                smaller => {
                    drop(smaller);
                    Table::new(&Arena::from(&self.device), "cross ranges", Class::Cache, rows.capacity())?
                }
            };
            ranges.write(&self.device, &cross)?;
            self.cross_ranges = Some(ranges);
            stats += self.encode(encoder, sentences, None)?;
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

    fn prepare_step(&mut self, rows: usize, longest: (usize, usize)) -> Result<(), ModelError> {
        let memory_slots =
            self.caches.slabs().iter().filter_map(|s| s.cross.first()).map(|x| x.rows).max().unwrap_or(0);
        let extras = self.footprint.step_extras(memory_slots, longest);
        let enough = |s: &Space| s.rows >= rows && s.extras.hold(extras);
        if !self.step_space.as_ref().is_some_and(enough) {
            // The old one goes first: the peak is that of the larger one.
            self.step_space = None;
            self.step_space = Some(Space::new(&self.device, self.footprint.decoder, rows, extras)?);
        }
        Ok(())
    }

    fn encode(
        &mut self,
        shape: StackShape,
        sentences: &[Sentence<'_>],
        mut see: Option<SeeStates<'_>>,
    ) -> Result<RecordStats, ModelError> {
        let needs: Vec<Need> = self.placements.iter().map(Placement::need).collect();
        let chunks = self.footprint.encode_chunks(&needs);
        let size = self.footprint.encode_size(&Alike::runs(&needs));
        PackedSpace::prepare(&self.device, &mut self.encode_space, shape, size)?;
        let Some(packed) = &self.encode_space else { return Ok(RecordStats::default()) };
        let (mut stats, mut rec) = (RecordStats::default(), self.device.recorder());
        for chunk in chunks {
            let PackedInput { ids, batch } = self.pack(&mut rec, packed, sentences, &chunk, true)?;
            let (ids, caches, space) = (ids.view(), &self.caches, &packed.space);
            let states = self.model.encode(&mut rec, ids, &batch, caches, space, Probe::none())?;
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
        let needs: Vec<Need> = self.placements.iter().map(Placement::need).collect();
        let memory_slots = self.step_space.as_ref().map_or(0, |s| s.extras.memory_slots);
        let Some(size) = self.footprint.prompt_size(&Alike::runs(&needs), memory_slots) else {
            return Ok(RecordStats::default());
        };
        let chunks = self.footprint.prompt_chunks(&needs, memory_slots);
        PackedSpace::prepare(&self.device, &mut self.prompt_space, self.footprint.decoder, size)?;
        let Some(packed) = &self.prompt_space else { return Ok(RecordStats::default()) };
        let (mut stats, mut rec) = (RecordStats::default(), self.device.recorder());
        for chunk in chunks.into_iter().filter(|c| c.tokens > 0) {
            let PackedInput { ids, batch } = self.pack(&mut rec, packed, sentences, &chunk, false)?;
            let (ids, caches, space) = (ids.view(), &self.caches, &packed.space);
            let states = self.model.prefill(&mut rec, ids, &batch, caches, space, Probe::none())?;
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
        probe: Probe<'_>,
    ) -> Result<(), ModelError> {
        let Some(space) = &self.step_space else { return Ok(()) };
        let step = Step { rows, cross_ranges: self.cross_ranges.as_ref().map(Table::view) };
        self.model.step(rec, step, &self.caches, space, logits, probe)
    }

    /// Encodes the sources of the admitted batch again, in one stretch, and lets `probe` see the hidden states.
    ///
    /// # Errors
    /// Sentences that are not those of the batch; as [`Runner::begin`].
    pub fn encode_with_probe(&self, sentences: &[Sentence<'_>], probe: Probe<'_>) -> Result<RecordStats, ModelError> {
        let Some(packed) = &self.encode_space else { return Ok(RecordStats::default()) };
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
        self.model.encode(&mut rec, ids.view(), &batch, &self.caches, &packed.space, probe)?;
        rec.submit()?;
        Ok(rec.take_stats())
    }
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
