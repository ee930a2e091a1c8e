//! How what lies in device memory for long is stored.

use std::fmt;

use elgen_tensor::{DType, WeightFormat};

use crate::slot_format::CacheFormat;

/// How weights and caches are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Formats {
    /// Of weight matrices; biases and norms are f32.
    pub weights: WeightFormat,
    /// Of attention caches.
    pub cache: CacheFormat,
}

/// Both alike.
impl From<DType> for Formats {
    fn from(dtype: DType) -> Self {
        Self { weights: dtype.into(), cache: dtype.into() }
    }
}

/// "f16", or "f16 with caches in f32".
impl fmt::Display for Formats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.weights.name(), self.cache.name()) {
            (weights, cache) if weights == cache => f.write_str(weights),
            (weights, cache) => write!(f, "{weights} with caches in {cache}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_stands_for_both() {
        assert_eq!(Formats::from(DType::F16).to_string(), "f16");
        let mixed = Formats { weights: WeightFormat::F16, cache: CacheFormat::F32 };
        assert_eq!(mixed.to_string(), "f16 with caches in f32");
        for format in CacheFormat::ALL {
            assert_eq!(CacheFormat::from_name(format.name()), Some(format));
        }
        assert_eq!(CacheFormat::from_name("bf16"), None);
    }
}
