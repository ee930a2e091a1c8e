//! From what was named to a reader of records.

use std::path::{Path, PathBuf};

use super::{RecordFormat, RecordReader};
use crate::{error::CliError, files::STANDARD};

/// The reader of a file, of the given texts or, if there are neither, of stdin; and the file if it is one.
pub(crate) fn open_reader(
    input: Option<&Path>,
    format: Option<RecordFormat>,
    texts: Vec<String>,
) -> Result<(RecordReader, Option<PathBuf>), CliError> {
    match input {
        None if !texts.is_empty() => Ok((RecordReader::from_arguments(texts), None)),
        Some(path) if path.as_os_str() != STANDARD => {
            let format = format.unwrap_or_else(|| RecordFormat::of_path(path));
            let reader = RecordReader::from_file(path, format).map_err(|source| CliError::File {
                action: "read",
                path: path.to_owned(),
                source,
            })?;
            Ok((reader, Some(path.to_owned())))
        }
        _ => Ok((RecordReader::from_stdin(format.unwrap_or(RecordFormat::Text)), None)),
    }
}
