//! `elgen inspect`: what a model directory holds and what it costs.

use std::fmt::Write;

use serde_json::Value;

use crate::{
    console::Console,
    error::{CliError, printable},
    files::FileUses,
    flags::{InspectArgs, ReportFormat},
    model::resolve_model,
    pretty_json, print_report,
    report::bytes,
};

/// Width of the names' column.
const NAMES: usize = 30;

/// Runs `elgen inspect`; returns the exit code.
pub(crate) fn inspect(arguments: &InspectArgs) -> Result<u8, CliError> {
    let model = resolve_model(&arguments.model, &arguments.hub, &Console::new(false), false)?;
    let mut uses = FileUses::default();
    uses.reads_model(&model);
    uses.results("", None);
    uses.check()?;
    let found = elgen_engine::inspect(&model)?;
    if arguments.format == ReportFormat::Json {
        return print_report(&pretty_json(&found)?);
    }
    let value = serde_json::to_value(&found).map_err(|error| CliError::Failed(error.to_string()))?;
    let mut text = String::new();
    write_fields(&mut text, &value, 0, false);
    print_report(&text)
}

/// Writes an object's fields, one a line, inner objects indented. `sizes` says that numbers are bytes.
fn write_fields(text: &mut String, value: &Value, indent: usize, sizes: bool) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields {
        let sizes = sizes || name.contains("bytes");
        let label = format!("{:indent$}{}", "", name.replace('_', " "));
        // Writing to a String cannot fail.
        let _ = match value {
            Value::Object(inner) if !inner.is_empty() => {
                let heading = writeln!(text, "{label}");
                write_fields(text, value, indent + 2, sizes);
                heading
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let heading = writeln!(text, "{label}");
                for item in items {
                    let _ = writeln!(text, "{:1$}{2}", "", indent + 2, one_item(item));
                }
                heading
            }
            _ => writeln!(text, "{label:<NAMES$} {}", scalar(value, sizes)),
        };
    }
}

fn one_item(item: &Value) -> String {
    match item {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{} {}", name.replace('_', " "), scalar(value, name.contains("bytes"))))
            .collect::<Vec<_>>()
            .join(", "),
        other => scalar(other, false),
    }
}

fn scalar(value: &Value, size: bool) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::String(text) => printable(text),
        Value::Number(number) => match number.as_u64() {
            Some(count) if size && count >= 1024 => format!("{} ({count} bytes)", bytes(count)),
            Some(count) if size => format!("{count} bytes"),
            _ => number.to_string(),
        },
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(|item| scalar(item, size)).collect::<Vec<_>>().join(", "),
        Value::Object(_) => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_lines() {
        let value = serde_json::json!({
            "family": "bart",
            "tokenizer": true,
            "max_length": null,
            "file_bytes": 2048,
            "ids": [2, 7],
            "cache_bytes": {"mha": {"per_token": 512}, "el": {}},
            "files": [{"name": "model.safetensors", "bytes": 100}],
        });
        let mut text = String::new();
        write_fields(&mut text, &value, 0, false);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "family bart",
                "tokenizer true",
                "max length none",
                "file bytes 2.0 KiB (2048 bytes)",
                "ids 2, 7",
                "cache bytes",
                "mha",
                "per token 512 bytes",
                "el none",
                "files",
                "name model.safetensors, bytes 100 bytes",
            ]
        );
        assert!(text.contains("\n    per token "), "{text}");
    }
}
