//! The demo models as test data: their inputs, what PyTorch made of them, and running them in batches and orders of one's choice.

use std::path::PathBuf;

use elgen_engine::{AttentionChoice, DtypeChoice, Generation, Request, RunOptions, Session, SessionOptions, on_done};
use elgen_search::{GenerationConfig, GenerationOptions};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::repo_root;

/// The attention kinds, with the names that `--attention` has for them.
pub const KINDS: [(AttentionChoice, &str); 4] = [
    (AttentionChoice::MHA, "mha"),
    (AttentionChoice::MHA_REPLICATED, "mha-replicated"),
    (AttentionChoice::MHA_NOCACHE, "mha-nocache"),
    (AttentionChoice::EL, "el"),
];

/// A sequence as PyTorch generated it in float32.
#[derive(Clone, Debug, Deserialize)]
pub struct Expected {
    /// The new ids, EOS included.
    pub token_ids: Vec<u32>,
    /// `sequences_scores`, or the sum of log-probabilities.
    pub score: f64,
}

/// The test set of the translator.
#[derive(Clone, Debug)]
pub struct Translations {
    /// English sentences.
    pub sources: Vec<String>,
    /// Human translations of each, one or more.
    pub references: Vec<Vec<String>>,
    /// PyTorch's translations as text.
    pub hypotheses: Vec<String>,
    /// The same as ids, with scores.
    pub expected: Vec<Expected>,
}

impl Translations {
    /// The model's directory.
    pub fn model() -> PathBuf {
        repo_root().join("demo/bart-eng-fra")
    }

    /// All 1,000 sentences.
    ///
    /// # Panics
    /// A file is missing or damaged.
    pub fn load() -> Self {
        let lines = |file: &str| -> Vec<String> { read(Self::model().join(file)).lines().map(str::to_owned).collect() };
        let mut sources = Vec::new();
        let mut references = Vec::new();
        for line in lines("test.tsv") {
            let mut columns = line.split('\t').map(str::to_owned);
            sources.push(columns.next().expect("a sentence"));
            references.push(columns.collect());
        }
        let all = Self {
            sources,
            references,
            hypotheses: lines("test.hyp"),
            expected: json_lines(Self::model().join("reference.jsonl")),
        };
        assert_eq!((all.sources.len(), all.hypotheses.len(), all.expected.len()), (1000, 1000, 1000));
        all
    }

    /// `n` sentences, evenly spread.
    pub fn spread(&self, n: usize) -> Self {
        let of = |i: usize| i * self.sources.len() / n;
        Self {
            sources: (0..n).map(|i| self.sources[of(i)].clone()).collect(),
            references: (0..n).map(|i| self.references[of(i)].clone()).collect(),
            hypotheses: (0..n).map(|i| self.hypotheses[of(i)].clone()).collect(),
            expected: (0..n).map(|i| self.expected[of(i)].clone()).collect(),
        }
    }

    /// The sentences as requests.
    pub fn requests(&self) -> Vec<Request> {
        requests(&self.sources)
    }
}

/// A beginning of a story and what PyTorch made of it, 40 new ids at most.
#[derive(Clone, Debug, Deserialize)]
pub struct Story {
    /// The ids of the prompt.
    pub input_ids: Vec<u32>,
    /// The best token at each step.
    pub greedy: Expected,
    /// Four beams.
    pub beam: Expected,
}

impl Story {
    /// New ids that the references were made with.
    pub const NEW_TOKENS: usize = 40;

    /// The model's directory.
    pub fn model() -> PathBuf {
        repo_root().join("demo/gpt2-stories")
    }

    /// The texts of the prompts.
    ///
    /// # Panics
    /// The file is missing.
    pub fn prompts() -> Vec<String> {
        read(Self::model().join("prompts.txt")).lines().map(str::to_owned).collect()
    }

    /// The references, one for each prompt.
    ///
    /// # Panics
    /// The file is missing or damaged.
    pub fn load() -> Vec<Self> {
        json_lines(Self::model().join("reference.jsonl"))
    }
}

fn read(path: PathBuf) -> String {
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn json_lines<T: DeserializeOwned>(path: PathBuf) -> Vec<T> {
    read(path).lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Texts as requests, numbered from 0.
pub fn requests(texts: &[String]) -> Vec<Request> {
    (0..).zip(texts).map(|(ordinal, text)| Request::new(ordinal, text.clone())).collect()
}

/// f32 on the adapter that `$ELGEN_TEST_DEVICE` selects.
pub fn session_options(attention: AttentionChoice, batch_size: usize) -> SessionOptions {
    let device = std::env::var("ELGEN_TEST_DEVICE").ok();
    SessionOptions::default()
        .with_attention(attention)
        .with_dtype(DtypeChoice::F32)
        .with_device(device)
        .with_batch_size(batch_size)
}

/// The generation options asked for over those of the checkpoint.
///
/// # Panics
/// They contradict each other.
pub fn config(session: &Session, asked: GenerationOptions) -> GenerationConfig {
    asked.or(session.checkpoint_options().clone()).resolve(&session.limits()).expect("options that fit").0
}

/// Runs the requests in one call, which batches them by length. The results are in the order of the requests.
///
/// # Panics
/// A request failed.
pub fn generate(session: &mut Session, requests: &[Request], config: &GenerationConfig) -> Vec<Generation> {
    let mut results: Vec<Option<Generation>> = vec![None; requests.len()];
    let keep = |i: usize, result: Result<Generation, elgen_engine::EngineError>| {
        let known = results[i].replace(result.unwrap_or_else(|e| panic!("request {i}: {e}")));
        assert!(known.is_none(), "request {i} ended twice");
    };
    session
        .generate(requests, config, &RunOptions::default(), &mut on_done(keep))
        .unwrap_or_else(|e| panic!("the run failed: {e}"));
    results.into_iter().map(|r| r.expect("every request ends")).collect()
}

/// Runs the requests in an order of its own, in batches of `batch` that mix lengths. The results are in the order of the requests.
///
/// # Panics
/// A request failed.
pub fn generate_shuffled(
    session: &mut Session,
    requests: &[Request],
    config: &GenerationConfig,
    batch: usize,
) -> Vec<Generation> {
    let keys = crate::harness::values(batch as u64, requests.len());
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by(|a, b| keys[*a].total_cmp(&keys[*b]));
    let mut results: Vec<Option<Generation>> = vec![None; requests.len()];
    for part in order.chunks(batch) {
        let asked: Vec<Request> = part.iter().map(|i| requests[*i].clone()).collect();
        for (i, result) in part.iter().zip(generate(session, &asked, config)) {
            results[*i] = Some(result);
        }
    }
    results.into_iter().map(|r| r.expect("every request ends")).collect()
}

/// Asserts equal ids and scores that are equal to the last bit, for every sequence of every request.
///
/// # Panics
/// At the first that differs.
#[track_caller]
pub fn assert_same(got: &[Generation], want: &[Generation], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert_eq!(g.sequences.len(), w.sequences.len(), "{what}: request {i}");
        for (n, (a, b)) in g.sequences.iter().zip(&w.sequences).enumerate() {
            assert_eq!(
                a.token_ids, b.token_ids,
                "{what}: request {i}, sequence {n}: scores {} and {}",
                a.score, b.score
            );
            assert_eq!(
                a.score.to_bits(),
                b.score.to_bits(),
                "{what}: request {i}, sequence {n}: score {} is not {}",
                a.score,
                b.score
            );
        }
    }
}

/// Results that should be equal may differ only where what decided between them is this close.
pub const NEAR_TIE: f64 = 1e-4;

/// One result of each side, to be compared.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    /// What was generated.
    pub got: (&'a [u32], f64),
    /// What should have been.
    pub want: (&'a [u32], f64),
}

impl Pair<'_> {
    /// How far apart the two scores are: the margin by which a beam search chose.
    pub fn score_margin(&self) -> f64 {
        (self.got.1 - self.want.1).abs()
    }

    /// Where the ids first differ, and the two ids there; `None` if one is a prefix of the other.
    pub fn first_difference(&self) -> Option<(usize, u32, u32)> {
        (0..).zip(self.got.0).zip(self.want.0).find(|((_, a), b)| a != b).map(|((i, a), b)| (i, *a, *b))
    }
}

/// Asserts that ids are equal and scores within `1e-4 * max(1, |score|)`. At most 2 in 1,000 pairs (rounded up) may have other ids, and
/// only if `margin`, asked with the number of the pair, says that they are a near tie; each is printed.
///
/// # Panics
/// More or other differences.
#[track_caller]
pub fn assert_equal_but_for_near_ties<'a>(
    pairs: impl Iterator<Item = Pair<'a>>,
    what: &str,
    mut margin: impl FnMut(usize, &Pair<'_>) -> f64,
) {
    let (mut count, mut ties) = (0usize, 0);
    for (i, pair) in pairs.enumerate() {
        let Pair { got, want } = pair;
        count += 1;
        if got.0 == want.0 {
            let apart = pair.score_margin();
            assert!(apart <= 1e-4 * want.1.abs().max(1.0), "{what}: sentence {i}: score {} is not {}", got.1, want.1);
            continue;
        }
        ties += 1;
        let margin = margin(i, &pair);
        eprintln!(
            "{what}: sentence {i} differs by {margin:e}: {:?} with {}, wanted {:?} with {}",
            got.0, got.1, want.0, want.1
        );
        assert!(margin < NEAR_TIE, "{what}: sentence {i} differs and is no near tie: {margin:e} apart");
    }
    let allowed = (2 * count).div_ceil(1000);
    assert!(ties <= allowed, "{what}: {ties} of {count} differ, {allowed} may");
    eprintln!("{what}: {count} compared, {ties} near ties");
}

/// The best sequence of each result, for [`Pair`].
pub fn best(results: &[Generation]) -> impl Iterator<Item = (&[u32], f64)> {
    results.iter().map(|r| (r.sequences[0].token_ids.as_slice(), f64::from(r.sequences[0].score)))
}

/// The reference's sequences, for [`Pair`].
pub fn wanted<'a>(expected: impl IntoIterator<Item = &'a Expected>) -> impl Iterator<Item = (&'a [u32], f64)> {
    expected.into_iter().map(|e| (e.token_ids.as_slice(), e.score))
}

/// Pairs what was generated with what should have been.
pub fn pairs<'a>(
    got: impl Iterator<Item = (&'a [u32], f64)>,
    want: impl Iterator<Item = (&'a [u32], f64)>,
) -> impl Iterator<Item = Pair<'a>> {
    got.zip(want).map(|(got, want)| Pair { got, want })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(got: (&[u32], f64), want: (&[u32], f64)) -> bool {
        let check =
            || assert_equal_but_for_near_ties([Pair { got, want }].into_iter(), "test", |_, pair| pair.score_margin());
        std::panic::catch_unwind(check).is_ok()
    }

    #[test]
    fn only_near_ties_may_differ() {
        assert!(compare((&[1, 2], -1.0), (&[1, 2], -1.00009)));
        assert!(!compare((&[1, 2], -1.0), (&[1, 2], -1.0002)));
        assert!(compare((&[1, 3], -1.0), (&[1, 2], -1.00009)));
        assert!(!compare((&[1, 3], -1.0), (&[1, 2], -1.0002)));
        assert!(!compare((&[1, 2], f64::NAN), (&[1, 2], -1.0)));
        assert!(!compare((&[1, 3], f64::NAN), (&[1, 2], -1.0)));
    }

    #[test]
    fn first_difference_of_a_pair() {
        let of = |got, want| Pair { got: (got, 0.0), want: (want, 0.0) }.first_difference();
        assert_eq!(of(&[1, 2, 3], &[1, 4, 3]), Some((1, 2, 4)));
        assert_eq!(of(&[1, 2], &[1, 2, 3]), None);
    }

    #[test]
    fn sentences_are_spread_evenly() {
        let all = Translations::load();
        let some = all.spread(120);
        assert_eq!(
            (some.sources.len(), &some.sources[0], &some.sources[60]),
            (120, &all.sources[0], &all.sources[500])
        );
        assert_eq!(all.spread(1000).sources, all.sources);
    }
}
