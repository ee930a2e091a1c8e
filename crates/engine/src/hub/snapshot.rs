//! Which files of a repository a model needs, and whether a directory has them.

use std::path::Path;

use elgen_models::{
    checkpoint::{INDEX_FILE, SINGLE_FILE},
    config::CONFIG_FILE,
    generation_defaults::GENERATION_CONFIG_FILE,
};

use super::store::{is_component, read_json};

/// A model cannot do without one of them, unless it is fed with token ids.
const TOKENIZERS: [&str; 6] =
    ["tokenizer.json", "vocab.json", "source.spm", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model"];
/// What is taken along where it exists. All of them are small.
const COMPANIONS: [&str; 6] = [
    GENERATION_CONFIG_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "target.spm",
];
/// Weights that elgen does not read.
const OTHER_WEIGHTS: [&str; 4] =
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack"];

/// How much of a model a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// All that is needed to run texts.
    Whole,
    /// Config and weights, but no tokenizer: some repositories have none.
    NoTokenizer,
    /// Less; the first file that is missing.
    Lacks(String),
}

/// Looks at a directory. Files that lead nowhere count as missing.
pub(super) fn held(dir: &Path) -> Held {
    let has = |name: &str| dir.join(name).is_file();
    if !has(CONFIG_FILE) {
        return Held::Lacks(CONFIG_FILE.to_owned());
    }
    if !has(SINGLE_FILE) {
        let shards = match read_json(&dir.join(INDEX_FILE)) {
            Ok(index) => shards(&index).unwrap_or_default(),
            Err(_) => return Held::Lacks(SINGLE_FILE.to_owned()),
        };
        if let Some(missing) = shards.into_iter().find(|shard| !has(shard)) {
            return Held::Lacks(missing);
        }
    }
    if TOKENIZERS.iter().any(|name| has(name)) { Held::Whole } else { Held::NoTokenizer }
}

/// What is to be downloaded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Small files, in the order of download.
    pub(super) first: Vec<&'static str>,
    /// The weights; if it is an index, its shards follow.
    pub(super) weights: &'static str,
}

/// Chooses from the files of a repository.
pub(super) fn plan<'a>(files: impl Iterator<Item = &'a str> + Clone) -> Result<Plan, String> {
    let has = |name: &str| files.clone().any(|file| file == name);
    if !has(CONFIG_FILE) {
        return Err(format!("it has no {CONFIG_FILE}, so it is no model of a kind that elgen knows"));
    }
    // As `Checkpoint::open` chooses.
    let Some(weights) = [SINGLE_FILE, INDEX_FILE].into_iter().find(|name| has(name)) else {
        return Err(match OTHER_WEIGHTS.into_iter().find(|name| has(name)) {
            Some(other) => {
                format!(
                    "its weights are {other} only, which elgen does not read; {SINGLE_FILE} or {INDEX_FILE} is needed"
                )
            }
            None => format!("it has no weights: neither {SINGLE_FILE} nor {INDEX_FILE}"),
        });
    };
    let mut first = vec![CONFIG_FILE];
    first.extend(COMPANIONS.into_iter().chain(TOKENIZERS).filter(|name| has(name)));
    Ok(Plan { first, weights })
}

/// The shards that an index names, each once; `None` if it is damaged or names what are no safetensors beside it.
pub(super) fn shards(index: &[u8]) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index).ok()?;
    let mut shards: Vec<String> = index.weight_map.into_values().collect();
    shards.sort_unstable();
    shards.dedup();
    let is_shard = |name: &String| is_component(name) && name.ends_with(".safetensors");
    (!shards.is_empty() && shards.iter().all(is_shard)).then_some(shards)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_what_a_model_needs_is_planned() {
        let files = [
            "README.md",
            "tf_model.h5",
            "tokenizer.json",
            "pytorch_model.bin",
            "model.safetensors",
            "config.json",
            "onnx/model.onnx",
        ];
        let found = plan(files.into_iter()).unwrap();
        assert_eq!(found, Plan { first: vec!["config.json", "tokenizer.json"], weights: "model.safetensors" });
        let both = ["config.json", INDEX_FILE, SINGLE_FILE, "merges.txt", "vocab.json", "generation_config.json"];
        let found = plan(both.into_iter()).unwrap();
        assert_eq!(found.weights, SINGLE_FILE);
        assert_eq!(found.first, ["config.json", "generation_config.json", "merges.txt", "vocab.json"]);
        assert_eq!(plan(["config.json", INDEX_FILE].into_iter()).unwrap().weights, INDEX_FILE);
    }

    #[test]
    fn what_is_missing_is_said() {
        let refuse = |files: &[&'static str]| plan(files.iter().copied()).unwrap_err();
        assert!(refuse(&["config.json", "pytorch_model.bin"]).contains("pytorch_model.bin only"));
        assert!(refuse(&["config.json"]).contains("no weights"));
        assert!(refuse(&["model.safetensors"]).contains("config.json"));
    }

    #[test]
    fn a_directory_is_whole_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let lacks = |name: &str| Held::Lacks(name.to_owned());
        assert_eq!(held(dir.path()), lacks("config.json"));
        write("config.json", "{}");
        assert_eq!(held(dir.path()), lacks("model.safetensors"));
        write(INDEX_FILE, r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors","c":"1.safetensors"}}"#);
        assert_eq!(held(dir.path()), lacks("1.safetensors"));
        write("1.safetensors", "");
        assert_eq!(held(dir.path()), lacks("2.safetensors"));
        write("2.safetensors", "");
        assert_eq!(held(dir.path()), Held::NoTokenizer);
        write("vocab.json", "");
        assert_eq!(held(dir.path()), Held::Whole);
    }

    #[test]
    fn shards_lie_beside_their_index() {
        let shards = |file: &str| shards(format!(r#"{{"weight_map":{{"a":"{file}"}}}}"#).as_bytes());
        assert_eq!(shards("x.safetensors"), Some(vec!["x.safetensors".to_owned()]));
        for bad in [
            "../x.safetensors",
            "/x.safetensors",
            "a/x.safetensors",
            "",
            "..",
            ".safetensors",
            r"a\\x.safetensors",
            r"x\u0000.safetensors",
            r"\u001b[31m.safetensors",
            "x y.safetensors",
            "x.safetensors?y",
            "x%2f.safetensors",
            "config.json",
        ] {
            assert_eq!(shards(bad), None, "{bad}");
        }
    }
}
