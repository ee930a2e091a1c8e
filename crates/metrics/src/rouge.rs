//! ROUGE-1, -2, -L and -Lsum (Lin 2004) as the package rouge-score computes them.
//!
//! Tokens are runs of `a` to `z` and digits after lower-casing, optionally stemmed; so other scripts have no tokens and score 0. Of
//! several references the one with the best F1 counts, for each type by itself. The score of a corpus is the mean over its
//! sentences.

use std::collections::{HashMap, HashSet};

use crate::{MetricError, error::check, lcs, ngrams, ngrams::Vocabulary, porter};

/// How ROUGE is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RougeOptions {
    /// Compare [stems](porter::stem) of words that are longer than three letters.
    pub stemmer: bool,
    /// The most pairs of words of one hypothesis and one reference that are compared for ROUGE-L and ROUGE-Lsum, whose time grows with
    /// them: words of the reference times words of the hypothesis, the words of each of its lines counted in whole 64s.
    pub max_word_pairs: u64,
}

impl Default for RougeOptions {
    /// No stems, and [`DEFAULT_WORD_PAIRS`].
    fn default() -> Self {
        Self { stemmer: false, max_word_pairs: DEFAULT_WORD_PAIRS }
    }
}

/// Texts of about 300,000 words each, which take seconds.
pub const DEFAULT_WORD_PAIRS: u64 = 100_000_000_000;

/// One type's score, each part 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RougeScore {
    /// Matches per hypothesis token.
    pub precision: f64,
    /// Matches per reference token.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// The scores of all types.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RougeScores {
    /// Words.
    pub rouge1: RougeScore,
    /// Pairs of words.
    pub rouge2: RougeScore,
    /// Longest common subsequence of the whole texts.
    pub rouge_l: RougeScore,
    /// Union of the longest common subsequences of all pairs of lines.
    pub rouge_lsum: RougeScore,
}

impl RougeScores {
    /// The types by rouge-score's names.
    #[must_use]
    pub fn named(&self) -> [(&'static str, RougeScore); 4] {
        [("rouge1", self.rouge1), ("rouge2", self.rouge2), ("rougeL", self.rouge_l), ("rougeLsum", self.rouge_lsum)]
    }

    fn parts(&mut self) -> [&mut RougeScore; 4] {
        [&mut self.rouge1, &mut self.rouge2, &mut self.rouge_l, &mut self.rouge_lsum]
    }
}

/// Mean scores of a corpus.
///
/// # Errors
/// Lists of different lengths, no sentence at all, a sentence without a reference, or texts too long to be compared.
pub fn rouge<H: AsRef<str>, R: AsRef<str>>(
    hypotheses: &[H],
    references: &[Vec<R>],
    options: &RougeOptions,
) -> Result<RougeScores, MetricError> {
    check(hypotheses, references)?;
    let mut sum = RougeScores::default();
    for (segment, (hypothesis, references)) in (1..).zip(hypotheses.iter().zip(references)) {
        let scores = scores_of(segment, hypothesis.as_ref(), references, options)?;
        for (sum, (_, score)) in sum.parts().into_iter().zip(scores.named()) {
            sum.precision += score.precision;
            sum.recall += score.recall;
            sum.f1 += score.f1;
        }
    }
    for sum in sum.parts() {
        for part in [&mut sum.precision, &mut sum.recall, &mut sum.f1] {
            *part /= hypotheses.len() as f64;
        }
    }
    Ok(sum)
}

/// Scores of one text.
///
/// # Errors
/// No reference, or texts too long to be compared.
pub fn sentence_rouge<R: AsRef<str>>(
    hypothesis: &str,
    references: &[R],
    options: &RougeOptions,
) -> Result<RougeScores, MetricError> {
    scores_of(1, hypothesis, references, options)
}

/// Scores of the text of this 1-based number.
fn scores_of<R: AsRef<str>>(
    segment: usize,
    hypothesis: &str,
    references: &[R],
    options: &RougeOptions,
) -> Result<RougeScores, MetricError> {
    if references.is_empty() {
        return Err(MetricError::NoReference { segment });
    }
    let mut vocabulary = Vocabulary::default();
    let hypothesis = Text::new(hypothesis, options, &mut vocabulary);
    let whole = lcs::Columns::new(&hypothesis.tokens);
    // A line that stands there twice marks nothing more.
    let mut seen = HashSet::new();
    let lines: Vec<_> = hypothesis.lines().filter(|line| seen.insert(*line)).map(lcs::Columns::new).collect();
    let columns = whole.padded().max(lines.iter().map(lcs::Columns::padded).sum());
    let mut best: Option<RougeScores> = None;
    for reference in references {
        let reference = Text::new(reference.as_ref(), options, &mut vocabulary);
        let pairs = (reference.tokens.len() as u64).saturating_mul(columns);
        if pairs > options.max_word_pairs {
            return Err(MetricError::WordPairs { segment, pairs, most: options.max_word_pairs });
        }
        let mut scores = RougeScores {
            rouge1: n_gram_score(&reference.tokens, &hypothesis.tokens, 1),
            rouge2: n_gram_score(&reference.tokens, &hypothesis.tokens, 2),
            rouge_l: score(lcs::length(&reference.tokens, &whole), reference.tokens.len(), hypothesis.tokens.len()),
            rouge_lsum: summary_score(&reference, &hypothesis, &lines),
        };
        if let Some(best) = best {
            for (score, (_, earlier)) in scores.parts().into_iter().zip(best.named()) {
                if score.f1 <= earlier.f1 {
                    *score = earlier;
                }
            }
        }
        best = Some(scores);
    }
    Ok(best.unwrap_or_default())
}

/// The words of a text, as numbers.
struct Text {
    tokens: Vec<u32>,
    /// Where lines with words end.
    ends: Vec<usize>,
}

impl Text {
    /// `vocabulary` numbers the words; texts that are compared share it.
    fn new(text: &str, options: &RougeOptions, vocabulary: &mut Vocabulary) -> Text {
        let (mut tokens, mut ends) = (Vec::new(), Vec::new());
        // No letter takes a line end away or becomes one.
        for line in text.to_lowercase().split('\n') {
            let words = line.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()));
            tokens.extend(words.filter(|word| !word.is_empty()).map(|word| {
                if options.stemmer && word.len() > 3 { vocabulary.id(&porter::stem(word)) } else { vocabulary.id(word) }
            }));
            if tokens.len() > ends.last().copied().unwrap_or(0) {
                ends.push(tokens.len());
            }
        }
        Text { tokens, ends }
    }

    fn lines(&self) -> impl Iterator<Item = &[u32]> {
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.tokens[begin..*end])
    }
}

fn score(matches: usize, reference: usize, hypothesis: usize) -> RougeScore {
    let precision = matches as f64 / hypothesis.max(1) as f64;
    let recall = matches as f64 / reference.max(1) as f64;
    let f1 = if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 };
    RougeScore { precision, recall, f1 }
}

fn n_gram_score(reference: &[u32], hypothesis: &[u32], n: usize) -> RougeScore {
    let [wanted, found] = [reference, hypothesis].map(|tokens| ngrams::total(tokens.len(), n));
    score(ngrams::common(reference, &[hypothesis], n), wanted, found)
}

/// `lines`: those of the hypothesis, each once.
fn summary_score(reference: &Text, hypothesis: &Text, lines: &[lcs::Columns<'_>]) -> RougeScore {
    let mut left_in_reference = word_counts(&reference.tokens);
    let mut left_in_hypothesis = word_counts(&hypothesis.tokens);
    let mut scratch = lcs::Scratch::default();
    let mut hits = 0;
    for line in reference.lines() {
        let mut marked = vec![false; line.len()];
        for candidate in lines {
            lcs::mark(line, candidate, &mut marked, &mut scratch);
        }
        // A word that occurs once must not match twice.
        for (word, _) in line.iter().zip(&marked).filter(|(_, marked)| **marked) {
            if let (Some(a), Some(b)) = (left_in_reference.get_mut(word), left_in_hypothesis.get_mut(word))
                && *a > 0
                && *b > 0
            {
                hits += 1;
                *a -= 1;
                *b -= 1;
            }
        }
    }
    score(hits, reference.tokens.len(), hypothesis.tokens.len())
}

fn word_counts(tokens: &[u32]) -> HashMap<u32, usize> {
    let mut counts = HashMap::new();
    for word in tokens {
        *counts.entry(*word).or_default() += 1;
    }
    counts
}
