//! BLEU as sacreBLEU computes it by default: 13a tokens, 4-grams, several references with the closest length, exponential
//! smoothing (Chen and Cherry 2014, method 3).

use crate::{MetricError, SACREBLEU_VERSION, error::check, ngrams, text, tokenizer_13a::normalized};

/// The longest n-grams that count.
pub const MAX_ORDER: usize = 4;

/// How BLEU is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BleuOptions {
    /// Ignore case.
    pub lowercase: bool,
    /// Leave out orders for which the hypotheses are too short to have any n-gram, instead of scoring 0. Off for corpora and on
    /// for single sentences in sacreBLEU.
    pub effective_order: bool,
}

/// BLEU with what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct BleuScore {
    /// The score, 0 to 100.
    pub score: f64,
    /// Precision of each order, 0 to 100, smoothed.
    pub precisions: [f64; MAX_ORDER],
    /// N-grams of each order that a reference has too.
    pub correct: [usize; MAX_ORDER],
    /// N-grams of each order.
    pub total: [usize; MAX_ORDER],
    /// Penalty for short output, 0 to 1.
    pub brevity_penalty: f64,
    /// Tokens of all hypotheses.
    pub hypothesis_tokens: usize,
    /// Tokens of the references that are closest in length.
    pub reference_tokens: usize,
    /// sacreBLEU's signature of these options.
    pub signature: String,
}

/// BLEU of a corpus: counts are summed over all sentences before precisions are taken.
///
/// # Errors
/// Lists of different lengths, no sentence at all, or a sentence without a reference.
pub fn corpus_bleu<H: AsRef<str>, R: AsRef<str>>(
    hypotheses: &[H],
    references: &[Vec<R>],
    options: &BleuOptions,
) -> Result<BleuScore, MetricError> {
    let references_each = check(hypotheses, references)?;
    let mut counts = Counts::default();
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let mut vocabulary = ngrams::Vocabulary::default();
        let mut tokens = |text: &str| -> Vec<u32> {
            let spaced = if options.lowercase { normalized(&text.to_lowercase()) } else { normalized(text) };
            text::words(&spaced).map(|word| vocabulary.id(word)).collect()
        };
        let hypothesis = tokens(hypothesis.as_ref());
        let references: Vec<_> = references.iter().map(|reference| tokens(reference.as_ref())).collect();
        counts.add(&hypothesis, &references);
    }
    let case = if options.lowercase { "lc" } else { "mixed" };
    let effective = if options.effective_order { "yes" } else { "no" };
    let signature =
        format!("nrefs:{references_each}|case:{case}|eff:{effective}|tok:13a|smooth:exp|version:{SACREBLEU_VERSION}");
    Ok(counts.score(options.effective_order, signature))
}

/// BLEU of one sentence. sacreBLEU advises `effective_order` here.
///
/// # Errors
/// No reference.
pub fn sentence_bleu<R: AsRef<str>>(
    hypothesis: &str,
    references: &[R],
    options: &BleuOptions,
) -> Result<BleuScore, MetricError> {
    corpus_bleu(&[hypothesis], &[references.iter().map(AsRef::as_ref).collect()], options)
}

#[derive(Default)]
struct Counts {
    correct: [usize; MAX_ORDER],
    total: [usize; MAX_ORDER],
    hypothesis_tokens: usize,
    reference_tokens: usize,
}

impl Counts {
    fn add(&mut self, hypothesis: &[u32], references: &[Vec<u32>]) {
        let distance = |length: usize| (length.abs_diff(hypothesis.len()), length);
        self.hypothesis_tokens += hypothesis.len();
        self.reference_tokens += references.iter().map(Vec::len).min_by_key(|n| distance(*n)).unwrap_or(0);
        let references: Vec<&[u32]> = references.iter().map(Vec::as_slice).collect();
        for n in 1..=MAX_ORDER {
            self.total[n - 1] += ngrams::total(hypothesis.len(), n);
            self.correct[n - 1] += ngrams::common(hypothesis, &references, n);
        }
    }

    fn score(self, effective_order: bool, signature: String) -> BleuScore {
        let Counts { correct, total, hypothesis_tokens, reference_tokens } = self;
        let brevity_penalty = match (hypothesis_tokens, reference_tokens) {
            (hypothesis, reference) if hypothesis >= reference => 1.0,
            (0, _) => 0.0,
            (hypothesis, reference) => (1.0 - reference as f64 / hypothesis as f64).exp(),
        };
        let mut precisions = [0.0; MAX_ORDER];
        let mut orders = 0;
        // A corpus without one matching word scores 0 whatever the smoothing.
        if correct.iter().any(|count| *count > 0) {
            let mut smooth = 1.0;
            for (n, precision) in precisions.iter_mut().enumerate() {
                if total[n] == 0 {
                    break;
                }
                orders = n + 1;
                *precision = if correct[n] == 0 {
                    // The first order that nothing matches counts as half a match, the next as a quarter, and so on.
                    smooth *= 2.0;
                    100.0 / (smooth * total[n] as f64)
                } else {
                    100.0 * correct[n] as f64 / total[n] as f64
                };
            }
        }
        let score = if orders == 0 || (orders < MAX_ORDER && !effective_order) {
            0.0
        } else {
            let logs: f64 = precisions[..orders].iter().map(|precision| precision.ln()).sum();
            brevity_penalty * (logs / orders as f64).exp()
        };
        BleuScore { score, precisions, correct, total, brevity_penalty, hypothesis_tokens, reference_tokens, signature }
    }
}
