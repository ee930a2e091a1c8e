//! Reading the small text files of a model directory.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::ModelError;

/// Far above any tokenizer.json; keeps a mistaken file from being read into memory.
const MAX_TEXT: u64 = 512 << 20;

/// Whether `path` is a readable regular file (links followed). Anything else that exists under this name is an error: passing it
/// over would silently use another file.
pub(crate) fn is_file(path: &Path) -> Result<bool, ModelError> {
    let unusable = |source| ModelError::Io { file: path.into(), source };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => Err(unusable(std::io::Error::other("not a regular file"))),
        Err(_) if path.symlink_metadata().is_ok() => Err(unusable(std::io::Error::other("a link that leads nowhere"))),
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(unusable(error)),
    }
}

/// The file's text.
pub(crate) fn read_text(path: &Path) -> Result<String, ModelError> {
    let unusable = |source| ModelError::Io { file: path.into(), source };
    let bytes = std::fs::metadata(path).map_err(unusable)?.len();
    if bytes > MAX_TEXT {
        return Err(unusable(std::io::Error::other(format!("{bytes} bytes are too many for a text file"))));
    }
    let text = std::fs::read_to_string(path).map_err(unusable)?;
    if is_lfs_pointer(text.as_bytes()) {
        return Err(ModelError::LfsPointer { file: path.into() });
    }
    Ok(text)
}

/// The JSON object in the file `dir/name`, or `None` if there is no such file.
pub(crate) fn read_object(dir: &Path, name: &str) -> Result<Option<Map<String, Value>>, ModelError> {
    let path = dir.join(name);
    if !is_file(&path)? {
        return Ok(None);
    }
    parse_object(&path, &read_text(&path)?).map(Some)
}

/// The JSON object in `text`, the content of `path`.
pub(crate) fn parse_object(path: &Path, text: &str) -> Result<Map<String, Value>, ModelError> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ModelError::Json { file: path.into(), reason: "an object is needed".into() }),
        Err(error) => Err(syntax_error(path, &error)),
    }
}

pub(crate) fn syntax_error(path: &Path, error: &serde_json::Error) -> ModelError {
    ModelError::Json { file: path.into(), reason: error.to_string() }
}

/// What the text begins with that Git LFS puts in place of a large file.
pub(crate) const LFS_POINTER: &[u8] = b"version https://git-lfs";

pub(crate) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(LFS_POINTER)
}
