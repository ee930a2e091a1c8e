//! A search for the largest number that fits.

/// The largest number up to `most` for which `fits` holds; `None` if it does not hold for 1. `fits` holds up to some number and not beyond.
pub(crate) fn largest(most: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    if most == 0 || !fits(1) {
        return None;
    }
    // The largest number stands for no end: it is more than memory has bytes.
    let most = most.min(usize::MAX - 1);
    // `known` fits; `beyond` does not, or is one too many.
    let (mut known, mut beyond) = (1, 2_usize);
    while beyond <= most && fits(beyond) {
        (known, beyond) = (beyond, beyond.saturating_mul(2));
    }
    beyond = beyond.min(most + 1);
    while beyond - known > 1 {
        let middle = known + (beyond - known) / 2;
        if fits(middle) {
            known = middle;
        } else {
            beyond = middle;
        }
    }
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_for_the_largest_finds_every_end() {
        for most in 0..40 {
            for end in 0..50 {
                let expected = (end.min(most) > 0).then_some(end.min(most));
                assert_eq!(largest(most, |n| n <= end), expected, "{most} {end}");
            }
        }
        assert_eq!(largest(usize::MAX, |n| n <= 70), Some(70));
        assert_eq!(largest(usize::MAX, |_| true), Some(usize::MAX - 1));
    }
}
