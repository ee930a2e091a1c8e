//! ROUGE-1, -2, -L and -Lsum (Lin 2004) as the package rouge-score computes them.
//!
//! Tokens are runs of `a` to `z` and digits after lower-casing, optionally stemmed; so other scripts have no tokens and score 0. Of
//! several references the one with the best F1 counts, for each type by itself. The score of a corpus is the mean over its
//! sentences.

use std::collections::HashMap;

use crate::{MetricError, error::check, lcs, ngrams, porter};

/// How ROUGE is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RougeOptions {
    /// Compare [stems](porter::stem) of words that are longer than three letters.
    pub stemmer: bool,
}

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
/// Lists of different lengths, no sentence at all, or a sentence without a reference.
pub fn rouge<H: AsRef<str>, R: AsRef<str>>(
    hypotheses: &[H],
    references: &[Vec<R>],
    options: &RougeOptions,
) -> Result<RougeScores, MetricError> {
    check(hypotheses, references)?;
    let mut sum = RougeScores::default();
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let scores = sentence_rouge(hypothesis.as_ref(), references, options)?;
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
/// No reference.
pub fn sentence_rouge<R: AsRef<str>>(
    hypothesis: &str,
    references: &[R],
    options: &RougeOptions,
) -> Result<RougeScores, MetricError> {
    if references.is_empty() {
        return Err(MetricError::NoReference { segment: 1 });
    }
    let hypothesis = Text::new(hypothesis, options);
    let mut best: Option<RougeScores> = None;
    for reference in references {
        let reference = Text::new(reference.as_ref(), options);
        let mut scores = RougeScores {
            rouge1: n_gram_score(&reference.tokens, &hypothesis.tokens, 1),
            rouge2: n_gram_score(&reference.tokens, &hypothesis.tokens, 2),
            rouge_l: lcs_score(&reference.tokens, &hypothesis.tokens),
            rouge_lsum: summary_score(&reference.lines, &hypothesis.lines),
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

struct Text {
    tokens: Vec<String>,
    lines: Vec<Vec<String>>,
}

impl Text {
    fn new(text: &str, options: &RougeOptions) -> Text {
        let lines = text.split('\n').filter(|line| !line.is_empty()).map(|line| tokens(line, options)).collect();
        Text { tokens: tokens(text, options), lines }
    }
}

fn tokens(text: &str, options: &RougeOptions) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit()))
        .map(|word| if options.stemmer && word.len() > 3 { porter::stem(word) } else { word.to_owned() })
        .filter(|word| !word.is_empty())
        .collect()
}

fn score(matches: usize, reference: usize, hypothesis: usize) -> RougeScore {
    let precision = matches as f64 / hypothesis.max(1) as f64;
    let recall = matches as f64 / reference.max(1) as f64;
    let f1 = if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 };
    RougeScore { precision, recall, f1 }
}

fn n_gram_score(reference: &[String], hypothesis: &[String], n: usize) -> RougeScore {
    let (wanted, found) = (ngrams::count(reference, n), ngrams::count(hypothesis, n));
    score(ngrams::common(&wanted, &found), wanted.values().sum(), found.values().sum())
}

fn lcs_score(reference: &[String], hypothesis: &[String]) -> RougeScore {
    score(lcs::length(reference, hypothesis), reference.len(), hypothesis.len())
}

fn summary_score(reference: &[Vec<String>], hypothesis: &[Vec<String>]) -> RougeScore {
    let mut left_in_reference = word_counts(reference);
    let mut left_in_hypothesis = word_counts(hypothesis);
    let mut hits = 0;
    for line in reference {
        let mut marked = vec![false; line.len()];
        for candidate in hypothesis {
            lcs::mark(line, candidate, &mut marked);
        }
        // A word that occurs once must not match twice.
        for (word, _) in line.iter().zip(&marked).filter(|(_, marked)| **marked) {
            if let (Some(a), Some(b)) =
                (left_in_reference.get_mut(word.as_str()), left_in_hypothesis.get_mut(word.as_str()))
                && *a > 0
                && *b > 0
            {
                hits += 1;
                *a -= 1;
                *b -= 1;
            }
        }
    }
    score(hits, reference.iter().map(Vec::len).sum(), hypothesis.iter().map(Vec::len).sum())
}

fn word_counts(lines: &[Vec<String>]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for word in lines.iter().flatten() {
        *counts.entry(word.as_str()).or_default() += 1;
    }
    counts
}
