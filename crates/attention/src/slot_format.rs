//! What a cache holds for one position.

use elgen_tensor::{DType, product};

/// How the elements of a cache are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheFormat {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats.
    F16,
}

impl CacheFormat {
    /// All formats.
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    /// The element type of its buffers.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
        }
    }

    /// "f32" or "f16".
    pub fn name(self) -> &'static str {
        self.dtype().name()
    }

    /// The format of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }
}

impl From<DType> for CacheFormat {
    fn from(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
        }
    }
}

/// Who a slot belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The rows of a sentence share the slots of its prompt, or of its source.
    Sentence,
    /// Each row has slots of its own.
    Row,
}

/// The buffers that hold a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotBuffers {
    /// One for each layer.
    PerLayer,
    /// One for all layers, which holds the encoder's output: of cross-attention alone.
    EncoderOutput,
}

/// What an attention kind caches for one position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotFormat {
    /// Elements of a slot in one buffer.
    pub columns: usize,
    /// How they are stored.
    pub format: CacheFormat,
    /// Whose the slots of a prompt or a source are; those of generated ids are always their row's.
    pub owner: Owner,
    /// Where they lie.
    pub buffers: SlotBuffers,
}

impl SlotFormat {
    /// Bytes of a slot in one buffer.
    pub fn bytes(&self) -> u64 {
        product(&[self.columns, self.format.dtype().bytes() as usize])
    }

    /// Buffers of `layers` layers.
    pub fn buffers_of(&self, layers: usize) -> usize {
        match self.buffers {
            SlotBuffers::PerLayer => layers,
            SlotBuffers::EncoderOutput => 1,
        }
    }

    /// Copies of what a sentence of `width` rows could share.
    pub fn copies(&self, width: usize) -> usize {
        match self.owner {
            Owner::Sentence => 1,
            Owner::Row => width,
        }
    }
}
