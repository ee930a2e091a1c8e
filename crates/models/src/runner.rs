//! A model at work: its caches, its working tensors, and the admission of batches. Implements [`DecodeStep`], so a search can drive it.

mod align;
mod footprint;
mod hidden;
mod score;

use std::ops::Range;
use std::sync::Arc;

use elgen_attention::{Alike, CacheBytes, Caches, Need, Packed, Placement, Step};
use elgen_search::device::DecodeStep;
use elgen_tensor::{Buffer, Class, Device, Grouping, RecordStats, Recorder, Rows, Tally, Tensor, TensorError, product};

use crate::architecture::{Architecture, Probe};
use crate::config::check_ids;
use crate::error::ModelError;
use crate::space::{Space, StackShape};
use footprint::{Chunk, Held, PackedSize};

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

/// Working tensors and index buffers of packed rows.
#[derive(Debug)]
struct PrefillSpace {
    space: Space,
    ids: Buffer,
    index: Buffer,
    ranges: Buffer,
    groups: Buffer,
    cross_ranges: Buffer,
    slots: Vec<Buffer>,
}

impl PrefillSpace {
    fn size(&self) -> PackedSize {
        PackedSize { tokens: self.space.rows, copies: self.slots.len(), extras: self.space.extras }
    }
}

/// A model with its caches, for one batch at a time of up to a fixed number of rows.
#[derive(Debug)]
pub struct Runner {
    device: Device,
    model: Arc<dyn Architecture>,
    caches: Caches,
    footprint: Footprint,
    encode_space: Option<PrefillSpace>,
    prompt_space: Option<PrefillSpace>,
    step_space: Option<Space>,
    cross_ranges: Option<Buffer>,
    placements: Vec<Placement>,
    slabs: Vec<usize>,
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
            slabs: Vec::new(),
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
            encode: self.encode_space.as_ref().map(PrefillSpace::size),
            prompt: self.prompt_space.as_ref().map(PrefillSpace::size),
            step: self.step_space.as_ref().map(|space| (space.rows, space.extras)),
            slabs: self.caches.slab_slots().collect(),
            cross_ranges: self.cross_ranges.as_ref().map_or(0, Buffer::bytes),
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

    /// Shrinks the batch to these sentences (indices of [`Runner::begin`]); of their rows, those that are active stay so.
    ///
    /// # Errors
    /// The device failed.
    pub fn keep(
        &self,
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
        Ok(rows.retain(&self.device, |row| kept.get(row as usize / width.max(1)).is_some_and(|kept| *kept))?)
    }

    fn admit(&mut self, rows: &mut Rows, sentences: &[Sentence<'_>], width: usize) -> Result<RecordStats, ModelError> {
        self.check(sentences)?;
        let wanted = product(&[sentences.len(), width]);
        if wanted > rows.capacity() as u64 {
            let message = format!("{} sentences of {width} rows for {} places", sentences.len(), rows.capacity());
            return Err(TensorError::Shape { op: "begin", message }.into());
        }
        self.place(sentences, width)?;
        let mut states = Vec::with_capacity(wanted as usize);
        let mut prompts = Vec::with_capacity(wanted as usize);
        let mut cross = Vec::with_capacity(wanted as usize);
        self.slabs.clear();
        for (s, (placement, sentence)) in self.placements.iter().zip(sentences).enumerate() {
            for beam in 0..width as u32 {
                states.push(placement.row(s as u32, beam));
                prompts.push(sentence.prompt);
                cross.push(placement.cross_range(beam));
                self.slabs.push(placement.slab);
            }
        }
        rows.begin(&self.device, &states, &prompts, &self.slabs)?;
        let needs: Vec<Need> = self.placements.iter().map(Placement::need).collect();
        self.prepare_step(rows.capacity(), footprint::longest(&Alike::runs(&needs)))?;
        let mut stats = RecordStats::default();
        if let Some(encoder) = self.model.encoder_shape() {
            let ranges = self.cross_ranges.as_ref().filter(|b| b.bytes() >= product(&[rows.capacity(), 8]));
            let ranges = match ranges {
                Some(buffer) => buffer.clone(),
                None => self.device.alloc("cross ranges", Class::Cache, product(&[rows.capacity(), 8]))?,
            };
            self.device.write(&ranges, 0, bytemuck::cast_slice(&cross))?;
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
        prepare_packed(&self.device, &mut self.encode_space, shape, self.footprint.encode_size(&Alike::runs(&needs)))?;
        let Some(packed) = &self.encode_space else { return Ok(RecordStats::default()) };
        let mut stats = RecordStats::default();
        for chunk in chunks {
            let batch = self.pack(packed, sentences, &chunk, true)?;
            let mut rec = self.device.recorder();
            let states =
                self.model.encode(&mut rec, &packed.ids, &batch, &self.caches, &packed.space, Probe::none())?;
            stats += rec.submit()?;
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
        prepare_packed(&self.device, &mut self.prompt_space, self.footprint.decoder, size)?;
        let Some(packed) = &self.prompt_space else { return Ok(RecordStats::default()) };
        let mut stats = RecordStats::default();
        for chunk in chunks.into_iter().filter(|c| c.tokens > 0) {
            let batch = self.pack(packed, sentences, &chunk, false)?;
            let mut rec = self.device.recorder();
            let states =
                self.model.prefill(&mut rec, &packed.ids, &batch, &self.caches, &packed.space, Probe::none())?;
            stats += rec.submit()?;
            if let Some(see) = &mut see {
                stats += see(states, chunk.sentences)?;
            }
        }
        Ok(stats)
    }

    /// Uploads ids, ranges and slots of a stretch. Encoder rows see their whole sentence, prompt rows what precedes them.
    fn pack(
        &self,
        to: &PrefillSpace,
        sentences: &[Sentence<'_>],
        chunk: &Chunk,
        encoder: bool,
    ) -> Result<Packed, ModelError> {
        let mut ids: Vec<[u32; 2]> = Vec::with_capacity(chunk.tokens);
        let mut ranges: Vec<[u32; 2]> = Vec::with_capacity(chunk.tokens);
        let mut cross: Vec<[u32; 2]> = Vec::with_capacity(chunk.tokens);
        let mut slots: Vec<Vec<u32>> = vec![Vec::with_capacity(chunk.tokens); to.slots.len()];
        let mut grouping = Grouping::default();
        let mut copies = 0;
        for s in chunk.sentences.clone() {
            let (placement, sentence) = (&self.placements[s], &sentences[s]);
            let (tokens, count) = if encoder {
                copies = placement.copies().1;
                (sentence.source, sentence.source.len() as u32)
            } else {
                copies = placement.copies().0;
                (sentence.prompt, sentence.prompt.len() as u32 - 1)
            };
            let first = ids.len() as u32;
            for (position, id) in (0..count).zip(tokens) {
                ids.push([*id, position]);
                ranges.push([first, if encoder { count } else { position + 1 }]);
                cross.push(placement.cross_range(0));
                for (copy, list) in (0u32..).zip(slots.iter_mut().take(copies)) {
                    list.push(if encoder {
                        placement.cross_range(copy)[0] + position
                    } else {
                        placement.row(0, copy).own_slot(position)
                    });
                }
            }
            grouping.push(placement.slab, s as u32, count);
        }
        self.device.write(&to.ids, 0, bytemuck::cast_slice(&ids))?;
        self.device.write(&to.ranges, 0, bytemuck::cast_slice(&ranges))?;
        self.device.write(&to.groups, 0, bytemuck::cast_slice(&grouping.groups))?;
        let mut used = Vec::with_capacity(copies);
        for (buffer, list) in to.slots.iter().zip(&slots).take(copies) {
            self.device.write(buffer, 0, bytemuck::cast_slice(list))?;
            used.push(buffer.clone());
        }
        let has_encoder = self.caches.layout().cross.is_some();
        if has_encoder && !encoder {
            self.device.write(&to.cross_ranges, 0, bytemuck::cast_slice(&cross))?;
        }
        Ok(Packed {
            tokens: ids.len(),
            index: to.index.clone(),
            ranges: to.ranges.clone(),
            segments: grouping.segments,
            groups: to.groups.clone(),
            slots: used,
            cross_ranges: (has_encoder && !encoder).then(|| to.cross_ranges.clone()),
        })
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
        let step = Step { rows, cross_ranges: self.cross_ranges.as_ref() };
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
        let batch = self.pack(packed, sentences, &Chunk { sentences: 0..sentences.len(), tokens }, true)?;
        let mut rec = self.device.recorder();
        self.model.encode(&mut rec, &packed.ids, &batch, &self.caches, &packed.space, probe)?;
        Ok(rec.submit()?)
    }
}

fn need(sentence: &Sentence<'_>, width: usize) -> Need {
    Need { prompt_len: sentence.prompt.len(), max_new: sentence.max_new, width, source_len: sentence.source.len() }
}

/// Makes sure that working tensors and index buffers of this size are there.
fn prepare_packed(
    device: &Device,
    place: &mut Option<PrefillSpace>,
    shape: StackShape,
    size: PackedSize,
) -> Result<(), ModelError> {
    if place.as_ref().is_some_and(|held| held.size().serves(&size)) {
        return Ok(());
    }
    let PackedSize { tokens, copies, extras } = size;
    *place = None;
    let words = |what: &str, per_token: usize| device.alloc(what, Class::Activations, product(&[tokens, per_token]));
    let space = Space::new(device, shape, tokens, extras)?;
    let index = words("row numbers", 4)?;
    let numbers: Vec<u32> = (0..tokens as u32).collect();
    device.write(&index, 0, bytemuck::cast_slice(&numbers))?;
    *place = Some(PrefillSpace {
        space,
        ids: words("packed ids", 8)?,
        index,
        ranges: words("packed ranges", 8)?,
        groups: words("packed row groups", 8)?,
        cross_ranges: words("packed cross ranges", 8)?,
        slots: (0..copies).map(|_| words("packed slots", 4)).collect::<Result<_, _>>()?,
    });
    Ok(())
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
