//! Recorded searches of the small models in tests/fixtures, run again through the engine.
//!
//! All inputs of a case run as one ragged batch, although each reference was made alone: the result of a sentence does not depend on its batch.

use std::path::{Path, PathBuf};

use elgen_engine::{AttentionChoice, DtypeChoice, Generation, Request, RunOptions, Session, SessionOptions, on_done};
use elgen_search::{GenerationOptions, Hooks};
use serde::Deserialize;

use crate::repo_root;

#[derive(Deserialize)]
struct Reference {
    inputs: Vec<Vec<u32>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    generation: serde_json::Map<String, serde_json::Value>,
    inputs: Vec<usize>,
    outputs: Vec<Vec<Sequence>>,
}

#[derive(Deserialize)]
struct Sequence {
    token_ids: Vec<u32>,
    score: f32,
}

/// The models whose names begin with `family` and that have a recorded `file`.
fn models(family: &str, file: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(repo_root().join("tests/fixtures"))
        .expect("fixtures are part of the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.join(file).is_file() && path.join("config.json").is_file())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(family)))
        .collect();
    found.sort();
    found
}

/// Runs the cases of a model that `choose` takes; returns how many hypotheses were compared.
fn run(
    model: &Path,
    file: &str,
    attention: AttentionChoice,
    hooks: &Hooks,
    choose: impl Fn(&GenerationOptions) -> bool,
) -> usize {
    let text = std::fs::read_to_string(model.join(file)).expect("a recorded reference");
    let reference: Reference = serde_json::from_str(&text).expect("a valid reference");
    let options = SessionOptions::default()
        .with_attention(attention)
        .with_device(std::env::var("ELGEN_TEST_DEVICE").ok())
        .with_dtype(DtypeChoice::F32);
    let run = RunOptions::default().with_hooks(hooks.clone());
    let mut session = Session::load(model, &options).unwrap_or_else(|e| panic!("{}: {e}", model.display()));
    let mut compared = 0;
    let mut wrong = Vec::new();
    for case in &reference.cases {
        let at = format!("{} {} {attention:?}", model.file_name().unwrap_or_default().to_string_lossy(), case.name);
        let asked = GenerationOptions::from_json(&case.generation).unwrap_or_else(|e| panic!("{at}: {e}"));
        let all = asked.or(session.checkpoint_options().clone());
        if !choose(&all) {
            continue;
        }
        let (config, _) = all.resolve(&session.limits()).unwrap_or_else(|e| panic!("{at}: {e}"));
        let requests: Vec<Request> =
            case.inputs.iter().map(|i| Request::new(*i as u64, reference.inputs[*i].clone())).collect();
        let mut results: Vec<Option<Generation>> = vec![None; requests.len()];
        session
            .generate(
                &requests,
                &config,
                &run,
                &mut on_done(|i, result| {
                    results[i] = Some(result.unwrap_or_else(|e| panic!("{at}, input {}: {e}", case.inputs[i])));
                }),
            )
            .unwrap_or_else(|e| panic!("{at}: {e}"));
        for ((input, expected), got) in case.inputs.iter().zip(&case.outputs).zip(results) {
            let got = got.unwrap_or_else(|| panic!("{at}, input {input}: no result")).sequences;
            assert_eq!(got.len(), expected.len(), "{at}, input {input}: number of sequences");
            for (rank, (g, e)) in got.iter().zip(expected).enumerate() {
                compared += 1;
                let score_ok = (g.score - e.score).abs() <= 1e-4 * e.score.abs().max(1.0);
                if g.token_ids != e.token_ids || !score_ok {
                    wrong.push(format!(
                        "{at}, input {input}, rank {rank}: {:?} score {} instead of {:?} score {}",
                        g.token_ids, g.score, e.token_ids, e.score
                    ));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {compared} hypotheses differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(12)].join("\n")
    );
    compared
}

/// Runs the cases of all models of a family that `choose` takes: ids equal, scores within tolerance, `least` hypotheses at least.
///
/// # Panics
/// If any hypothesis differs.
pub fn compare_chosen(
    family: &str,
    file: &str,
    attention: AttentionChoice,
    hooks: &Hooks,
    choose: impl Fn(&GenerationOptions) -> bool,
    least: usize,
) {
    let models = models(family, file);
    let compared: usize = models.iter().map(|model| run(model, file, attention, hooks, &choose)).sum();
    println!("{family}, {file}, {attention:?}: {compared} hypotheses of {} models equal", models.len());
    assert!(compared >= least, "only {compared} hypotheses were compared");
}

/// [`compare_chosen`] for all cases, without hooks.
///
/// # Panics
/// If any hypothesis differs.
pub fn compare(family: &str, file: &str, attention: AttentionChoice, least: usize) {
    compare_chosen(family, file, attention, &Hooks::default(), |_| true, least);
}
