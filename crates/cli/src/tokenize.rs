//! `elgen tokenize`: texts to token ids and back, without the model.

use std::io;

use elgen_engine::Input;
use elgen_models::{ModelError, Tokenizer};
use serde::Serialize;

use crate::{
    console::Console,
    error::CliError,
    files::{self, FileUses},
    flags::{TextFlags, TokenizeArgs},
    input::{Content, RecordFormat, RecordId, RecordReader, open_reader},
    model::resolve_model,
    output::escape,
};

/// Records read at a time.
const WINDOW_RECORDS: usize = 256;

/// Runs `elgen tokenize`; returns the exit code.
pub(crate) fn tokenize(mut arguments: TokenizeArgs) -> Result<u8, CliError> {
    let console = Console::new(false);
    let mut uses = FileUses::default();
    match &arguments.input {
        Some(path) => uses.reads("--input", Some(path)),
        None if arguments.texts.is_empty() => uses.reads_stdin(),
        None => {}
    }
    uses.results("", None);
    uses.check()?;
    arguments.model = resolve_model(&arguments.model, &arguments.hub, &console, false)?;
    files::warn_of_file_texts(&arguments.texts, &console);
    uses.reads_model(&arguments.model);
    uses.check()?;
    let mut reader = open_input(&mut arguments)?;
    let mut tokenizer = Tokenizer::open(&arguments.model).map_err(model_error)?;
    tokenizer.set_max_text_bytes(arguments.text.max_bytes());
    arguments.languages.apply(&mut tokenizer)?;
    if reader.waits_for_terminal() {
        console.note("reading texts from the terminal, a line each; Ctrl-D ends them");
    }

    let mut stdout = files::results();
    let mut failed = false;
    while reader.total().is_none() {
        let records = reader.window(if reader.waits_for_terminal() { 1 } else { WINDOW_RECORDS });
        let records =
            records.map_err(|source| CliError::File { action: "read", path: reader.name().into(), source })?;
        for warning in reader.take_warnings() {
            console.warning(&warning);
        }
        let mut lines = Vec::new();
        for record in records {
            let result = record.content.and_then(|content| one(&tokenizer, &arguments, content));
            if let Err(message) = &result {
                failed = true;
                console.error(&format!("{}: {message}", reader.place(record.line)));
            }
            match arguments.format {
                RecordFormat::Text => text_line(&mut lines, &arguments, result.ok()),
                RecordFormat::Jsonl => json_line(&mut lines, &arguments, &record.id, result)?,
            }
        }
        match stdout.write_all(&lines).and_then(|()| stdout.flush()) {
            Ok(()) => {}
            Err(source) if source.kind() == io::ErrorKind::BrokenPipe => return Ok(u8::from(failed)),
            Err(source) => return Err(CliError::File { action: "write", path: "<stdout>".into(), source }),
        }
    }
    Ok(u8::from(failed))
}

fn open_input(arguments: &mut TokenizeArgs) -> Result<RecordReader, CliError> {
    let texts = std::mem::take(&mut arguments.texts);
    open_reader(arguments.input.as_deref(), arguments.input_format, texts).map(|(reader, _)| reader)
}

/// A directory without a tokenizer, or with a damaged one, is a failure like any other of the model.
fn model_error(error: ModelError) -> CliError {
    CliError::Engine(error.into())
}

/// What became of a record.
struct Tokenized {
    ids: Vec<u32>,
    /// None for an id that only the model has, not the tokenizer.
    tokens: Vec<Option<String>>,
    /// Where ids were given.
    text: Option<String>,
}

fn one(tokenizer: &Tokenizer, arguments: &TokenizeArgs, content: Content) -> Result<Tokenized, String> {
    let message = |error: ModelError| TextFlags::name(&error.to_string());
    let (ids, decode) = match content {
        Content::Run { input: Input::Ids(ids), .. } => (ids, true),
        Content::Run { input: Input::Text(text), .. } if arguments.decode => (parse_ids(&text)?, true),
        Content::Empty if arguments.decode => (Vec::new(), true),
        Content::Run { input: Input::Text(text), .. } => (encode(tokenizer, arguments, &text).map_err(message)?, false),
        Content::Run { .. } => return Err("neither a text nor token ids".to_owned()),
        Content::Empty => (encode(tokenizer, arguments, "").map_err(message)?, false),
    };
    let text = decode.then(|| tokenizer.decode(&ids, arguments.no_special_tokens)).transpose().map_err(message)?;
    let tokens = ids.iter().map(|id| tokenizer.id_to_token(*id)).collect();
    Ok(Tokenized { ids, tokens, text })
}

fn encode(tokenizer: &Tokenizer, arguments: &TokenizeArgs, text: &str) -> Result<Vec<u32>, ModelError> {
    if arguments.no_special_tokens { tokenizer.encode_plain(text) } else { tokenizer.encode(text) }
}

fn parse_ids(line: &str) -> Result<Vec<u32>, String> {
    let words = line.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(|_| format!("`{word}` is no token id"))).collect()
}

fn text_line(lines: &mut Vec<u8>, arguments: &TokenizeArgs, result: Option<Tokenized>) {
    if let Some(found) = result {
        if let Some(text) = &found.text {
            escape(lines, text);
        } else if arguments.count {
            lines.extend(found.ids.len().to_string().bytes());
        } else {
            let words: Vec<String> = if arguments.tokens {
                found.tokens.iter().flatten().map(|token| escaped_token(token)).collect()
            } else {
                found.ids.iter().map(u32::to_string).collect()
            };
            lines.extend(words.join(" ").bytes());
        }
    }
    lines.push(b'\n');
}

/// A token without the characters that separate tokens.
pub(crate) fn escaped_token(token: &str) -> String {
    let mut out = String::with_capacity(token.len());
    for c in token.chars() {
        if c.is_whitespace() || c.is_control() || c == '\\' {
            match c {
                '\\' => out.push_str("\\\\"),
                _ => out.extend(c.escape_unicode()),
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a RecordId,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<&'a [u32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<&'a [Option<String>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

fn json_line(
    lines: &mut Vec<u8>,
    arguments: &TokenizeArgs,
    id: &RecordId,
    result: Result<Tokenized, String>,
) -> Result<(), CliError> {
    let mut line = Line { id, count: None, ids: None, tokens: None, text: None, error: None };
    match &result {
        Ok(found) if arguments.count => line.count = Some(found.ids.len()),
        Ok(found) => {
            line.ids = Some(&found.ids);
            line.tokens = Some(&found.tokens);
            line.text = found.text.as_deref();
        }
        Err(message) => line.error = Some(message),
    }
    serde_json::to_writer(&mut *lines, &line).map_err(|error| CliError::Failed(error.to_string()))?;
    lines.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_separated_by_spaces_or_commas() {
        assert_eq!(parse_ids("0 42,2"), Ok(vec![0, 42, 2]));
        assert_eq!(parse_ids(" 7, 8 "), Ok(vec![7, 8]));
        assert_eq!(parse_ids("7 x"), Err("`x` is no token id".to_owned()));
        assert!(parse_ids("-1").is_err() && parse_ids("4294967296").is_err());
    }

    #[test]
    fn tokens_have_no_separators_in_them() {
        assert_eq!(escaped_token("▁a"), "▁a");
        assert_eq!(escaped_token("a b\n\\"), "a\\u{20}b\\u{a}\\\\");
    }
}
