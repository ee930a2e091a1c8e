//! Reads records, one at a time, from arguments, text lines or JSONL.
//!
//! The reader holds one line; a line longer than [`MAX_LINE_BYTES`] is skipped without being stored. What is wrong with a
//! record is part of the record, so that its neighbours still run; only a failing file ends the reading.

use std::{
    io::{self, BufRead, BufReader, IsTerminal, Read},
    path::{Path, PathBuf},
};

use elgen_engine::Input;
use serde::{Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use sha2::Digest;

use crate::{
    files::check_in_place,
    survey::{Survey, hex},
};

mod files;
mod object;
mod watched;

use files::Files;
pub(crate) use files::Place;
use object::{Object, Oddities};

/// The longest line that is read, in bytes.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 20;
/// A window of records ends when its lines hold this many bytes together.
const WINDOW_BYTES: usize = 64 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

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

/// What a line of JSONL says.
struct Parsed {
    id: Option<Box<RawValue>>,
    content: Result<Content, String>,
    /// Names of fields that play no part.
    others: Vec<String>,
}

fn parse_json(line: &str, scored: bool) -> Parsed {
    let failed = |message: String| Parsed { id: None, content: Err(message), others: Vec::new() };
    // A struct could also be read from an array of its fields.
    if !line.trim_ascii_start().starts_with('{') {
        let what = serde_json::from_str::<IgnoredAny>(line)
            .map_or_else(|error| format!("invalid JSON: {}", json_message(&error)), |_| "not a JSON object".to_owned());
        return failed(what);
    }
    match serde_json::from_str::<Object<'_>>(line) {
        Err(error) => failed(format!("invalid JSON: {}", json_message(&error))),
        Ok(mut object) => {
            let mut others = std::mem::take(&mut object.others);
            if scored && object.prefix.is_some() {
                others.push("prefix".to_owned());
            }
            Parsed { id: object.id.map(ToOwned::to_owned), content: object_content(&object, scored), others }
        }
    }
}

fn object_content(object: &Object<'_>, scored: bool) -> Result<Content, String> {
    let input = text_or_ids(("text", object.text), ("input_ids", object.input_ids))?;
    let target = match scored {
        true => text_or_ids(("target", object.target), ("target_ids", object.target_ids))?,
        false => None,
    };
    let input = match (input, &target) {
        (Some(input), _) => input,
        (None, Some(_)) => Input::Ids(Vec::new()),
        (None, None) => return Err("neither `text` nor `input_ids`".to_owned()),
    };
    let prefix = object.prefix.map(|prefix| match prefix.get().trim_ascii_start().starts_with('[') {
        true => parse_ids("prefix", prefix),
        false => serde_json::from_str(prefix.get())
            .map(Input::Text)
            .map_err(|error| format!("`prefix`: {}", value_message(&error))),
    });
    Ok(Content::Run { input, prefix: prefix.transpose()?, target })
}

/// The value of one of two fields.
fn text_or_ids(
    (text_name, text): (&str, Option<&RawValue>),
    (ids_name, ids): (&str, Option<&RawValue>),
) -> Result<Option<Input>, String> {
    match (text, ids) {
        (Some(_), Some(_)) => Err(format!("give either `{text_name}` or `{ids_name}`, not both")),
        (None, None) => Ok(None),
        (Some(text), None) => serde_json::from_str(text.get())
            .map(|text| Some(Input::Text(text)))
            .map_err(|error| format!("`{text_name}`: {}", value_message(&error))),
        (None, Some(ids)) => parse_ids(ids_name, ids).map(Some),
    }
}

fn parse_ids(name: &str, ids: &RawValue) -> Result<Input, String> {
    match serde_json::from_str::<Vec<u32>>(ids.get()) {
        Ok(ids) if ids.is_empty() => Err(format!("`{name}` is empty")),
        Ok(ids) => Ok(Input::Ids(ids)),
        Err(error) => Err(format!("`{name}`: {}", value_message(&error))),
    }
}

/// Reads records from `bytes` to the end; gives the number of usable ones.
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

/// The message without the position, which counts within the value.
pub(crate) fn value_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// The message without "line 1", which would be taken for the file's.
fn json_message(error: &serde_json::Error) -> String {
    format!("{} at column {}", value_message(error), error.column())
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
