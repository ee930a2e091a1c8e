//! Errors of the runtime.

use crate::{bytes::Bytes, error_kind::ErrorKind, pool::Class};

/// Why an operation of the runtime failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// No Vulkan driver, or none that fits the selection.
    #[error("no Vulkan adapter{}: {hint}", match selector { Some(s) => format!(" matches {s:?}"), None => " was found".to_owned() })]
    NoAdapter {
        /// [`crate::DeviceOptions::selector`].
        selector: Option<String>,
        /// What to do about it.
        hint: String,
    },
    /// The adapter refused a device.
    #[error("adapter {adapter:?} gave no device: {message}")]
    NoDevice {
        /// Adapter name.
        adapter: String,
        /// The driver's words.
        message: String,
    },
    /// An allocation would exceed the memory limit.
    #[error("{what}: {} of {class} do not fit: {} of {} are in use", Bytes(*asked), Bytes(*used), Bytes(*limit))]
    MemoryLimit {
        /// What asked.
        what: String,
        /// The class it would count under.
        class: Class,
        /// Bytes asked for.
        asked: u64,
        /// Bytes in use.
        used: u64,
        /// The pool's limit.
        limit: u64,
    },
    /// The driver could not allocate although the limit allowed it.
    #[error("{what}: the driver could not allocate {} ({} are in use): {message}", Bytes(*asked), Bytes(*used))]
    OutOfMemory {
        /// What asked.
        what: String,
        /// Bytes asked for.
        asked: u64,
        /// Bytes in use.
        used: u64,
        /// The driver's words.
        message: String,
    },
    /// A buffer would be larger than the device can bind or create.
    #[error("{what}: {} exceed this device's limit of {} per {kind}", Bytes(*asked), Bytes(*limit))]
    TooLarge {
        /// What asked.
        what: String,
        /// Bytes asked for.
        asked: u64,
        /// The limit.
        limit: u64,
        /// "binding" or "buffer".
        kind: &'static str,
    },
    /// Operands do not fit together.
    #[error("{op}: {message}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which shapes or dtypes disagree.
        message: String,
    },
    /// A finite value that becomes an infinity in the dtype that it would be stored in.
    #[error("{value} cannot be stored as {dtype}: it is beyond its range")]
    OutOfRange {
        /// The value.
        value: f32,
        /// The name of the dtype.
        dtype: &'static str,
    },
    /// A shader or pipeline was refused.
    #[error("kernel {kernel}: {message}")]
    Kernel {
        /// Shader name and symbols.
        kernel: String,
        /// The compiler's words.
        message: String,
    },
    /// The device was lost or the driver reported an error.
    #[error("device failure: {0}")]
    Device(String),
}

impl TensorError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::MemoryLimit { .. } | Self::OutOfMemory { .. } => ErrorKind::OutOfMemory,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::OutOfRange { .. } => ErrorKind::NotFinite,
            Self::Shape { .. } => ErrorKind::Internal,
            Self::NoAdapter { .. } | Self::NoDevice { .. } | Self::Kernel { .. } | Self::Device(_) => ErrorKind::Device,
        }
    }
}

/// Shorthand for results of this crate.
pub type Result<T, E = TensorError> = std::result::Result<T, E>;
