//! The header of a safetensors file: `u64` little-endian length, then JSON `{name: {dtype, shape, data_offsets}}`.
//!
//! Parsed here and not by the `safetensors` crate so that every contradiction names its tensor, duplicate names are seen, and
//! unknown dtypes of buffers that no model needs do not make the file unreadable.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::StoredDtype;
use crate::error::{HeaderProblem, excerpt};

/// The limit of the reference reader.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes of the field before it.
pub(crate) const LENGTH_FIELD: usize = 8;

/// One tensor of a file. `range` is in bytes of the file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) dtype: StoredDtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) range: Range<u64>,
}

#[derive(serde::Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// Bytes of the header, from the field before it. `available`: bytes of the file behind the field.
pub(crate) fn length(field: [u8; LENGTH_FIELD], available: u64) -> Result<usize, HeaderProblem> {
    let header = u64::from_le_bytes(field);
    if header > available {
        return Err(HeaderProblem::LengthBeyondFile { header, available });
    }
    if header > MAX_HEADER {
        return Err(HeaderProblem::TooLarge { header, limit: MAX_HEADER });
    }
    Ok(header as usize)
}

/// Reads and checks a header; `data` bytes follow it. Entries come in order of their data.
pub(crate) fn entries(json: &[u8], data: u64) -> Result<Vec<Entry>, HeaderProblem> {
    let mut raw = parse_json(json)?;
    reject_duplicates(&raw)?;
    raw.sort_by_key(|(_, entry)| entry.data_offsets);
    check_layout(&raw, data)?;

    let data_start = (LENGTH_FIELD + json.len()) as u64;
    raw.into_iter()
        .map(|(name, entry)| {
            let shape = entry.shape.iter().map(|&n| usize::try_from(n)).collect::<Result<Vec<_>, _>>();
            let Ok(shape) = shape else {
                return Err(HeaderProblem::Overflow { tensor: excerpt(&name), shape: entry.shape });
            };
            // `check_layout` bounded both offsets by the file's length.
            let [begin, end] = entry.data_offsets.map(|offset| data_start + offset);
            Ok(Entry { name, dtype: StoredDtype::from_name(entry.dtype), shape, range: begin..end })
        })
        .collect()
}

fn parse_json(json: &[u8]) -> Result<Vec<(String, RawEntry)>, HeaderProblem> {
    let invalid = |error: serde_json::Error| HeaderProblem::InvalidJson { reason: error.to_string() };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let entries = deserializer.deserialize_map(HeaderVisitor).map_err(invalid)?;
    deserializer.end().map_err(invalid)?;
    Ok(entries)
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Vec<(String, RawEntry)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let entry = map.next_value::<RawEntry>();
            let entry = entry.map_err(|e| A::Error::custom(format_args!("tensor `{}`: {e}", excerpt(&name))))?;
            entries.push((name, entry));
        }
        Ok(entries)
    }
}

fn reject_duplicates(raw: &[(String, RawEntry)]) -> Result<(), HeaderProblem> {
    let mut names: Vec<&str> = raw.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(HeaderProblem::Duplicate { tensor: excerpt(pair[0]) }),
        None => Ok(()),
    }
}

/// Checks that the ranges of `raw`, sorted by offset, tile `0..available` without overlap or hole and fit their shapes.
fn check_layout(raw: &[(String, RawEntry)], available: u64) -> Result<(), HeaderProblem> {
    let mut previous: Option<&str> = None;
    let mut position = 0;
    for (name, entry) in raw {
        let tensor = || excerpt(name);
        let [begin, end] = entry.data_offsets;
        if end < begin {
            return Err(HeaderProblem::Reversed { tensor: tensor(), begin, end });
        }
        if end > available {
            return Err(HeaderProblem::OutOfRange { tensor: tensor(), end, available });
        }
        if let (true, Some(previous)) = (begin < position, previous) {
            let previous = excerpt(previous);
            return Err(HeaderProblem::Overlap { tensor: tensor(), begin, previous, previous_end: position });
        }
        if begin > position {
            return Err(HeaderProblem::Hole { begin: position, end: begin });
        }
        check_size(name, entry, end - begin)?;
        previous = Some(name);
        position = end;
    }
    if position < available {
        return Err(HeaderProblem::Hole { begin: position, end: available });
    }
    Ok(())
}

fn check_size(name: &str, entry: &RawEntry, actual: u64) -> Result<(), HeaderProblem> {
    let overflow = || HeaderProblem::Overflow { tensor: excerpt(name), shape: entry.shape.clone() };
    let elements = entry.shape.iter().try_fold(1_u64, |n, &dim| n.checked_mul(dim)).ok_or_else(overflow)?;
    let Some(bits_each) = bits_of(&entry.dtype) else {
        // A type of a newer format version: its bounds were checked, its size cannot be.
        return Ok(());
    };
    let bits = elements.checked_mul(bits_each).ok_or_else(overflow)?;
    let expected = bits.div_ceil(8);
    if expected != actual {
        return Err(HeaderProblem::SizeMismatch {
            tensor: excerpt(name),
            dtype: entry.dtype.clone(),
            shape: entry.shape.clone(),
            expected,
            actual,
        });
    }
    Ok(())
}

/// Bits of one element of the types that the format defines.
fn bits_of(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}
