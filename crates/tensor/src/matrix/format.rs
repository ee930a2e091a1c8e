//! How the elements of a weight matrix lie in device memory.

use std::fmt;

#[cfg(feature = "testing")]
use super::int8_blocks;
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
    /// Blocks of 32 columns, each of 8-bit integers with one f32 scale: a format whose elements do not stand alone, for tests of everything that must
    /// not know of it.
    #[cfg(feature = "testing")]
    Int8Blocks,
}

impl WeightFormat {
    /// All formats that a user can choose.
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    /// "f32" or "f16".
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            #[cfg(feature = "testing")]
            Self::Int8Blocks => "int8-blocks",
        }
    }

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Finite values whose magnitude is below this are stored as finite ones.
    pub fn limit(self) -> f32 {
        self.dense().map_or(f32::INFINITY, DType::limit)
    }

    /// Device bytes of a row of `cols` columns with its padding; `u64::MAX` where they cannot be counted.
    pub fn row_bytes(self, cols: usize) -> u64 {
        let dense = |dtype: DType| product(&[padded(cols), dtype.bytes() as usize]);
        match self {
            Self::F32 => dense(DType::F32),
            Self::F16 => dense(DType::F16),
            #[cfg(feature = "testing")]
            Self::Int8Blocks => int8_blocks::row_bytes(cols),
        }
    }

    /// Device bytes of an element of a long row.
    pub fn element_bytes(self) -> f64 {
        const LONG: usize = 1 << 10;
        self.row_bytes(LONG) as f64 / LONG as f64
    }

    /// The format of the position tables of a model whose matrices have this one. Positions are few and are added, not multiplied: their elements
    /// stand alone.
    pub fn of_positions(self) -> Self {
        self.dense().map_or(Self::F32, Self::from)
    }

    /// The storage of single elements; `None` where they do not stand alone.
    pub(crate) fn dense(self) -> Option<DType> {
        match self {
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            #[cfg(feature = "testing")]
            Self::Int8Blocks => None,
        }
    }

    /// Chooses how `matrix.wgsl` reads the weights.
    pub(crate) fn select(self, spec: KernelSpec, device: &Device) -> KernelSpec {
        match self {
            Self::F32 => spec.storage(device, DType::F32),
            Self::F16 => spec.storage(device, DType::F16),
            #[cfg(feature = "testing")]
            Self::Int8Blocks => spec.define("WEIGHTS_INT8_BLOCKS"),
        }
    }

    /// Rows of `cols` f32 values as they lie on the device.
    ///
    /// # Errors
    /// A finite value is beyond the range of the format.
    pub(crate) fn encode(self, values: &[f32], cols: usize) -> Result<Vec<u8>> {
        match self {
            Self::F32 => encode_rows(values, cols, DType::F32),
            Self::F16 => encode_rows(values, cols, DType::F16),
            #[cfg(feature = "testing")]
            Self::Int8Blocks => Ok(int8_blocks::encode(values, cols)),
        }
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
            assert_eq!(format.of_positions(), format);
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
