//! Adding up what would be allocated, without allocating it.

use crate::pool::{Class, Usage};
use crate::staging::ring_bytes;
use crate::tensor::{DType, buffer_bytes, tensor_bytes};

/// Bytes by class that some allocations would take from the pool. Each method stands for the allocation of the same name.
///
/// ```
/// use elgen_tensor::{Class, DType, Tally};
/// let mut tally = Tally::default();
/// tally.tensor(Class::Activations, 3, 5, DType::F32);
/// tally.buffer(Class::Cache, 17);
/// assert_eq!((tally.usage().total, tally.largest_binding()), (3 * 8 * 4 + 32, 96));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    usage: Usage,
    largest_binding: u64,
    largest_upload: u64,
}

impl Tally {
    /// As [`crate::Device::alloc`].
    pub fn buffer(&mut self, class: Class, bytes: u64) {
        self.buffers(class, buffer_bytes(bytes), bytes);
    }

    /// As [`crate::Device::tensor`].
    pub fn tensor(&mut self, class: Class, rows: usize, cols: usize, dtype: DType) {
        let bytes = tensor_bytes(rows, cols, dtype);
        self.buffers(class, bytes, bytes);
    }

    /// As [`crate::Device::readback`].
    pub fn readback(&mut self, bytes: u64) {
        self.usage.add(Class::Staging, buffer_bytes(bytes));
    }

    /// `count` buffers of `bytes` bytes each, as [`Tally::buffer`].
    pub fn equal_buffers(&mut self, class: Class, count: usize, bytes: u64) {
        if count > 0 {
            self.buffers(class, buffer_bytes(bytes).saturating_mul(count as u64), bytes);
        }
    }

    /// Buffers of `bytes` bytes in sum, the largest of which has `largest`.
    pub fn buffers(&mut self, class: Class, bytes: u64, largest: u64) {
        self.usage.add(class, bytes);
        self.largest_binding = self.largest_binding.max(largest);
    }

    /// As [`crate::Device::write`]: the upload ring is as large as the largest upload asks for.
    pub fn upload(&mut self, bytes: u64) {
        self.largest_upload = self.largest_upload.max(bytes);
    }

    /// Counts the upload ring under this memory limit, once all uploads are known.
    pub fn upload_ring(&mut self, memory_limit: u64) {
        if self.largest_upload > 0 {
            self.usage.add(Class::Staging, ring_bytes(self.largest_upload, memory_limit));
        }
    }

    /// The sums.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Bytes of the largest buffer that a kernel binds.
    pub fn largest_binding(&self) -> u64 {
        self.largest_binding
    }
}
