//! Source ids without meaning: random ones, of a fixed length or of the lengths of real texts.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::Model;
use crate::request::Request;

/// How long the sources are.
#[derive(Clone, Debug, PartialEq)]
pub enum Sources {
    /// All the same number of ids.
    Fixed(usize),
    /// These numbers of ids, in turn: sentence s has the length `s % len`, cut to what the model has positions for.
    Lengths(Arc<Vec<usize>>),
}

impl Sources {
    /// The longest of them.
    pub(crate) fn longest(&self) -> usize {
        match self {
            Self::Fixed(length) => *length,
            Self::Lengths(lengths) => lengths.iter().copied().max().unwrap_or(1),
        }
    }

    /// The shortest of them, at most `most` where they are not all one length.
    pub(crate) fn shortest(&self, most: usize) -> usize {
        match self {
            Self::Fixed(length) => (*length).max(1),
            Self::Lengths(lengths) => lengths.iter().copied().min().unwrap_or(1).min(most).max(1),
        }
    }

    /// Ids of the first `count` sources in sum.
    pub(crate) fn total(&self, count: usize, most: usize) -> u64 {
        let cycle = match self {
            Self::Fixed(_) => 1,
            Self::Lengths(lengths) => lengths.len().max(1),
        };
        let sum = |count: usize| (0..count).fold(0, |sum: u64, s| sum.saturating_add(self.length(s, most) as u64));
        sum(cycle).saturating_mul((count / cycle) as u64).saturating_add(sum(count % cycle))
    }

    /// Length of source `s`, at most `most`.
    pub(crate) fn length(&self, s: usize, most: usize) -> usize {
        let length = match self {
            Self::Fixed(length) => *length,
            Self::Lengths(lengths) => lengths.get(s % lengths.len().max(1)).copied().unwrap_or(1).min(most),
        };
        length.max(1)
    }

    /// `count` requests of random ids, special ids left out. `most`: longest source that the model can take.
    pub(crate) fn requests(&self, model: &Model, count: usize, most: usize, seed: u64) -> Vec<Request> {
        let config = model.model_config();
        let special = config.special_tokens();
        let avoided: HashSet<u32> =
            special.eos.iter().copied().chain(special.bos).chain(special.pad).chain(special.decoder_start).collect();
        let mut ids: Vec<u32> = (0..config.source_vocab_size() as u32).filter(|id| !avoided.contains(id)).collect();
        if ids.is_empty() {
            ids.push(0);
        }
        let mut state = seed;
        (0..count)
            .map(|s| {
                let source: Vec<u32> =
                    (0..self.length(s, most)).map(|_| ids[next(&mut state) as usize % ids.len()]).collect();
                Request::new(s as u64, source)
            })
            .collect()
    }
}

/// splitmix64 (Steele, Lea and Flood 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_come_in_turn_and_are_cut() {
        let lengths = Sources::Lengths(Arc::new(vec![5, 0, 90]));
        let found: Vec<usize> = (0..5).map(|s| lengths.length(s, 64)).collect();
        assert_eq!(found, [5, 1, 64, 5, 1]);
        // A length that was asked for is not cut: the model refuses it.
        assert_eq!(Sources::Fixed(90).length(3, 64), 90);
        for count in 0..8 {
            assert_eq!(lengths.total(count, 64), (0..count).map(|s| lengths.length(s, 64) as u64).sum::<u64>());
        }
        assert_eq!((lengths.shortest(64), Sources::Fixed(90).shortest(64)), (1, 90));
        assert_eq!(lengths.total(usize::MAX, 64), u64::MAX);
        assert_eq!(Sources::Fixed(usize::MAX).total(2, 64), u64::MAX);
    }
}
