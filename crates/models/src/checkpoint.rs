//! Weights of a Hugging Face directory: `model.safetensors`, or `model.safetensors.index.json` with its shards. Or random ones.
//!
//! Files are mapped, not read: opening a checkpoint costs its headers only, and [`TensorView`] converts what is asked for.

pub(crate) mod header;
mod random;
mod view;
mod weights;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::config::{ModelConfig, json};
use crate::error::{HeaderProblem, ModelError, excerpt};
use random::RandomWeights;
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

/// The mapped weights of a model directory, or random weights. A file that is changed in place or cut while it is mapped gives wrong values or ends
/// the process with a bus error, as with every mapped file; replacing it (rename) is harmless.
#[derive(Debug)]
pub struct Checkpoint {
    place: PathBuf,
    files: Vec<Shard>,
    tensors: BTreeMap<String, Location>,
    random: Option<RandomWeights>,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Mmap,
}

#[derive(Debug)]
struct Location {
    file: usize,
    dtype: StoredDtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

impl Checkpoint {
    /// Random weights for a model of this config, without files: whatever its loader asks for exists, but for tensors that are optional, and
    /// is listed nowhere. Matrices are uniform with a deviation of about 1 / sqrt(inputs), norms have gains of 1, biases are small; f16 holds
    /// all of it exactly. A value depends on the seed, the tensor's name and its place. Loaders make matrices on the device.
    pub fn random(config: &ModelConfig, seed: u64) -> Self {
        Self {
            place: PathBuf::from("random weights"),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            random: Some(RandomWeights::new(config, seed)),
        }
    }

    /// Opens the weights of the directory `dir` and checks every header. An unsharded file wins over an index.
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
        let (shard, entries) = open_shard(path.clone())?;
        let tensors = entries.into_iter().map(|entry| locate(entry, 0)).collect();
        Ok(Self { place: path, files: vec![shard], tensors, random: None })
    }

    fn open_sharded(dir: &Path, index: PathBuf) -> Result<Self, ModelError> {
        let mut by_file: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (tensor, file) in read_index(&index)? {
            by_file.entry(file).or_default().push(tensor);
        }
        let (mut files, mut tensors) = (Vec::new(), BTreeMap::new());
        for (file, wanted) in by_file {
            let shard = dir.join(&file);
            if !json::is_file(&shard)? {
                let tensor = wanted.first().map(|name| excerpt(name)).unwrap_or_default();
                return Err(ModelError::MissingShard { index, shard, tensor });
            }
            let (mapped, entries) = open_shard(shard)?;
            let mut held: BTreeMap<_, _> = entries.into_iter().map(|entry| locate(entry, files.len())).collect();
            for tensor in wanted {
                let Some(location) = held.remove(&tensor) else {
                    return Err(ModelError::MissingInShard { index, shard: mapped.path, tensor: excerpt(&tensor) });
                };
                tensors.insert(tensor, location);
            }
            files.push(mapped);
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
            bytes: location.range.len() as u64,
            file: &self.files[location.file].path,
        })
    }

    /// The tensor of exactly this name, of whatever shape and type.
    pub fn view(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, location) = self.tensors.get_key_value(name)?;
        let shard = &self.files[location.file];
        Some(TensorView {
            name: name.as_str().into(),
            file: &shard.path,
            dtype: &location.dtype,
            shape: location.shape.as_slice().into(),
            data: Data::Stored(&shard.map[location.range.clone()]),
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
        self.tensors.values().map(|location| location.range.len() as u64).sum()
    }

    /// Elements of all F32, F16 and BF16 tensors (tied tensors are normally stored, so counted, once).
    pub fn parameters(&self) -> u64 {
        let elements = |location: &Location| Some((location.range.len() / location.dtype.weight_bytes()?) as u64);
        self.tensors.values().filter_map(elements).sum()
    }

    /// The weights files in the order of their names.
    pub fn files(&self) -> Vec<FileInfo> {
        let mut files: Vec<FileInfo> = self
            .files
            .iter()
            .map(|shard| FileInfo { path: shard.path.clone(), bytes: shard.map.len() as u64, tensors: 0 })
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

fn open_shard(path: PathBuf) -> Result<(Shard, Vec<header::Entry>), ModelError> {
    let io_error = |source| ModelError::Io { file: path.clone(), source };
    let file = File::open(&path).map_err(io_error)?;
    let length = file.metadata().map_err(io_error)?.len();
    if length < 8 {
        return Err(ModelError::Header { file: path, problem: HeaderProblem::TooShort { length } });
    }
    // SAFETY: the mapping is read-only and handed out as bytes only, for which every bit pattern is valid. That nobody changes the
    // file in place meanwhile cannot be enforced; `Checkpoint` documents it.
    let map = unsafe { Mmap::map(&file) }.map_err(io_error)?;
    if json::is_lfs_pointer(&map) {
        return Err(ModelError::LfsPointer { file: path });
    }
    match header::parse(&map) {
        Ok(entries) => Ok((Shard { path, map }, entries)),
        Err(problem) => Err(ModelError::Header { file: path, problem }),
    }
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
    let bad = |reason| ModelError::Index { file: index.into(), reason };
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
