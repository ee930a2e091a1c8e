//! From a line of JSONL to a record's content.

use elgen_engine::Input;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{object::Object, record::Content};

/// What a line of JSONL says.
pub(super) struct Parsed {
    pub(super) id: Option<Box<RawValue>>,
    pub(super) content: Result<Content, String>,
    /// Names of fields that play no part.
    pub(super) others: Vec<String>,
}

pub(super) fn parse_json(line: &str, scored: bool) -> Parsed {
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
