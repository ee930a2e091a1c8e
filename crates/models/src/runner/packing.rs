//! Packed rows: the tokens of several sequences, one behind the other, with what tells them apart.

use elgen_attention::{Packed, Placement};
use elgen_tensor::{Arena, Buffer, Class, Device, Grouping, product};

use super::align::Continuation;
use super::footprint::{Chunk, PackedSize};
use super::{Runner, Sentence};
use crate::error::ModelError;
use crate::space::{Space, StackShape};

/// Working tensors and index buffers of packed rows.
#[derive(Debug)]
pub(super) struct PackedSpace {
    pub(super) space: Space,
    /// (id, position) pairs.
    pub(super) ids: Buffer,
    index: Buffer,
    ranges: Buffer,
    groups: Buffer,
    cross_ranges: Buffer,
    /// One for each copy of what is stored.
    slots: Vec<Buffer>,
    copies: usize,
}

impl PackedSpace {
    pub(super) fn size(&self) -> PackedSize {
        PackedSize { tokens: self.space.rows, copies: self.copies, extras: self.space.extras }
    }

    /// Allocates or counts one of this size, and the uploads of its batches.
    pub(super) fn build(arena: &Arena, shape: StackShape, size: PackedSize) -> Result<Self, ModelError> {
        let PackedSize { tokens, copies, extras } = size;
        let space = Space::build(arena, shape, tokens, extras)?;
        let words = |arena: &Arena, what: &str, per_token: usize| {
            let bytes = product(&[tokens, per_token]);
            arena.will_upload(bytes);
            arena.buffer(what, Class::Activations, bytes)
        };
        let index = words(arena, "row numbers", 4)?;
        if let Some(device) = arena.device() {
            let numbers: Vec<u32> = (0..tokens as u32).collect();
            device.write(&index, 0, bytemuck::cast_slice(&numbers))?;
        }
        Ok(Self {
            space,
            ids: words(arena, "packed ids", 8)?,
            index,
            ranges: words(arena, "packed ranges", 8)?,
            groups: words(arena, "packed row groups", 8)?,
            cross_ranges: words(arena, "packed cross ranges", 8)?,
            slots: arena.each(copies, |arena, _| words(arena, "packed slots", 4))?,
            copies,
        })
    }
}

/// What the rows of a sequence are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A source: each row sees the whole sequence, and all go to the cross caches.
    Source,
    /// A decoder prompt: a row sees what precedes it, and all go to the self caches.
    Prompt,
    /// A decoder sequence of which nothing is stored.
    Unstored,
}

/// Packed rows on the host.
struct PackedRows {
    ids: Vec<[u32; 2]>,
    ranges: Vec<[u32; 2]>,
    cross: Vec<[u32; 2]>,
    /// For each copy of what is stored.
    slots: Vec<Vec<u32>>,
    grouping: Grouping,
}

impl PackedRows {
    /// Room for `tokens` rows.
    fn new(tokens: usize) -> Self {
        let pairs = || Vec::with_capacity(tokens);
        Self { ids: pairs(), ranges: pairs(), cross: pairs(), slots: Vec::new(), grouping: Grouping::default() }
    }

    /// Appends the first `count` ids of `tokens`, those of sentence `number` at `placement`.
    fn push<'a>(
        &mut self,
        placement: &Placement,
        number: u32,
        tokens: impl Iterator<Item = &'a u32>,
        count: u32,
        role: Role,
    ) {
        let copies = match role {
            Role::Source => placement.copies().1,
            Role::Prompt => placement.copies().0,
            Role::Unstored => 0,
        };
        self.slots.resize_with(copies, || Vec::with_capacity(self.ids.capacity()));
        let first = self.ids.len() as u32;
        for (position, id) in (0..count).zip(tokens) {
            self.ids.push([*id, position]);
            self.ranges.push([first, if role == Role::Source { count } else { position + 1 }]);
            self.cross.push(placement.cross_range(0));
            for (copy, list) in (0u32..).zip(&mut self.slots) {
                list.push(match role {
                    Role::Source => placement.cross_range(copy)[0] + position,
                    Role::Prompt | Role::Unstored => placement.row(0, copy).own_slot(position),
                });
            }
        }
        self.grouping.push(placement.slab, number, count);
    }

    /// Uploads the rows; with their `cross` ranges where they attend to sources.
    fn upload(self, device: &Device, to: &PackedSpace, cross: bool) -> Result<Packed, ModelError> {
        device.write(&to.ids, 0, bytemuck::cast_slice(&self.ids))?;
        device.write(&to.ranges, 0, bytemuck::cast_slice(&self.ranges))?;
        device.write(&to.groups, 0, bytemuck::cast_slice(&self.grouping.groups))?;
        let mut slots = Vec::with_capacity(self.slots.len());
        for (buffer, list) in to.slots.iter().zip(&self.slots) {
            device.write(buffer, 0, bytemuck::cast_slice(list))?;
            slots.push(buffer.clone());
        }
        if cross {
            device.write(&to.cross_ranges, 0, bytemuck::cast_slice(&self.cross))?;
        }
        Ok(Packed {
            tokens: self.ids.len(),
            index: to.index.clone(),
            ranges: to.ranges.clone(),
            segments: self.grouping.segments,
            groups: to.groups.clone(),
            slots,
            cross_ranges: cross.then(|| to.cross_ranges.clone()),
        })
    }
}

impl Runner {
    /// Uploads a stretch: its sources, or its prompts but for their last ids.
    pub(super) fn pack(
        &self,
        to: &PackedSpace,
        sentences: &[Sentence<'_>],
        chunk: &Chunk,
        encoder: bool,
    ) -> Result<Packed, ModelError> {
        let mut rows = PackedRows::new(chunk.tokens);
        for s in chunk.sentences.clone() {
            let (placement, sentence) = (&self.placements[s], &sentences[s]);
            let (tokens, count, role) = match encoder {
                true => (sentence.source, sentence.source.len(), Role::Source),
                false => (sentence.prompt, sentence.prompt.len() - 1, Role::Prompt),
            };
            rows.push(placement, s as u32, tokens.iter(), count as u32, role);
        }
        rows.upload(&self.device, to, self.caches.layout().cross.is_some() && !encoder)
    }

    /// Uploads sequences that are run again.
    pub(super) fn pack_continuations(
        &self,
        to: &PackedSpace,
        continuations: &[Continuation<'_>],
    ) -> Result<Packed, ModelError> {
        let mut rows = PackedRows::new(continuations.iter().map(Continuation::fed).sum());
        for (number, continuation) in (0..).zip(continuations) {
            let placement = &self.placements[continuation.sentence];
            let tokens = continuation.prompt.iter().chain(continuation.token_ids);
            rows.push(placement, number, tokens, continuation.fed() as u32, Role::Unstored);
        }
        rows.upload(&self.device, to, true)
    }
}
