//! Longest common subsequences, 64 pairs at a time (Hyyrö 2004, "Bit-parallel LCS-length computation revisited").
//!
//! Of the table `L[i][j]`, the length for the first `i` tokens of one text and the first `j` of the other, a row is kept as bits: bit
//! `j` is 0 where `L[i][j + 1]` is one more than `L[i][j]`.

use std::collections::HashMap;

/// The columns: a text's places by token.
pub(crate) struct Columns<'a> {
    tokens: &'a [u32],
    /// Each token with where its places begin in `places`, ascending.
    begins: Vec<(u32, u32)>,
    /// Places of one token after those of another.
    places: Vec<u32>,
    /// The places of the frequent tokens as bits: there are 64 of these at most, so this too grows with the text alone.
    masks: HashMap<u32, Vec<u64>>,
}

impl<'a> Columns<'a> {
    /// The columns for a text.
    pub(crate) fn new(tokens: &'a [u32]) -> Columns<'a> {
        let words = tokens.len().div_ceil(64);
        let mut places: Vec<u32> = (0..tokens.len() as u32).collect();
        places.sort_unstable_by_key(|place| (tokens[*place as usize], *place));
        let mut begins = Vec::new();
        let mut masks = HashMap::new();
        let mut begin = 0;
        for run in places.chunk_by(|a, b| tokens[*a as usize] == tokens[*b as usize]) {
            let token = tokens[run[0] as usize];
            begins.push((token, begin));
            begin += run.len() as u32;
            if run.len() > words {
                let mut mask = vec![0; words];
                run.iter().for_each(|place| set(&mut mask, *place));
                masks.insert(token, mask);
            }
        }
        Columns { tokens, begins, places, masks }
    }

    /// How many there are, in whole words of 64: what a row takes time for.
    pub(crate) fn padded(&self) -> u64 {
        self.words() as u64 * 64
    }

    fn words(&self) -> usize {
        self.tokens.len().div_ceil(64)
    }

    fn places(&self, token: u32) -> &[u32] {
        let Ok(at) = self.begins.binary_search_by_key(&token, |(token, _)| *token) else { return &[] };
        let end = self.begins.get(at + 1).map_or(self.places.len(), |(_, end)| *end as usize);
        &self.places[self.begins[at].1 as usize..end]
    }

    /// Goes on by one row. `scratch` is a row of zeros, and is left as one.
    fn step(&self, token: u32, row: &mut [u64], scratch: &mut [u64]) {
        if let Some(mask) = self.masks.get(&token) {
            return advance(row, mask);
        }
        let places = self.places(token);
        if places.is_empty() {
            // Nothing matches: the row stays.
            return;
        }
        places.iter().for_each(|place| set(scratch, *place));
        advance(row, scratch);
        places.iter().for_each(|place| scratch[*place as usize / 64] = 0);
    }
}

fn set(bits: &mut [u64], place: u32) {
    bits[place as usize / 64] |= 1 << (place % 64);
}

fn advance(row: &mut [u64], mask: &[u64]) {
    let mut carry = false;
    for (v, m) in row.iter_mut().zip(mask) {
        let (sum, first) = v.overflowing_add(*v & m);
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        carry = first | second;
        *v = sum | (*v & !m);
    }
}

/// `L[i][j]` of the row `i`: its zeros among the first `j` bits.
fn value(row: &[u64], j: usize) -> usize {
    let whole: u32 = row[..j / 64].iter().map(|word| word.count_zeros()).sum();
    let part = match j % 64 {
        0 => 0,
        rest => (!row[j / 64] & ((1 << rest) - 1)).count_ones(),
    };
    (whole + part) as usize
}

/// Length of the longest common subsequence of a text and the columns.
pub(crate) fn length(rows: &[u32], columns: &Columns<'_>) -> usize {
    let mut row = vec![u64::MAX; columns.words()];
    let mut scratch = vec![0; columns.words()];
    rows.iter().for_each(|token| columns.step(*token, &mut row, &mut scratch));
    value(&row, columns.tokens.len())
}

/// Rows of the table are all kept up to this many words; of more only some, and those between are computed again.
const KEPT_WORDS: usize = 1 << 16;

/// Memory that calls of [`mark`] share.
#[derive(Default)]
pub(crate) struct Scratch {
    zeros: Vec<u64>,
    row: Vec<u64>,
    checkpoints: Vec<u64>,
    rows: Vec<u64>,
}

/// Marks the places in `reference` of one longest common subsequence with the columns: of several the one that rouge-score's
/// backtracking finds, which from `L[i][j]` goes to the left only where that is more than above. Rows that are as many as the columns,
/// n, take n^1.5 / 4 bytes.
pub(crate) fn mark(reference: &[u32], columns: &Columns<'_>, marked: &mut [bool], scratch: &mut Scratch) {
    if reference.iter().all(|token| columns.places(*token).is_empty()) {
        return;
    }
    mark_in_blocks(reference, columns, marked, scratch, KEPT_WORDS);
}

fn mark_in_blocks(
    reference: &[u32],
    columns: &Columns<'_>,
    marked: &mut [bool],
    scratch: &mut Scratch,
    kept_words: usize,
) {
    let words = columns.words();
    let block = match reference.len() {
        rows if rows * words <= kept_words => rows,
        rows => rows.isqrt() + 1,
    };
    let Scratch { zeros, row, checkpoints, rows } = scratch;
    zeros.clear();
    zeros.resize(words, 0);
    row.clear();
    row.resize(words, u64::MAX);
    checkpoints.clear();
    // The row before each block.
    let blocks = reference.len().div_ceil(block);
    for (i, token) in reference[..(blocks - 1) * block].iter().enumerate() {
        if i % block == 0 {
            checkpoints.extend_from_slice(row);
        }
        columns.step(*token, row, zeros);
    }
    checkpoints.extend_from_slice(row);

    let mut j = columns.tokens.len();
    for (number, before) in checkpoints.chunks_exact(words).enumerate().rev() {
        let first = number * block;
        let in_block = &reference[first..reference.len().min(first + block)];
        rows.clear();
        rows.extend_from_slice(before);
        for (i, token) in in_block.iter().enumerate() {
            rows.extend_from_within(i * words..(i + 1) * words);
            columns.step(*token, &mut rows[(i + 1) * words..], zeros);
        }
        let row = |i: usize| &rows[i * words..(i + 1) * words];
        for (i, token) in in_block.iter().enumerate().rev() {
            // Where the row adds nothing, left is never more than above. Where it does, everything up to the match that adds is.
            let adds = value(row(i + 1), j) > value(row(i), j);
            let matching = if adds {
                columns.tokens[..j].iter().rposition(|other| other == token)
            } else {
                j.checked_sub(1).filter(|last| columns.tokens[*last] == *token)
            };
            if let Some(place) = matching {
                marked[first + i] = true;
                j = place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole table and the backtracking of rouge-score.
    fn by_table(reference: &[u32], candidate: &[u32]) -> (usize, Vec<bool>) {
        let mut table = vec![vec![0; candidate.len() + 1]; reference.len() + 1];
        for (i, x) in reference.iter().enumerate() {
            for (j, y) in candidate.iter().enumerate() {
                table[i + 1][j + 1] = if x == y { table[i][j] + 1 } else { table[i][j + 1].max(table[i + 1][j]) };
            }
        }
        let mut marked = vec![false; reference.len()];
        let (mut i, mut j) = (reference.len(), candidate.len());
        while i > 0 && j > 0 {
            if reference[i - 1] == candidate[j - 1] {
                marked[i - 1] = true;
                (i, j) = (i - 1, j - 1);
            } else if table[i][j - 1] > table[i - 1][j] {
                j -= 1;
            } else {
                i -= 1;
            }
        }
        (table[reference.len()][candidate.len()], marked)
    }

    #[test]
    fn lengths_and_places_are_those_of_the_table() {
        let mut state = 7_u32;
        let mut random = |most: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % most
        };
        let mut scratch = Scratch::default();
        for round in 0..1200 {
            let alphabet = [1, 2, 5, 30, 400][round % 5];
            let most = [3, 70, 140, 260][round % 4];
            let mut text = || (0..random(most)).map(|_| random(alphabet)).collect::<Vec<_>>();
            let (reference, candidate) = (text(), text());
            let columns = Columns::new(&candidate);
            let (wanted, places) = by_table(&reference, &candidate);
            assert_eq!(length(&reference, &columns), wanted);
            let mut marked = vec![false; reference.len()];
            mark(&reference, &columns, &mut marked, &mut scratch);
            assert_eq!(marked, places, "{reference:?} {candidate:?}");
            if wanted > 0 {
                // In blocks of a few rows.
                marked.fill(false);
                mark_in_blocks(&reference, &columns, &mut marked, &mut scratch, 0);
                assert_eq!(marked, places, "{reference:?} {candidate:?}");
            }
        }
    }
}
