//! Tables whose contents become indices. Kernels take them on trust, so they are written by checking functions alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::{Pod, Zeroable};

use crate::arena::Arena;
use crate::device::{Device, lock};
use crate::error::{Result, TensorError};
use crate::pool::Class;
use crate::recorder::Recorder;
use crate::tensor::{Buffer, product};

/// Neighbouring entries of something: `first .. first + count`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Range {
    /// The first one.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

impl Range {
    /// `first .. first + count`.
    pub const fn new(first: u32, count: u32) -> Self {
        Self { first, count }
    }
}

/// A token id and the position where it stands.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct TokenAt {
    /// The id.
    pub id: u32,
    /// Its position.
    pub position: u32,
}

/// What a table holds.
pub trait Entry: Pod {
    /// One more than the largest index that it names.
    fn end(&self) -> u64;
}

impl Entry for u32 {
    fn end(&self) -> u64 {
        u64::from(*self) + 1
    }
}

impl Entry for Range {
    fn end(&self) -> u64 {
        // None at all names no index.
        if self.count == 0 { 0 } else { u64::from(self.first) + u64::from(self.count) }
    }
}

impl Entry for TokenAt {
    fn end(&self) -> u64 {
        u64::from(self.id) + 1
    }
}

/// How often a table was written: what was recorded for one content must not run with another.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    newest: AtomicU64,
    /// That of the content which the device has once all that was submitted has run.
    landed: AtomicU64,
}

impl Versions {
    /// The number of a content that is about to be recorded.
    pub(crate) fn next(&self) -> u64 {
        self.newest.fetch_add(1, Ordering::AcqRel) + 1
    }

    pub(crate) fn landed(&self) -> u64 {
        self.landed.load(Ordering::Acquire)
    }

    pub(crate) fn land(&self, version: u64) {
        self.landed.store(version, Ordering::Release);
    }
}

/// A table on a device, with its contents as they were written. A clone stays with the contents that it was made for: a recording that reads
/// them is refused once the table was written anew.
#[derive(Clone, Debug)]
pub struct Table<E> {
    buffer: Buffer,
    versions: Arc<Versions>,
    version: u64,
    entries: Arc<[E]>,
    end: u64,
}

/// A table as an op takes it.
#[derive(Clone, Copy, Debug)]
pub struct TableRef<'a, E> {
    pub(crate) buffer: &'a Buffer,
    pub(crate) versions: &'a Arc<Versions>,
    pub(crate) version: u64,
    pub(crate) entries: &'a [E],
    pub(crate) end: u64,
}

impl<'a, E: Entry> TableRef<'a, E> {
    /// The entries, as they were written.
    pub fn entries(&self) -> &'a [E] {
        self.entries
    }

    /// One more than the largest index that an entry names.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether the entries `first .. first + count` are there and name indices below `end` alone.
    pub fn holds(&self, first: usize, count: usize, end: usize) -> bool {
        let entries = self.entries.get(first..first.saturating_add(count));
        let within = |entry: &E| entry.end() <= end as u64;
        entries.is_some_and(|entries| self.end <= end as u64 || entries.iter().all(within))
    }
}

impl TableRef<'_, u32> {
    /// Whether the entries `first .. first + count` are there, each naming one of `ranges` that lies below `end`.
    pub fn hold_ranges(&self, first: usize, count: usize, ranges: TableRef<'_, Range>, end: usize) -> bool {
        let within = |at: &u32| ranges.holds(*at as usize, 1, end);
        let entries = self.entries.get(first..first.saturating_add(count));
        entries.is_some_and(|entries| {
            (self.end <= ranges.entries.len() as u64 && ranges.end <= end as u64) || entries.iter().all(within)
        })
    }
}

impl<E: Entry> Table<E> {
    /// Room for `capacity` entries, and for their upload; there are none yet.
    ///
    /// # Errors
    /// As [`Arena::buffer`].
    pub fn new(arena: &Arena, what: &str, class: Class, capacity: usize) -> Result<Self> {
        let bytes = product(&[capacity, size_of::<E>()]);
        arena.will_upload(bytes);
        let buffer = arena.buffer(what, class, bytes)?;
        Ok(Self { buffer, versions: Arc::default(), version: 0, entries: Arc::from([]), end: 0 })
    }

    /// A table with these entries (class activations).
    ///
    /// # Errors
    /// As [`Arena::buffer`] and [`Device::write`].
    pub fn of(device: &Device, what: &str, entries: &[E]) -> Result<Self> {
        let mut table = Self::new(&device.into(), what, Class::Activations, entries.len())?;
        table.write(device, entries)?;
        Ok(table)
    }

    /// Entries that fit.
    pub fn capacity(&self) -> usize {
        usize::try_from(self.buffer.bytes() / size_of::<E>() as u64).unwrap_or(usize::MAX)
    }

    /// Bytes in the pool.
    pub fn bytes(&self) -> u64 {
        self.buffer.bytes()
    }

    /// For an op.
    pub fn view(&self) -> TableRef<'_, E> {
        TableRef {
            buffer: &self.buffer,
            versions: &self.versions,
            version: self.version,
            entries: &self.entries,
            end: self.end,
        }
    }

    /// Replaces all entries at once, past any recording ([`Device::write`]).
    ///
    /// # Errors
    /// More than fit; as [`Device::write`].
    pub fn write(&mut self, device: &Device, entries: &[E]) -> Result<()> {
        self.check(entries)?;
        let _order = lock(&device.inner.order);
        // Whatever was recorded for the old entries is refused from here on, also where the upload fails midway.
        self.version = self.versions.next();
        self.versions.land(self.version);
        self.describe(&[]);
        device.write(&self.buffer, 0, bytemuck::cast_slice(entries))?;
        self.describe(entries);
        Ok(())
    }

    /// Replaces all entries for what `rec` records from here on.
    ///
    /// # Errors
    /// More than fit.
    pub fn record(&mut self, rec: &mut Recorder, entries: &[E]) -> Result<()> {
        self.check(entries)?;
        rec.write(&self.buffer, 0, bytemuck::cast_slice(entries))?;
        self.version = self.versions.next();
        rec.wrote(&self.versions, self.version);
        self.describe(entries);
        Ok(())
    }

    /// The first `count` entries, as the device has them.
    ///
    /// # Errors
    /// More than there is room for; the device failed.
    pub fn read(&self, device: &Device, count: usize) -> Result<Vec<E>> {
        Ok(bytemuck::pod_collect_to_vec(&device.read(&self.buffer, product(&[count, size_of::<E>()]))?))
    }

    fn check(&self, entries: &[E]) -> Result<()> {
        if entries.len() > self.capacity() {
            let message = format!("{} entries for a table of {}", entries.len(), self.capacity());
            return Err(TensorError::Shape { op: "table", message });
        }
        Ok(())
    }

    fn describe(&mut self, entries: &[E]) {
        self.entries = entries.into();
        self.end = entries.iter().map(Entry::end).max().unwrap_or(0);
    }
}
