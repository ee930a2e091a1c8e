//! Buffers and tensors.

use std::sync::Arc;

use crate::device::{Device, one_line};
use crate::error::{Result, TensorError};
use crate::pool::{Class, Reservation};

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, natively or as pairs in `u32`: the same bits.
    F16,
}

impl DType {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// Finite values whose magnitude is below this are stored as finite ones.
    pub fn limit(self) -> f32 {
        match self {
            Self::F32 => f32::INFINITY,
            // Half a step beyond its largest number, 65504, from where on rounding gives an infinity.
            Self::F16 => 65520.0,
        }
    }

    /// "f32" or "f16".
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

/// A counted GPU buffer; freed when the last clone goes.
#[derive(Clone, Debug)]
pub struct Buffer {
    pub(crate) inner: Arc<BufferInner>,
}

#[derive(Debug)]
pub(crate) struct BufferInner {
    pub(crate) raw: wgpu::Buffer,
    pub(crate) reservation: Reservation,
}

impl Buffer {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.inner.raw.size()
    }

    pub(crate) fn id(&self) -> u64 {
        self.inner.reservation.id
    }

    /// Whether `bytes` bytes at `offset` are not all within it.
    pub(crate) fn is_left_by(&self, offset: u64, bytes: u64) -> bool {
        offset.checked_add(bytes).is_none_or(|end| end > self.bytes())
    }

    /// Refuses to write `bytes` bytes at `offset` where they leave it or are not whole words.
    pub(crate) fn check_write(&self, offset: u64, bytes: usize) -> Result<()> {
        if self.is_left_by(offset, bytes as u64) || !offset.is_multiple_of(4) || !bytes.is_multiple_of(4) {
            let message = format!("{bytes} bytes at {offset} do not fit a buffer of {}", self.bytes());
            return Err(TensorError::Shape { op: "write", message });
        }
        Ok(())
    }
}

impl Device {
    /// Allocates a zeroed storage buffer of `bytes` (rounded up to 16) that one binding can hold.
    ///
    /// # Errors
    /// Larger than a binding, beyond the pool's limit, or refused by the driver; `what` names who asked.
    pub fn alloc(&self, what: &str, class: Class, bytes: u64) -> Result<Buffer> {
        let limit = self.capabilities().max_binding_bytes;
        if bytes > limit {
            return Err(TensorError::TooLarge { what: what.to_owned(), asked: bytes, limit, kind: "binding" });
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        self.alloc_raw(what, class, buffer_bytes(bytes), usage)
    }

    pub(crate) fn alloc_raw(&self, what: &str, class: Class, bytes: u64, usage: wgpu::BufferUsages) -> Result<Buffer> {
        let limit = self.capabilities().max_buffer_bytes;
        if bytes > limit {
            return Err(TensorError::TooLarge { what: what.to_owned(), asked: bytes, limit, kind: "buffer" });
        }
        let pool = &self.inner.pool;
        let reservation = pool.reserve(class, bytes).map_err(|used| TensorError::MemoryLimit {
            what: what.to_owned(),
            class,
            asked: bytes,
            used,
            limit: pool.limit(),
        })?;
        // What the pool counts as freed must be free before more is asked of the driver: an allocation near the limit relies on it.
        self.reclaim()?;
        let device = &self.inner.device;
        let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let raw = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size: bytes,
            usage,
            mapped_at_creation: false,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            let used = pool.current().total.saturating_sub(bytes);
            let message = one_line(&error.to_string());
            return Err(TensorError::OutOfMemory { what: what.to_owned(), asked: bytes, used, message });
        }
        self.check()?;
        Ok(Buffer { inner: Arc::new(BufferInner { raw, reservation }) })
    }

    /// Allocates a zeroed tensor.
    ///
    /// # Errors
    /// As [`Device::alloc`]; also when the size overflows.
    pub fn tensor(&self, what: &str, class: Class, rows: usize, cols: usize, dtype: DType) -> Result<Tensor> {
        // A size that cannot be counted saturates, and no device has it.
        let buffer = self.alloc(what, class, product(&[rows, padded(cols), dtype.bytes() as usize]))?;
        // Kernels count columns in 32 bits, also of a tensor without rows.
        if cols > u32::MAX as usize {
            let message = format!("{what}: [{rows}, {cols}] has more columns than a kernel counts");
            return Err(TensorError::Shape { op: "tensor", message });
        }
        Ok(Tensor { buffer, rows, cols, dtype })
    }
}

/// What [`Device::alloc`] takes for `bytes` bytes.
pub fn buffer_bytes(bytes: u64) -> u64 {
    bytes.max(1).checked_next_multiple_of(16).unwrap_or(u64::MAX)
}

/// What [`Device::tensor`] takes for `[rows, cols]`.
pub fn tensor_bytes(rows: usize, cols: usize, dtype: DType) -> u64 {
    buffer_bytes(product(&[rows, padded(cols), dtype.bytes() as usize]))
}

/// The product of some counts, `u64::MAX` where it is more: a size that every limit refuses. What becomes a size is multiplied by this or by
/// checked arithmetic.
pub fn product(counts: &[usize]) -> u64 {
    counts.iter().fold(1, |product: u64, count| product.saturating_mul(*count as u64))
}

/// `cols` rounded up to whole quads: the row stride of every tensor. Numbers that have no such multiple give the largest one, which no
/// device holds.
pub fn padded(cols: usize) -> usize {
    cols.checked_next_multiple_of(4).unwrap_or(usize::MAX / 4 * 4)
}

/// A matrix `[rows, cols]` with row stride `padded(cols)`, starting at the front of its buffer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Where the elements lie.
    pub buffer: Buffer,
    /// Number of rows.
    pub rows: usize,
    /// Number of columns without padding.
    pub cols: usize,
    /// Element storage.
    pub dtype: DType,
}

impl Tensor {
    /// Row stride in elements.
    pub fn ld(&self) -> usize {
        padded(self.cols)
    }

    /// Row stride in quads of four elements, as shaders count.
    pub fn quads(&self) -> u32 {
        (self.ld() / 4) as u32
    }

    /// "[rows, cols] dtype", for messages.
    pub fn describe(&self) -> String {
        format!("[{}, {}] {}", self.rows, self.cols, self.dtype.name())
    }
}
