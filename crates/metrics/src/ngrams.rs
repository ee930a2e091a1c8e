//! Counted n-grams.

use std::collections::HashMap;

/// How often each n-gram occurs.
pub(crate) type Counts<'a, T> = HashMap<&'a [T], usize>;

/// The n-grams of a token list.
pub(crate) fn count<T: std::hash::Hash + Eq>(tokens: &[T], n: usize) -> Counts<'_, T> {
    let mut counts = HashMap::new();
    for gram in tokens.windows(n) {
        *counts.entry(gram).or_default() += 1;
    }
    counts
}

/// Occurrences that both sides have.
pub(crate) fn common<T: std::hash::Hash + Eq>(a: &Counts<'_, T>, b: &Counts<'_, T>) -> usize {
    a.iter().map(|(gram, count)| b.get(gram).map_or(0, |other| *count.min(other))).sum()
}
