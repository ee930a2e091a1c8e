//! Query rows by slab and by sentence.

use crate::table::Range;

/// A run of active rows whose sentences lie in one slab: what a cache kernel is dispatched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Slab number.
    pub slab: usize,
    /// First index into `active`.
    pub first: u32,
    /// Number of rows.
    pub count: u32,
    /// First entry in the list of row groups.
    pub first_group: u32,
    /// Number of row groups.
    pub groups: u32,
    /// Rows of the largest of them.
    pub widest_group: u32,
}

/// Query rows in the order of a dispatch, cut into segments (one slab) and, within them, into groups: neighbouring rows of one sentence,
/// which can read its keys together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grouping {
    /// The query rows of each group.
    pub groups: Vec<Range>,
    /// The groups of one slab that follow each other.
    pub segments: Vec<Segment>,
    sentence: Option<u32>,
}

impl Grouping {
    /// Appends `count` rows of a sentence that lies in `slab`; none is a no-op.
    pub fn push(&mut self, slab: usize, sentence: u32, count: u32) {
        if count == 0 {
            return;
        }
        let first = self.segments.last().map_or(0, |s| s.first + s.count);
        let first_group = self.groups.len() as u32;
        let (segment, continues) = match self.segments.last_mut() {
            Some(last) if last.slab == slab => (last, self.sentence == Some(sentence)),
            _ => {
                self.segments.push(Segment { slab, first, count: 0, first_group, groups: 0, widest_group: 0 });
                let Some(new) = self.segments.last_mut() else { return };
                (new, false)
            }
        };
        segment.count += count;
        match self.groups.last_mut() {
            Some(group) if continues => group.count += count,
            _ => {
                self.groups.push(Range::new(first, count));
                segment.groups += 1;
            }
        }
        segment.widest_group = segment.widest_group.max(self.groups.last().map_or(0, |group| group.count));
        self.sentence = Some(sentence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_sentence_are_a_group_and_never_cross_a_slab() {
        let mut grouping = Grouping::default();
        for (slab, sentence, count) in [(0, 0, 1), (0, 0, 2), (0, 1, 4), (0, 2, 0), (2, 1, 1), (2, 3, 1)] {
            grouping.push(slab, sentence, count);
        }
        assert_eq!(grouping.groups, [(0, 3), (3, 4), (7, 1), (8, 1)].map(|(first, count)| Range::new(first, count)));
        let segment = |slab, first, count, first_group, groups, widest_group| Segment {
            slab,
            first,
            count,
            first_group,
            groups,
            widest_group,
        };
        assert_eq!(grouping.segments, [segment(0, 0, 7, 0, 2, 4), segment(2, 7, 2, 2, 2, 1)]);
    }
}
