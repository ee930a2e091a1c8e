//! Counted n-grams.
//!
//! An n-gram is one number, its tokens' bits side by side, as long as they fit into 128; equal n-grams meet by sorting. That takes 8 or
//! 16 bytes for each, however many differ.

use std::{
    collections::HashMap,
    ops::{BitOr, Shl},
};

/// Numbers for words: equal words of all texts that share it have the same.
#[derive(Default)]
pub(crate) struct Vocabulary {
    ids: HashMap<Box<str>, u32>,
}

impl Vocabulary {
    /// The number of a word.
    pub(crate) fn id(&mut self, word: &str) -> u32 {
        if let Some(id) = self.ids.get(word) {
            return *id;
        }
        let id = self.ids.len() as u32;
        self.ids.insert(word.into(), id);
        id
    }
}

/// How many n-grams a text of this many tokens has.
pub(crate) fn total(tokens: usize, n: usize) -> usize {
    (tokens + 1).saturating_sub(n)
}

/// N-grams that a text shares with others: of each as many as it has itself, and as that of the others has which has most.
pub(crate) fn common(found: &[u32], wanted: &[&[u32]], n: usize) -> usize {
    let largest = wanted.iter().copied().chain([found]).flatten().max().copied().unwrap_or(0);
    let bits = (u32::BITS - largest.leading_zeros()).max(1);
    match (n as u32).saturating_mul(bits) {
        0 => 0,
        width if width <= u64::BITS => clipped(found, wanted, |tokens| packed::<u64>(tokens, n, bits, u64::BITS)),
        width if width <= u128::BITS => clipped(found, wanted, |tokens| packed::<u128>(tokens, n, bits, u128::BITS)),
        _ => clipped(found, wanted, |tokens| tokens.windows(n).collect()),
    }
}

/// The n-grams as numbers of `width` bits, the last token's bits the lowest of those that are used: a shift drops the first one's.
fn packed<K>(tokens: &[u32], n: usize, bits: u32, width: u32) -> Vec<K>
where
    K: Copy + From<u32> + Shl<u32, Output = K> + BitOr<Output = K>,
{
    let lowest = width - n as u32 * bits;
    let mut gram = K::from(0);
    let grams = tokens.iter().map(|token| {
        gram = gram << bits | K::from(*token) << lowest;
        gram
    });
    grams.skip(n - 1).collect()
}

fn clipped<'a, K: Ord>(found: &'a [u32], wanted: &[&'a [u32]], grams: impl Fn(&'a [u32]) -> Vec<K>) -> usize {
    let sorted = |tokens| {
        let mut grams = grams(tokens);
        grams.sort_unstable();
        grams
    };
    let found = sorted(found);
    let wanted: Vec<Vec<K>> = wanted.iter().map(|tokens| sorted(tokens)).collect();
    let mut rests: Vec<&[K]> = wanted.iter().map(Vec::as_slice).collect();
    let shared = found.chunk_by(|a, b| a == b).map(|run| {
        let most = rests.iter_mut().map(|rest| {
            *rest = &rest[rest.iter().take_while(|other| **other < run[0]).count()..];
            rest.iter().take_while(|other| **other == run[0]).count()
        });
        run.len().min(most.max().unwrap_or(0))
    });
    shared.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By maps of slices.
    fn counted(found: &[u32], wanted: &[&[u32]], n: usize) -> usize {
        let count = |tokens: &[u32]| {
            let mut counts: HashMap<Vec<u32>, usize> = HashMap::new();
            tokens.windows(n).for_each(|gram| *counts.entry(gram.to_vec()).or_default() += 1);
            counts
        };
        let wanted: Vec<_> = wanted.iter().map(|tokens| count(tokens)).collect();
        let most = |gram| wanted.iter().filter_map(|counts| counts.get(gram)).max().copied().unwrap_or(0);
        count(found).iter().map(|(gram, own)| *own.min(&most(gram))).sum()
    }

    #[test]
    fn every_width_counts_alike() {
        let mut state = 1_u32;
        let mut random = |most: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % most
        };
        for length in [0, 1, 2, 5, 40, 200] {
            for alphabet in [1, 3, 40] {
                // Numbers of 1 to 32 bits: n-grams of 1 to 224 bits.
                for spread in [1, 300, 70_000, u32::MAX / alphabet] {
                    let mut text = |length: u32| (0..length).map(|_| random(alphabet) * spread).collect::<Vec<_>>();
                    let (found, a, b) = (text(length), text(length + 3), text(length / 2));
                    for n in 1..=7 {
                        assert_eq!(
                            common(&found, &[&a, &b], n),
                            counted(&found, &[&a, &b], n),
                            "{length} {spread} {n}"
                        );
                        assert_eq!(total(found.len(), n), found.windows(n).count());
                    }
                }
            }
        }
        assert_eq!(common(&[1], &[], 1), 0);
    }
}
