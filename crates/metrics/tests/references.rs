//! Every metric against the numbers that sacreBLEU, rouge-score and NLTK gave (tools/make_metric_references.py).

use std::{collections::BTreeMap, fs, path::Path};

use elgen_metrics::{
    BleuOptions, ChrfOptions, MetricError, RougeOptions, corpus_bleu, corpus_chrf, porter, rouge, sentence_bleu,
    sentence_chrf, sentence_rouge, tokenizer_13a::tokens_13a,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct References {
    segments: Vec<Segment>,
    corpora: BTreeMap<String, BTreeMap<String, Scores>>,
    stems: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Segment {
    hypothesis: String,
    references: Vec<String>,
    tokens: Vec<String>,
    scores: BTreeMap<String, Scores>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scores {
    Bleu {
        score: f64,
        precisions: Vec<f64>,
        correct: Vec<usize>,
        total: Vec<usize>,
        bp: f64,
        sys_len: usize,
        ref_len: usize,
        signature: String,
    },
    Chrf {
        score: f64,
        name: String,
        signature: String,
    },
    Rouge(BTreeMap<String, [f64; 3]>),
}

fn load() -> References {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metric_references.json");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[track_caller]
fn near(got: f64, want: f64, what: &str) {
    assert!((got - want).abs() <= 1e-12 * want.abs(), "{what}: {got} is not {want}");
}

/// Asserts all scores of a corpus.
fn check(hypotheses: &[&str], references: &[Vec<&str>], wanted: &BTreeMap<String, Scores>, what: &str) {
    for (name, wanted) in wanted {
        let what = format!("{what}: {name}");
        let lowercase = name.contains("lc");
        match wanted {
            Scores::Bleu { score, precisions, correct, total, bp, sys_len, ref_len, signature } => {
                let options = BleuOptions { lowercase, effective_order: name.contains("effective") };
                let got = corpus_bleu(hypotheses, references, &options).unwrap();
                near(got.score, *score, &what);
                near(got.brevity_penalty, *bp, &what);
                for (got, want) in got.precisions.iter().zip(precisions) {
                    near(*got, *want, &what);
                }
                assert_eq!((got.correct.as_slice(), got.total.as_slice()), (&correct[..], &total[..]), "{what}");
                assert_eq!((got.hypothesis_tokens, got.reference_tokens), (*sys_len, *ref_len), "{what}");
                assert_eq!(got.signature, *signature, "{what}");
            }
            Scores::Chrf { score, name: label, signature } => {
                let plain = if name.contains("++") { ChrfOptions::plus_plus() } else { ChrfOptions::default() };
                let options = ChrfOptions { lowercase, eps_smoothing: name.contains("eps"), ..plain };
                let got = corpus_chrf(hypotheses, references, &options).unwrap();
                near(got.score, *score, &what);
                assert_eq!((&got.name, &got.signature), (label, signature), "{what}");
            }
            Scores::Rouge(types) => {
                let options = RougeOptions { stemmer: name.contains("stemmed"), ..RougeOptions::default() };
                let got = rouge(hypotheses, references, &options).unwrap();
                assert_eq!(types.len(), 4, "{what}");
                for (kind, got) in got.named() {
                    let [precision, recall, f1] = types[kind];
                    near(got.precision, precision, &format!("{what} {kind} precision"));
                    near(got.recall, recall, &format!("{what} {kind} recall"));
                    near(got.f1, f1, &format!("{what} {kind} F1"));
                }
            }
        }
    }
}

#[test]
fn single_texts_score_what_the_packages_say() {
    let found = load().segments;
    assert!(found.len() >= 90, "{}", found.len());
    for segment in &found {
        let references = vec![segment.references.iter().map(String::as_str).collect()];
        assert_eq!(segment.scores.len(), 12);
        check(&[&segment.hypothesis], &references, &segment.scores, &format!("{:?}", segment.hypothesis));
    }
}

#[test]
fn corpora_score_what_the_packages_say() {
    let References { segments, corpora, .. } = load();
    let pick = |keep: &dyn Fn(usize, &Segment) -> bool, most: usize| -> (Vec<&str>, Vec<Vec<&str>>) {
        let kept = segments.iter().enumerate().filter(|(i, segment)| keep(*i, segment));
        kept.map(|(_, segment)| {
            let references = segment.references.iter().take(most).map(String::as_str).collect();
            (segment.hypothesis.as_str(), references)
        })
        .unzip()
    };
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/bart-eng-fra");
    let (lines, table) =
        (fs::read_to_string(demo.join("test.hyp")).unwrap(), fs::read_to_string(demo.join("test.tsv")).unwrap());
    for (name, wanted) in &corpora {
        let (hypotheses, references) = match name.as_str() {
            "first" => pick(&|i, _| i < 20, usize::MAX),
            "all" => pick(&|_, _| true, usize::MAX),
            "two" => pick(&|_, segment| segment.references.len() == 2, usize::MAX),
            "all, first reference" => pick(&|_, _| true, 1),
            "demo" => (lines.lines().collect(), table.lines().map(|line| line.split('\t').skip(1).collect()).collect()),
            other => panic!("unknown corpus {other}"),
        };
        check(&hypotheses, &references, wanted, name);
    }
    assert_eq!(corpora.len(), 5);
}

#[test]
fn tokens_are_those_of_13a() {
    for segment in load().segments {
        assert_eq!(tokens_13a(&segment.hypothesis), segment.tokens, "{:?}", segment.hypothesis);
    }
}

#[test]
fn stems_are_those_of_nltk() {
    let stems = load().stems;
    assert!(stems.len() > 1500);
    for (word, stem) in stems {
        assert_eq!(porter::stem(&word), stem, "{word}");
    }
    // Not a word that rouge-score would ask for.
    assert_eq!(porter::stem("Éditions"), "Éditions");
}

#[test]
fn one_sentence_is_a_corpus_of_one() {
    let (hypothesis, references) = ("the cat sat", ["the cat sat down", "a cat"]);
    let lists = [references.to_vec()];
    let bleu = BleuOptions { effective_order: true, ..BleuOptions::default() };
    assert_eq!(sentence_bleu(hypothesis, &references, &bleu), corpus_bleu(&[hypothesis], &lists, &bleu));
    let chrf = ChrfOptions::plus_plus();
    assert_eq!(sentence_chrf(hypothesis, &references, &chrf), corpus_chrf(&[hypothesis], &lists, &chrf));
    let options = RougeOptions::default();
    assert_eq!(sentence_rouge(hypothesis, &references, &options), rouge(&[hypothesis], &lists, &options));
}

#[test]
fn lists_that_do_not_fit_are_refused() {
    let none: [&str; 0] = [];
    let bleu = |hypotheses: &[&str], references: &[Vec<&str>]| {
        corpus_bleu(hypotheses, references, &BleuOptions::default()).unwrap_err()
    };
    assert_eq!(bleu(&["a", "b"], &[vec!["a"]]).to_string(), "2 hypotheses but references for 1");
    assert_eq!(bleu(&[], &[]), MetricError::Empty);
    assert_eq!(bleu(&["a", "b"], &[vec!["a"], vec![]]).to_string(), "hypothesis 2 has no reference");
    assert_eq!(rouge(&["a"], &[none.to_vec()], &RougeOptions::default()), Err(MetricError::NoReference { segment: 1 }));
    assert!(sentence_rouge("a", &none, &RougeOptions::default()).is_err());
    assert_eq!(
        corpus_chrf(&none, &[vec!["a"]], &ChrfOptions::default()),
        Err(MetricError::Counts { hypotheses: 0, references: 1 })
    );
}

#[test]
fn long_texts_are_quick() {
    let text = |step: usize| (0..6000).map(|i| (i * step % 997).to_string()).collect::<Vec<_>>().join(" ");
    let scores = sentence_rouge(&text(3), &[text(5)], &RougeOptions::default()).unwrap();
    assert!(scores.rouge_l.f1 > 0.0 && scores.rouge_lsum.f1 >= scores.rouge_l.f1);
}
