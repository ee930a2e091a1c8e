//! The rows of a running batch: who they are, what they have said, and where their cached vectors lie.
//!
//! See docs/architecture.md, "Rows, sentences and slots". A *physical row* keeps its place in every table from admission to release;
//! `active` lists the physical rows that a dispatch covers.

use bytemuck::{Pod, Zeroable};

use crate::arena::Arena;
use crate::device::Device;
use crate::error::{Result, TensorError};
use crate::pool::Class;
use crate::recorder::Recorder;
use crate::tensor::{Buffer, product};

/// One physical row; mirrors `shaders/wgsl/include/rows.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RowState {
    /// Index into the per-sentence tables.
    pub sentence: u32,
    /// Index of this row within its sentence.
    pub beam: u32,
    /// Rows of the sentence.
    pub width: u32,
    /// Ids in `tokens[row]`; the one at `length - 1` is fed next.
    pub length: u32,
    /// Ids of the decoder prompt.
    pub prompt_len: u32,
    /// Slot of prompt position 0 in the sentence's slab.
    pub prompt_base: u32,
    /// Slot of this row's first generated position.
    pub gen_base: u32,
    /// 1 if this row writes the prompt's slots.
    pub owns_prompt: u32,
}

impl RowState {
    /// The slot of a position that this row itself writes.
    pub fn own_slot(&self, position: u32) -> u32 {
        if position < self.prompt_len {
            self.prompt_base + position
        } else {
            self.gen_base + (position - self.prompt_len) * self.width
        }
    }
}

/// A run of active rows whose sentences lie in one slab: what a cache kernel is dispatched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Slab number.
    pub slab: usize,
    /// First index into `active`.
    pub first: u32,
    /// Number of rows.
    pub count: u32,
    /// First entry in the list of row groups.
    pub first_group: u32,
    /// Number of row groups.
    pub groups: u32,
    /// Rows of the largest of them.
    pub widest_group: u32,
}

/// Query rows in the order of a dispatch, cut into segments (one slab) and, within them, into groups: neighbouring rows of one sentence,
/// which can read its keys together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grouping {
    /// (first query row, number of rows) of each group.
    pub groups: Vec<[u32; 2]>,
    /// The groups of one slab that follow each other.
    pub segments: Vec<Segment>,
    sentence: Option<u32>,
}

impl Grouping {
    /// Appends `count` rows of a sentence that lies in `slab`; none is a no-op.
    pub fn push(&mut self, slab: usize, sentence: u32, count: u32) {
        if count == 0 {
            return;
        }
        let first = self.segments.last().map_or(0, |s| s.first + s.count);
        let first_group = self.groups.len() as u32;
        let (segment, continues) = match self.segments.last_mut() {
            Some(last) if last.slab == slab => (last, self.sentence == Some(sentence)),
            _ => {
                self.segments.push(Segment { slab, first, count: 0, first_group, groups: 0, widest_group: 0 });
                let Some(new) = self.segments.last_mut() else { return };
                (new, false)
            }
        };
        segment.count += count;
        match self.groups.last_mut() {
            Some(group) if continues => group[1] += count,
            _ => {
                self.groups.push([first, count]);
                segment.groups += 1;
            }
        }
        segment.widest_group = segment.widest_group.max(self.groups.last().map_or(0, |group| group[1]));
        self.sentence = Some(sentence);
    }
}

/// Ids of a table that are uploaded together.
const STRETCH_IDS: usize = 1 << 20;

/// The device tables of up to `capacity` physical rows with up to `max_length` ids each.
#[derive(Debug)]
pub struct Rows {
    /// `state[row]`: [`RowState`].
    pub state: Buffer,
    /// `active[i]`: physical rows that still work.
    pub active: Buffer,
    /// `groups[g]`: (first index into `active`, number of rows) of the rows of one sentence.
    pub groups: Buffer,
    tokens: [Buffer; 2],
    slots: [Buffer; 2],
    capacity: usize,
    max_length: usize,
    parity: usize,
    /// Sentence of each physical row.
    sentences: Vec<u32>,
    /// Slab of each physical row.
    slabs: Vec<usize>,
    active_rows: Vec<u32>,
    segments: Vec<Segment>,
    /// The recorder that holds, or has submitted, the newest change of the active rows.
    changed_in: Option<u64>,
}

impl Rows {
    /// The tables on a device.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn new(device: &Device, capacity: usize, max_length: usize) -> Result<Self> {
        Self::build(&device.into(), capacity, max_length)
    }

    /// Allocates or counts the tables and the uploads of [`Rows::begin`].
    ///
    /// # Errors
    /// As [`Arena::buffer`].
    pub fn build(arena: &Arena, capacity: usize, max_length: usize) -> Result<Self> {
        let buffer = |what: &str, bytes: u64| {
            arena.will_upload(bytes);
            arena.buffer(what, Class::Cache, bytes)
        };
        let table = |name: &str| {
            let what = format!("{name} table of {capacity} rows and {max_length} ids");
            buffer(&what, product(&[capacity, max_length, 4]))
        };
        let list = |what: &str, each: usize| buffer(what, product(&[capacity, each]));
        Ok(Self {
            tokens: [table("token")?, table("token")?],
            slots: [table("slot")?, table("slot")?],
            state: list("row states", size_of::<RowState>())?,
            active: list("active rows", 4)?,
            groups: list("row groups", 8)?,
            capacity,
            max_length,
            parity: 0,
            sentences: Vec::new(),
            slabs: Vec::new(),
            active_rows: Vec::new(),
            segments: Vec::new(),
            changed_in: None,
        })
    }

    /// Physical rows that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Row stride of the token and slot tables.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Starts a batch: `states[row]` and the decoder prompt of each row, from row 0 on. All rows become active, in one segment per slab
    /// as `slabs[row]` says (ascending).
    ///
    /// # Errors
    /// More rows or ids than the tables hold, or an empty prompt.
    pub fn begin(&mut self, device: &Device, states: &[RowState], prompts: &[&[u32]], slabs: &[usize]) -> Result<()> {
        let fail = |message: String| TensorError::Shape { op: "rows", message };
        if states.len() > self.capacity || prompts.len() != states.len() || slabs.len() != states.len() {
            return Err(fail(format!(
                "{} rows, {} prompts, {} slabs for {} places",
                states.len(),
                prompts.len(),
                slabs.len(),
                self.capacity
            )));
        }
        for (row, (state, prompt)) in states.iter().zip(prompts).enumerate() {
            if prompt.is_empty() || prompt.len() > self.max_length || prompt.len() != state.length as usize {
                return Err(fail(format!(
                    "row {row}: a prompt of {} ids, length {}, table of {}",
                    prompt.len(),
                    state.length,
                    self.max_length
                )));
            }
        }
        self.parity = 0;
        self.sentences = states.iter().map(|state| state.sentence).collect();
        device.write(&self.state, 0, bytemuck::cast_slice(states))?;
        self.write_prompts(device, states, prompts)?;
        self.set_active(device, (0..states.len() as u32).collect(), slabs)
    }

    /// Uploads prompts and their slots, with zeros behind, in stretches of rows of a bounded size; of rows that are longer than a stretch only
    /// the beginnings. So the host holds no second copy of a large table. What lies behind a prompt is never read before it is written.
    fn write_prompts(&self, device: &Device, states: &[RowState], prompts: &[&[u32]]) -> Result<()> {
        let stretch = (STRETCH_IDS / self.max_length.max(1)).max(1);
        let (mut tokens, mut slots) = (Vec::new(), Vec::new());
        for (number, (states, prompts)) in states.chunks(stretch).zip(prompts.chunks(stretch)).enumerate() {
            tokens.clear();
            slots.clear();
            for (row, (state, prompt)) in states.iter().zip(prompts).enumerate() {
                tokens.extend_from_slice(prompt);
                slots.extend((0..prompt.len() as u32).map(|position| state.own_slot(position)));
                let end = row * self.max_length + self.max_length.min(STRETCH_IDS.max(prompt.len()));
                tokens.resize(end, 0);
                slots.resize(end, 0);
            }
            let at = product(&[number, stretch, self.max_length, 4]);
            device.write(&self.tokens[0], at, bytemuck::cast_slice(&tokens))?;
            device.write(&self.slots[0], at, bytemuck::cast_slice(&slots))?;
        }
        Ok(())
    }

    /// Replaces the list of active rows at once; `slabs[row]` is the slab of each physical row.
    ///
    /// # Errors
    /// A row without a slab, or beyond the tables; the device failed.
    pub fn set_active(&mut self, device: &Device, rows: Vec<u32>, slabs: &[usize]) -> Result<()> {
        let grouping = self.group(&rows, slabs)?;
        if !rows.is_empty() {
            device.write(&self.active, 0, bytemuck::cast_slice(&rows))?;
            device.write(&self.groups, 0, bytemuck::cast_slice(&grouping.groups))?;
        }
        self.slabs = slabs.to_vec();
        self.changed_in = None;
        self.segments = grouping.segments;
        self.active_rows = rows;
        Ok(())
    }

    /// Segments and groups of these rows.
    fn group(&self, rows: &[u32], slabs: &[usize]) -> Result<Grouping> {
        let mut grouping = Grouping::default();
        for row in rows {
            let place = *row as usize;
            let Some(slab) = slabs.get(place).filter(|_| place < self.capacity) else {
                let message = format!("row {row} of {} places, {} of which have a slab", self.capacity, slabs.len());
                return Err(TensorError::Shape { op: "rows", message });
            };
            // Rows that no batch began belong to no sentence: each stands alone.
            let sentence = self.sentences.get(place).copied().unwrap_or(*row);
            grouping.push(*slab, sentence, 1);
        }
        Ok(grouping)
    }

    /// Drops active rows, for what `rec` records from here on.
    ///
    /// # Errors
    /// As [`Rows::set_active`].
    pub fn retain(&mut self, rec: &mut Recorder, keep: impl Fn(u32) -> bool) -> Result<()> {
        if self.active_rows.iter().all(|row| keep(*row)) {
            return Ok(());
        }
        let rows: Vec<u32> = self.active_rows.iter().copied().filter(|row| keep(*row)).collect();
        let grouping = self.group(&rows, &self.slabs)?;
        rec.write(&self.active, 0, bytemuck::cast_slice(&rows))?;
        rec.write(&self.groups, 0, bytemuck::cast_slice(&grouping.groups))?;
        self.changed_in = Some(rec.id());
        self.segments = grouping.segments;
        self.active_rows = rows;
        Ok(())
    }

    /// Refuses a recorder that is not the one that dropped rows: the device would see another list than the host.
    ///
    /// # Errors
    /// [`Rows::retain`] recorded into another one.
    pub fn check_recorder(&self, rec: &Recorder) -> Result<()> {
        match self.changed_in {
            Some(id) if id != rec.id() => {
                let message = "rows were dropped in another recording, which goes on with the next step".to_owned();
                Err(TensorError::Shape { op: "rows", message })
            }
            _ => Ok(()),
        }
    }

    /// Active physical rows, as the device sees them.
    pub fn active_rows(&self) -> &[u32] {
        &self.active_rows
    }

    /// Number of active rows.
    pub fn count(&self) -> usize {
        self.active_rows.len()
    }

    /// Active rows by slab.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// `tokens[row][position]`: decoder ids so far.
    pub fn tokens(&self) -> &Buffer {
        &self.tokens[self.parity]
    }

    /// `slots[row][position]`: where the cached vector of a position lies in the row's slab.
    pub fn slots(&self) -> &Buffer {
        &self.slots[self.parity]
    }

    /// The tables that the coming `advance` writes: (tokens, slots).
    pub fn next_tables(&self) -> (&Buffer, &Buffer) {
        (&self.tokens[1 - self.parity], &self.slots[1 - self.parity])
    }

    /// Swaps the double buffers after `advance` was recorded.
    pub fn flip(&mut self) {
        self.parity = 1 - self.parity;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_sentence_are_a_group_and_never_cross_a_slab() {
        let mut grouping = Grouping::default();
        for (slab, sentence, count) in [(0, 0, 1), (0, 0, 2), (0, 1, 4), (0, 2, 0), (2, 1, 1), (2, 3, 1)] {
            grouping.push(slab, sentence, count);
        }
        assert_eq!(grouping.groups, [[0, 3], [3, 4], [7, 1], [8, 1]]);
        let segment = |slab, first, count, first_group, groups, widest_group| Segment {
            slab,
            first,
            count,
            first_group,
            groups,
            widest_group,
        };
        assert_eq!(grouping.segments, [segment(0, 0, 7, 0, 2, 4), segment(2, 7, 2, 2, 2, 1)]);
    }
}
