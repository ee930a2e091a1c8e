//! What is told of a corpus and of a comparison, to people and to programs.

use std::path::Path;

use elgen_engine::{CorpusSummary, Divergence, Metrics};
use serde::Serialize;

use crate::{error::CliError, files::write_whole, pretty_json};

/// The corpus in a line.
pub(super) fn corpus(score: &CorpusSummary, failed: u64) -> String {
    let failed = if failed > 0 { format!(" ({failed} failed)") } else { String::new() };
    format!(
        "{} records{failed}, {} tokens: mean log-probability {:.6}, {}",
        score.records,
        score.tokens,
        score.mean_logprob,
        perplexity(score)
    )
}

fn perplexity(score: &CorpusSummary) -> String {
    match score.perplexity_standard_error {
        Some(error) => format!("PPL = {:.5} +/- {error:.5}", score.perplexity),
        None => format!("PPL = {:.5}", score.perplexity),
    }
}

/// The comparison in some lines; `labels` is how the saved run ran.
pub(super) fn comparison(found: &Divergence, labels: &str) -> String {
    let left_out = if found.left_out > 0 { format!(", {} left out", found.left_out) } else { String::new() };
    format!(
        "compared with   {labels}: {} records{left_out}, {} tokens\n\
         KL divergence   mean {:.4e}, 99th percentile {:.4e}, maximum {:.4e} (nats)\n\
         top-1 agreement {:.4} %\n\
         log-probability differs by {:.4e} on average, by {:.4e} at most\n\
         saved run       {}\n\
         this run        {}",
        found.this.records,
        found.this.tokens,
        found.mean_kl,
        found.p99_kl,
        found.max_kl,
        found.top1_agreement * 100.0,
        found.mean_logprob_difference,
        found.max_logprob_difference,
        perplexity(&found.saved),
        perplexity(&found.this)
    )
}

#[derive(Serialize)]
struct Stats<'a> {
    #[serde(flatten)]
    metrics: &'a Metrics,
    failed: u64,
    score: CorpusSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<&'a Divergence>,
}

/// Writes the counters, the corpus and the comparison as one JSON object.
pub(super) fn write(
    path: &Path,
    metrics: &Metrics,
    failed: u64,
    score: CorpusSummary,
    comparison: Option<&Divergence>,
) -> Result<(), CliError> {
    let text = pretty_json(&Stats { metrics, failed, score, comparison })?;
    write_whole(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_corpus_in_a_line() {
        let mut score = CorpusSummary {
            records: 2,
            tokens: 3,
            sum_logprob: -3.0,
            mean_logprob: -1.0,
            perplexity: 2.5,
            perplexity_standard_error: Some(0.25),
        };
        let line = "2 records, 3 tokens: mean log-probability -1.000000, PPL = 2.50000 +/- 0.25000";
        assert_eq!(corpus(&score, 0), line);
        score.perplexity_standard_error = None;
        assert!(corpus(&score, 4).starts_with("2 records (4 failed), 3 tokens: "));
        assert!(corpus(&score, 0).ends_with("PPL = 2.50000"));
    }
}
