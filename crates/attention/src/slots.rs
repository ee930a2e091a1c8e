//! Handing out runs of slots.

/// Free runs of slots, `(first, count)`, ascending and never touching.
#[derive(Clone, Debug, Default)]
pub(crate) struct FreeList {
    runs: Vec<(u32, u32)>,
}

impl FreeList {
    /// All of `0 .. slots` is free.
    pub(crate) fn new(slots: u32) -> Self {
        Self { runs: if slots == 0 { Vec::new() } else { vec![(0, slots)] } }
    }

    /// True if `take(count)` would succeed.
    pub(crate) fn fits(&self, count: u32) -> bool {
        count == 0 || self.runs.iter().any(|run| run.1 >= count)
    }

    /// Takes the first run that holds `count` slots.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        if count == 0 {
            return Some(0);
        }
        let at = self.runs.iter().position(|run| run.1 >= count)?;
        let (first, free) = self.runs[at];
        if free == count {
            self.runs.remove(at);
        } else {
            self.runs[at] = (first + count, free - count);
        }
        Some(first)
    }

    /// Gives back a run that was taken.
    pub(crate) fn give(&mut self, first: u32, count: u32) {
        if count == 0 {
            return;
        }
        let at = self.runs.partition_point(|run| run.0 < first);
        self.runs.insert(at, (first, count));
        if at + 1 < self.runs.len() && first + count == self.runs[at + 1].0 {
            self.runs[at].1 += self.runs[at + 1].1;
            self.runs.remove(at + 1);
        }
        if at > 0 && self.runs[at - 1].0 + self.runs[at - 1].1 == self.runs[at].0 {
            self.runs[at - 1].1 += self.runs[at].1;
            self.runs.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_taken_first_fit_and_merge_when_given_back() {
        let mut list = FreeList::new(10);
        let (a, b, c) = (list.take(3).unwrap(), list.take(4).unwrap(), list.take(3).unwrap());
        assert_eq!((a, b, c), (0, 3, 7));
        assert!(list.take(1).is_none() && !list.fits(1) && list.fits(0));
        list.give(a, 3);
        list.give(c, 3);
        assert!(!list.fits(4));
        list.give(b, 4);
        assert_eq!(list.runs, [(0, 10)]);
        assert_eq!(list.take(10), Some(0));
    }
}
