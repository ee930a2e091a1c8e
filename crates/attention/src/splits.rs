//! Key splits: how the keys of a long row are cut over workgroups.

/// Keys of one split. A row's splits begin at its position 0 and depend on nothing but its own number of keys: what else is in a batch
/// never changes a bit of its result.
pub const SPLIT: usize = 512;

/// Splits that the longest row of a batch needs. 0 counts as 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Splits {
    /// Of the decoder's self-attention.
    pub self_: usize,
    /// Of cross-attention.
    pub cross: usize,
}

impl Splits {
    /// For rows of at most so many keys.
    pub fn of(self_keys: usize, cross_keys: usize) -> Self {
        Self { self_: self_keys.div_ceil(SPLIT).max(1), cross: cross_keys.div_ceil(SPLIT).max(1) }
    }

    /// The larger number.
    pub fn most(self) -> usize {
        self.self_.max(self.cross).max(1)
    }

    /// True if both parts have room for what `other` needs.
    pub fn hold(self, other: Self) -> bool {
        self.self_.max(1) >= other.self_ && self.cross.max(1) >= other.cross
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_begin_at_position_0_and_cover_every_key() {
        let of = |keys| Splits::of(keys, 1).self_;
        assert_eq!([0, 1, SPLIT, SPLIT + 1, 3 * SPLIT].map(of), [1, 1, 1, 2, 3]);
        assert_eq!(Splits::of(SPLIT + 1, 5 * SPLIT).most(), 5);
        assert_eq!(Splits::default().most(), 1);
        let two_and_one = Splits { self_: 2, cross: 1 };
        assert!(two_and_one.hold(Splits::default()) && two_and_one.hold(two_and_one));
        assert!(!two_and_one.hold(Splits { self_: 1, cross: 2 }) && !Splits::default().hold(two_and_one));
    }
}
