//! A model at work: its caches, its working tensors, and the admission of batches. Implements [`DecodeStep`], so a search can drive it.

mod plan;
mod score;

use std::sync::Arc;

use elgen_attention::{CacheBytes, CacheLayout, Caches, Extras, Kind, Need, Packed, Placement, Splits, Step};
use elgen_search::device::DecodeStep;
use elgen_tensor::{Buffer, Class, Device, Grouping, RecordStats, Recorder, Rows, Tensor};

use crate::architecture::{Architecture, Probe};
use crate::error::ModelError;
use crate::layers::{Space, StackShape};

pub use score::{LogitRows, SeeLogits};

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

/// Bytes of working tensors that an encoder or prefill micro-batch may take, unless one sentence alone needs more.
pub const DEFAULT_PREFILL_BUDGET: u64 = 128 << 20;

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

/// A model with its caches, for one batch at a time of up to a fixed number of rows.
#[derive(Debug)]
pub struct Runner {
    device: Device,
    model: Arc<dyn Architecture>,
    caches: Caches,
    prefill_budget: u64,
    encode_space: Option<PrefillSpace>,
    prompt_space: Option<PrefillSpace>,
    step_space: Option<Space>,
    cross_ranges: Option<Buffer>,
    placements: Vec<Placement>,
    slabs: Vec<usize>,
}

/// A stretch of sentences whose packed rows run together.
struct Chunk {
    sentences: std::ops::Range<usize>,
    tokens: usize,
}

impl Runner {
    /// A runner without working tensors; they come with the first batch and grow with larger ones.
    pub fn new(device: &Device, model: Arc<dyn Architecture>, prefill_budget: u64) -> Self {
        let caches = Caches::new(device, model.cache_layout());
        Self {
            device: device.clone(),
            model,
            caches,
            prefill_budget,
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

    /// What the caches reserve for a sentence of `width` rows: (self, cross) bytes.
    pub fn cache_need(layout: &CacheLayout, sentence: &Sentence<'_>, width: usize) -> CacheBytes {
        let (self_slots, cross_slots) = layout.slots(&need(sentence, width));
        CacheBytes { self_: self_slots * layout.self_slot_bytes(), cross: cross_slots * layout.cross_slot_bytes() }
    }

    /// Rows of a decode step that one binding allows for each working tensor. `longest`: the most (source ids, decoder ids) of a sentence.
    pub fn max_rows(&self, longest: (usize, usize)) -> usize {
        Space::max_rows(&self.device, self.model.decoder_shape(), self.step_extras(0, longest))
    }

    /// Key splits of sentences with at most so many (source ids, decoder ids), for the kinds whose kernel splits keys.
    fn splits(&self, (source, decoder): (usize, usize)) -> Splits {
        let layout = self.caches.layout();
        let keys = |kind: Option<Kind>, keys: usize| if kind == Some(Kind::El) { keys } else { 0 };
        Splits::of(keys(Some(layout.self_kind), decoder), keys(layout.cross.map(|(_, kind)| kind), source))
    }

    fn step_extras(&self, memory_slots: usize, longest: (usize, usize)) -> Extras {
        let layout = self.caches.layout();
        let cross = layout.cross.map(|(_, kind)| kind);
        Extras {
            el: layout.self_kind == Kind::El || cross == Some(Kind::El),
            el_prefill: false,
            memory_slots: if cross == Some(Kind::MhaNocache) { memory_slots } else { 0 },
            splits: self.splits(longest),
        }
    }

    /// Admits a batch: reserves its cache slots, encodes the sources and runs the decoder prompts but for their last ids. Sentence `s` gets
    /// the physical rows `s * width ..` of `rows`. A batch that is still admitted is released first.
    ///
    /// # Errors
    /// Out of memory; a sentence larger than a slab or a binding; the device failed. Nothing stays admitted then.
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
        self.place(sentences, width)?;
        let mut states = Vec::with_capacity(sentences.len() * width);
        let mut prompts = Vec::with_capacity(states.capacity());
        let mut cross = Vec::with_capacity(states.capacity());
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
        self.prepare_step(rows.capacity(), longest(sentences))?;
        let mut stats = RecordStats::default();
        if let Some(encoder) = self.model.encoder_shape() {
            let ranges = self.cross_ranges.as_ref().filter(|b| b.bytes() >= rows.capacity() as u64 * 8);
            let ranges = match ranges {
                Some(buffer) => buffer.clone(),
                None => self.device.alloc("cross ranges", Class::Cache, rows.capacity() as u64 * 8)?,
            };
            self.device.write(&ranges, 0, bytemuck::cast_slice(&cross))?;
            self.cross_ranges = Some(ranges);
            stats += self.encode(encoder, sentences)?;
        }
        stats += self.prefill(sentences, None)?;
        Ok(stats)
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
        let extras = self.step_extras(memory_slots, longest);
        let enough = |s: &Space| s.rows >= rows && s.extras.hold(extras);
        if !self.step_space.as_ref().is_some_and(enough) {
            // The old one goes first: the peak is that of the larger one.
            self.step_space = None;
            self.step_space = Some(Space::new(&self.device, self.model.decoder_shape(), rows, extras)?);
        }
        Ok(())
    }

    fn encode(&mut self, shape: StackShape, sentences: &[Sentence<'_>]) -> Result<RecordStats, ModelError> {
        let lengths: Vec<usize> = sentences.iter().map(|s| s.source.len()).collect();
        let copies = self.placements.iter().map(|p| p.copies().1).max().unwrap_or(1);
        let chunks = self.chunks(&lengths, shape, Extras::default());
        let tokens = chunks.iter().map(|c| c.tokens).max().unwrap_or(0);
        prepare_packed(&self.device, &mut self.encode_space, shape, tokens, copies, Extras::default())?;
        let Some(packed) = &self.encode_space else { return Ok(RecordStats::default()) };
        let mut stats = RecordStats::default();
        for chunk in chunks {
            let batch = self.pack(packed, sentences, &chunk, true)?;
            let mut rec = self.device.recorder();
            self.model.encode(&mut rec, &packed.ids, &batch, &self.caches, &packed.space, Probe::none())?;
            stats += rec.submit()?;
        }
        Ok(stats)
    }

    fn prefill(
        &mut self,
        sentences: &[Sentence<'_>],
        mut score: Option<score::Scoring<'_>>,
    ) -> Result<RecordStats, ModelError> {
        let lengths: Vec<usize> = sentences.iter().map(|s| s.prompt.len() - 1).collect();
        if lengths.iter().all(|n| *n == 0) {
            return Ok(RecordStats::default());
        }
        let shape = self.model.decoder_shape();
        let layout = self.caches.layout();
        let extras = Extras {
            el: layout.cross.is_some_and(|(_, kind)| kind == Kind::El),
            el_prefill: layout.self_kind == Kind::El,
            memory_slots: self.step_space.as_ref().map_or(0, |s| s.extras.memory_slots),
            splits: Splits { self_: 1, cross: self.splits(longest(sentences)).cross },
        };
        let copies = self.placements.iter().map(|p| p.copies().0).max().unwrap_or(1);
        let chunks = self.chunks(&lengths, shape, extras);
        let tokens = chunks.iter().map(|c| c.tokens).max().unwrap_or(0);
        prepare_packed(&self.device, &mut self.prompt_space, shape, tokens, copies, extras)?;
        let Some(packed) = &self.prompt_space else { return Ok(RecordStats::default()) };
        let mut stats = RecordStats::default();
        for chunk in chunks.into_iter().filter(|c| c.tokens > 0) {
            let batch = self.pack(packed, sentences, &chunk, false)?;
            let mut rec = self.device.recorder();
            let states =
                self.model.prefill(&mut rec, &packed.ids, &batch, &self.caches, &packed.space, Probe::none())?;
            stats += rec.submit()?;
            if let Some(score) = &mut score {
                stats += score.chunk(&self.device, &*self.model, states, sentences, chunk.sentences)?;
            }
        }
        Ok(stats)
    }

    /// Cuts a batch into stretches whose packed rows fit the budget and one binding; a sentence is never cut.
    fn chunks(&self, lengths: &[usize], shape: StackShape, extras: Extras) -> Vec<Chunk> {
        let by_budget = (self.prefill_budget / Space::bytes_per_row(shape, extras).max(1)) as usize;
        let limit = by_budget.min(Space::max_rows(&self.device, shape, extras));
        let mut chunks: Vec<Chunk> = Vec::new();
        for (s, length) in lengths.iter().enumerate() {
            match chunks.last_mut() {
                Some(last) if last.tokens + length <= limit => {
                    last.sentences.end = s + 1;
                    last.tokens += length;
                }
                _ => chunks.push(Chunk { sentences: s..s + 1, tokens: *length }),
            }
        }
        chunks
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
    /// As [`Runner::begin`].
    pub fn encode_with_probe(&self, sentences: &[Sentence<'_>], probe: Probe<'_>) -> Result<RecordStats, ModelError> {
        let Some(packed) = &self.encode_space else { return Ok(RecordStats::default()) };
        let tokens = sentences.iter().map(|s| s.source.len()).sum();
        let batch = self.pack(packed, sentences, &Chunk { sentences: 0..sentences.len(), tokens }, true)?;
        let mut rec = self.device.recorder();
        self.model.encode(&mut rec, &packed.ids, &batch, &self.caches, &packed.space, probe)?;
        Ok(rec.submit()?)
    }
}

/// The most (source ids, decoder ids) of a sentence.
fn longest(sentences: &[Sentence<'_>]) -> (usize, usize) {
    let most = |of: fn(&Sentence<'_>) -> usize| sentences.iter().map(of).max().unwrap_or(0);
    (most(|s| s.source.len()), most(|s| s.prompt.len() + s.max_new))
}

fn need(sentence: &Sentence<'_>, width: usize) -> Need {
    Need { prompt_len: sentence.prompt.len(), max_new: sentence.max_new, width, source_len: sentence.source.len() }
}

/// Makes sure that working tensors for `tokens` packed rows and `copies` slot lists are there.
fn prepare_packed(
    device: &Device,
    place: &mut Option<PrefillSpace>,
    shape: StackShape,
    tokens: usize,
    copies: usize,
    extras: Extras,
) -> Result<(), ModelError> {
    let enough = |p: &PrefillSpace| p.space.rows >= tokens && p.slots.len() >= copies && p.space.extras.hold(extras);
    if place.as_ref().is_some_and(enough) {
        return Ok(());
    }
    *place = None;
    let words = |what: &str, per_token: u64| device.alloc(what, Class::Activations, tokens as u64 * per_token);
    let index = words("row numbers", 4)?;
    let numbers: Vec<u32> = (0..tokens as u32).collect();
    device.write(&index, 0, bytemuck::cast_slice(&numbers))?;
    *place = Some(PrefillSpace {
        space: Space::new(device, shape, tokens, extras)?,
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
