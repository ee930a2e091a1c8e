//! Reads records, one at a time, from arguments, text lines or JSONL.
//!
//! The reader holds one line; a line longer than [`MAX_LINE_BYTES`] is skipped without being stored. What is wrong with a
//! record is part of the record, so that its neighbours still run; only a failing file ends the reading.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read},
    path::Path,
    rc::Rc,
};

use elgen_engine::Input;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    files::{FileId, check_in_place},
    survey::{Survey, hex},
};

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
    /// 1-based line, or number of the argument.
    pub(crate) line: u64,
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

enum Source {
    Arguments(std::vec::IntoIter<String>),
    Lines(Box<dyn BufRead>),
}

/// A stream of records.
pub(crate) struct RecordReader {
    source: Source,
    name: String,
    is_stdin: bool,
    format: RecordFormat,
    /// Records are to be scored.
    scored: bool,
    records: u64,
    lines: u64,
    bytes: Vec<u8>,
    ended: bool,
    /// What was read of a file.
    seen: Option<Rc<RefCell<Seen>>>,
}

impl RecordReader {
    /// Reads the given texts.
    pub(crate) fn from_arguments(texts: Vec<String>) -> RecordReader {
        RecordReader::new(Source::Arguments(texts.into_iter()), "argument".to_owned(), RecordFormat::Text)
    }

    /// The given texts that are not read yet; `None` for lines.
    pub(crate) fn texts(&self) -> Option<&[String]> {
        match &self.source {
            Source::Arguments(texts) => Some(texts.as_slice()),
            Source::Lines(_) => None,
        }
    }

    /// Reads a file.
    pub(crate) fn from_file(path: &Path, format: RecordFormat) -> io::Result<RecordReader> {
        let file = File::open(path)?;
        // Opening a directory works on Unix, reading it does not; say so before a model is loaded.
        if file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        let seen = Seen::of(&file);
        let lines = Box::new(BufReader::new(Watched { file, seen: Rc::clone(&seen) }));
        Ok(RecordReader { seen: Some(seen), ..RecordReader::from_lines(lines, path.display().to_string(), format) })
    }

    /// Reads standard input.
    pub(crate) fn from_stdin(format: RecordFormat) -> RecordReader {
        let lines = Box::new(BufReader::new(io::stdin()));
        RecordReader { is_stdin: true, ..RecordReader::from_lines(lines, "<stdin>".to_owned(), format) }
    }

    fn from_lines(reader: Box<dyn BufRead>, name: String, format: RecordFormat) -> RecordReader {
        RecordReader::new(Source::Lines(reader), name, format)
    }

    fn new(source: Source, name: String, format: RecordFormat) -> RecordReader {
        RecordReader {
            source,
            name,
            is_stdin: false,
            format,
            scored: false,
            records: 0,
            lines: 0,
            bytes: Vec::new(),
            ended: false,
            seen: None,
        }
    }

    /// Reads `target` and `target_ids` too, beside which a JSONL record needs no source.
    pub(crate) fn scored(self) -> RecordReader {
        RecordReader { scored: true, ..self }
    }

    /// How a line is named in messages: `file:line`.
    pub(crate) fn place(&self, line: u64) -> String {
        match self.source {
            Source::Arguments(_) => format!("{} {line}", self.name),
            Source::Lines(_) => format!("{}:{line}", self.name),
        }
    }

    /// The file's name in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
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
        let seen = self.seen.as_ref()?.borrow();
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
            let mut line = match &mut self.source {
                Source::Arguments(texts) => {
                    let Some(text) = texts.next() else { break };
                    Line::Whole(text.into_bytes())
                }
                Source::Lines(reader) => match read_line(reader.as_mut(), std::mem::take(&mut self.bytes))? {
                    Some(line) => line,
                    None => break,
                },
            };
            self.lines += 1;
            if self.lines == 1
                && let Line::Whole(bytes) = &mut line
                && bytes.starts_with(BYTE_ORDER_MARK)
            {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            let (id, content) = match &line {
                Line::TooLong => (None, Err(format!("the line is longer than {} MiB", MAX_LINE_BYTES >> 20))),
                Line::Whole(bytes) => match std::str::from_utf8(bytes) {
                    Err(error) => (None, Err(format!("invalid UTF-8 at byte {}", error.valid_up_to() + 1))),
                    Ok(text) if self.format == RecordFormat::Text => (None, Ok(parse_text(text))),
                    // Blank lines separate nothing in JSONL and are no records.
                    Ok(text) if text.trim_ascii().is_empty() => {
                        self.bytes = line.into_bytes();
                        continue;
                    }
                    Ok(text) => parse_json(text, self.scored),
                },
            };
            let index = self.records;
            self.records += 1;
            self.bytes = line.into_bytes();
            let id = id.map_or(RecordId::Index(index), RecordId::Given);
            return Ok(Some(Record { index, line: self.lines, id, content }));
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

/// What was read of a file.
struct Seen {
    id: Option<FileId>,
    bytes: u64,
    hash: Sha256,
}

impl Seen {
    fn of(file: &File) -> Rc<RefCell<Seen>> {
        Rc::new(RefCell::new(Seen { id: FileId::of_file(file), bytes: 0, hash: Sha256::new() }))
    }
}

/// A file that notes what is read of it.
struct Watched {
    file: File,
    seen: Rc<RefCell<Seen>>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let mut seen = self.seen.borrow_mut();
        seen.bytes += read as u64;
        seen.hash.update(&buffer[..read]);
        Ok(read)
    }
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

fn parse_text(text: &str) -> Content {
    if text.is_empty() {
        Content::Empty
    } else {
        Content::Run { input: Input::Text(text.to_owned()), prefix: None, target: None }
    }
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    input_ids: Option<&'a RawValue>,
    #[serde(borrow)]
    prefix: Option<&'a RawValue>,
    #[serde(borrow)]
    target: Option<&'a RawValue>,
    #[serde(borrow)]
    target_ids: Option<&'a RawValue>,
}

fn parse_json(line: &str, scored: bool) -> (Option<Box<RawValue>>, Result<Content, String>) {
    // Deserialising a struct would also take an array of its fields.
    if !line.trim_ascii_start().starts_with('{') {
        let what = serde_json::from_str::<IgnoredAny>(line)
            .map_or_else(|error| format!("invalid JSON: {}", json_message(&error)), |_| "not a JSON object".to_owned());
        return (None, Err(what));
    }
    match serde_json::from_str::<Object<'_>>(line) {
        Err(error) => (None, Err(format!("invalid JSON: {}", json_message(&error)))),
        Ok(object) => (object.id.map(ToOwned::to_owned), object_content(&object, scored)),
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
