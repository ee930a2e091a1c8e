//! One pass over an input file before the run: what identifies it, and how many records it holds.

use std::{
    io::{self, BufReader, Read},
    path::Path,
};

use elgen_models::files::open_regular;
use sha2::{Digest, Sha256};

use super::record::RecordFormat;

const CHUNK_BYTES: usize = 1 << 18;

/// What one pass over an input tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Length of the file.
    pub(crate) bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub(crate) sha256: String,
    /// Records, as the reader will count them.
    pub(crate) records: u64,
}

impl Survey {
    /// Reads the file from its beginning to its end.
    pub(crate) fn of_file(path: &Path, format: RecordFormat) -> io::Result<Survey> {
        Survey::of(BufReader::with_capacity(CHUNK_BYTES, open_regular(path)?), format)
    }

    fn of(mut input: impl Read, format: RecordFormat) -> io::Result<Survey> {
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut count = Count { records: 0, open: false, blank: true, skip_blank: format == RecordFormat::Jsonl };
        let mut bytes = 0;
        loop {
            let read = match input.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if read == 0 {
                break;
            }
            bytes += read as u64;
            hash.update(&chunk[..read]);
            count.take(&chunk[..read]);
        }
        count.end_line();
        Ok(Survey { bytes, sha256: hex(&hash.finalize()), records: count.records })
    }
}

/// Counts lines; of JSONL those that are not blank.
struct Count {
    records: u64,
    /// The present line has begun.
    open: bool,
    /// It holds white space only.
    blank: bool,
    skip_blank: bool,
}

impl Count {
    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.open = true;
            self.blank &= bytes[..end].trim_ascii().is_empty();
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.open |= !bytes.is_empty();
        self.blank &= bytes.trim_ascii().is_empty();
    }

    fn end_line(&mut self) {
        self.records += u64::from(self.open && !(self.skip_blank && self.blank));
        (self.open, self.blank) = (false, true);
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::RecordReader;

    #[test]
    fn records_are_counted_as_the_reader_counts_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("in");
        let long = "x".repeat(CHUNK_BYTES);
        for text in
            ["", "\n", "a", "a\n", "a\n\n", "\r\n \n{}\n\t", "a\n \nb", "\n\n\nx", &format!("{long}\n \n{long}")]
        {
            std::fs::write(&file, text).unwrap();
            for format in [RecordFormat::Text, RecordFormat::Jsonl] {
                let mut reader = RecordReader::from_file(&file, format).unwrap();
                let records = reader.skip(u64::MAX).unwrap();
                let survey = Survey::of_file(&file, format).unwrap();
                assert_eq!((survey.records, survey.bytes), (records, text.len() as u64), "{text:?} {format:?}");
            }
        }
    }

    #[test]
    fn the_hash_is_sha_256() {
        let survey = Survey::of(&b"abc"[..], RecordFormat::Text).unwrap();
        assert_eq!(survey.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
