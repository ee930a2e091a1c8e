//! What decides the bytes of an output: a run can only be continued by one that would have written the same.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use elgen_models::files::{belongs_to_model, decides_results, model_files, open_regular};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::input::{Survey, hex};

/// Files up to this size are hashed whole, larger ones (weights) by [`SAMPLES`] blocks.
const WHOLE_BYTES: u64 = 1 << 22;
/// The beginning of a large file, where a safetensors header lies.
const HEAD_BYTES: u64 = 1 << 18;
const SAMPLES: u64 = 256;
const SAMPLE_BYTES: u64 = 1 << 12;

/// Named values, compared one by one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Setup(BTreeMap<String, Value>);

impl Setup {
    /// Notes a value under the name that a message will give it; `null` is the same as no value.
    pub(crate) fn set(&mut self, name: impl Into<String>, value: Value) {
        if !value.is_null() {
            self.0.insert(name.into(), value);
        }
    }

    /// A noted value.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Notes what identifies an input.
    pub(crate) fn set_input(&mut self, survey: &Survey) {
        self.set("the input", json!({ "bytes": survey.bytes, "sha256": survey.sha256 }));
    }

    /// Notes what identifies a model: the sizes and hashes of the files that decide its results. Of large files the
    /// beginning and evenly spaced blocks are hashed: reading tens of gigabytes twice would cost more than the guard is worth.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn set_model(&mut self, dir: &Path) -> io::Result<()> {
        fs::read_dir(dir)?;
        for path in model_files(dir) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // Weights that only other programs read have no part. Shards may have any name.
            let has_part = decides_results(name) || !belongs_to_model(name);
            if has_part && path.is_file() {
                let (bytes, sha256) = sampled_hash(&mut open_regular(&path)?)?;
                self.set(name, json!({ "bytes": bytes, "sha256": sha256 }));
            }
        }
        Ok(())
    }

    /// The same without the values of some names.
    pub(crate) fn without(&self, names: &[&str]) -> Setup {
        Setup(
            self.0
                .iter()
                .filter(|(name, _)| !names.contains(&name.as_str()))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
        )
    }

    /// How `self` differs from the setup of an earlier run, one clause for each name.
    pub(crate) fn differences(&self, earlier: &Setup) -> Vec<String> {
        let mut names: Vec<_> = self.0.keys().chain(earlier.0.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let show = |value: Option<&Value>| value.map_or_else(|| "not set".to_owned(), Value::to_string);
        names
            .into_iter()
            .filter_map(|name| {
                let (now, then) = (self.0.get(name), earlier.0.get(name));
                if now == then {
                    return None;
                }
                let is_file = |value: Option<&Value>| value.is_none_or(|value| value.get("sha256").is_some());
                Some(match (now, then) {
                    (None, Some(_)) if is_file(then) => format!("{name} is gone"),
                    (Some(_), None) if is_file(now) => format!("{name} is new"),
                    (Some(now), Some(then)) if is_file(Some(now)) && is_file(Some(then)) => {
                        match (&now["bytes"], &then["bytes"]) {
                            (now, then) if now == then => format!("{name} has changed"),
                            (now, then) => format!("{name} has changed: it has {now} bytes, had {then}"),
                        }
                    }
                    _ => format!("{name} is {}, was {}", show(now), show(then)),
                })
            })
            .collect()
    }
}

/// Length and SHA-256 of a file, of a large one by samples.
fn sampled_hash(file: &mut File) -> io::Result<(u64, String)> {
    let bytes = file.metadata()?.len();
    let mut hash = Sha256::new();
    let mut block = Vec::new();
    let mut take = |at: u64, length: u64| -> io::Result<()> {
        block.clear();
        file.seek(SeekFrom::Start(at))?;
        (&mut *file).take(length).read_to_end(&mut block)?;
        hash.update(&block);
        Ok(())
    };
    if bytes <= WHOLE_BYTES {
        take(0, bytes)?;
    } else {
        take(0, HEAD_BYTES)?;
        let stride = (bytes - SAMPLE_BYTES - HEAD_BYTES) / (SAMPLES - 1);
        for sample in 0..SAMPLES {
            take(HEAD_BYTES + sample * stride, SAMPLE_BYTES)?;
        }
        take(bytes - SAMPLE_BYTES, SAMPLE_BYTES)?;
    }
    Ok((bytes, hex(&hash.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(values: &[(&str, Value)]) -> Setup {
        let mut setup = Setup::default();
        for (name, value) in values {
            setup.set(*name, value.clone());
        }
        setup
    }

    #[test]
    fn differences_are_named() {
        let file = |hash: &str| json!({ "bytes": 3, "sha256": hash });
        let grown = json!({ "bytes": 4, "sha256": "c" });
        assert_eq!(
            setup(&[("the input", grown)]).differences(&setup(&[("the input", file("a"))])),
            ["the input has changed: it has 4 bytes, had 3"]
        );
        let then =
            setup(&[("--seed", json!(1)), ("config.json", file("a")), ("merges.txt", file("b")), ("same", json!(0))]);
        let now =
            setup(&[("--top-k", json!(3)), ("config.json", file("c")), ("vocab.json", file("d")), ("same", json!(0))]);
        assert_eq!(
            now.differences(&then),
            [
                "--seed is not set, was 1",
                "--top-k is 3, was not set",
                "config.json has changed",
                "merges.txt is gone",
                "vocab.json is new"
            ]
        );
        assert!(now.differences(&now.clone()).is_empty());
        assert_eq!(setup(&[("x", Value::Null)]), Setup::default());
    }

    #[test]
    fn a_model_is_known_by_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let of = || {
            let mut setup = Setup::default();
            setup.set_model(dir.path()).unwrap();
            setup
        };
        fs::write(dir.path().join("config.json"), "{}").unwrap();
        fs::write(dir.path().join("README.md"), "a").unwrap();
        let large = dir.path().join("model.safetensors");
        let mut weights = vec![7_u8; (WHOLE_BYTES + 12_345) as usize];
        fs::write(&large, &weights).unwrap();
        let before = of();
        fs::write(dir.path().join("README.md"), "b").unwrap();
        assert_eq!(of(), before);
        // Training changes every tensor; a change of one block in the middle of nowhere may go unseen, a larger one not.
        let stride = (weights.len() / SAMPLES as usize) + SAMPLE_BYTES as usize;
        weights[3_000_000..3_000_000 + stride].fill(8);
        fs::write(&large, &weights).unwrap();
        assert_eq!(of().differences(&before), ["model.safetensors has changed"]);
        *weights.last_mut().unwrap() = 1;
        weights[3_000_000..3_000_000 + stride].fill(7);
        fs::write(&large, &weights).unwrap();
        assert_eq!(of().differences(&before), ["model.safetensors has changed"]);
        fs::remove_file(&large).unwrap();
        fs::write(dir.path().join("config.json"), "[]").unwrap();
        assert_eq!(of().differences(&before), ["config.json has changed", "model.safetensors is gone"]);
        fs::write(dir.path().join("pytorch_model.bin"), "of another program").unwrap();
        fs::write(dir.path().join("target_vocab.json"), "{}").unwrap();
        assert_eq!(
            of().differences(&before),
            ["config.json has changed", "model.safetensors is gone", "target_vocab.json is new"]
        );
    }
}
