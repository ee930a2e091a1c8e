//! Weights of a Hugging Face directory: `model.safetensors`, or `model.safetensors.index.json` with its shards. Or random ones.
//!
//! Opening a checkpoint reads its headers only; [`TensorView`] reads and converts what is asked for.

pub(crate) mod header;
mod random;
mod shard;
mod view;
mod weights;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{CheckpointError, ModelError, excerpt};
use crate::json;
pub use random::RandomRules;
use random::RandomWeights;
use shard::Shard;
use view::Data;
pub use view::TensorView;
pub use weights::{DecoderEmbeddings, Seq2SeqEmbeddings, Weights};

/// Name of an unsharded weights file.
pub const SINGLE_FILE: &str = "model.safetensors";
/// Name of the index of a sharded checkpoint.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Weights in other formats; named in the error when no safetensors file is there.
pub(crate) const OTHER_FORMATS: [&str; 5] = [
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.fp16.safetensors",
    "tf_model.h5",
    "flax_model.msgpack",
];

/// The type of a tensor's elements in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoredDtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an F32.
    Bf16,
    /// Any other type, by its name in the file. Listed, never read as weights.
    Other(String),
}

impl StoredDtype {
    fn from_name(name: String) -> Self {
        match name.as_str() {
            "F32" => Self::F32,
            "F16" => Self::F16,
            "BF16" => Self::Bf16,
            _ => Self::Other(name),
        }
    }

    /// Bytes of one element, for the types that are read as weights.
    fn weight_bytes(&self) -> Option<usize> {
        match self {
            Self::F32 => Some(4),
            Self::F16 | Self::Bf16 => Some(2),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for StoredDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("F32"),
            Self::F16 => f.write_str("F16"),
            Self::Bf16 => f.write_str("BF16"),
            Self::Other(name) => f.write_str(&excerpt(name)),
        }
    }
}

/// What a checkpoint says about one tensor.
#[derive(Debug, Clone, Copy)]
pub struct TensorInfo<'a> {
    /// Type of its elements in the file.
    pub dtype: &'a StoredDtype,
    /// Shape in the file, outermost dimension first.
    pub shape: &'a [usize],
    /// Size in the file, in bytes.
    pub bytes: u64,
    /// The file that holds it.
    pub file: &'a Path,
}

/// One weights file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// The file.
    pub path: PathBuf,
    /// Its size in bytes, header included.
    pub bytes: u64,
    /// Number of the checkpoint's tensors in it.
    pub tensors: usize,
}

/// The weights of a model directory, or random weights. A file that is cut after it was opened is an error where a tensor is read; one that is
/// written over in place meanwhile gives what stands there then; replacing it (rename) is harmless.
#[derive(Debug)]
pub struct Checkpoint {
    place: PathBuf,
    files: Vec<Shard>,
    tensors: BTreeMap<String, Location>,
    random: Option<RandomWeights>,
}

#[derive(Debug)]
struct Location {
    file: usize,
    dtype: StoredDtype,
    shape: Vec<usize>,
    range: Range<u64>,
}

impl Checkpoint {
    /// Random weights for a model of a config, which gives the rules, without files: whatever its loader asks for exists, but for tensors that are optional, and
    /// is listed nowhere. Matrices are uniform with a deviation of about 1 / sqrt(inputs), norms have gains of 1, biases are small; f16 holds
    /// all of it exactly. A value depends on the seed, the tensor's name and its place. Loaders make matrices on the device.
    pub fn random(rules: Arc<dyn RandomRules>, seed: u64) -> Self {
        Self {
            place: PathBuf::from("random weights"),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            random: Some(RandomWeights::new(rules, seed)),
        }
    }

    /// Opens the weights of the directory `dir` and checks every header. An unsharded file wins over an index. An index lists the files of a
    /// checkpoint; which tensors there are, and where, the files' headers say.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, ModelError> {
        let dir = dir.as_ref();
        let single = dir.join(SINGLE_FILE);
        if json::is_file(&single)? {
            return Self::open_single(single);
        }
        let index = dir.join(INDEX_FILE);
        if json::is_file(&index)? {
            return Self::open_sharded(dir, index);
        }
        if !dir.is_dir() {
            return Err(ModelError::MissingFile { dir: dir.into(), wanted: "model directory".into(), hint: "".into() });
        }
        let hint = match OTHER_FORMATS.iter().find(|name| dir.join(name).exists()) {
            Some(other) => format!(" (there is {other}, which has to be converted to {SINGLE_FILE})"),
            None => String::new(),
        };
        Err(ModelError::MissingFile { dir: dir.into(), wanted: format!("{SINGLE_FILE} or {INDEX_FILE}"), hint })
    }

    fn open_single(path: PathBuf) -> Result<Self, ModelError> {
        let (shard, entries) = Shard::open(path.clone())?;
        let tensors = entries.into_iter().map(|entry| locate(entry, 0)).collect();
        Ok(Self { place: path, files: vec![shard], tensors, random: None })
    }

    fn open_sharded(dir: &Path, index: PathBuf) -> Result<Self, ModelError> {
        // The index lists the files; what is in them, their headers say. An index that disagrees, as tools leave it that edit shards, is no
        // reason to fail, and no model may need the tensor.
        let mut first_of: BTreeMap<String, String> = BTreeMap::new();
        for (tensor, file) in read_index(&index)? {
            first_of.entry(file).or_insert(tensor);
        }
        let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
        for (file, tensor) in first_of {
            let shard = dir.join(&file);
            if !json::is_file(&shard)? {
                return Err(ModelError::from(CheckpointError::MissingShard { index, shard, tensor: excerpt(&tensor) }));
            }
            let (opened, entries) = Shard::open(shard)?;
            // Of a tensor that several files hold, the last file's counts, as in Hugging Face.
            tensors.extend(entries.into_iter().map(|entry| locate(entry, files.len())));
            files.push(opened);
        }
        Ok(Self { place: index, files, tensors, random: None })
    }

    /// The file that stands for the whole: the weights file, or the index of a sharded checkpoint.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Names of all tensors, sorted; buffers that no model needs are among them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of exactly this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// What the file says about the tensor of exactly this name.
    pub fn info(&self, name: &str) -> Option<TensorInfo<'_>> {
        let location = self.tensors.get(name)?;
        Some(TensorInfo {
            dtype: &location.dtype,
            shape: &location.shape,
            bytes: location.range.end - location.range.start,
            file: self.files[location.file].path(),
        })
    }

    /// The tensor of exactly this name, of whatever shape and type.
    pub fn view(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, location) = self.tensors.get_key_value(name)?;
        let shard = &self.files[location.file];
        Some(TensorView {
            name: name.as_str().into(),
            file: shard.path(),
            dtype: &location.dtype,
            shape: location.shape.as_slice().into(),
            data: Data::Stored(shard, location.range.start),
        })
    }

    /// The first of `candidates` that exists.
    pub fn find(&self, candidates: &[&str]) -> Option<String> {
        candidates.iter().find(|name| self.contains(name)).map(|&name| name.to_owned())
    }

    /// Whether the tensors `a` and `b` both exist and have one shape and equal values.
    pub fn same_values(&self, a: &str, b: &str) -> Result<bool, ModelError> {
        match (self.view(a), self.view(b)) {
            (Some(a), Some(b)) => a.same_values(&b),
            _ => Ok(false),
        }
    }

    /// Bytes of all tensors, without headers.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|location| location.range.end - location.range.start).sum()
    }

    /// Elements of all F32, F16 and BF16 tensors (tied tensors are normally stored, so counted, once).
    pub fn parameters(&self) -> u64 {
        let elements = |location: &Location| {
            Some((location.range.end - location.range.start) / location.dtype.weight_bytes()? as u64)
        };
        self.tensors.values().filter_map(elements).sum()
    }

    /// The weights files in the order of their names.
    pub fn files(&self) -> Vec<FileInfo> {
        let mut files: Vec<FileInfo> = self
            .files
            .iter()
            .map(|shard| FileInfo { path: shard.path().into(), bytes: shard.bytes(), tensors: 0 })
            .collect();
        for location in self.tensors.values() {
            files[location.file].tensors += 1;
        }
        files
    }
}

fn locate(entry: header::Entry, file: usize) -> (String, Location) {
    (entry.name, Location { file, dtype: entry.dtype, shape: entry.shape, range: entry.range })
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Tensor name to shard name. Shards must lie beside the index: a downloaded index must not reach other files.
fn read_index(index: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    parse_index(index, &json::read_text(index)?)
}

/// The same from `text`, the content of `index`.
pub(crate) fn parse_index(index: &Path, text: &str) -> Result<BTreeMap<String, String>, ModelError> {
    let parsed: Index = serde_json::from_str(text).map_err(|error| json::syntax_error(index, &error))?;
    let bad = |reason| ModelError::from(CheckpointError::Index { file: index.into(), reason });
    if parsed.weight_map.is_empty() {
        return Err(bad("weight_map lists no tensors".into()));
    }
    for (tensor, file) in &parsed.weight_map {
        let plain = Path::new(file).file_name().is_some_and(|name| name == file.as_str())
            && !file.contains(|c: char| c == '\\' || c.is_control());
        if !plain {
            return Err(bad(format!("tensor `{}`: `{}` is not a plain file name", excerpt(tensor), excerpt(file))));
        }
    }
    Ok(parsed.weight_map)
}
