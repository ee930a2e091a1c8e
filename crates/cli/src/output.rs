//! Writes results in input order, whatever order they arrive in.
//!
//! A result is rendered when it arrives and written, as whole lines, as soon as all before it are.

use std::{
    io::{self, Write},
    path::Path,
};

use elgen_engine::{FinishReason, Generation, Sequence};
use serde::Serialize;

use crate::{
    input::{RecordFormat, RecordId},
    spool::Spool,
};

mod moses;
mod raw;

pub(crate) use raw::write_raw;

/// Results that wait for an earlier one take this much memory at most; the rest waits in a temporary file.
const WAITING_BYTES: usize = 64 << 20;
/// A write ends behind the record that fills it to this size.
const WRITE_BYTES: usize = 1 << 20;

/// How results are written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OutputFormat {
    /// A text a line
    Text,
    /// A JSON object a line
    Jsonl,
    /// `number ||| text ||| score` a line, the number being the input's, from 0
    Moses,
}

impl OutputFormat {
    /// The format that a file name stands for.
    pub(crate) fn of_path(path: &Path) -> OutputFormat {
        match RecordFormat::of_path(path) {
            RecordFormat::Text => OutputFormat::Text,
            RecordFormat::Jsonl => OutputFormat::Jsonl,
        }
    }

    /// The format's name in flags.
    pub(crate) fn name(self) -> &'static str {
        match self {
            OutputFormat::Text => "text",
            OutputFormat::Jsonl => "jsonl",
            OutputFormat::Moses => "moses",
        }
    }
}

/// What became of a record.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The model's result.
    Done(Generation),
    /// An empty input: an empty output.
    Empty,
    /// Nothing, for this reason.
    Failed(String),
}

impl Outcome {
    /// The sequences that came of it.
    fn sequences(&self) -> &[Sequence] {
        match self {
            Outcome::Done(generation) => &generation.sequences,
            Outcome::Empty | Outcome::Failed(_) => &[],
        }
    }
}

/// How results are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Lines of text or JSON objects.
    pub(crate) format: OutputFormat,
    /// Text lines as `score ||| text`.
    pub(crate) with_scores: bool,
    /// Text lines per record.
    pub(crate) sequences: usize,
    /// JSON objects with the log-probability of each new token.
    pub(crate) token_logprobs: bool,
    /// Texts with their own line ends.
    pub(crate) raw: bool,
}

impl Layout {
    /// Lines that every record takes, whatever became of it.
    pub(crate) fn lines_per_record(&self) -> u64 {
        match self.format {
            OutputFormat::Text | OutputFormat::Moses => self.sequences as u64,
            OutputFormat::Jsonl => 1,
        }
    }
}

/// Restores the input order.
pub(crate) struct OrderedWriter {
    sink: Box<dyn Write>,
    layout: Layout,
    next: u64,
    waiting: Spool,
}

impl OrderedWriter {
    /// A writer whose first record has the number `next`.
    pub(crate) fn new(sink: Box<dyn Write>, layout: Layout, next: u64) -> OrderedWriter {
        OrderedWriter { sink, layout, next, waiting: Spool::new(WAITING_BYTES) }
    }

    /// Takes the outcome of record `index` and writes all records that are now complete up to the first gap.
    pub(crate) fn put(&mut self, index: u64, id: &RecordId, outcome: &Outcome) -> io::Result<()> {
        let lines = self.layout.render(index, id, outcome)?;
        if index != self.next {
            return self.waiting.insert(index, lines);
        }
        let mut ready = lines;
        self.next += 1;
        while let Some(lines) = self.waiting.take(self.next)? {
            if ready.len() >= WRITE_BYTES {
                self.write(&ready)?;
                ready.clear();
            }
            ready.extend(lines);
            self.next += 1;
        }
        self.write(&ready)
    }

    /// One write of whole records: an interrupt does not cut a line in two.
    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.sink.write_all(records)?;
        self.sink.flush()
    }
}

impl Layout {
    /// The lines of record `index`.
    pub(crate) fn render(&self, index: u64, id: &RecordId, outcome: &Outcome) -> io::Result<Vec<u8>> {
        let mut lines = Vec::new();
        match self.format {
            OutputFormat::Text => self.text_lines(&mut lines, outcome),
            OutputFormat::Moses => moses::lines(&mut lines, index, self.sequences, outcome),
            OutputFormat::Jsonl => self.json_line(&mut lines, id, outcome)?,
        }
        Ok(lines)
    }

    /// Adds a text as this layout writes it.
    pub(crate) fn write_text(&self, line: &mut Vec<u8>, text: &str) {
        if self.raw { write_raw(line, text) } else { escape(line, text) }
    }

    fn text_lines(&self, lines: &mut Vec<u8>, outcome: &Outcome) {
        let sequences = outcome.sequences();
        for index in 0..self.sequences {
            if let Some(sequence) = sequences.get(index) {
                if self.with_scores {
                    lines.extend(format!("{} ||| ", sequence.score).bytes());
                }
                self.write_text(lines, sequence.text.as_deref().unwrap_or_default());
            }
            lines.push(b'\n');
        }
    }

    fn json_line(&self, line: &mut Vec<u8>, id: &RecordId, outcome: &Outcome) -> io::Result<()> {
        match outcome {
            Outcome::Done(generation) => {
                let sequences = generation
                    .sequences
                    .iter()
                    .map(|sequence| SequenceField {
                        text: sequence.text.as_deref(),
                        token_ids: &sequence.token_ids,
                        score: sequence.score,
                        finish_reason: sequence.finish_reason,
                        token_logprobs: self.token_logprobs.then_some(sequence.token_logprobs.as_slice()),
                        alignment: sequence.alignment.as_deref(),
                    })
                    .collect();
                serde_json::to_writer(
                    &mut *line,
                    &DoneLine { id, sequences, prompt_tokens: generation.prompt_tokens },
                )?;
            }
            Outcome::Empty => {
                serde_json::to_writer(&mut *line, &DoneLine { id, sequences: Vec::new(), prompt_tokens: 0 })?;
            }
            Outcome::Failed(error) => serde_json::to_writer(&mut *line, &FailedLine { id, error })?,
        }
        line.push(b'\n');
        Ok(())
    }
}

/// Writes line ends and backslashes as `\n`, `\r` and `\\`, so that a text is one line and can be restored.
pub(crate) fn escape(line: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\n' => line.extend(b"\\n"),
            b'\r' => line.extend(b"\\r"),
            b'\\' => line.extend(b"\\\\"),
            _ => line.push(byte),
        }
    }
}

#[derive(Serialize)]
struct DoneLine<'a> {
    id: &'a RecordId,
    sequences: Vec<SequenceField<'a>>,
    prompt_tokens: usize,
}

#[derive(Serialize)]
struct SequenceField<'a> {
    text: Option<&'a str>,
    token_ids: &'a [u32],
    score: f32,
    finish_reason: FinishReason,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_logprobs: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alignment: Option<&'a [Vec<f32>]>,
}

#[derive(Serialize)]
struct FailedLine<'a> {
    id: &'a RecordId,
    error: &'a str,
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
