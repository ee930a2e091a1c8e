//! What is to be scored: records of one file, lines of two, or a file that is one text.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use elgen_engine::Input;

use crate::{
    error::CliError,
    files::STANDARD,
    flags::ScoreArgs,
    input::{Content, Place, Record, RecordFormat, RecordId, RecordReader, Survey, open_reader},
};

/// A stream of records to be scored.
pub(super) enum Pairs {
    /// Each record holds all of its own.
    One(RecordReader),
    /// Line N of the one is scored behind line N of the other.
    Two { sources: RecordReader, targets: RecordReader },
    /// One text.
    Whole { text: Option<String>, name: String },
}

impl Pairs {
    /// Opens what was named. Two files of different lengths are told before anything runs.
    pub(super) fn open(arguments: &ScoreArgs) -> Result<Pairs, CliError> {
        let input = arguments.files.input.as_deref().filter(|path| path.as_os_str() != STANDARD);
        let by_name = || input.map_or(RecordFormat::Text, RecordFormat::of_path);
        let format = arguments.files.input_format.unwrap_or_else(by_name);
        if arguments.whole.whole_file {
            if format == RecordFormat::Jsonl {
                return Err(CliError::Usage("--whole-file: takes a text, not JSONL records".to_owned()));
            }
            return Pairs::whole(input);
        }
        let sources = open_reader(input, Some(format), Vec::new())?.0.scored();
        let Some(path) = arguments.files.targets.as_deref() else { return Ok(Pairs::One(sources)) };
        if format == RecordFormat::Jsonl {
            let reason = "--targets: goes with a text input; JSONL records have a `target` of their own";
            return Err(CliError::Usage(reason.to_owned()));
        }
        if path.as_os_str() == STANDARD && input.is_none() {
            return Err(CliError::Usage("--targets -: stdin is the input".to_owned()));
        }
        let targets = open_reader(Some(path), Some(RecordFormat::Text), Vec::new())?.0;
        if let Some(input) = input.filter(|input| input.is_file() && path.is_file()) {
            let count = |path: &Path| match Survey::of_file(path, RecordFormat::Text) {
                Ok(found) => Ok(found.records),
                Err(source) => Err(CliError::File { action: "read", path: path.to_owned(), source }),
            };
            same_length((sources.name(), count(input)?), (targets.name(), count(path)?))?;
        }
        Ok(Pairs::Two { sources, targets })
    }

    fn whole(input: Option<&Path>) -> Result<Pairs, CliError> {
        let mut bytes = Vec::new();
        let read = match input {
            Some(path) => fs::read(path).map(|content| bytes = content),
            None => io::stdin().lock().read_to_end(&mut bytes).map(drop),
        };
        let name = input.map_or("<stdin>".to_owned(), |path| path.display().to_string());
        read.map_err(|source| CliError::File { action: "read", path: (&name).into(), source })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            CliError::Failed(format!("{name}: invalid UTF-8 at byte {}", error.utf8_error().valid_up_to() + 1))
        })?;
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok(Pairs::Whole { text: Some(text), name })
    }

    /// The next records, `limit` at most; none at the end.
    pub(super) fn window(&mut self, limit: usize) -> Result<Vec<Record>, CliError> {
        match self {
            Pairs::One(reader) => window(reader, limit),
            Pairs::Two { sources, targets } => {
                let mut records = window(sources, limit)?;
                let mut found: Vec<Record> = Vec::new();
                while found.len() < records.len() && targets.total().is_none() {
                    found.extend(window(targets, records.len() - found.len())?);
                }
                if found.len() < records.len() || sources.total().is_some() {
                    let counts = (count(sources)?, count(targets)?);
                    same_length((sources.name(), counts.0), (targets.name(), counts.1))?;
                }
                for (record, target) in records.iter_mut().zip(found) {
                    let source = std::mem::replace(&mut record.content, Ok(Content::Empty));
                    record.content = pair(source, target.content, targets.name());
                }
                Ok(records)
            }
            Pairs::Whole { text, .. } => {
                let record = |text: String| {
                    let content = Ok(Content::Run { input: Input::Text(text), prefix: None, target: None });
                    Record { index: 0, line: Place::FIRST, id: RecordId::Index(0), content }
                };
                Ok(text.take().map(record).into_iter().collect())
            }
        }
    }

    /// Number of all records, once the end has been seen.
    pub(super) fn total(&self) -> Option<u64> {
        match self {
            Pairs::One(reader) | Pairs::Two { sources: reader, .. } => reader.total(),
            Pairs::Whole { text, .. } => text.is_none().then_some(1),
        }
    }

    /// How a record's line is named in messages.
    pub(super) fn place(&self, line: Place) -> String {
        match self {
            Pairs::One(reader) | Pairs::Two { sources: reader, .. } => reader.place(line),
            Pairs::Whole { name, .. } => name.clone(),
        }
    }

    /// What is to be told of what was read.
    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        match self {
            Pairs::One(reader) | Pairs::Two { sources: reader, .. } => reader.take_warnings(),
            Pairs::Whole { .. } => Vec::new(),
        }
    }

    /// Whether somebody has to type the records.
    pub(super) fn waits_for_terminal(&self) -> bool {
        matches!(self, Pairs::One(reader) | Pairs::Two { sources: reader, .. } if reader.waits_for_terminal())
    }

    /// Whether the input is text, which needs a tokenizer.
    pub(super) fn is_text(&self) -> bool {
        !matches!(self, Pairs::One(reader) if reader.format() == RecordFormat::Jsonl)
    }
}

fn window(reader: &mut RecordReader, limit: usize) -> Result<Vec<Record>, CliError> {
    reader.window(limit).map_err(|source| CliError::File { action: "read", path: reader.name().into(), source })
}

/// Number of all lines; reads to the end.
fn count(reader: &mut RecordReader) -> Result<u64, CliError> {
    reader.skip(u64::MAX).map_err(|source| CliError::File { action: "read", path: reader.name().into(), source })?;
    Ok(reader.total().unwrap_or(0))
}

fn same_length(sources: (&str, u64), targets: (&str, u64)) -> Result<(), CliError> {
    if sources.1 == targets.1 {
        return Ok(());
    }
    Err(CliError::Failed(format!("{} has {} lines, {} has {}", sources.0, sources.1, targets.0, targets.1)))
}

/// One record of two lines.
fn pair(source: Result<Content, String>, target: Result<Content, String>, targets: &str) -> Result<Content, String> {
    let text = |content| match content {
        Content::Run { input, .. } => input,
        Content::Empty => Input::Text(String::new()),
    };
    let target = target.map_err(|message| format!("in {targets}: {message}"))?;
    Ok(match (source?, target) {
        (Content::Empty, Content::Empty) => Content::Empty,
        (source, target) => Content::Run { input: text(source), prefix: None, target: Some(text(target)) },
    })
}
