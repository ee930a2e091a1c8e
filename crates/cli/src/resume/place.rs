//! The names of the files that lie beside an output.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use crate::input::hex;

/// The longest name of a file that common file systems have, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The files beside an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    /// While the output is not complete: what is needed to go on.
    pub(crate) journal: PathBuf,
    /// Once it is complete: what proves that. Hidden, because it says nothing that is missing.
    pub(crate) done: PathBuf,
}

impl Places {
    /// Those of an output.
    pub(crate) fn of(output: &Path) -> Places {
        Places { journal: beside(output, "", ".elgen-resume"), done: beside(output, ".", ".elgen-done") }
    }

    /// The name under which a file is written before it takes its place.
    pub(super) fn unfinished(path: &Path) -> PathBuf {
        beside(path, "", ".tmp")
    }
}

/// `prefix`, the output's name and `suffix`. A name that would become too long keeps its beginning, and a hash stands for the rest.
fn beside(output: &Path, prefix: &str, suffix: &str) -> PathBuf {
    let name = output.file_name().unwrap_or_default();
    let mut wanted = OsString::from(prefix);
    wanted.push(name);
    wanted.push(suffix);
    if wanted.len() > MAX_NAME_BYTES {
        let hash = hex(&Sha256::digest(name.as_encoded_bytes())[..8]);
        let room = MAX_NAME_BYTES - prefix.len() - suffix.len() - hash.len() - 1;
        wanted = OsString::from(format!("{prefix}{}-{hash}{suffix}", beginning(name, room)));
    }
    output.with_file_name(wanted)
}

/// The beginning of a name, `bytes` long at most.
fn beginning(name: &OsStr, bytes: usize) -> String {
    let name = name.to_string_lossy();
    let end = (0..=bytes.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beside_an_output_fit_into_a_directory() {
        let short = Places::of("a/out.jsonl".as_ref());
        assert_eq!(short.journal, Path::new("a/out.jsonl.elgen-resume"));
        assert_eq!(short.done, Path::new("a/.out.jsonl.elgen-done"));
        let mut seen = Vec::new();
        for name in
            ["y".repeat(238), "y".repeat(250), "y".repeat(255), "é".repeat(127), format!("{}z", "y".repeat(254))]
        {
            let places = Places::of(&Path::new("a").join(&name));
            for path in
                [Places::unfinished(&places.journal), Places::unfinished(&places.done), places.journal, places.done]
            {
                let length = path.file_name().unwrap().len();
                assert!(length <= MAX_NAME_BYTES && path.starts_with("a"), "{length} {path:?}");
                assert!(!seen.contains(&path), "{path:?}");
                seen.push(path);
            }
        }
    }
}
