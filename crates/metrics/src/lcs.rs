//! Longest common subsequences.

/// Length of the longest common subsequence, in space for two rows.
pub(crate) fn length<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// Marks the places in `reference` of one longest common subsequence: of several the one that rouge-score's backtracking
/// finds. The table takes a bit per pair.
pub(crate) fn mark<T: PartialEq>(reference: &[T], candidate: &[T], marked: &mut [bool]) {
    let columns = candidate.len();
    // Whether the best way into this cell comes from the left, strictly.
    let mut from_left = vec![0u64; (reference.len() * columns).div_ceil(64)];
    let mut row = vec![0; columns + 1];
    for (i, x) in reference.iter().enumerate() {
        let mut diagonal = 0;
        for (j, y) in candidate.iter().enumerate() {
            let (above, left) = (row[j + 1], row[j]);
            if left > above {
                let cell = i * columns + j;
                from_left[cell / 64] |= 1 << (cell % 64);
            }
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(left) };
            diagonal = above;
        }
    }
    let (mut i, mut j) = (reference.len(), columns);
    while i > 0 && j > 0 {
        let cell = (i - 1) * columns + j - 1;
        if reference[i - 1] == candidate[j - 1] {
            marked[i - 1] = true;
            i -= 1;
            j -= 1;
        } else if from_left[cell / 64] >> (cell % 64) & 1 == 1 {
            j -= 1;
        } else {
            i -= 1;
        }
    }
}
