//! A recording: uploads, dispatches, copies and read-backs in order, as data. Nothing of a driver is in it.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Result, TensorError};
use crate::kernel::Kernel;
use crate::readback::Slot;
use crate::table::Versions;
use crate::tensor::Buffer;

/// What one entry of a recording does. Ranges point into the lists of the [`Recording`].
#[derive(Debug)]
pub(crate) enum Command {
    /// Bytes `data` of the recording go to `to`.
    Upload {
        to: Buffer,
        offset: u64,
        data: Range<usize>,
    },
    /// `kernel` over the bindings `buffers` with the parameters `params`.
    Dispatch {
        kernel: Arc<Kernel>,
        buffers: Range<usize>,
        params: Range<usize>,
        grid: [u32; 3],
    },
    Copy {
        from: Buffer,
        from_offset: u64,
        to: Buffer,
        to_offset: u64,
        bytes: u64,
    },
    /// To a buffer that the host reads.
    ReadBack {
        from: Buffer,
        from_offset: u64,
        to: Arc<Slot>,
        bytes: u64,
    },
}

/// A content of a table that commands read or write.
#[derive(Debug)]
pub(crate) struct TableUse {
    pub(crate) versions: Arc<Versions>,
    pub(crate) version: u64,
    pub(crate) writes: bool,
}

/// Commands in order, and what they need: it holds its buffers and kernels until it is emptied. Emptying keeps the memory of the lists, so
/// that steps of one shape allocate nothing.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    /// Uploads to buffers that nothing before them touches: they may come first.
    pub(crate) front: Vec<Command>,
    pub(crate) commands: Vec<Command>,
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) params: Vec<u8>,
    pub(crate) data: Vec<u8>,
    /// Tables that are read and written, in order.
    pub(crate) tables: Vec<TableUse>,
    /// Parameters as a device without immediates reads them; made when it is submitted.
    pub(crate) uniforms: Vec<u8>,
}

impl Recording {
    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.front.is_empty() && self.commands.is_empty()
    }

    /// Adds an upload, at the front where order allows it: uploads between dispatches would cut a compute pass.
    pub(crate) fn upload(&mut self, to: &Buffer, offset: u64, bytes: &[u8]) {
        let first = self.data.len();
        self.data.extend_from_slice(bytes);
        let command = Command::Upload { to: to.clone(), offset, data: first..self.data.len() };
        if self.touches(to) {
            self.commands.push(command);
        } else {
            self.front.push(command);
        }
    }

    /// Remembers that a content of a table is read, once.
    pub(crate) fn read_table(&mut self, versions: &Arc<Versions>, version: u64) {
        let last = self.tables.iter().rev().find(|used| Arc::ptr_eq(&used.versions, versions));
        if last.is_none_or(|used| used.version != version) {
            self.tables.push(TableUse { versions: Arc::clone(versions), version, writes: false });
        }
    }

    /// Refuses contents that the device will not have when the commands run.
    pub(crate) fn check_tables(&self) -> Result<()> {
        for (at, used) in self.tables.iter().enumerate().filter(|(_, used)| !used.writes) {
            let mut before = self.tables[..at].iter().rev();
            let written = before.find(|other| other.writes && Arc::ptr_eq(&other.versions, &used.versions));
            let there = written.map_or_else(|| used.versions.landed(), |write| write.version);
            if there != used.version {
                let message = "a table of indices was written anew since an op was recorded that reads it".to_owned();
                return Err(TensorError::Shape { op: "submit", message });
            }
        }
        Ok(())
    }

    /// What it writes is there for what is submitted from now on; where it failed midway, nobody knows what is there.
    pub(crate) fn land_tables(&self, submitted: bool) {
        for used in self.tables.iter().filter(|used| used.writes) {
            used.versions.land(if submitted { used.version } else { used.versions.next() });
        }
    }

    /// Whether any command but those at the front touches this buffer.
    fn touches(&self, buffer: &Buffer) -> bool {
        let same = |other: &Buffer| other.id() == buffer.id();
        self.buffers.iter().any(same)
            || self.commands.iter().any(|command| match command {
                Command::Upload { to, .. } => same(to),
                Command::Dispatch { .. } => false,
                Command::Copy { from, to, .. } => same(from) || same(to),
                Command::ReadBack { from, .. } => same(from),
            })
    }

    pub(crate) fn clear(&mut self) {
        self.front.clear();
        self.commands.clear();
        self.buffers.clear();
        self.params.clear();
        self.data.clear();
        self.tables.clear();
    }
}
