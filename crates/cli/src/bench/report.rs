//! What `elgen bench` writes, and how it goes on from a file that is not complete.

use std::{
    io,
    path::{Path, PathBuf},
};

use elgen_engine::bench::{PRESETS, Peaks, RunCost};
use elgen_models::files::read_regular;
use serde::{Deserialize, Serialize};

use super::rows::RowKey;
use crate::{
    error::CliError,
    files::{may_be_regular, read_whole},
    flags::BenchFormat,
    pretty_json,
};

/// Behind the name of an output that is no JSON: the rows so far.
const STATE_SUFFIX: &str = ".elgen-bench";

/// Far above any report.
const MAX_REPORT_BYTES: u64 = 256 << 20;

/// A run: where it ran, and what came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) place: Place,
    /// The command line of the last run that added rows.
    pub(super) command: Vec<String>,
    /// When that began, in UTC (RFC 3339).
    pub(super) date: String,
    /// Rows of the whole run.
    pub(super) planned: usize,
    /// Whether all of them are there.
    pub(super) complete: bool,
    /// Why presets have values that are not the paper's.
    pub(super) ours: Vec<Ours>,
    pub(super) rows: Vec<Measured>,
}

/// What all rows of a file have in common; they could not be compared otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Version of elgen.
    pub(super) elgen: String,
    /// Commit that it was built from, if that was known.
    pub(super) commit: Option<String>,
    pub(super) device: String,
    pub(super) driver: String,
    pub(super) software_adapter: bool,
    /// Bytes, as asked for.
    pub(super) memory_limit: Option<u64>,
    pub(super) repetitions: usize,
    pub(super) seed: u64,
}

/// A value of a preset that is not the paper's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ours {
    pub(super) preset: String,
    pub(super) column: String,
    pub(super) reason: String,
}

/// A row and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Measured {
    #[serde(flatten)]
    pub(super) key: RowKey,
    pub(super) status: Status,
    /// Why there is no cost.
    pub(super) message: Option<String>,
    pub(super) cost: Option<RunCost>,
    /// What the device can do at this dtype, if it could be measured.
    pub(super) peaks: Option<Peaks>,
}

/// How a row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    Oom,
    Error,
}

/// The reasons of the presets that rows belong to.
pub(super) fn reasons<'a>(keys: impl Iterator<Item = &'a RowKey>) -> Vec<Ours> {
    let used: Vec<&str> = keys.filter_map(|key| key.preset.as_deref()).collect();
    let of = |preset: &elgen_engine::bench::Preset| {
        let name = preset.name;
        preset.ours.iter().map(move |(column, reason)| Ours {
            preset: name.to_owned(),
            column: (*column).to_owned(),
            reason: (*reason).to_owned(),
        })
    };
    PRESETS.iter().filter(|preset| used.contains(&preset.name)).flat_map(of).collect()
}

/// Where a run's rows are kept while it goes on.
pub(super) fn state_path(output: &Path, format: BenchFormat) -> PathBuf {
    if format == BenchFormat::Json {
        return output.to_owned();
    }
    let mut name = output.as_os_str().to_owned();
    name.push(STATE_SUFFIX);
    name.into()
}

/// A report that was written as JSON.
pub(super) fn read(path: &Path) -> Result<Report, CliError> {
    let bytes = read_whole(path, MAX_REPORT_BYTES)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| CliError::Failed(format!("{}: not a JSON report of elgen bench: {error}", path.display())))
}

/// The rows that an earlier run of the same command has left in `path`.
pub(super) fn resume(path: &Path, place: &Place, planned: &[&RowKey]) -> Result<Vec<Measured>, CliError> {
    let bytes = match read_regular(path, MAX_REPORT_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        // Results go to a pipe or a device as they are; there is nothing to go on from.
        Err(_) if !may_be_regular(path) && !path.is_dir() => return Ok(Vec::new()),
        Err(source) => return Err(CliError::File { action: "read", path: path.into(), source }),
    };
    let refuse =
        |why: &str| CliError::Failed(format!("{}: {why}; remove it, or name another --output", path.display()));
    let found: Report = serde_json::from_slice(&bytes).map_err(|_| refuse("not a file of elgen bench"))?;
    if found.place != *place {
        return Err(refuse(&format!("from another run: {}", difference(&found.place, place))));
    }
    let same = found.rows.len() <= planned.len() && found.rows.iter().zip(planned).all(|(row, key)| row.key == **key);
    if found.planned != planned.len() || !same {
        return Err(refuse("from a run of other rows"));
    }
    Ok(found.rows)
}

/// The first thing in which two runs differ.
fn difference(found: &Place, now: &Place) -> String {
    let (Ok(found), Ok(now)) = (serde_json::to_value(found), serde_json::to_value(now)) else {
        return "it differs".into();
    };
    let fields = now.as_object().into_iter().flatten();
    fields
        .filter(|(key, value)| found.get(key) != Some(value))
        .map(|(key, value)| format!("{key} was {}, is {value}", found.get(key).unwrap_or(&serde_json::Value::Null)))
        .next()
        .unwrap_or_else(|| "it differs".into())
}

impl Report {
    /// As one JSON object.
    pub(super) fn json(&self) -> Result<String, CliError> {
        pretty_json(self)
    }
}
