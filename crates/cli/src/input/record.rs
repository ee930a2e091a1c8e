//! One record of an input, and what names and formats there are.

use std::path::Path;

use elgen_engine::Input;
use serde::Serialize;
use serde_json::value::RawValue;

use super::files::Place;

/// How records are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum RecordFormat {
    /// One text per line.
    Text,
    /// One JSON object per line.
    Jsonl,
}

impl RecordFormat {
    /// The format that a file name stands for.
    pub(crate) fn of_path(path: &Path) -> RecordFormat {
        match path.extension() {
            Some(extension) if extension.eq_ignore_ascii_case("jsonl") => RecordFormat::Jsonl,
            _ => RecordFormat::Text,
        }
    }

    /// The format's name in flags.
    pub(crate) fn name(self) -> &'static str {
        match self {
            RecordFormat::Text => "text",
            RecordFormat::Jsonl => "jsonl",
        }
    }
}

/// What names a record in the output.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum RecordId {
    /// The record's 0-based number, where the input gave no id.
    Index(u64),
    /// The JSON value of the input's `id`, byte for byte.
    Given(Box<RawValue>),
}

/// One record of the input.
#[derive(Debug)]
pub(crate) struct Record {
    /// 0-based number among the records.
    pub(crate) index: u64,
    /// Its line, or number of the argument.
    pub(crate) line: Place,
    /// What names the record in the output.
    pub(crate) id: RecordId,
    /// The source, or what is wrong with it.
    pub(crate) content: Result<Content, String>,
}

/// The usable content of a record.
#[derive(Debug)]
pub(crate) enum Content {
    /// Something for the model, and what its output is to begin with.
    Run {
        /// The source.
        input: Input,
        /// The record's own prefix.
        prefix: Option<Input>,
        /// What is scored behind it, in a record to be scored.
        target: Option<Input>,
    },
    /// An empty text line: its output is empty, and no model runs.
    Empty,
}

impl Content {
    /// A text behind what stands before all of them. Ids and empty lines stay as they are.
    pub(crate) fn behind(self, source_prefix: Option<&str>) -> Content {
        match (self, source_prefix) {
            (Content::Run { input: Input::Text(text), prefix, target }, Some(before)) => {
                Content::Run { input: Input::Text(format!("{before}{text}")), prefix, target }
            }
            (content, _) => content,
        }
    }
}
