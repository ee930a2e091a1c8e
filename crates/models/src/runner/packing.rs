//! Packed rows: the tokens of several sequences, one behind the other, with what tells them apart.

use elgen_attention::{Packed, Placement};
use elgen_tensor::{Arena, Class, Entry, Grouping, Range, Recorder, Table, TensorError, TokenAt};

use super::align::Continuation;
use super::footprint::{Chunk, PackedSize};
use super::{Runner, Sentence};
use crate::error::ModelError;
use crate::space::{Space, StackShape};

/// Working tensors and index buffers of packed rows.
#[derive(Debug)]
pub(super) struct PackedSpace {
    pub(super) space: Space,
    ids: Table<TokenAt>,
    index: Table<u32>,
    ranges: Table<Range>,
    groups: Table<Range>,
    cross_ranges: Table<Range>,
    /// One for each copy of what is stored.
    slots: Vec<Table<u32>>,
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
        fn table<E: Entry>(arena: &Arena, what: &str, tokens: usize) -> Result<Table<E>, TensorError> {
            Table::new(arena, what, Class::Activations, tokens)
        }
        let mut index = table(arena, "row numbers", tokens)?;
        if let Some(device) = arena.device() {
            index.write(device, &(0..tokens as u32).collect::<Vec<u32>>())?;
        }
        Ok(Self {
            space,
            ids: table(arena, "packed ids", tokens)?,
            index,
            ranges: table(arena, "packed ranges", tokens)?,
            groups: table(arena, "packed row groups", tokens)?,
            cross_ranges: table(arena, "packed cross ranges", tokens)?,
            slots: arena.each(copies, |arena, _| table(arena, "packed slots", tokens))?,
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
    ids: Vec<TokenAt>,
    ranges: Vec<Range>,
    cross: Vec<Range>,
    /// For each copy of what is stored.
    slots: Vec<Vec<u32>>,
    grouping: Grouping,
}

impl PackedRows {
    /// Room for `tokens` rows.
    fn new(tokens: usize) -> Self {
        Self {
            ids: Vec::with_capacity(tokens),
            ranges: Vec::with_capacity(tokens),
            cross: Vec::with_capacity(tokens),
            slots: Vec::new(),
            grouping: Grouping::default(),
        }
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
            self.ids.push(TokenAt { id: *id, position });
            self.ranges.push(Range::new(first, if role == Role::Source { count } else { position + 1 }));
            self.cross.push(placement.cross_range(0));
            for (copy, list) in (0u32..).zip(&mut self.slots) {
                list.push(match role {
                    Role::Source => placement.cross_range(copy).first + position,
                    Role::Prompt | Role::Unstored => placement.row(0, copy).own_slot(position),
                });
            }
        }
        self.grouping.push(placement.slab, number, count);
    }

    /// Records their upload into the tables of `to`; with their `cross` ranges where they attend to sources.
    fn record(self, rec: &mut Recorder, to: &PackedSpace, cross: bool) -> Result<PackedInput, ModelError> {
        fn written<E: Entry>(rec: &mut Recorder, table: &Table<E>, entries: &[E]) -> Result<Table<E>, TensorError> {
            let mut table = table.clone();
            table.record(rec, entries)?;
            Ok(table)
        }
        let mut slots = Vec::with_capacity(self.slots.len());
        for (table, list) in to.slots.iter().zip(&self.slots) {
            slots.push(written(rec, table, list)?);
        }
        let batch = Packed {
            tokens: self.ids.len(),
            index: to.index.clone(),
            ranges: written(rec, &to.ranges, &self.ranges)?,
            segments: self.grouping.segments,
            groups: written(rec, &to.groups, &self.grouping.groups)?,
            slots,
            cross_ranges: if cross { Some(written(rec, &to.cross_ranges, &self.cross)?) } else { None },
        };
        Ok(PackedInput { ids: written(rec, &to.ids, &self.ids)?, batch })
    }
}

/// Packed rows as a model takes them.
pub(super) struct PackedInput {
    pub(super) ids: Table<TokenAt>,
    pub(super) batch: Packed,
}

impl Runner {
    /// Records the upload of a stretch: its sources, or its prompts but for their last ids.
    pub(super) fn pack(
        &self,
        rec: &mut Recorder,
        to: &PackedSpace,
        sentences: &[Sentence<'_>],
        chunk: &Chunk,
        encoder: bool,
    ) -> Result<PackedInput, ModelError> {
        let mut rows = PackedRows::new(chunk.tokens);
        for s in chunk.sentences.clone() {
            let (placement, sentence) = (&self.placements[s], &sentences[s]);
            let (tokens, count, role) = match encoder {
                true => (sentence.source, sentence.source.len(), Role::Source),
                false => (sentence.prompt, sentence.prompt.len() - 1, Role::Prompt),
            };
            rows.push(placement, s as u32, tokens.iter(), count as u32, role);
        }
        rows.record(rec, to, self.caches.layout().cross_shape.is_some() && !encoder)
    }

    /// Records the upload of sequences that are run again.
    pub(super) fn pack_continuations(
        &self,
        rec: &mut Recorder,
        to: &PackedSpace,
        continuations: &[Continuation<'_>],
    ) -> Result<PackedInput, ModelError> {
        let mut rows = PackedRows::new(continuations.iter().map(Continuation::fed).sum());
        for (number, continuation) in (0..).zip(continuations) {
            let placement = &self.placements[continuation.sentence];
            let tokens = continuation.prompt.iter().chain(continuation.token_ids);
            rows.push(placement, number, tokens, continuation.fed() as u32, Role::Unstored);
        }
        rows.record(rec, to, true)
    }
}
