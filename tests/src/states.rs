//! Recorded hidden states and logits of the small models in tests/fixtures (`reference.json`, `states.safetensors`).

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::Deserialize;

use crate::repo_root;

const STATES_FILE: &str = "states.safetensors";

/// What a model was fed when its states were recorded.
#[derive(Deserialize)]
pub struct Reference {
    /// All inputs of the model.
    pub inputs: Vec<Vec<u32>>,
    /// Those with recorded states.
    pub states: Vec<StateInput>,
}

/// An input with recorded states.
#[derive(Deserialize)]
pub struct StateInput {
    /// Its index.
    pub input: usize,
    /// What the decoder of an encoder-decoder model was fed.
    pub decoder_input_ids: Option<Vec<u32>>,
}

/// The file of a model's recorded states.
pub struct StatesFile(Vec<u8>);

impl Reference {
    /// That of a model.
    ///
    /// # Panics
    /// It is not there or damaged.
    pub fn of(model: &Path) -> Self {
        let text = std::fs::read_to_string(model.join("reference.json")).expect("reference.json");
        serde_json::from_str(&text).expect("a valid reference")
    }
}

impl StatesFile {
    /// That of a model.
    ///
    /// # Panics
    /// It is not there.
    pub fn of(model: &Path) -> Self {
        Self(std::fs::read(model.join(STATES_FILE)).expect(STATES_FILE))
    }

    /// The recorded tensors by name.
    ///
    /// # Panics
    /// The file is damaged.
    pub fn tensors(&self) -> States<'_> {
        States(SafeTensors::deserialize(&self.0).expect("valid states"))
    }
}

/// Recorded tensors `[rows, columns]`: "INPUT.encoder.LAYER", "INPUT.decoder.LAYER", "INPUT.final", "INPUT.logits".
pub struct States<'a>(SafeTensors<'a>);

impl States<'_> {
    /// Whether a tensor was recorded.
    pub fn has(&self, name: &str) -> bool {
        self.0.tensor(name).is_ok()
    }

    /// All of a tensor.
    ///
    /// # Panics
    /// It was not recorded.
    pub fn all(&self, name: &str) -> Vec<f64> {
        let view = self.0.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        bytemuck::pod_collect_to_vec::<u8, f32>(view.data()).into_iter().map(f64::from).collect()
    }

    /// One row of a tensor.
    ///
    /// # Panics
    /// It was not recorded.
    pub fn row(&self, name: &str, row: usize) -> Vec<f64> {
        let cols = self.0.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}")).shape()[1];
        self.all(name)[row * cols..(row + 1) * cols].to_vec()
    }
}

/// The models with recorded states whose names begin with one of these.
///
/// # Panics
/// There is no folder of fixtures.
pub fn models_with_states(prefixes: &[&str]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(repo_root().join("tests/fixtures"))
        .expect("fixtures are part of the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.join(STATES_FILE).is_file())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            prefixes.iter().any(|prefix| name.starts_with(prefix))
        })
        .collect();
    found.sort();
    found
}
