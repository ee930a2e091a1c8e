//! TER against the numbers that sacreBLEU gave (tools/make_ter_references.py).

use std::{fs, path::Path};

use elgen_metrics::{MetricError, SACREBLEU_VERSION, TerOptions, corpus_ter};
use serde::Deserialize;

/// Score, edits, words of the references, signature.
type Recorded = (f64, usize, f64, String);

#[derive(Deserialize)]
struct References {
    sacrebleu: String,
    /// Of all cases together, case ignored and not.
    corpus: [Recorded; 2],
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    hypothesis: String,
    references: Vec<String>,
    scores: [Recorded; 2],
}

fn load() -> References {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ter_references.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn check(hypotheses: &[&str], references: &[Vec<&str>], wanted: &[Recorded; 2]) {
    for (case_sensitive, (score, edits, words, signature)) in [false, true].into_iter().zip(wanted) {
        let got = corpus_ter(hypotheses, references, &TerOptions { case_sensitive }).unwrap();
        assert_eq!(got.edits, *edits, "{hypotheses:?} {references:?}");
        assert!((got.score - score).abs() <= 1e-12 * score && (got.reference_words - words).abs() < 1e-9, "{got:?}");
        assert_eq!(got.signature, *signature);
    }
}

#[test]
fn sentences_have_sacrebleus_edits() {
    let References { sacrebleu, cases, .. } = load();
    assert_eq!(sacrebleu, SACREBLEU_VERSION);
    assert!(cases.len() > 100);
    for Case { hypothesis, references, scores } in &cases {
        check(&[hypothesis], &[references.iter().map(String::as_str).collect()], scores);
    }
}

#[test]
fn a_corpus_has_sacrebleus_rate() {
    let References { cases, corpus, .. } = load();
    let hypotheses: Vec<&str> = cases.iter().map(|case| case.hypothesis.as_str()).collect();
    let references: Vec<Vec<&str>> =
        cases.iter().map(|case| case.references.iter().map(String::as_str).collect()).collect();
    check(&hypotheses, &references, &corpus);
}

#[test]
fn corpora_that_make_no_sense() {
    let options = TerOptions::default();
    assert_eq!(corpus_ter::<&str, &str>(&[], &[], &options), Err(MetricError::Empty));
    let none: Vec<&str> = Vec::new();
    assert_eq!(corpus_ter(&["a"], &[none], &options), Err(MetricError::NoReference { segment: 1 }));
}
