//! Corpus BLEU as sacreBLEU computes it by default: 13a tokens, 4-grams, several references with the closest length, exponential smoothing.

use std::collections::HashMap;

const ORDER: usize = 4;

/// Corpus BLEU in percent, with what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Bleu {
    /// The score, 0 to 100.
    pub score: f64,
    /// Tokens of all hypotheses.
    pub hypothesis_tokens: usize,
    /// Tokens of the references that are closest in length.
    pub reference_tokens: usize,
}

/// Scores `hypotheses` against one or more references each.
///
/// # Panics
/// The lists differ in length, or a sentence has no reference.
pub fn corpus_bleu<H: AsRef<str>, R: AsRef<str>>(hypotheses: &[H], references: &[Vec<R>]) -> Bleu {
    assert_eq!(hypotheses.len(), references.len(), "one list of references for each hypothesis");
    let mut correct = [0usize; ORDER];
    let mut total = [0usize; ORDER];
    let (mut hypothesis_tokens, mut reference_tokens) = (0, 0);
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let hypothesis = tokens_13a(hypothesis.as_ref());
        let references: Vec<Vec<String>> = references.iter().map(|r| tokens_13a(r.as_ref())).collect();
        let distance = |length: usize| (length.abs_diff(hypothesis.len()), length);
        let closest =
            references.iter().map(Vec::len).min_by_key(|n| distance(*n)).expect("a sentence without a reference");
        hypothesis_tokens += hypothesis.len();
        reference_tokens += closest;
        for n in 1..=ORDER {
            let mut allowed: HashMap<&[String], usize> = HashMap::new();
            for reference in &references {
                for (gram, count) in grams(reference, n) {
                    let most = allowed.entry(gram).or_default();
                    *most = (*most).max(count);
                }
            }
            for (gram, count) in grams(&hypothesis, n) {
                total[n - 1] += count;
                correct[n - 1] += count.min(allowed.get(gram).copied().unwrap_or(0));
            }
        }
    }
    let score = score(&correct, &total, hypothesis_tokens, reference_tokens);
    Bleu { score, hypothesis_tokens, reference_tokens }
}

fn grams(tokens: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for gram in tokens.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

fn score(correct: &[usize; ORDER], total: &[usize; ORDER], hypothesis_tokens: usize, reference_tokens: usize) -> f64 {
    // An order that nothing matches counts as half a match, then a quarter, and so on; one without any n-gram makes the score 0, and so
    // does a corpus without a single matching word.
    if correct.iter().all(|c| *c == 0) || total.contains(&0) {
        return 0.0;
    }
    let mut smooth = 1.0;
    let log_sum: f64 = correct
        .iter()
        .zip(total)
        .map(|(correct, total)| {
            let matched = if *correct == 0 {
                smooth *= 2.0;
                1.0 / smooth
            } else {
                *correct as f64
            };
            (100.0 * matched / *total as f64).ln()
        })
        .sum();
    let ratio = reference_tokens as f64 / hypothesis_tokens as f64;
    let brevity = if ratio > 1.0 { (1.0 - ratio).exp() } else { 1.0 };
    brevity * (log_sum / ORDER as f64).exp()
}

/// The tokens of mteval-v13a: punctuation split off, but for dots and commas between digits and hyphens behind letters.
pub fn tokens_13a(line: &str) -> Vec<String> {
    let mut text = line.trim_end().replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (entity, plain) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        text = text.replace(entity, plain);
    }
    let text: Vec<char> = format!(" {text} ").chars().collect();
    let spaced: Vec<char> =
        text.iter().flat_map(|c| if is_symbol(*c) { vec![' ', *c, ' '] } else { vec![*c] }).collect();
    // Each rule looks at pairs from left to right, and a pair that it has rewritten is not looked at again.
    let spaced = rewrite_pairs(&spaced, |a, b| !a.is_ascii_digit() && is_point(b), |a, b| vec![a, ' ', b, ' ']);
    let spaced = rewrite_pairs(&spaced, |a, b| is_point(a) && !b.is_ascii_digit(), |a, b| vec![' ', a, ' ', b]);
    let spaced = rewrite_pairs(&spaced, |a, b| a.is_ascii_digit() && b == '-', |a, b| vec![a, ' ', b, ' ']);
    spaced.into_iter().collect::<String>().split_whitespace().map(str::to_owned).collect()
}

fn is_symbol(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}

fn is_point(c: char) -> bool {
    c == '.' || c == ','
}

fn rewrite_pairs(
    text: &[char],
    fits: impl Fn(char, char) -> bool,
    rewrite: impl Fn(char, char) -> Vec<char>,
) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut at = 0;
    while at < text.len() {
        match text.get(at + 1) {
            Some(next) if fits(text[at], *next) => {
                out.extend(rewrite(text[at], *next));
                at += 2;
            }
            _ => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::Translations;

    // The expected values are sacreBLEU 2.6's.

    #[test]
    fn tokens_are_those_of_13a() {
        let joined = |line: &str| tokens_13a(line).join(" ");
        assert_eq!(
            joined(
                "Hello, world... 3.14, 5-6 a-b (x) &quot;q&quot; \u{ab}\u{202f}bonjour\u{202f}\u{bb} 1,000. .5 end."
            ),
            "Hello , world . . . 3.14 , 5 - 6 a-b ( x ) \" q \" « bonjour » 1,000 . . 5 end ."
        );
        assert_eq!(joined("l'eau: 10,5% [a/b] ~c {d}"), "l'eau : 10,5 % [ a / b ] ~ c { d }");
    }

    #[test]
    fn several_references_and_smoothing() {
        let near = |got: f64, want: f64| assert!((got - want).abs() < 1e-9, "{got} is not {want}");
        near(corpus_bleu(&["the cat sat"], &[vec!["the dog sat down"]]).score, 0.0);
        let references = [vec!["the cat sat on the mat", "a cat is on a mat here"], vec!["no no"]];
        near(corpus_bleu(&["the cat sat on a mat", "no"], &references).score, 61.297_524_137_410_59);
        near(corpus_bleu(&["a b c x d e"], &[vec!["a b c y d e"]]).score, 37.991_784_282_579_63);
        near(corpus_bleu(&["the same words again"], &[vec!["the same words again"]]).score, 100.0);
    }

    #[test]
    fn the_demo_translations_score_what_sacrebleu_says() {
        let demo = Translations::load();
        let bleu = corpus_bleu(&demo.hypotheses, &demo.references);
        assert!((bleu.score - 49.320_717).abs() < 1e-6, "{bleu:?}");
        assert_eq!((bleu.hypothesis_tokens, bleu.reference_tokens), (7661, 7813));
    }
}
