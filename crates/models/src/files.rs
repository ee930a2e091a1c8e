//! The files of a model directory by name, and reading of files that must be regular.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::checkpoint::{self, INDEX_FILE, OTHER_FORMATS};
use crate::config::CONFIG_FILE;
use crate::generation_defaults::GENERATION_CONFIG_FILE;
use crate::tokenizer::{MERGES_FILE, TOKENIZER_FILE, VOCAB_FILE};

/// Files with a part in what a model computes, weights and SentencePiece models apart, which [`ENDS`] names.
const NAMES: [&str; 9] = [
    CONFIG_FILE,
    GENERATION_CONFIG_FILE,
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    VOCAB_FILE,
    "target_vocab.json",
    MERGES_FILE,
];
const ENDS: [&str; 4] = [".safetensors", ".safetensors.index.json", ".spm", ".model"];
/// An index is small; a mistaken one is not worth more.
const MAX_INDEX: u64 = 64 << 20;

/// Whether a file of this name in a model directory has a part in what the model computes.
///
/// ```
/// use elgen_models::files::decides_results;
/// assert!(decides_results("config.json") && decides_results("model-00001-of-00002.safetensors"));
/// assert!(!decides_results("README.md") && !decides_results("pytorch_model.bin"));
/// ```
pub fn decides_results(name: &str) -> bool {
    // Some file systems ignore case.
    let name = name.to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || ENDS.iter().any(|end| name.len() > end.len() && name.ends_with(end))
}

/// Whether a file of this name belongs to a model: [`decides_results`], or it holds weights in a format of other programs.
pub fn belongs_to_model(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let weights = lower.starts_with("pytorch_model") && (lower.ends_with(".bin") || lower.ends_with(".bin.index.json"));
    decides_results(name) || weights || OTHER_FORMATS.contains(&lower.as_str()) || lower == "vocab.txt"
}

/// The paths in `dir` of all files that belong to a model, the shards of its index included, whether or not these exist. Nothing
/// where the directory cannot be listed.
pub fn model_files(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut found: Vec<PathBuf> =
        names.filter(|name| name.to_str().is_some_and(belongs_to_model)).map(|name| dir.join(name)).collect();
    let index = dir.join(INDEX_FILE);
    let text = read_regular(&index, MAX_INDEX).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let shards = text.and_then(|text| checkpoint::parse_index(&index, &text).ok());
    found.extend(shards.into_iter().flatten().map(|(_, shard)| dir.join(shard)));
    found.sort_unstable();
    found.dedup();
    found
}

/// Opens a regular file (links followed). A pipe or a device under its name is an error at once: opening a pipe would wait for its
/// writer, and a device may have no end.
///
/// # Errors
/// The system refuses, or this is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let regular = |found: fs::Metadata| match found {
        found if found.is_file() => Ok(()),
        found if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        _ => Err(io::Error::other("not a regular file")),
    };
    regular(fs::metadata(path)?)?;
    let file = File::open(path)?;
    // The name may lead elsewhere by now.
    regular(file.metadata()?)?;
    Ok(file)
}

/// The bytes of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open_regular`], or the file is larger.
pub fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_at_most(open_regular(path)?, limit)
}

/// All that `source` gives, at most `limit` bytes.
///
/// # Errors
/// The source fails, or gives more.
pub fn read_at_most(source: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it has more than the {limit} bytes that such a file may have")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_model_are_known_by_name() {
        for name in
            ["config.json", "Tokenizer.json", "a.safetensors", "source.spm", "target_vocab.json", "tokenizer.model"]
        {
            assert!(decides_results(name) && belongs_to_model(name), "{name}");
        }
        for name in ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "tf_model.h5", "vocab.txt"] {
            assert!(!decides_results(name) && belongs_to_model(name), "{name}");
        }
        for name in ["output.txt", "stats.json", "a.jsonl", ".safetensors", "README.md", "run.bin"] {
            assert!(!belongs_to_model(name), "{name}");
        }
    }

    #[test]
    fn shards_of_an_index_belong_to_the_model_whatever_their_names() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(INDEX_FILE), r#"{"weight_map": {"a": "one.weights", "b": "two.weights"}}"#).unwrap();
        fs::write(dir.path().join("notes.txt"), "").unwrap();
        let found: Vec<_> = model_files(dir.path());
        assert_eq!(found, [INDEX_FILE, "one.weights", "two.weights"].map(|name| dir.path().join(name)));
        fs::write(dir.path().join(INDEX_FILE), "{").unwrap();
        assert_eq!(model_files(dir.path()), [dir.path().join(INDEX_FILE)]);
        assert!(model_files(&dir.path().join("missing")).is_empty());
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
        assert!(read_regular(&path, 4).unwrap_err().to_string().contains("more than the 4 bytes"));
        assert_eq!(read_regular(dir.path(), 4).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(read_regular(&dir.path().join("no"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
        if cfg!(target_os = "linux") {
            assert!(read_regular("/dev/zero".as_ref(), 4).unwrap_err().to_string().contains("not a regular file"));
        }
    }
}
