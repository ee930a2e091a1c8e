//! The rows of a running batch: who they are, what they have said, and where their cached vectors lie.
//!
//! See docs/architecture.md, "Rows, sentences and slots". A *physical row* keeps its place in every table from admission to release;
//! `active` lists the physical rows that a dispatch covers.

mod grouping;
mod state;
#[cfg(feature = "testing")]
mod testing;

use std::sync::{Arc, MutexGuard};

use crate::arena::Arena;
use crate::binding::Binding;
use crate::device::{Device, lock};
use crate::error::{Result, TensorError};
use crate::pool::Class;
use crate::recorder::Recorder;
use crate::table::{Range, TableRef, Versions};
use crate::tensor::{Buffer, product};

pub use grouping::{Grouping, Segment};
pub use state::RowState;

/// A row that begins.
#[derive(Clone, Copy, Debug)]
pub struct RowStart<'a> {
    /// Who it is, and where it stores.
    pub state: RowState,
    /// Its decoder prompt.
    pub prompt: &'a [u32],
    /// Where its sentence's cached vectors lie.
    pub slab: usize,
    /// Ids that it has at most, the prompt included: its slots were reserved for so many.
    pub max_length: usize,
}

/// What the host knows of a physical row.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    state: RowState,
    slab: usize,
    /// Ids that it has at most.
    max_length: usize,
    /// One more than the largest slot that it names or stores to, up to that length.
    slot_end: u64,
}

/// Ids of a table that are uploaded together.
const STRETCH_IDS: usize = 1 << 20;

/// The device tables of up to `capacity` physical rows with up to `max_length` ids each. They are written by the functions of this type and by
/// the kernels of a search alone: what other kernels find in them was checked.
#[derive(Debug)]
pub struct Rows {
    /// `state[row]`: [`RowState`].
    state: Buffer,
    /// `active[i]`: physical rows that still work.
    active: Buffer,
    /// `groups[g]`: the indices into `active` of the rows of one sentence.
    groups: Buffer,
    tokens: [Buffer; 2],
    slots: [Buffer; 2],
    /// Of all tables together.
    versions: Arc<Versions>,
    version: u64,
    capacity: usize,
    max_length: usize,
    parity: usize,
    /// How often rows began, or were placed.
    begun: u64,
    known: Vec<Known>,
    active_rows: Vec<u32>,
    segments: Vec<Segment>,
    /// Of the active rows.
    row_groups: Vec<Range>,
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
            versions: Arc::default(),
            version: 0,
            capacity,
            max_length,
            parity: 0,
            begun: 0,
            known: Vec::new(),
            active_rows: Vec::new(),
            segments: Vec::new(),
            row_groups: Vec::new(),
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

    /// Starts a batch: rows from 0 on, with their decoder prompts. All become active, in one segment per slab (in ascending order).
    ///
    /// # Errors
    /// More rows or ids than the tables hold, an empty prompt, or a row with fewer keys than ids.
    pub fn begin(&mut self, device: &Device, starts: &[RowStart<'_>]) -> Result<()> {
        let fail = |message: String| TensorError::Shape { op: "rows", message };
        if starts.len() > self.capacity {
            return Err(fail(format!("{} rows for {} places", starts.len(), self.capacity)));
        }
        for (row, start) in starts.iter().enumerate() {
            let (ids, length, state) = (start.prompt.len(), start.max_length, start.state);
            let placed = ids == state.length as usize && ids == state.prompt_len as usize;
            if ids == 0 || !placed || ids > length || length > self.max_length {
                let message = format!(
                    "row {row}: a prompt of {ids} ids, of a state with length {} and prompt {}, for {length} ids in a table of {}",
                    state.length, state.prompt_len, self.max_length
                );
                return Err(fail(message));
            }
        }
        RowState::check_whole(starts.iter().map(|start| &start.state))?;
        let _order = self.invalidate(device);
        self.parity = 0;
        let states: Vec<RowState> = starts.iter().map(|start| start.state).collect();
        device.write(&self.state, 0, bytemuck::cast_slice(&states))?;
        self.write_prompts(device, starts)?;
        let known = |start: &RowStart<'_>| Known {
            state: start.state,
            slab: start.slab,
            max_length: start.max_length,
            slot_end: start.state.slot_end(start.max_length as u32),
        };
        self.known = starts.iter().map(known).collect();
        self.activate(device, (0..starts.len() as u32).collect())
    }

    /// Uploads prompts and their slots, with zeros behind, in stretches of rows of a bounded size; of rows that are longer than a stretch only
    /// the beginnings. So the host holds no second copy of a large table. What lies behind a prompt is never read before it is written.
    fn write_prompts(&self, device: &Device, starts: &[RowStart<'_>]) -> Result<()> {
        let stretch = (STRETCH_IDS / self.max_length.max(1)).max(1);
        let (mut tokens, mut slots) = (Vec::new(), Vec::new());
        for (number, starts) in starts.chunks(stretch).enumerate() {
            tokens.clear();
            slots.clear();
            for (row, start) in starts.iter().enumerate() {
                tokens.extend_from_slice(start.prompt);
                slots.extend((0..start.prompt.len() as u32).map(|position| start.state.own_slot(position)));
                let end = row * self.max_length + self.max_length.min(STRETCH_IDS.max(start.prompt.len()));
                tokens.resize(end, 0);
                slots.resize(end, 0);
            }
            let at = product(&[number, stretch, self.max_length, 4]);
            device.write(&self.tokens[0], at, bytemuck::cast_slice(&tokens))?;
            device.write(&self.slots[0], at, bytemuck::cast_slice(&slots))?;
        }
        Ok(())
    }

    /// Places rows from 0 on in the midst of their work, for the step that feeds their last ids: `slots` `[rows, max_length]` are the slots of
    /// their positions, `tokens` (if the step is to read any) their ids. They get no longer than they are. Which rows are active stays.
    ///
    /// # Errors
    /// More rows than there are places, more ids than the tables hold, tables of another size; a row with fewer keys than ids.
    pub fn place(
        &mut self,
        device: &Device,
        states: &[RowState],
        tokens: Option<&[u32]>,
        slots: Option<&[u32]>,
    ) -> Result<()> {
        RowState::check_whole(states)?;
        let sized = |table: Option<&[u32]>| {
            table.is_none_or(|ids| ids.len() as u64 == product(&[states.len(), self.max_length]))
        };
        let whole = states.iter().all(|state| state.length as usize <= self.max_length);
        if states.len() > self.capacity || !sized(tokens) || !sized(slots) || !whole {
            let message = format!(
                "{} rows in {} places, {} ids and {} slots for tables of {} each, lengths from {:?} to {:?}",
                states.len(),
                self.capacity,
                tokens.map_or(0, <[u32]>::len),
                slots.map_or(0, <[u32]>::len),
                self.max_length,
                states.iter().map(|state| state.length).min(),
                states.iter().map(|state| state.length).max()
            );
            return Err(TensorError::Shape { op: "rows", message });
        }
        RowState::check_whole(states)?;
        let (active, segments) = (std::mem::take(&mut self.active_rows), std::mem::take(&mut self.segments));
        let groups = std::mem::take(&mut self.row_groups);
        let _order = self.invalidate(device);
        device.write(&self.state, 0, bytemuck::cast_slice(states))?;
        if let Some(tokens) = tokens {
            device.write(&self.tokens[self.parity], 0, bytemuck::cast_slice(tokens))?;
        }
        if let Some(slots) = slots {
            device.write(&self.slots[self.parity], 0, bytemuck::cast_slice(slots))?;
        }
        self.known.resize(self.known.len().max(states.len()), Known::default());
        for (row, (known, state)) in self.known.iter_mut().zip(states).enumerate() {
            let named = slots.map(|slots| &slots[row * self.max_length..][..state.length as usize]);
            let largest = named.and_then(|slots| slots.iter().max()).map_or(0, |slot| u64::from(*slot) + 1);
            // Without new slots, those of before stay.
            let before = if slots.is_some() { 0 } else { known.slot_end };
            known.state = *state;
            known.max_length = state.length as usize;
            known.slot_end = largest.max(before).max(state.slot_end(state.length));
        }
        (self.active_rows, self.segments, self.row_groups) = (active, segments, groups);
        Ok(())
    }

    /// Replaces the list of active rows at once; `slabs[row]` is the slab of each physical row.
    ///
    /// # Errors
    /// A row without a slab, or beyond the tables; the device failed.
    pub fn set_active(&mut self, device: &Device, rows: Vec<u32>, slabs: &[usize]) -> Result<()> {
        let beyond = rows.iter().find(|row| slabs.get(**row as usize).is_none() || **row as usize >= self.capacity);
        if let Some(row) = beyond {
            let message = format!("row {row} of {} places, {} of which have a slab", self.capacity, slabs.len());
            return Err(TensorError::Shape { op: "rows", message });
        }
        let _order = self.invalidate(device);
        let began = self.known.len();
        self.known.resize(began.max(slabs.len().min(self.capacity)), Known::default());
        for (row, (known, slab)) in self.known.iter_mut().zip(slabs).enumerate() {
            known.slab = *slab;
            if row >= began {
                // Rows that no batch began belong to no sentence: each stands alone.
                known.state.sentence = row as u32;
            }
        }
        self.activate(device, rows)
    }

    /// Makes rows active at once.
    fn activate(&mut self, device: &Device, rows: Vec<u32>) -> Result<()> {
        let grouping = self.group(&rows);
        if !rows.is_empty() {
            device.write(&self.active, 0, bytemuck::cast_slice(&rows))?;
            device.write(&self.groups, 0, bytemuck::cast_slice(&grouping.groups))?;
        }
        self.regroup(rows, grouping);
        Ok(())
    }

    /// Segments and groups of rows that are known.
    fn group(&self, rows: &[u32]) -> Grouping {
        let mut grouping = Grouping::default();
        for known in rows.iter().filter_map(|row| self.known.get(*row as usize)) {
            grouping.push(known.slab, known.state.sentence, 1);
        }
        grouping
    }

    fn regroup(&mut self, rows: Vec<u32>, grouping: Grouping) {
        self.row_groups = grouping.groups;
        self.segments = grouping.segments;
        self.active_rows = rows;
    }

    /// Whatever was recorded for the old contents is refused from here on, and no row is active until the tables are whole again.
    fn invalidate<'d>(&mut self, device: &'d Device) -> MutexGuard<'d, ()> {
        let order = lock(&device.inner.order);
        self.version = self.versions.next();
        self.versions.land(self.version);
        self.begun += 1;
        self.active_rows.clear();
        self.segments.clear();
        self.row_groups.clear();
        order
    }

    /// Drops active rows, for what `rec` records from here on.
    ///
    /// # Errors
    /// The tables do not fit an upload.
    pub fn retain(&mut self, rec: &mut Recorder, keep: impl Fn(u32) -> bool) -> Result<()> {
        if self.active_rows.iter().all(|row| keep(*row)) {
            return Ok(());
        }
        let rows: Vec<u32> = self.active_rows.iter().copied().filter(|row| keep(*row)).collect();
        let grouping = self.group(&rows);
        rec.write(&self.active, 0, bytemuck::cast_slice(&rows))?;
        rec.write(&self.groups, 0, bytemuck::cast_slice(&grouping.groups))?;
        self.version = self.versions.next();
        rec.wrote(&self.versions, self.version);
        self.regroup(rows, grouping);
        Ok(())
    }

    /// How often rows began or were placed: whoever checked rows needs to check them again when this has changed.
    pub fn begun(&self) -> u64 {
        self.begun
    }

    /// A physical row as it began, and how many ids it has at most; `None`: no such row has begun.
    pub fn start(&self, row: u32) -> Option<(RowState, usize)> {
        self.known.get(row as usize).map(|known| (known.state, known.max_length))
    }

    /// Whether the active rows `first .. first + count` are there and name slots below `slots` alone.
    pub fn hold(&self, first: u32, count: u32, slots: usize) -> bool {
        let rows = self.active_rows.get(first as usize..(first as usize).saturating_add(count as usize));
        let within = |row: &u32| self.known.get(*row as usize).is_some_and(|known| known.slot_end <= slots as u64);
        rows.is_some_and(|rows| rows.iter().all(within))
    }

    /// Whether the active rows `first .. first + count` are there and feed an id each: rows that were never placed have none.
    pub fn feed(&self, first: u32, count: u32) -> bool {
        let rows = self.active_rows.get(first as usize..(first as usize).saturating_add(count as usize));
        let feeds = |row: &u32| self.known.get(*row as usize).is_some_and(|known| known.state.length > 0);
        rows.is_some_and(|rows| rows.iter().all(feeds))
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

    fn binding<'a>(&'a self, buffer: &'a Buffer) -> Binding<'a> {
        Binding::of_table(buffer, &self.versions, self.version)
    }

    /// `state[row]`: [`RowState`].
    pub fn state(&self) -> Binding<'_> {
        self.binding(&self.state)
    }

    /// `active[i]`: physical rows that still work.
    pub fn active(&self) -> TableRef<'_, u32> {
        self.table(&self.active, &self.active_rows, self.known.len())
    }

    /// `groups[g]`: the indices into the active rows of the rows of one sentence.
    pub fn groups(&self) -> TableRef<'_, Range> {
        self.table(&self.groups, &self.row_groups, self.active_rows.len())
    }

    fn table<'a, E>(&'a self, buffer: &'a Buffer, entries: &'a [E], end: usize) -> TableRef<'a, E> {
        TableRef { buffer, versions: &self.versions, version: self.version, entries, end: end as u64 }
    }

    /// `tokens[row][position]`: decoder ids so far.
    pub fn tokens(&self) -> Binding<'_> {
        self.binding(&self.tokens[self.parity])
    }

    /// `slots[row][key]`: where the cached vector of a live key lies in the row's slab; of whole histories, that of a position.
    pub fn slots(&self) -> Binding<'_> {
        self.binding(&self.slots[self.parity])
    }

    /// What the coming `advance` writes: (tokens, slots).
    pub fn next_tables(&self) -> (Binding<'_>, Binding<'_>) {
        (self.binding(&self.tokens[1 - self.parity]), self.binding(&self.slots[1 - self.parity]))
    }

    /// Swaps the double buffers after `advance` was recorded.
    pub fn flip(&mut self) {
        self.parity = 1 - self.parity;
    }

    /// The states of the first `count` rows, as the device has them.
    ///
    /// # Errors
    /// More than there are places; the device failed.
    pub fn read_states(&self, device: &Device, count: usize) -> Result<Vec<RowState>> {
        Ok(bytemuck::pod_collect_to_vec(&device.read(&self.state, product(&[count, size_of::<RowState>()]))?))
    }

    /// Ids and slots of the first `count` rows, `[count, max_length]` each, as the device has them.
    ///
    /// # Errors
    /// More than there are places; the device failed.
    pub fn read_tables(&self, device: &Device, count: usize) -> Result<(Vec<u32>, Vec<u32>)> {
        let read = |table: &Buffer| device.read(table, product(&[count, self.max_length, 4]));
        let (tokens, slots) = (read(&self.tokens[self.parity])?, read(&self.slots[self.parity])?);
        Ok((bytemuck::pod_collect_to_vec(&tokens), bytemuck::pod_collect_to_vec(&slots)))
    }
}
