//! Small model directories for the loader tests.
#![allow(dead_code, unreachable_pub, reason = "each test file includes it and uses its own part")]

use std::path::Path;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize};

/// A tensor to be written: name, shape and little-endian bytes of a dtype.
pub struct Stored {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

pub fn f32_tensor(name: &str, shape: &[usize], values: &[f32]) -> Stored {
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    Stored { name: name.into(), dtype: Dtype::F32, shape: shape.into(), bytes }
}

pub fn f16_tensor(name: &str, shape: &[usize], values: &[f32]) -> Stored {
    let bytes = values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    Stored { name: name.into(), dtype: Dtype::F16, shape: shape.into(), bytes }
}

pub fn bf16_tensor(name: &str, shape: &[usize], values: &[f32]) -> Stored {
    let bytes = values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect();
    Stored { name: name.into(), dtype: Dtype::BF16, shape: shape.into(), bytes }
}

/// The content of a safetensors file as the reference writer makes it.
pub fn file_of(tensors: &[Stored]) -> Vec<u8> {
    let views: Vec<_> = tensors
        .iter()
        .map(|t| (t.name.clone(), TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()))
        .collect();
    serialize(views, None).unwrap()
}

/// A file with this header text and this many zero bytes of data.
pub fn raw_file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

pub fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    std::fs::write(dir.join(name), content).unwrap();
}

/// A directory that holds `model.safetensors` with this content.
pub fn dir_with(content: impl AsRef<[u8]>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "model.safetensors", content);
    dir
}

/// Asserts that `message` is one line and holds all of `parts`.
#[track_caller]
pub fn assert_names(message: &str, parts: &[&str]) {
    assert!(!message.contains('\n'), "more than one line: {message}");
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}
