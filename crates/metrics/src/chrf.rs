//! chrF (Popović 2015) and chrF++ (Popović 2017) as sacreBLEU computes them.

use crate::{MetricError, SACREBLEU_VERSION, error::check, ngrams, ngrams::Vocabulary, text};

/// How chrF is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChrfOptions {
    /// Longest character n-grams.
    pub char_order: usize,
    /// Longest word n-grams: 0 for chrF, 2 for chrF++.
    pub word_order: usize,
    /// Weight of recall against precision.
    pub beta: u32,
    /// Ignore case.
    pub lowercase: bool,
    /// Average the F-scores of all orders, empty ones counting as almost 0, as chrF++.py does, instead of taking one F-score of the
    /// averages over the orders that both sides have.
    pub eps_smoothing: bool,
}

impl Default for ChrfOptions {
    /// chrF2: characters alone, up to 6, and recall twice as important as precision.
    fn default() -> ChrfOptions {
        ChrfOptions { char_order: 6, word_order: 0, beta: 2, lowercase: false, eps_smoothing: false }
    }
}

impl ChrfOptions {
    /// chrF++: words and word pairs count as well.
    #[must_use]
    pub fn plus_plus() -> ChrfOptions {
        ChrfOptions { word_order: 2, ..ChrfOptions::default() }
    }
}

/// chrF with its name and signature.
#[derive(Clone, Debug, PartialEq)]
pub struct ChrfScore {
    /// The score, 0 to 100.
    pub score: f64,
    /// `chrF2`, `chrF2++`.
    pub name: String,
    /// sacreBLEU's signature of these options.
    pub signature: String,
}

/// chrF of a corpus: counts against the best reference of each sentence are summed before the score is taken.
///
/// # Errors
/// Lists of different lengths, no sentence at all, or a sentence without a reference.
pub fn corpus_chrf<H: AsRef<str>, R: AsRef<str>>(
    hypotheses: &[H],
    references: &[Vec<R>],
    options: &ChrfOptions,
) -> Result<ChrfScore, MetricError> {
    let references_each = check(hypotheses, references)?;
    let mut sums = vec![Matches::default(); options.char_order + options.word_order];
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let mut vocabulary = Vocabulary::default();
        let hypothesis = Segment::new(hypothesis.as_ref(), options, &mut vocabulary);
        let mut best: Option<(f64, Vec<Matches>)> = None;
        for reference in references {
            let matches = hypothesis.matches(&Segment::new(reference.as_ref(), options, &mut vocabulary), options);
            let score = f_score(&matches, options);
            if best.as_ref().is_none_or(|(most, _)| score > *most) {
                best = Some((score, matches));
            }
        }
        for (sum, matches) in sums.iter_mut().zip(best.into_iter().flat_map(|(_, matches)| matches)) {
            sum.hypothesis += matches.hypothesis;
            sum.reference += matches.reference;
            sum.common += matches.common;
        }
    }
    let case = if options.lowercase { "lc" } else { "mixed" };
    let effective = if options.eps_smoothing { "no" } else { "yes" };
    Ok(ChrfScore {
        score: f_score(&sums, options),
        name: format!("chrF{}{}", options.beta, "+".repeat(options.word_order)),
        signature: format!(
            "nrefs:{references_each}|case:{case}|eff:{effective}|nc:{}|nw:{}|space:no|version:{SACREBLEU_VERSION}",
            options.char_order, options.word_order
        ),
    })
}

/// chrF of one sentence.
///
/// # Errors
/// No reference.
pub fn sentence_chrf<R: AsRef<str>>(
    hypothesis: &str,
    references: &[R],
    options: &ChrfOptions,
) -> Result<ChrfScore, MetricError> {
    corpus_chrf(&[hypothesis], &[references.iter().map(AsRef::as_ref).collect()], options)
}

/// N-grams of one order.
#[derive(Clone, Copy, Debug, Default)]
struct Matches {
    hypothesis: usize,
    reference: usize,
    common: usize,
}

impl Matches {
    fn of(hypothesis: &[u32], reference: &[u32], n: usize) -> Matches {
        let (found, wanted) = (ngrams::total(hypothesis.len(), n), ngrams::total(reference.len(), n));
        Matches {
            // Where the reference is too short for this order, what the hypothesis has is no mistake.
            hypothesis: if wanted == 0 { 0 } else { found },
            reference: wanted,
            common: ngrams::common(hypothesis, &[reference], n),
        }
    }
}

struct Segment {
    characters: Vec<u32>,
    words: Vec<u32>,
}

impl Segment {
    /// `vocabulary` numbers the words; texts that are compared share it.
    fn new(text: &str, options: &ChrfOptions, vocabulary: &mut Vocabulary) -> Segment {
        let lower;
        let text = if options.lowercase {
            lower = text.to_lowercase();
            lower.as_str()
        } else {
            text
        };
        let words = if options.word_order > 0 { words(text, vocabulary) } else { Vec::new() };
        Segment { characters: text.chars().filter(|c| !text::is_space(*c)).map(u32::from).collect(), words }
    }

    fn matches(&self, reference: &Segment, options: &ChrfOptions) -> Vec<Matches> {
        let characters = (1..=options.char_order).map(|n| Matches::of(&self.characters, &reference.characters, n));
        let words = (1..=options.word_order).map(|n| Matches::of(&self.words, &reference.words, n));
        characters.chain(words).collect()
    }
}

/// The words of a text, as numbers. One punctuation mark is split off a word, behind it or else before it.
fn words(text: &str, vocabulary: &mut Vocabulary) -> Vec<u32> {
    let mut words = Vec::new();
    let mut push = |word: &str| words.push(vocabulary.id(word));
    for word in text::words(text) {
        let mut characters = word.chars();
        let (first, last) = (characters.next(), characters.next_back());
        let cut = match (first, last) {
            (Some(_), Some(last)) if last.is_ascii_punctuation() => Some(word.len() - last.len_utf8()),
            (Some(first), Some(_)) if first.is_ascii_punctuation() => Some(first.len_utf8()),
            _ => None,
        };
        match cut.map(|cut| word.split_at(cut)) {
            Some((before, behind)) => [before, behind].into_iter().for_each(&mut push),
            None => push(word),
        }
    }
    words
}

fn f_score(orders: &[Matches], options: &ChrfOptions) -> f64 {
    const EPSILON: f64 = 1e-16;
    let factor = f64::from(options.beta).powi(2);
    let f = |precision: f64, recall: f64| (1.0 + factor) * precision * recall / (factor * precision + recall);
    let (mut smoothed, mut precisions, mut recalls, mut effective) = (0.0, 0.0, 0.0, 0usize);
    for order in orders {
        let part = |count: usize| if count > 0 { order.common as f64 / count as f64 } else { EPSILON };
        let (precision, recall) = (part(order.hypothesis), part(order.reference));
        smoothed += if factor * precision + recall > 0.0 { f(precision, recall) } else { EPSILON };
        if order.hypothesis > 0 && order.reference > 0 {
            precisions += precision;
            recalls += recall;
            effective += 1;
        }
    }
    if options.eps_smoothing {
        return 100.0 * smoothed / orders.len() as f64;
    }
    if effective == 0 || precisions + recalls == 0.0 {
        return 0.0;
    }
    100.0 * f(precisions / effective as f64, recalls / effective as f64)
}
