//! Lengths of real texts.

use std::{path::Path, sync::Arc};

use elgen_engine::bench::Sources;
use elgen_models::{ModelConfig, Tokenizer};
use serde::Deserialize;

use crate::{
    error::{CliError, one_line},
    files::read_text,
};

/// The largest file whose lengths are taken.
const MAX_BYTES: u64 = 1 << 30;

/// The lengths of a file's records.
pub(super) struct Lengths {
    name: String,
    unit: &'static str,
    lengths: Vec<usize>,
}

#[derive(Deserialize)]
struct Record {
    input_ids: Option<Vec<u32>>,
    text: Option<String>,
}

impl Lengths {
    /// Reads a JSONL file. Texts are measured by the tokenizer in `model_dir`, or in words where there is none.
    pub(super) fn read(path: &Path, model_dir: Option<&Path>) -> Result<Self, CliError> {
        let text = read_text(path, MAX_BYTES)?;
        let failed = |message: String| CliError::Failed(format!("{}: {message}", path.display()));
        let tokenizer = match model_dir {
            Some(dir) => ModelConfig::load(dir)
                .and_then(|config| Tokenizer::load(dir, config.family().tokenizer))
                .map_err(|error| CliError::Failed(one_line(&error)))?,
            None => None,
        };
        let mut found = Self { name: path.display().to_string(), unit: "ids", lengths: Vec::new() };
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let record: Record =
                serde_json::from_str(line).map_err(|error| failed(format!("line {number}: {error}")))?;
            found.lengths.push(match (record.input_ids, record.text, &tokenizer) {
                (Some(ids), _, _) => ids.len(),
                (None, Some(text), Some(tokenizer)) => tokenizer
                    .encode(&text)
                    .map_err(|error| failed(format!("line {number}: {}", one_line(&error))))?
                    .len(),
                (None, Some(text), None) => {
                    found.unit = "words";
                    text.split_whitespace().count()
                }
                (None, None, _) => return Err(failed(format!("line {number}: neither `input_ids` nor `text`"))),
            });
        }
        if found.lengths.is_empty() {
            return Err(failed("no records".into()));
        }
        Ok(found)
    }

    /// Sources of these lengths, `most` at most.
    pub(super) fn sources(&self, most: usize) -> Sources {
        Sources::Lengths(Arc::new(self.lengths.iter().map(|length| (*length).min(most)).collect()))
    }

    /// The file and what it holds, for people and to tell whether it is still the same.
    pub(super) fn describe(&self) -> String {
        let (count, sum) = (self.lengths.len(), self.lengths.iter().sum::<usize>());
        format!("{}: {count} records of {:.1} {} on average", self.name, sum as f64 / count as f64, self.unit)
    }
}
