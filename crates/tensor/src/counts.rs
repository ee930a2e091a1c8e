//! Counting what reaches the queue.

use std::sync::atomic::{AtomicU64, Ordering};

/// What some recordings did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordStats {
    /// Compute dispatches.
    pub dispatches: u64,
    /// Times that the host waited for a read-back.
    pub host_waits: u64,
    /// Bytes read back.
    pub readback_bytes: u64,
    /// Queue submissions, those of uploads too.
    pub submissions: u64,
    /// Uploads.
    pub uploads: u64,
    /// Bytes uploaded.
    pub upload_bytes: u64,
}

impl std::ops::AddAssign for RecordStats {
    fn add_assign(&mut self, other: Self) {
        self.dispatches += other.dispatches;
        self.host_waits += other.host_waits;
        self.readback_bytes += other.readback_bytes;
        self.submissions += other.submissions;
        self.uploads += other.uploads;
        self.upload_bytes += other.upload_bytes;
    }
}

/// What a device has done since it was opened, by all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceCounts {
    /// Everything that reached the queue, with and without a recording.
    pub queue: RecordStats,
    /// Kernels that were looked up by text: once for each specification and place in the code.
    pub text_lookups: u64,
    /// Bind groups made: once for each kernel and its buffers.
    pub bind_groups: u64,
}

/// The counters behind [`DeviceCounts`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    dispatches: AtomicU64,
    host_waits: AtomicU64,
    readback_bytes: AtomicU64,
    submissions: AtomicU64,
    uploads: AtomicU64,
    upload_bytes: AtomicU64,
    text_lookups: AtomicU64,
    bind_groups: AtomicU64,
}

impl Counters {
    /// Counts what was submitted.
    pub(crate) fn add(&self, stats: &RecordStats) {
        let counted = [
            (&self.dispatches, stats.dispatches),
            (&self.host_waits, stats.host_waits),
            (&self.readback_bytes, stats.readback_bytes),
            (&self.submissions, stats.submissions),
            (&self.uploads, stats.uploads),
            (&self.upload_bytes, stats.upload_bytes),
        ];
        for (counter, count) in counted {
            if count > 0 {
                counter.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn text_lookup(&self) {
        self.text_lookups.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn bind_group(&self) {
        self.bind_groups.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> DeviceCounts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DeviceCounts {
            queue: RecordStats {
                dispatches: of(&self.dispatches),
                host_waits: of(&self.host_waits),
                readback_bytes: of(&self.readback_bytes),
                submissions: of(&self.submissions),
                uploads: of(&self.uploads),
                upload_bytes: of(&self.upload_bytes),
            },
            text_lookups: of(&self.text_lookups),
            bind_groups: of(&self.bind_groups),
        }
    }
}
