//! What a metric refuses.

/// Why there is no score.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// The two lists do not belong together.
    #[error("{hypotheses} hypotheses but references for {references}")]
    Counts {
        /// Number of hypotheses.
        hypotheses: usize,
        /// Number of reference lists.
        references: usize,
    },
    /// Nothing to score.
    #[error("no hypotheses")]
    Empty,
    /// A hypothesis without a reference.
    #[error("hypothesis {segment} has no reference")]
    NoReference {
        /// 1-based number of the hypothesis.
        segment: usize,
    },
    /// Texts whose longest common subsequence would take very long.
    #[error(
        "hypothesis {segment}: ROUGE-L would compare {pairs} pairs of words with a reference, more than the limit of {most}"
    )]
    WordPairs {
        /// 1-based number of the hypothesis.
        segment: usize,
        /// Pairs that would be compared.
        pairs: u64,
        /// [`crate::RougeOptions::max_word_pairs`].
        most: u64,
    },
}

/// Checks a corpus; returns how signatures name its number of references: a number, or `var`.
pub(crate) fn check<H, R>(hypotheses: &[H], references: &[Vec<R>]) -> Result<String, MetricError> {
    if hypotheses.len() != references.len() {
        return Err(MetricError::Counts { hypotheses: hypotheses.len(), references: references.len() });
    }
    let Some(first) = references.first() else { return Err(MetricError::Empty) };
    if let Some(segment) = references.iter().position(Vec::is_empty) {
        return Err(MetricError::NoReference { segment: segment + 1 });
    }
    let equal = references.iter().all(|list| list.len() == first.len());
    Ok(if equal { first.len().to_string() } else { "var".to_owned() })
}
