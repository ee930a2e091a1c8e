//! Reads records, one at a time, from arguments, text lines or JSONL.
//!
//! The reader holds one line; a line longer than [`MAX_LINE_BYTES`] is skipped without being stored. What is wrong with a
//! record is part of the record, so that its neighbours still run; only a failing file ends the reading.

use std::{
    io::{self, BufRead, BufReader, IsTerminal, Read},
    path::{Path, PathBuf},
};

use elgen_engine::Input;
use sha2::Digest;

use crate::files::check_in_place;

mod files;
mod json;
mod object;
mod open;
mod record;
mod survey;
mod watched;

use files::Files;
pub(crate) use files::Place;
pub(crate) use json::value_message;
use json::{Parsed, parse_json};
use object::Oddities;
pub(crate) use open::open_reader;
pub(crate) use record::{Content, Record, RecordFormat, RecordId};
pub(crate) use survey::{Survey, hex};

/// The longest line that is read, in bytes.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 20;
/// A window of records ends when its lines hold this many bytes together.
const WINDOW_BYTES: usize = 64 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

enum Source {
    Arguments(std::vec::IntoIter<String>),
    Lines(Files),
    /// Each file is one text.
    Whole(Files),
}

/// A stream of records.
pub(crate) struct RecordReader {
    source: Source,
    is_stdin: bool,
    format: RecordFormat,
    /// Records are to be scored.
    scored: bool,
    records: u64,
    lines: u64,
    bytes: Vec<u8>,
    ended: bool,
    oddities: Oddities,
}

impl RecordReader {
    /// Reads the given texts.
    pub(crate) fn from_arguments(texts: Vec<String>) -> RecordReader {
        RecordReader::new(Source::Arguments(texts.into_iter()), RecordFormat::Text)
    }

    /// The given texts that are not read yet; `None` for lines.
    pub(crate) fn texts(&self) -> Option<&[String]> {
        match &self.source {
            Source::Arguments(texts) => Some(texts.as_slice()),
            Source::Lines(_) | Source::Whole(_) => None,
        }
    }

    /// Reads a file.
    pub(crate) fn from_file(path: &Path, format: RecordFormat) -> io::Result<RecordReader> {
        RecordReader::from_files(&[path.to_owned()], format).map_err(|(_, error)| error)
    }

    /// Reads files, one behind the other.
    ///
    /// # Errors
    /// A file that cannot be opened, and which one it is.
    pub(crate) fn from_files(paths: &[PathBuf], format: RecordFormat) -> Result<RecordReader, (PathBuf, io::Error)> {
        Ok(RecordReader::new(Source::Lines(Files::of_paths(paths)?), format))
    }

    /// Reads standard input.
    pub(crate) fn from_stdin(format: RecordFormat) -> RecordReader {
        let lines = Box::new(BufReader::new(io::stdin()));
        RecordReader { is_stdin: true, ..RecordReader::from_lines(lines, "<stdin>".to_owned(), format) }
    }

    fn from_lines(reader: Box<dyn BufRead>, name: String, format: RecordFormat) -> RecordReader {
        RecordReader::new(Source::Lines(Files::opened(reader, name)), format)
    }

    fn new(source: Source, format: RecordFormat) -> RecordReader {
        RecordReader {
            source,
            is_stdin: false,
            format,
            scored: false,
            records: 0,
            lines: 0,
            bytes: Vec::new(),
            ended: false,
            oddities: Oddities::default(),
        }
    }

    /// Takes each file, or stdin, as one text, whose last line end is not part of it.
    pub(crate) fn whole(self) -> RecordReader {
        match self.source {
            Source::Lines(files) => RecordReader { source: Source::Whole(files), ..self },
            _ => self,
        }
    }

    /// Reads `target` and `target_ids` too, beside which a JSONL record needs no source.
    pub(crate) fn scored(self) -> RecordReader {
        RecordReader { scored: true, ..self }
    }

    /// How a line is named in messages: `file:line`.
    pub(crate) fn place(&self, Place { file, line }: Place) -> String {
        match &self.source {
            Source::Arguments(_) => format!("argument {line}"),
            Source::Lines(files) => format!("{}:{line}", files.name(file)),
            Source::Whole(files) => files.name(file).to_owned(),
        }
    }

    /// The present file's name in messages.
    pub(crate) fn name(&self) -> &str {
        match &self.source {
            Source::Arguments(_) => "argument",
            Source::Lines(files) | Source::Whole(files) => files.name(files.at()),
        }
    }

    /// What is to be told of what was read: fields that play no part, each once, and records that were taken as texts.
    pub(crate) fn take_warnings(&mut self) -> Vec<String> {
        self.oddities.take()
    }

    /// Whether somebody has to type the records.
    pub(crate) fn waits_for_terminal(&self) -> bool {
        self.is_stdin && io::stdin().is_terminal()
    }

    /// How records are written in this input.
    pub(crate) fn format(&self) -> RecordFormat {
        self.format
    }

    /// How a file that was read to its end was not the one that `survey` tells of: in words that follow on its name. `path` is
    /// the name.
    pub(crate) fn changed_since(&self, survey: &Survey, path: &Path) -> Option<Changed> {
        let (Source::Lines(files) | Source::Whole(files)) = &self.source else { return None };
        let seen = files.seen()?;
        if (seen.bytes, hex(&seen.hash.clone().finalize())) != (survey.bytes, survey.sha256.clone()) {
            return Some(Changed::Content(format!(
                "changed while it was read: it had {} bytes and {} records, {} bytes and {} records were read",
                survey.bytes, survey.records, seen.bytes, self.records
            )));
        }
        check_in_place(path, seen.id).err().map(|error| Changed::Name(format!("{error} while it was read")))
    }

    /// Number of all records, once the end has been seen.
    pub(crate) fn total(&self) -> Option<u64> {
        self.ended.then_some(self.records)
    }

    /// The next records, `limit` at most and fewer where lines are very long; none at the end.
    pub(crate) fn window(&mut self, limit: usize) -> io::Result<Vec<Record>> {
        let mut window = Vec::new();
        let mut bytes = 0;
        while window.len() < limit && bytes < WINDOW_BYTES {
            let Some(record) = self.next_record()? else { break };
            bytes += self.bytes.len();
            window.push(record);
        }
        Ok(window)
    }

    /// Passes over the next `count` records; the answer is how many there were.
    pub(crate) fn skip(&mut self, count: u64) -> io::Result<u64> {
        let mut skipped = 0;
        while skipped < count && self.next_record()?.is_some() {
            skipped += 1;
        }
        Ok(skipped)
    }

    fn next_record(&mut self) -> io::Result<Option<Record>> {
        loop {
            let bytes = std::mem::take(&mut self.bytes);
            let (file, mut line) = match &mut self.source {
                Source::Arguments(texts) => {
                    let Some(text) = texts.next() else { break };
                    (0, Line::Whole(text.into_bytes()))
                }
                Source::Lines(files) => {
                    let Some(reader) = files.reader() else { break };
                    let Some(line) = read_line(reader, bytes)? else {
                        files.advance()?;
                        self.lines = 0;
                        continue;
                    };
                    (files.at(), line)
                }
                Source::Whole(files) => {
                    let Some(reader) = files.reader() else { break };
                    let text = read_whole(reader, bytes)?;
                    let file = files.at();
                    files.advance()?;
                    self.lines = 0;
                    (file, text)
                }
            };
            self.lines += 1;
            if self.lines == 1
                && let Line::Whole(bytes) = &mut line
                && bytes.starts_with(BYTE_ORDER_MARK)
            {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            let place = Place { file, line: self.lines };
            let (id, content) = match &line {
                Line::TooLong => {
                    let what = if matches!(self.source, Source::Whole(_)) { "file" } else { "line" };
                    (None, Err(format!("the {what} is longer than {} MiB", MAX_LINE_BYTES >> 20)))
                }
                Line::Whole(bytes) => match std::str::from_utf8(bytes) {
                    Err(error) => (None, Err(format!("invalid UTF-8 at byte {}", error.valid_up_to() + 1))),
                    Ok(text) if self.format == RecordFormat::Text => {
                        if self.records == 0 && matches!(self.source, Source::Lines(_)) {
                            let mut oddities = std::mem::take(&mut self.oddities);
                            oddities.record_as_text(text, || self.place(place));
                            self.oddities = oddities;
                        }
                        (None, Ok(parse_text(text)))
                    }
                    // Blank lines separate nothing in JSONL and are no records.
                    Ok(text) if text.trim_ascii().is_empty() => {
                        self.bytes = line.into_bytes();
                        continue;
                    }
                    Ok(text) => {
                        let Parsed { id, content, others } = parse_json(text, self.scored);
                        if !others.is_empty() {
                            let mut oddities = std::mem::take(&mut self.oddities);
                            oddities.fields(others, || self.place(place));
                            self.oddities = oddities;
                        }
                        (id, content)
                    }
                },
            };
            let index = self.records;
            self.records += 1;
            self.bytes = line.into_bytes();
            let id = id.map_or(RecordId::Index(index), RecordId::Given);
            return Ok(Some(Record { index, line: place, id, content }));
        }
        self.ended = true;
        self.bytes.clear();
        Ok(None)
    }
}

/// What has become of an input while it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Other bytes were read than had been counted.
    Content(String),
    /// All was read, but the file has lost its name.
    Name(String),
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
}

impl Line {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Line::Whole(bytes) => bytes,
            Line::TooLong => Vec::new(),
        }
    }
}

/// The next line without its end (`\n` or `\r\n`), in the given buffer; `None` at the end of the file.
fn read_line(reader: &mut dyn BufRead, mut line: Vec<u8>) -> io::Result<Option<Line>> {
    line.clear();
    let mut any = false;
    let mut too_long = false;
    loop {
        let chunk = match reader.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if chunk.is_empty() {
            break;
        }
        any = true;
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        // One byte more, for the `\r` of a line that just fits.
        too_long = too_long || line.len() + part.len() > MAX_LINE_BYTES + 1;
        if too_long {
            line = Vec::new();
        } else {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            break;
        }
    }
    if !any {
        return Ok(None);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    if too_long || line.len() > MAX_LINE_BYTES {
        return Ok(Some(Line::TooLong));
    }
    Ok(Some(Line::Whole(line)))
}

/// All that a file holds but its last line end, in the given buffer.
fn read_whole(reader: &mut dyn BufRead, mut text: Vec<u8>) -> io::Result<Line> {
    text.clear();
    // Two bytes more, for the line end of a text that just fits.
    reader.take(MAX_LINE_BYTES as u64 + 3).read_to_end(&mut text)?;
    if text.last() == Some(&b'\n') {
        text.pop();
        if text.last() == Some(&b'\r') {
            text.pop();
        }
    }
    Ok(if text.len() > MAX_LINE_BYTES { Line::TooLong } else { Line::Whole(text) })
}

fn parse_text(text: &str) -> Content {
    if text.is_empty() {
        Content::Empty
    } else {
        Content::Run { input: Input::Text(text.to_owned()), prefix: None, target: None }
    }
}

/// Reads records from `bytes` to the end; gives the number of usable ones.
#[cfg(feature = "testing")]
pub(crate) fn read_all(bytes: &[u8]) -> usize {
    let lines = Box::new(io::Cursor::new(bytes.to_owned()));
    let mut reader = RecordReader::from_lines(lines, "input.jsonl".to_owned(), RecordFormat::Jsonl);
    let mut usable = 0;
    // Memory cannot fail to be read.
    while let Ok(records) = reader.window(64)
        && !records.is_empty()
    {
        for record in records {
            match record.content {
                Ok(_) => usable += 1,
                Err(message) => assert!(!message.contains('\n'), "more than one line: {message}"),
            }
        }
    }
    usable
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
