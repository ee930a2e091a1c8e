//! What a run will do, as far as it can be told before the model is loaded: `--attention auto` chooses for it.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use elgen_engine::Expected;
use elgen_models::files::open_regular;
use elgen_search::GenerationConfig;

use crate::flags::FileFlags;

/// Bytes of an input file that are looked at.
const LOOKED_AT: u64 = 1 << 20;
/// Bytes of text that a token stands for at least, in nearly all of the languages that models are made for.
const BYTES_PER_TOKEN: usize = 3;

/// What is expected of a run over an input file, or over texts that were typed.
pub(super) fn expected(
    files: &FileFlags,
    config: &GenerationConfig,
    inputs: &[PathBuf],
    texts: Option<&[String]>,
) -> Expected {
    let bytes = match texts {
        Some(texts) => texts.iter().map(String::len).max(),
        None if files.whole_file == Some(true) => {
            let sizes = inputs.iter().filter_map(|input| input.metadata().ok());
            sizes.filter(std::fs::Metadata::is_file).map(|found| found.len().min(LOOKED_AT) as usize).max()
        }
        None => inputs.iter().filter_map(|input| longest_line(input)).max(),
    };
    let prefix = files.source_prefix.as_ref().map_or(0, String::len);
    let bytes = bytes.map(|bytes| bytes.saturating_add(prefix));
    let estimate = bytes.map(|bytes| bytes / BYTES_PER_TOKEN + 2);
    let cut = files.max_source_length;
    let source_length = match (estimate, cut) {
        (Some(estimate), Some(cut)) => Some(estimate.min(cut)),
        (estimate, cut) => estimate.or(cut),
    };
    // Where prompts count for the maximum, a short one leaves the most for new tokens.
    let max_new_tokens = config.lengths(1).ok().map(|lengths| lengths.max_length - 1);
    Expected::default()
        .with_num_beams(config.rows_per_sentence())
        .with_source_length(source_length)
        .with_max_new_tokens(max_new_tokens)
}

/// Bytes of the longest line at the beginning of a regular file.
fn longest_line(path: &Path) -> Option<usize> {
    // A pipe must not be opened twice.
    let file = open_regular(path).ok()?;
    let lines = BufReader::new(file.take(LOOKED_AT)).split(b'\n');
    lines.map_while(Result::ok).map(|line| line.len()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_line_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.txt");
        std::fs::write(&path, "ab\nabcdef\n\nabc").unwrap();
        assert_eq!(longest_line(&path), Some(6));
        assert_eq!(longest_line(dir.path()), None, "a folder has no lines");
        assert_eq!(longest_line(&dir.path().join("missing")), None);
        std::fs::write(&path, "x".repeat(3 << 20)).unwrap();
        assert_eq!(longest_line(&path), Some(1 << 20));
    }
}
