//! One weights file: its header, and reading parts of it.
//!
//! Parts are read when they are asked for, not mapped: a file that is cut while it loads is then an error, where a mapping would end the
//! process.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::header::{self, Entry};
use crate::error::{CheckpointError, HeaderProblem, ModelError, excerpt};
use crate::json;

/// An open weights file.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Shard {
    /// Opens a safetensors file and checks its header. Entries come in order of their data.
    pub(super) fn open(path: PathBuf) -> Result<(Self, Vec<Entry>), ModelError> {
        let refused = |source| ModelError::Io { file: path.clone(), source };
        let file = File::open(&path).map_err(refused)?;
        let length = file.metadata().map_err(refused)?.len();
        let damaged = |problem| ModelError::from(CheckpointError::Header { file: path.clone(), problem });
        let mut first = [0; header::LENGTH_FIELD];
        if length < first.len() as u64 {
            return Err(damaged(HeaderProblem::TooShort { length }));
        }
        read_exact_at(&file, &mut first, 0).map_err(refused)?;
        let available = length - first.len() as u64;
        let size = header::length(first, available).map_err(|problem| {
            // The first bytes of a text are an absurd length.
            if json::is_lfs_pointer(&beginning(&file)) {
                return ModelError::LfsPointer { file: path.clone() };
            }
            damaged(problem)
        })?;
        // No longer than the file, and bounded.
        let mut text = vec![0; size];
        read_exact_at(&file, &mut text, first.len() as u64).map_err(refused)?;
        let entries = header::entries(&text, available - size as u64).map_err(damaged)?;
        Ok((Self { path, file, length }, entries))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file when it was opened.
    pub(super) fn bytes(&self) -> u64 {
        self.length
    }

    /// Fills `out` with the bytes from `at` on, which belong to `tensor`.
    pub(super) fn read(&self, at: u64, out: &mut [u8], tensor: &str) -> Result<(), ModelError> {
        read_exact_at(&self.file, out, at).map_err(|source| {
            ModelError::from(CheckpointError::ReadTensor {
                file: self.path.clone(),
                tensor: excerpt(tensor),
                reason: match source.kind() {
                    io::ErrorKind::UnexpectedEof => "the file was cut after it had been opened".to_owned(),
                    _ => source.to_string(),
                },
            })
        })
    }
}

/// What a text would be known by.
fn beginning(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; json::LFS_POINTER.len()];
    match read_exact_at(file, &mut bytes, 0) {
        Ok(()) => bytes,
        Err(_) => Vec::new(),
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut at: u64) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                out = &mut out[count..];
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
