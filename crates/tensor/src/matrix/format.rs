//! How the elements of a weight matrix lie in device memory.

use std::fmt;

use crate::device::Device;
use crate::error::Result;
use crate::kernel::KernelSpec;
use crate::tensor::{DType, padded, product};
use crate::transfer::encode_rows;

/// The storage of a [`crate::Matrix`]. That of activations and caches is a [`DType`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WeightFormat {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
}

impl WeightFormat {
    /// All formats that a user can choose.
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    /// "f32" or "f16".
    pub fn name(self) -> &'static str {
        self.dtype().name()
    }

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Finite values whose magnitude is below this are stored as finite ones.
    pub fn limit(self) -> f32 {
        self.dtype().limit()
    }

    /// Device bytes of a row of `cols` columns with its padding; `u64::MAX` where they cannot be counted.
    pub fn row_bytes(self, cols: usize) -> u64 {
        product(&[padded(cols), self.dtype().bytes() as usize])
    }

    /// Device bytes of an element of a long row.
    pub fn element_bytes(self) -> f64 {
        const LONG: usize = 1 << 10;
        self.row_bytes(LONG) as f64 / LONG as f64
    }

    /// The storage of single elements.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
        }
    }

    /// Chooses how `matrix.wgsl` reads the weights.
    pub(crate) fn select(self, spec: KernelSpec, device: &Device) -> KernelSpec {
        spec.storage(device, self.dtype())
    }

    /// Rows of `cols` f32 values as they lie on the device.
    ///
    /// # Errors
    /// A finite value is beyond the range of the format.
    pub(crate) fn encode(self, values: &[f32], cols: usize) -> Result<Vec<u8>> {
        encode_rows(values, cols, self.dtype())
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Matrices of single elements.
impl From<DType> for WeightFormat {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for format in WeightFormat::ALL {
            assert_eq!(WeightFormat::from_name(&format.to_string()), Some(format));
        }
        assert_eq!(WeightFormat::from_name("F32"), None);
    }

    #[test]
    fn rows_are_padded_to_whole_quads() {
        assert_eq!([1, 4, 5].map(|cols| WeightFormat::F32.row_bytes(cols)), [16, 16, 32]);
        assert_eq!([1, 4, 5].map(|cols| WeightFormat::F16.row_bytes(cols)), [8, 8, 16]);
        assert_eq!(WeightFormat::F32.row_bytes(usize::MAX), u64::MAX);
        assert_eq!(WeightFormat::ALL.map(WeightFormat::element_bytes), [4.0, 2.0]);
        for format in WeightFormat::ALL {
            assert_eq!(format.encode(&[0.5; 10], 5).unwrap().len() as u64, 2 * format.row_bytes(5));
        }
    }
}
