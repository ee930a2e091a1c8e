//! Scores of many targets together.

use serde::Serialize;

use super::TargetScore;

/// Sums over the tokens of a corpus, in f64 and one at a time (Welford's method), so that the variance does not cancel.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CorpusScore {
    records: u64,
    tokens: u64,
    mean: f64,
    /// Sum of the squared deviations from the mean.
    squares: f64,
}

/// What a corpus scored.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CorpusSummary {
    /// Targets that were scored.
    pub records: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Natural log-probability of all of them.
    pub sum_logprob: f64,
    /// The same by token.
    pub mean_logprob: f64,
    /// `exp(-mean_logprob)`.
    pub perplexity: f64,
    /// `perplexity * s / sqrt(tokens)`, `s` being the tokens' sample standard deviation: how far the perplexity would be from
    /// that of more tokens of the same kind, were they independent. `None` for fewer than two tokens.
    pub perplexity_standard_error: Option<f64>,
}

impl CorpusScore {
    /// Counts one target.
    pub fn add(&mut self, score: &TargetScore) {
        self.add_logprobs(score.token_logprobs.iter().map(|x| f64::from(*x)));
    }

    /// Counts a target by its tokens' log-probabilities.
    pub fn add_logprobs(&mut self, logprobs: impl IntoIterator<Item = f64>) {
        self.records += 1;
        for logprob in logprobs {
            self.tokens += 1;
            let off = logprob - self.mean;
            self.mean += off / self.tokens as f64;
            self.squares += off * (logprob - self.mean);
        }
    }

    /// The corpus so far.
    pub fn summary(&self) -> CorpusSummary {
        let tokens = self.tokens as f64;
        let perplexity = (-self.mean).exp();
        let error = (self.squares / (tokens - 1.0) / tokens).sqrt() * perplexity;
        CorpusSummary {
            records: self.records,
            tokens: self.tokens,
            sum_logprob: self.mean * tokens,
            mean_logprob: self.mean,
            perplexity,
            perplexity_standard_error: (self.tokens > 1).then_some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_perplexity_and_its_error() {
        let mut corpus = CorpusScore::default();
        corpus.add_logprobs([-1.0, -3.0]);
        assert_eq!(corpus.summary().perplexity, 2f64.exp());
        corpus.add_logprobs([-2.0, -6.0]);
        let found = corpus.summary();
        assert_eq!((found.records, found.tokens, found.sum_logprob, found.mean_logprob), (2, 4, -12.0, -3.0));
        // Deviations 2, 0, 1, -3: sample variance 14/3, of the mean 14/12.
        let wanted = 3f64.exp() * (14f64 / 12.0).sqrt();
        assert!((found.perplexity_standard_error.unwrap() - wanted).abs() < 1e-12 * wanted);
        let mut one = CorpusScore::default();
        one.add_logprobs([-1.0]);
        assert_eq!(one.summary().perplexity_standard_error, None);
    }
}
