//! Writes results in input order, whatever order they arrive in.
//!
//! A result is rendered when it arrives and written, as whole lines, as soon as all before it are.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use elgen_engine::{FinishReason, Generation};
use serde::Serialize;

use crate::input::{RecordFormat, RecordId};

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

/// How results are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Lines of text or JSON objects.
    pub(crate) format: RecordFormat,
    /// Text lines as `score ||| text`.
    pub(crate) with_scores: bool,
    /// Text lines per record.
    pub(crate) sequences: usize,
}

/// Restores the input order.
pub(crate) struct OrderedWriter {
    sink: Box<dyn Write>,
    layout: Layout,
    next: u64,
    waiting: BTreeMap<u64, Vec<u8>>,
}

impl OrderedWriter {
    /// A writer whose first record is number 0.
    pub(crate) fn new(sink: Box<dyn Write>, layout: Layout) -> OrderedWriter {
        OrderedWriter { sink, layout, next: 0, waiting: BTreeMap::new() }
    }

    /// Takes the outcome of record `index` and writes all records that are now complete up to the first gap.
    pub(crate) fn put(&mut self, index: u64, id: &RecordId, outcome: &Outcome) -> io::Result<()> {
        let mut lines = Vec::new();
        match self.layout.format {
            RecordFormat::Text => self.text_lines(&mut lines, outcome),
            RecordFormat::Jsonl => json_line(&mut lines, id, outcome)?,
        }
        self.waiting.insert(index, lines);
        let mut ready = Vec::new();
        while let Some(lines) = self.waiting.remove(&self.next) {
            ready.extend(lines);
            self.next += 1;
        }
        if ready.is_empty() {
            return Ok(());
        }
        // One write of whole lines: an interrupt does not cut a line in two.
        self.sink.write_all(&ready)?;
        self.sink.flush()
    }

    fn text_lines(&self, lines: &mut Vec<u8>, outcome: &Outcome) {
        let sequences: &[_] = match outcome {
            Outcome::Done(generation) => &generation.sequences,
            Outcome::Empty | Outcome::Failed(_) => &[],
        };
        for index in 0..self.layout.sequences {
            if let Some(sequence) = sequences.get(index) {
                if self.layout.with_scores {
                    lines.extend(format!("{} ||| ", sequence.score).bytes());
                }
                escape(lines, sequence.text.as_deref().unwrap_or_default());
            }
            lines.push(b'\n');
        }
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
}

#[derive(Serialize)]
struct FailedLine<'a> {
    id: &'a RecordId,
    error: &'a str,
}

fn json_line(line: &mut Vec<u8>, id: &RecordId, outcome: &Outcome) -> io::Result<()> {
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
                })
                .collect();
            serde_json::to_writer(&mut *line, &DoneLine { id, sequences, prompt_tokens: generation.prompt_tokens })?;
        }
        Outcome::Empty => {
            serde_json::to_writer(&mut *line, &DoneLine { id, sequences: Vec::new(), prompt_tokens: 0 })?;
        }
        Outcome::Failed(error) => serde_json::to_writer(&mut *line, &FailedLine { id, error })?,
    }
    line.push(b'\n');
    Ok(())
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
