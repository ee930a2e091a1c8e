//! What can go wrong with the weights of a model directory.

use elgen_tensor::ErrorKind;
use std::path::PathBuf;

/// An error of a checkpoint's files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A safetensors file contradicts its format.
    #[error("{file}: damaged safetensors file: {problem}")]
    Header {
        /// The file.
        file: PathBuf,
        /// The contradiction.
        problem: HeaderProblem,
    },
    /// The index of a sharded checkpoint is not usable.
    #[error("{file}: {reason}")]
    Index {
        /// The index file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The index of a sharded checkpoint names a file that is not there.
    #[error("{index}: tensor `{tensor}` should be in {shard}, which does not exist")]
    MissingShard {
        /// The index file.
        index: PathBuf,
        /// The absent shard.
        shard: PathBuf,
        /// One of the tensors that the index places there.
        tensor: String,
    },
    /// The checkpoint has no tensor of this name, nor of an accepted alias.
    #[error("{place}: tensor `{tensor}` is missing{}", also_tried(.tried))]
    MissingTensor {
        /// The weights file, or the index of a sharded checkpoint.
        place: PathBuf,
        /// The name as the newest files have it.
        tensor: String,
        /// The other names that were tried.
        tried: Vec<String>,
    },
    /// A tensor's shape does not follow from the config.
    #[error("{file}: tensor `{tensor}` has shape {actual:?}, the config asks for {expected:?}")]
    WrongShape {
        /// The weights file.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// The shape that follows from the config.
        expected: Vec<usize>,
        /// The shape in the file.
        actual: Vec<usize>,
    },
    /// A needed tensor is stored in a type that is not read as weights.
    #[error("{file}: tensor `{tensor}` is stored as {dtype}; weights must be F32, F16 or BF16")]
    UnsupportedDtype {
        /// The weights file.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// The type's name in the file.
        dtype: String,
    },
    /// A needed tensor holds an infinity or a NaN.
    #[error("{file}: tensor `{tensor}` holds {value} at flat index {index}; weights must be finite")]
    NonFinite {
        /// The weights file.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// Row-major position of the first such element of the part that was read.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A needed weight is beyond the range of the dtype that it would be stored in.
    #[error(
        "{file}: tensor `{tensor}` holds {value} at flat index {index}, which {dtype} cannot hold (its largest number is 65504): \
         load the model with dtype f32"
    )]
    OutOfRange {
        /// The weights file.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// Row-major position of the first such element of the part that was read.
        index: usize,
        /// The value.
        value: f32,
        /// The name of the dtype.
        dtype: &'static str,
    },
    /// The bytes of a tensor could not be read although the file's header was.
    #[error("{file}: tensor `{tensor}` cannot be read: {reason}")]
    ReadTensor {
        /// The weights file.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// The system's reason.
        reason: String,
    },
    /// A part of a tensor was asked for that the tensor does not have, or with a buffer of another size.
    #[error("{file}: tensor `{tensor}` of shape {shape:?}: {reason}")]
    Window {
        /// The weights file.
        file: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// What does not fit.
        reason: String,
    },
}

/// How a safetensors file contradicts its format. Offsets count bytes behind the header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderProblem {
    /// Not even a header length.
    #[error("{length} bytes are too few for a header")]
    TooShort {
        /// Size of the file in bytes.
        length: u64,
    },
    /// The header would end behind the file.
    #[error("the header claims {header} bytes, the file has only {available} behind the length field")]
    LengthBeyondFile {
        /// Claimed header length in bytes.
        header: u64,
        /// Bytes in the file behind the length field.
        available: u64,
    },
    /// The header is longer than the format allows.
    #[error("the header claims {header} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Claimed header length in bytes.
        header: u64,
        /// The format's limit in bytes.
        limit: u64,
    },
    /// The header is not the expected JSON.
    #[error("the header is not valid: {reason}")]
    InvalidJson {
        /// What the parser says.
        reason: String,
    },
    /// Two entries of one name.
    #[error("tensor `{tensor}` is listed twice")]
    Duplicate {
        /// The name.
        tensor: String,
    },
    /// The number of bytes of a shape exceeds 64 bits.
    #[error("tensor `{tensor}` of shape {shape:?} is too large to be addressed")]
    Overflow {
        /// The name.
        tensor: String,
        /// The shape.
        shape: Vec<u64>,
    },
    /// The data range does not hold what shape and dtype say.
    #[error("tensor `{tensor}` ({dtype}, shape {shape:?}) needs {expected} bytes, its offsets span {actual}")]
    SizeMismatch {
        /// The name.
        tensor: String,
        /// The type's name.
        dtype: String,
        /// The shape.
        shape: Vec<u64>,
        /// Bytes that shape and dtype make.
        expected: u64,
        /// Bytes between the offsets.
        actual: u64,
    },
    /// The end offset lies before the begin offset.
    #[error("tensor `{tensor}` has offsets [{begin}, {end}] in reverse order")]
    Reversed {
        /// The name.
        tensor: String,
        /// Begin offset.
        begin: u64,
        /// End offset.
        end: u64,
    },
    /// The data range ends behind the file, most often after an interrupted download.
    #[error("tensor `{tensor}` ends at byte {end} of the data, the file has only {available}: it is truncated")]
    OutOfRange {
        /// The name.
        tensor: String,
        /// End offset.
        end: u64,
        /// Bytes of data in the file.
        available: u64,
    },
    /// Two tensors share bytes.
    #[error("tensor `{tensor}` begins at byte {begin}, inside `{previous}`, which ends at {previous_end}")]
    Overlap {
        /// The later tensor.
        tensor: String,
        /// Its begin offset.
        begin: u64,
        /// The earlier tensor.
        previous: String,
        /// The earlier tensor's end offset.
        previous_end: u64,
    },
    /// Bytes of the data belong to no tensor.
    #[error("bytes {begin} to {end} of the data belong to no tensor")]
    Hole {
        /// First such byte.
        begin: u64,
        /// First byte behind them.
        end: u64,
    },
}

fn also_tried(tried: &[String]) -> String {
    match tried {
        [] => String::new(),
        names => format!(" (also tried `{}`)", names.join("`, `")),
    }
}

impl CheckpointError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NonFinite { .. } | Self::OutOfRange { .. } => ErrorKind::NotFinite,
            Self::UnsupportedDtype { .. } => ErrorKind::Unsupported,
            _ => ErrorKind::BadModel,
        }
    }
}
