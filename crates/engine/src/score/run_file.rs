//! A run that was saved: every scored position's whole row of log-probabilities.
//!
//! All numbers are little-endian. The rows come in the order in which they were computed, so that they can be written as they
//! come; the table behind them says where each record's rows are.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `ELGENRUN` |
//! | 4 | version, 1 |
//! | 4 | `h`, length of the header |
//! | h | [`RunHeader`] as JSON |
//! | 4 | CRC-32 of the header |
//! | rows x (4 x vocabulary + 4) | rows of f32, each with its CRC-32 |
//! | t | the list of [`SavedRecord`] as JSON |
//! | 8 | `t` |
//! | 4 | CRC-32 of the table |
//! | 8 | `ELGENEND` |

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use elgen_models::files::open_regular;
use serde::{Deserialize, Serialize};

use super::TargetScore;

const MAGIC: &[u8; 8] = b"ELGENRUN";
const END_MAGIC: &[u8; 8] = b"ELGENEND";
const VERSION: u32 = 1;
/// Bytes before the header.
const LEAD_BYTES: u64 = 16;
/// Bytes behind the table.
const FOOTER_BYTES: u64 = 20;
/// No header comes near this; a larger number is damage.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Why a run file cannot be written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunFileError {
    /// The system refuses.
    #[error("cannot {action} {file}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        file: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{file}: not a saved run (it does not begin with ELGENRUN)")]
    NotARun {
        /// The file.
        file: String,
    },
    /// The file was written by another version.
    #[error("{file}: a saved run of version {found}, this program reads version {VERSION}")]
    Version {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
    },
    /// The run that wrote it did not end, or the file was cut.
    #[error("{file}: the saved run is incomplete: {what}")]
    Truncated {
        /// The file.
        file: String,
        /// How that shows.
        what: String,
    },
    /// Bytes are not those that were written.
    #[error("{file}: the saved run is damaged: {what}")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// The saved run is one of something else.
    #[error("{file} is a run of something else: {what}")]
    OtherRun {
        /// The file.
        file: String,
        /// What differs.
        what: String,
    },
    /// A row or a record that does not belong where it was given.
    #[error("{file}: {what}")]
    Misuse {
        /// The file.
        file: String,
        /// What was wrong.
        what: String,
    },
}

/// What a saved run is a run of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHeader {
    /// Ids of a row.
    pub vocab_size: usize,
    /// What identifies the model.
    pub model: String,
    /// How it ran (attention, dtype, device): told, never compared.
    pub labels: BTreeMap<String, String>,
}

/// A record of a saved run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedRecord {
    /// Its id, a JSON value.
    pub id: String,
    /// CRC-32 of the ids of the encoder input or the prompt, as little-endian u32.
    pub source_checksum: u32,
    /// The target; empty for a record that could not be scored.
    pub target_ids: Vec<u32>,
    /// For each of them its row's number in the file.
    pub rows: Vec<u64>,
}

/// What tells one source from another.
pub(super) fn source_checksum(score: &TargetScore) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for id in &score.prompt_ids {
        crc.update(&id.to_le_bytes());
    }
    crc.finalize()
}

fn row_bytes(vocab_size: usize) -> u64 {
    // Saturating: a header may say anything.
    (vocab_size as u64).saturating_mul(4).saturating_add(4)
}

/// Writes a run row by row.
#[derive(Debug)]
pub struct RunWriter {
    file: String,
    out: BufWriter<File>,
    vocab_size: usize,
    rows: u64,
    buffer: Vec<u8>,
    /// Rows of records that have not ended, by record and place.
    pending: BTreeMap<(usize, usize), u64>,
    records: Vec<SavedRecord>,
}

impl RunWriter {
    /// Begins a file; one that exists is overwritten.
    ///
    /// # Errors
    /// The system refuses.
    pub fn create(path: &Path, header: &RunHeader) -> Result<Self, RunFileError> {
        let name = path.display().to_string();
        let refused = |source| RunFileError::Io { action: "write", file: name.clone(), source };
        let json = serde_json::to_vec(header).map_err(|error| refused(error.into()))?;
        let mut out = BufWriter::new(File::create(path).map_err(refused)?);
        let lead = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &(json.len() as u32).to_le_bytes()].concat();
        out.write_all(&lead).map_err(refused)?;
        out.write_all(&json).map_err(refused)?;
        out.write_all(&crc32fast::hash(&json).to_le_bytes()).map_err(refused)?;
        let vocab_size = header.vocab_size;
        Ok(Self {
            file: name,
            out,
            vocab_size,
            rows: 0,
            buffer: Vec::new(),
            pending: BTreeMap::new(),
            records: Vec::new(),
        })
    }

    /// Writes the row at `place` of the target of record `record`. Where a row is given again, the last one counts.
    ///
    /// # Errors
    /// The system refuses; the row has another length than the vocabulary.
    pub fn row(&mut self, record: usize, place: usize, row: &[f32]) -> Result<(), RunFileError> {
        if row.len() != self.vocab_size {
            let what = format!("a row of {} log-probabilities for a vocabulary of {}", row.len(), self.vocab_size);
            return Err(RunFileError::Misuse { file: self.file.clone(), what });
        }
        self.buffer.clear();
        self.buffer.extend(row.iter().flat_map(|x| x.to_le_bytes()));
        let crc = crc32fast::hash(&self.buffer);
        self.buffer.extend(crc.to_le_bytes());
        self.out.write_all(&self.buffer).map_err(|source| self.refused(source))?;
        self.pending.insert((record, place), self.rows);
        self.rows += 1;
        Ok(())
    }

    /// Ends the next record, whose id is the JSON value `id`; `None`: it could not be scored.
    ///
    /// # Errors
    /// A row of its target was not given.
    pub fn end_record(&mut self, id: &str, score: Option<&TargetScore>) -> Result<(), RunFileError> {
        let record = self.records.len();
        let mut rows = std::mem::take(&mut self.pending);
        self.pending = rows.split_off(&(record + 1, 0));
        let saved = match score {
            None => SavedRecord { id: id.to_owned(), source_checksum: 0, target_ids: Vec::new(), rows: Vec::new() },
            Some(score) if score.token_ids.len() == rows.len() => SavedRecord {
                id: id.to_owned(),
                source_checksum: source_checksum(score),
                target_ids: score.token_ids.clone(),
                rows: rows.into_values().collect(),
            },
            Some(score) => {
                let what = format!("record {record} has {} tokens and {} rows", score.token_ids.len(), rows.len());
                return Err(RunFileError::Misuse { file: self.file.clone(), what });
            }
        };
        self.records.push(saved);
        Ok(())
    }

    /// Writes the table and brings the file to the disk. A file that was not finished is refused later.
    ///
    /// # Errors
    /// The system refuses.
    pub fn finish(mut self) -> Result<(), RunFileError> {
        let table = serde_json::to_vec(&self.records).map_err(|error| self.refused(error.into()))?;
        let footer =
            [(table.len() as u64).to_le_bytes().as_slice(), &crc32fast::hash(&table).to_le_bytes(), END_MAGIC].concat();
        let out = &mut self.out;
        let written = out.write_all(&table).and_then(|()| out.write_all(&footer)).and_then(|()| out.flush());
        written.and_then(|()| out.get_ref().sync_all()).map_err(|source| self.refused(source))
    }

    fn refused(&self, source: io::Error) -> RunFileError {
        RunFileError::Io { action: "write", file: self.file.clone(), source }
    }
}

/// Reads a saved run: its records at once, its rows one by one.
#[derive(Debug)]
pub struct RunReader {
    name: String,
    file: File,
    header: RunHeader,
    /// Where the rows begin.
    rows_at: u64,
    records: Vec<SavedRecord>,
    buffer: Vec<u8>,
}

impl RunReader {
    /// Opens a file and checks everything but the rows, each of which is checked when it is read.
    ///
    /// # Errors
    /// The file cannot be read, is no regular file, is no saved run, was cut short or is damaged.
    pub fn open(path: &Path) -> Result<Self, RunFileError> {
        let name = path.display().to_string();
        let io = |source| RunFileError::Io { action: "read", file: name.clone(), source };
        let truncated = |what: &str| RunFileError::Truncated { file: name.clone(), what: what.to_owned() };
        let damaged = |what: String| RunFileError::Damaged { file: name.clone(), what };
        let mut file = open_regular(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut lead = Vec::new();
        (&mut file).take(LEAD_BYTES).read_to_end(&mut lead).map_err(io)?;
        let Some(rest) = lead.strip_prefix(MAGIC) else { return Err(RunFileError::NotARun { file: name }) };
        let (Some(version), Some(header_bytes)) = (number(rest, 0), number(rest, 4)) else {
            return Err(truncated("it ends within its first bytes"));
        };
        if version != VERSION {
            return Err(RunFileError::Version { file: name, found: version });
        }
        let header_bytes = u64::from(header_bytes);
        if header_bytes > MAX_HEADER_BYTES {
            return Err(damaged(format!("a header of {header_bytes} bytes")));
        }
        let rows_at = LEAD_BYTES + header_bytes + 4;
        if length < rows_at + FOOTER_BYTES {
            return Err(truncated("it ends within its header"));
        }
        let header = checked(&mut file, header_bytes, &name, "header")?;
        let header: RunHeader =
            serde_json::from_slice(&header).map_err(|error| damaged(format!("its header: {error}")))?;

        file.seek(SeekFrom::Start(length - FOOTER_BYTES)).map_err(io)?;
        let mut footer = [0; FOOTER_BYTES as usize];
        file.read_exact(&mut footer).map_err(io)?;
        let [t0, t1, t2, t3, t4, t5, t6, t7, c0, c1, c2, c3, end @ ..] = footer;
        if end != *END_MAGIC {
            return Err(truncated("its end is missing, so the run that wrote it did not end, or the file was cut"));
        }
        let table_bytes = u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        let body = length - rows_at - FOOTER_BYTES;
        let row = row_bytes(header.vocab_size);
        let rows = match body.checked_sub(table_bytes) {
            Some(bytes) if header.vocab_size > 0 && bytes % row == 0 => bytes / row,
            _ => return Err(damaged(format!("{body} bytes are no table of {table_bytes} and rows of {row}"))),
        };
        file.seek(SeekFrom::Start(rows_at + rows * row)).map_err(io)?;
        let mut table = vec![0; table_bytes as usize];
        file.read_exact(&mut table).map_err(io)?;
        if crc32fast::hash(&table) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(damaged("the checksum of its table is wrong".to_owned()));
        }
        let records: Vec<SavedRecord> =
            serde_json::from_slice(&table).map_err(|error| damaged(format!("its table: {error}")))?;
        for (number, record) in records.iter().enumerate() {
            let in_vocabulary = record.target_ids.iter().all(|id| (*id as usize) < header.vocab_size);
            let in_file = record.rows.iter().all(|row| *row < rows);
            if record.rows.len() != record.target_ids.len() || !in_vocabulary || !in_file {
                return Err(damaged(format!("record {number} has rows or ids that cannot be")));
            }
        }
        Ok(Self { name, file, header, rows_at, records, buffer: Vec::new() })
    }

    /// What it is a run of.
    pub fn header(&self) -> &RunHeader {
        &self.header
    }

    /// Its records, in their order.
    pub fn records(&self) -> &[SavedRecord] {
        &self.records
    }

    /// Reads the row at `place` of the target of record `record` into `row`.
    ///
    /// # Errors
    /// There is no such row; it cannot be read; it is damaged.
    pub fn row(&mut self, record: usize, place: usize, row: &mut Vec<f32>) -> Result<(), RunFileError> {
        let number = self.records.get(record).and_then(|record| record.rows.get(place));
        let Some(number) = number else {
            let what = format!("record {record} has no row {place}");
            return Err(RunFileError::Misuse { file: self.name.clone(), what });
        };
        let bytes = row_bytes(self.header.vocab_size);
        let read = self.file.seek(SeekFrom::Start(self.rows_at + number * bytes)).and_then(|_| {
            self.buffer.resize(bytes as usize, 0);
            self.file.read_exact(&mut self.buffer)
        });
        read.map_err(|source| RunFileError::Io { action: "read", file: self.name.clone(), source })?;
        let (values, crc) = self.buffer.split_at(self.buffer.len() - 4);
        if crc != crc32fast::hash(values).to_le_bytes() {
            let what = format!("the checksum of row {place} of record {record} is wrong");
            return Err(RunFileError::Damaged { file: self.name.clone(), what });
        }
        row.clear();
        row.extend(values.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])));
        Ok(())
    }

    /// The error that says how the saved run is not one of the same things.
    pub fn other_run(&self, what: String) -> RunFileError {
        RunFileError::OtherRun { file: self.name.clone(), what }
    }
}

/// The u32 at byte `at`.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let found = bytes.get(at..at + 4)?;
    found.try_into().ok().map(u32::from_le_bytes)
}

/// The next `length` bytes, which are followed by their checksum.
fn checked(file: &mut File, length: u64, name: &str, part: &str) -> Result<Vec<u8>, RunFileError> {
    let mut bytes = vec![0; length as usize + 4];
    let io = |source| RunFileError::Io { action: "read", file: name.to_owned(), source };
    file.read_exact(&mut bytes).map_err(io)?;
    let crc = bytes.split_off(length as usize);
    if crc != crc32fast::hash(&bytes).to_le_bytes() {
        let what = format!("the checksum of its {part} is wrong");
        return Err(RunFileError::Damaged { file: name.to_owned(), what });
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "run_file_tests.rs"]
mod tests;
