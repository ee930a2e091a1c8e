//! Every recorded option set of every small model, with every attention kind: ids equal to Hugging Face's, scores within tolerance.
//!
//! All inputs of a case run as one ragged batch, although each reference was made alone: the result of a sentence does not depend on its batch.

use std::path::{Path, PathBuf};

use elgen_engine::{AttentionChoice, Generation, Request, RunOptions, Session, SessionOptions, on_done};
use elgen_search::GenerationOptions;
use elgen_tests::repo_root;
use serde::Deserialize;

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

/// What `tools/make_fixtures.py` recorded with a model, and what `tools/make_option_fixtures.py` did for some of them.
const PLAIN: &str = "reference.json";
const OPTIONS: &str = "options.json";

fn fixtures(family: &str, file: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(repo_root().join("tests/fixtures"))
        .expect("fixtures are part of the repository")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.join(file).is_file() && path.join("config.json").is_file())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(family)))
        .collect();
    found.sort();
    found
}

/// Runs all cases of a model's `file`; returns how many hypotheses were compared.
fn run(model: &Path, file: &str, attention: AttentionChoice) -> usize {
    let text = std::fs::read_to_string(model.join(file)).expect("a recorded reference");
    let reference: Reference = serde_json::from_str(&text).expect("a valid reference");
    let options = SessionOptions {
        attention,
        device: std::env::var("ELGEN_TEST_DEVICE").ok(),
        dtype: elgen_engine::DtypeChoice::F32,
        ..SessionOptions::default()
    };
    let mut session = Session::load(model, &options).unwrap_or_else(|e| panic!("{}: {e}", model.display()));
    let mut compared = 0;
    let mut wrong = Vec::new();
    for case in &reference.cases {
        let at = format!("{} {} {attention:?}", model.file_name().unwrap_or_default().to_string_lossy(), case.name);
        let asked = GenerationOptions::from_json(&case.generation).unwrap_or_else(|e| panic!("{at}: {e}"));
        let resolved = asked.or(session.checkpoint_options().clone()).resolve(&session.limits());
        let (config, _) = resolved.unwrap_or_else(|e| panic!("{at}: {e}"));
        let requests: Vec<Request> =
            case.inputs.iter().map(|i| Request::new(*i as u64, reference.inputs[*i].clone())).collect();
        let mut results: Vec<Option<Generation>> = vec![None; requests.len()];
        session
            .generate(
                &requests,
                &config,
                &RunOptions::default(),
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

fn all(family: &str, file: &str, attention: AttentionChoice, least: usize) {
    let models = fixtures(family, file);
    let compared: usize = models.iter().map(|model| run(model, file, attention)).sum();
    println!("{family}, {file}, {attention:?}: {compared} hypotheses of {} models equal", models.len());
    assert!(compared >= least, "only {compared} hypotheses were compared");
}

#[test]
fn bart_mha() {
    all("bart-", PLAIN, AttentionChoice::Mha, 1300);
}

#[test]
fn bart_mha_replicated() {
    all("bart-", PLAIN, AttentionChoice::MhaReplicated, 1300);
}

#[test]
fn bart_mha_nocache() {
    all("bart-", PLAIN, AttentionChoice::MhaNocache, 1300);
}

#[test]
fn bart_el() {
    all("bart-", PLAIN, AttentionChoice::El, 1300);
}

#[test]
fn gpt2_mha() {
    all("gpt2-", PLAIN, AttentionChoice::Mha, 700);
}

#[test]
fn gpt2_mha_replicated() {
    all("gpt2-", PLAIN, AttentionChoice::MhaReplicated, 700);
}

#[test]
fn gpt2_el() {
    all("gpt2-", PLAIN, AttentionChoice::El, 700);
}

#[test]
fn bart_further_options_mha() {
    all("bart-", OPTIONS, AttentionChoice::Mha, 460);
}

#[test]
fn bart_further_options_el() {
    all("bart-", OPTIONS, AttentionChoice::El, 460);
}

#[test]
fn gpt2_further_options_mha() {
    all("gpt2-", OPTIONS, AttentionChoice::Mha, 371);
}

#[test]
fn gpt2_further_options_el() {
    all("gpt2-", OPTIONS, AttentionChoice::El, 371);
}

#[test]
fn t5_mha() {
    all("t5-", PLAIN, AttentionChoice::Mha, 400);
}

#[test]
fn t5_mha_replicated() {
    all("t5-", PLAIN, AttentionChoice::MhaReplicated, 400);
}

#[test]
fn t5_mha_nocache() {
    all("t5-", PLAIN, AttentionChoice::MhaNocache, 400);
}

#[test]
fn t5_el() {
    all("t5-", PLAIN, AttentionChoice::El, 400);
}

#[test]
fn marian_mha() {
    all("marian-", PLAIN, AttentionChoice::Mha, 330);
}

#[test]
fn marian_mha_replicated() {
    all("marian-", PLAIN, AttentionChoice::MhaReplicated, 330);
}

#[test]
fn marian_mha_nocache() {
    all("marian-", PLAIN, AttentionChoice::MhaNocache, 330);
}

#[test]
fn marian_el() {
    all("marian-", PLAIN, AttentionChoice::El, 330);
}

#[test]
fn mbart_mha() {
    all("mbart-", PLAIN, AttentionChoice::Mha, 260);
}

#[test]
fn mbart_mha_replicated() {
    all("mbart-", PLAIN, AttentionChoice::MhaReplicated, 260);
}

#[test]
fn mbart_mha_nocache() {
    all("mbart-", PLAIN, AttentionChoice::MhaNocache, 260);
}

#[test]
fn mbart_el() {
    all("mbart-", PLAIN, AttentionChoice::El, 260);
}

#[test]
fn pegasus_mha() {
    all("pegasus-", PLAIN, AttentionChoice::Mha, 240);
}

#[test]
fn pegasus_mha_replicated() {
    all("pegasus-", PLAIN, AttentionChoice::MhaReplicated, 240);
}

#[test]
fn pegasus_mha_nocache() {
    all("pegasus-", PLAIN, AttentionChoice::MhaNocache, 240);
}

#[test]
fn pegasus_el() {
    all("pegasus-", PLAIN, AttentionChoice::El, 240);
}

#[test]
fn opt_mha() {
    all("opt-", PLAIN, AttentionChoice::Mha, 400);
}

#[test]
fn opt_mha_replicated() {
    all("opt-", PLAIN, AttentionChoice::MhaReplicated, 400);
}

#[test]
fn opt_el() {
    all("opt-", PLAIN, AttentionChoice::El, 400);
}
