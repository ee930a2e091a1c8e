//! What can be said about the named files before a model is loaded.

use std::{fs, path::Path};

use crate::console::Console;

mod identity;
mod streams;
mod uses;
mod whole;

pub(crate) use identity::{FileId, check_in_place};
#[cfg(target_os = "linux")]
pub(crate) use streams::standard_streams_were_closed;
pub(crate) use streams::{Stream, check_open, results};
pub(crate) use uses::{FileUses, parent_of};
pub(crate) use whole::{MAX_OPTIONS_BYTES, NewFile, read_text, read_whole, write_whole};

/// The name that means stdin or stdout.
pub(crate) const STANDARD: &str = "-";

/// The first text that is the name of a file, which is probably to be read.
pub(crate) fn file_among_texts(texts: &[String]) -> Option<&str> {
    texts.iter().map(String::as_str).find(|text| Path::new(text).is_file())
}

/// The warning about [`file_among_texts`].
pub(crate) fn warn_of_file_texts(texts: &[String], console: &Console) {
    if let Some(text) = file_among_texts(texts) {
        console.warning(&format!("{text} is an existing file, taken as a text here; did you mean --input?"));
    }
}

/// Whether this is, or will be, a regular file.
pub(crate) fn may_be_regular(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |found| found.is_file())
}
