//! `--print-config`: the generation options of a run, and who decided each.

use elgen_engine::{ModelDescription, OptionSource};
use elgen_search::GenerationOptions;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    asked::{Asked, Origin},
    error::CliError,
    output::OutputFormat,
    print_report,
};

const HUGGING_FACE: &str = "Hugging Face default";

/// One option of the run.
#[derive(Debug, Serialize)]
struct Row {
    option: String,
    value: Value,
    source: &'static str,
}

/// Prints the options of a run, `options`, which were checked as for one.
pub(crate) fn print_config(
    model: &ModelDescription,
    asked: &Asked,
    options: &GenerationOptions,
    format: Option<OutputFormat>,
) -> Result<u8, CliError> {
    let fields = fields(options)?;
    let rows = rows(&fields, |option| match asked.origin(option) {
        Some(Origin::Flag) => "flag",
        Some(Origin::Set) => "--set",
        Some(Origin::File) => "--generation-config",
        Some(Origin::Language) => "--tgt-lang",
        None => match model.source_of(option) {
            OptionSource::GenerationConfig => "generation_config.json",
            OptionSource::ModelConfig => "config.json",
            _ => "class default",
        },
    })?;
    match format {
        Some(OutputFormat::Jsonl) => print_report(&lines(&rows)?),
        _ => print_report(&table(&rows)),
    }
}

fn fields(options: &GenerationOptions) -> Result<Map<String, Value>, CliError> {
    match serde_json::to_value(options) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(CliError::Failed(format!("the options are no object: {other}"))),
        Err(error) => Err(CliError::Failed(error.to_string())),
    }
}

/// The options that are set, and the defaults of the others.
fn rows(set: &Map<String, Value>, source: impl Fn(&str) -> &'static str) -> Result<Vec<Row>, CliError> {
    let defaults = fields(&GenerationOptions::defaults())?;
    let rest = set.keys().map(String::as_str).filter(|name| !GenerationOptions::NAMES.contains(name));
    let names = GenerationOptions::NAMES.iter().copied().chain(rest);
    Ok(names
        .filter_map(|option| {
            let found = set.get(option).map(|value| (value, source(option)));
            // A limit in tokens of either kind replaces the default one.
            let limited = option == "max_new_tokens" && set.contains_key("max_length");
            let default = defaults.get(option).filter(|_| !limited);
            let (value, source) = found.or_else(|| {
                default.map(|value| (value, if option == "seed" { "elgen default" } else { HUGGING_FACE }))
            })?;
            Some(Row { option: option.to_owned(), value: value.clone(), source })
        })
        .collect())
}

fn table(rows: &[Row]) -> String {
    let values: Vec<String> = rows.iter().map(|row| row.value.to_string()).collect();
    let width = |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text.chars().count()).max().unwrap_or(0);
    let names = width(&mut rows.iter().map(|row| row.option.as_str()));
    let wide = width(&mut values.iter().map(String::as_str));
    rows.iter()
        .zip(&values)
        .map(|(row, value)| format!("{:<names$}  {value:<wide$}  {}\n", row.option, row.source))
        .collect()
}

fn lines(rows: &[Row]) -> Result<String, CliError> {
    rows.iter()
        .map(|row| match serde_json::to_string(row) {
            Ok(line) => Ok(line + "\n"),
            Err(error) => Err(CliError::Failed(error.to_string())),
        })
        .collect()
}
