//! Where buffers come from: a device that allocates them, or a count of what it would allocate.

use std::sync::{Arc, Mutex};

use crate::device::{Device, lock};
use crate::error::{Result, TensorError};
use crate::load::Vector;
use crate::pool::Class;
use crate::readback::Readback;
use crate::tally::Tally;
use crate::tensor::{Buffer, DType, Tensor, buffer_bytes, padded, product};

/// The one description of a piece of memory: code that asks an arena for its buffers allocates them on a device, or counts them to the byte
/// where there is none.
///
/// ```
/// use elgen_tensor::{Arena, Class, DType};
/// # fn main() -> Result<(), elgen_tensor::TensorError> {
/// fn scratch(arena: &Arena, rows: usize) -> Result<elgen_tensor::Tensor, elgen_tensor::TensorError> {
///     arena.tensor("scratch", Class::Activations, rows, 5, DType::F32)
/// }
/// let plan = Arena::counting(128 << 20);
/// scratch(&plan, 3)?;
/// assert_eq!(plan.tally().usage().total, 3 * 8 * 4);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Arena {
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Device(Device),
    Counting { tally: Arc<Mutex<Tally>>, max_binding_bytes: u64 },
}

impl From<&Device> for Arena {
    fn from(device: &Device) -> Self {
        Self { source: Source::Device(device.clone()) }
    }
}

impl Arena {
    /// Counts for a device whose bindings hold `max_binding_bytes`. What it gives has sizes and no memory.
    pub fn counting(max_binding_bytes: u64) -> Self {
        Self { source: Source::Counting { tally: Arc::default(), max_binding_bytes } }
    }

    /// The device, unless this one counts.
    pub fn device(&self) -> Option<&Device> {
        match &self.source {
            Source::Device(device) => Some(device),
            Source::Counting { .. } => None,
        }
    }

    /// What was counted so far; nothing on a device.
    pub fn tally(&self) -> Tally {
        match &self.source {
            Source::Device(_) => Tally::default(),
            Source::Counting { tally, .. } => *lock(tally),
        }
    }

    /// Bytes that one binding holds at most.
    pub fn max_binding_bytes(&self) -> u64 {
        match &self.source {
            Source::Device(device) => device.capabilities().max_binding_bytes,
            Source::Counting { max_binding_bytes, .. } => *max_binding_bytes,
        }
    }

    /// As [`Device::alloc`]. Counted buffers may be larger than a binding: [`Tally::largest_binding`] tells.
    ///
    /// # Errors
    /// As there; none where it counts.
    pub fn buffer(&self, what: &str, class: Class, bytes: u64) -> Result<Buffer> {
        match &self.source {
            Source::Device(device) => device.alloc(what, class, bytes),
            Source::Counting { tally, .. } => {
                lock(tally).buffer(class, bytes);
                Ok(Buffer::counted(buffer_bytes(bytes)))
            }
        }
    }

    /// As [`Device::tensor`].
    ///
    /// # Errors
    /// As there; where it counts, only more columns than a kernel counts.
    pub fn tensor(&self, what: &str, class: Class, rows: usize, cols: usize, dtype: DType) -> Result<Tensor> {
        match &self.source {
            Source::Device(device) => device.tensor(what, class, rows, cols, dtype),
            Source::Counting { .. } => {
                let buffer = self.buffer(what, class, product(&[rows, padded(cols), dtype.bytes() as usize]))?;
                Tensor::over(buffer, what, rows, cols, dtype)
            }
        }
    }

    /// A tensor `[1, vector.len()]` of f32 that holds a vector.
    ///
    /// # Errors
    /// As [`Arena::tensor`]; on a device, a vector that was only counted.
    pub fn vector<'a>(&self, what: &str, class: Class, vector: impl Into<Vector<'a>>) -> Result<Tensor> {
        let vector = vector.into();
        let tensor = self.tensor(what, class, 1, vector.len(), DType::F32)?;
        match (self.device(), vector) {
            (Some(device), Vector::Values(values)) => device.write_rows(&tensor, 0, values)?,
            (Some(_), Vector::Counted(len)) => {
                let message = format!("{what}: {len} numbers were counted, not read");
                return Err(TensorError::Shape { op: "vector", message });
            }
            (None, _) => self.will_upload(product(&[tensor.ld(), tensor.dtype.bytes() as usize])),
        }
        Ok(tensor)
    }

    /// As [`Device::readback_ring`].
    ///
    /// # Errors
    /// As there; none where it counts.
    pub fn readback_ring(&self, what: &str, bytes: u64, depth: usize) -> Result<Readback> {
        match &self.source {
            Source::Device(device) => device.readback_ring(what, bytes, depth),
            Source::Counting { tally, .. } => {
                (0..depth).for_each(|_| lock(tally).readback(bytes));
                Ok(Readback::of((0..depth).map(|_| Buffer::counted(buffer_bytes(bytes))).collect()))
            }
        }
    }

    /// As [`Device::readback`].
    ///
    /// # Errors
    /// As there; none where it counts.
    pub fn readback(&self, what: &str, bytes: u64) -> Result<Readback> {
        self.readback_ring(what, bytes, 1)
    }

    /// As [`Device::write`]. Where it counts, the upload's size is what matters.
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, to: &Buffer, offset: u64, data: &[u8]) -> Result<()> {
        match &self.source {
            Source::Device(device) => device.write(to, offset, data),
            Source::Counting { .. } => {
                to.check_write(offset, data.len())?;
                self.will_upload(data.len() as u64);
                Ok(())
            }
        }
    }

    /// As [`Device::write_rows`]. Where it counts, the values are not looked at.
    ///
    /// # Errors
    /// As there.
    pub fn write_rows(&self, tensor: &Tensor, first: usize, values: &[f32]) -> Result<()> {
        match &self.source {
            Source::Device(device) => device.write_rows(tensor, first, values),
            Source::Counting { .. } => {
                let rows = values.len().checked_div(tensor.cols).unwrap_or(0);
                if rows * tensor.cols != values.len() || first.checked_add(rows).is_none_or(|end| end > tensor.rows) {
                    let message =
                        format!("{} values from row {first} on do not fit {}", values.len(), tensor.describe());
                    return Err(TensorError::Shape { op: "write_rows", message });
                }
                self.will_upload(product(&[rows, tensor.ld(), tensor.dtype.bytes() as usize]));
                Ok(())
            }
        }
    }

    /// Counts an upload of `bytes` bytes that is not made here: the ring is as large as the largest asks for. Nothing on a device.
    pub fn will_upload(&self, bytes: u64) {
        if let Source::Counting { tally, .. } = &self.source {
            lock(tally).upload(bytes);
        }
    }

    /// Counts numbers of a checkpoint that are read for what is built. Nothing on a device.
    pub fn will_read(&self, numbers: u64) {
        if let Source::Counting { tally, .. } = &self.source {
            lock(tally).read(numbers);
        }
    }

    /// Counts `build` `count` times, which runs once: equal pieces in any number. On a device it does nothing and gives `None`; what is
    /// allocated one by one is made there one by one.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn times<R, E>(&self, count: u64, build: impl FnOnce(&Self) -> Result<R, E>) -> Result<Option<R>, E> {
        match &self.source {
            Source::Device(_) => Ok(None),
            Source::Counting { tally, max_binding_bytes } => {
                let one = Self::counting(*max_binding_bytes);
                let built = build(&one)?;
                lock(tally).add(&one.tally(), count);
                Ok(Some(built))
            }
        }
    }

    /// `count` equal pieces, the number of each given to `build`: on a device all of them; where it counts, the first stands for all.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn each<R, E>(&self, count: usize, mut build: impl FnMut(&Self, usize) -> Result<R, E>) -> Result<Vec<R>, E> {
        match &self.source {
            Source::Device(_) => (0..count).map(|number| build(self, number)).collect(),
            Source::Counting { .. } if count == 0 => Ok(Vec::new()),
            Source::Counting { .. } => {
                let first = self.times(count as u64, |one| build(one, 0))?;
                Ok(first.into_iter().collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_has_sizes_and_no_memory() {
        let arena = Arena::counting(1 << 20);
        let tensor = arena.tensor("x", Class::Activations, 3, 5, DType::F16).unwrap();
        let huge = arena.buffer("huge", Class::Cache, u64::MAX).unwrap();
        arena.readback("values", 5).unwrap();
        arena.write_rows(&tensor, 1, &[0.0; 10]).unwrap();
        assert!(arena.write_rows(&tensor, 2, &[0.0; 10]).is_err() && arena.write(&tensor.buffer, 0, &[0; 64]).is_err());
        let usage = arena.tally().usage();
        assert_eq!((usage.of(Class::Activations), usage.of(Class::Staging), huge.bytes()), (48, 16, u64::MAX));
        assert_eq!((usage.of(Class::Cache), usage.total), (u64::MAX, u64::MAX));
        assert!(tensor.buffer.raw().is_err());
        let built = arena.times(3, |one| one.buffer("part", Class::Weights, 17)).unwrap();
        assert_eq!((built.map(|b| b.bytes()), arena.tally().usage().of(Class::Weights)), (Some(32), 96));
        let parts = arena.each(usize::MAX, |one, number| one.buffer("part", Class::Weights, number as u64)).unwrap();
        assert_eq!((parts.len(), arena.tally().usage().of(Class::Weights)), (1, u64::MAX));
        assert!(arena.each(0, |one, _| one.buffer("none", Class::Weights, 1)).unwrap().is_empty());
        assert!(arena.tensor("wide", Class::Cache, 0, u32::MAX as usize + 1, DType::F32).is_err());
    }
}
