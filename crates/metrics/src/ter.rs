//! TER, the translation edit rate (Snover et al. 2006), as sacreBLEU computes it: Tercom's way.
//!
//! Edits are words inserted, deleted and replaced, and runs of words that are moved, each move counting as one edit. Which moves are
//! made is decided greedily, and the edit distance looks at a band around the diagonal only; both are part of the definition.

use std::{collections::HashMap, rc::Rc};

use crate::{MetricError, SACREBLEU_VERSION, error::check, text};

/// Longest run of words that is moved.
const MAX_SHIFT_SIZE: usize = 10;
/// Farthest that a run is moved.
const MAX_SHIFT_DISTANCE: usize = 50;
/// Half of the band's width.
const BEAM_WIDTH: usize = 25;
/// Moves that are tried for a sentence, about.
const MAX_SHIFT_CANDIDATES: usize = 1000;
/// The cost of what is outside the band.
const INFINITE: usize = usize::MAX / 2;

/// How TER is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerOptions {
    /// Words that differ in case are different words; as in sacreBLEU, not by default.
    pub case_sensitive: bool,
}

/// TER with what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct TerScore {
    /// Edits for 100 words of the references; 0 is best, and there is no upper end.
    pub score: f64,
    /// Edits of all sentences, each against its nearest reference.
    pub edits: usize,
    /// Words of the references, averaged over those of a sentence.
    pub reference_words: f64,
    /// sacreBLEU's signature of these options.
    pub signature: String,
}

/// TER of a corpus.
///
/// ```
/// use elgen_metrics::{TerOptions, corpus_ter};
/// let ter = corpus_ter(&["on the mat sat the cat"], &[vec!["the cat sat on the mat"]], &TerOptions::default())?;
/// assert_eq!(ter.edits, 2);
/// # Ok::<(), elgen_metrics::MetricError>(())
/// ```
///
/// # Errors
/// Lists of different lengths, no sentence at all, or a sentence without a reference.
pub fn corpus_ter<H: AsRef<str>, R: AsRef<str>>(
    hypotheses: &[H],
    references: &[Vec<R>],
    options: &TerOptions,
) -> Result<TerScore, MetricError> {
    let references_each = check(hypotheses, references)?;
    let (mut edits, mut reference_words) = (0, 0.0);
    for (hypothesis, references) in hypotheses.iter().zip(references) {
        let mut numbers = HashMap::new();
        let hypothesis = words(hypothesis.as_ref(), options, &mut numbers);
        let references: Vec<_> =
            references.iter().map(|reference| words(reference.as_ref(), options, &mut numbers)).collect();
        edits += references.iter().map(|reference| edits_between(&hypothesis, reference)).min().unwrap_or(0);
        reference_words += references.iter().map(Vec::len).sum::<usize>() as f64 / references.len() as f64;
    }
    let rate = match edits {
        _ if reference_words > 0.0 => edits as f64 / reference_words,
        0 => 0.0,
        // Words where there should be none.
        _ => 1.0,
    };
    let case = if options.case_sensitive { "mixed" } else { "lc" };
    Ok(TerScore {
        score: 100.0 * rate,
        edits,
        reference_words,
        signature: format!(
            "nrefs:{references_each}|case:{case}|tok:tercom|norm:no|punct:yes|asian:no|version:{SACREBLEU_VERSION}"
        ),
    })
}

/// The words of a text as numbers, equal ones for equal words.
fn words(text: &str, options: &TerOptions, numbers: &mut HashMap<String, u32>) -> Vec<u32> {
    let text = if options.case_sensitive { text.to_owned() } else { text.to_lowercase() };
    text::words(&text)
        .map(|word| {
            let next = numbers.len() as u32;
            *numbers.entry(word.to_owned()).or_insert(next)
        })
        .collect()
}

/// Edits that turn the one into the other.
fn edits_between(hypothesis: &[u32], reference: &[u32]) -> usize {
    if reference.is_empty() {
        return hypothesis.len();
    }
    let mut matrix = Matrix::new(hypothesis.to_vec(), reference, None);
    let (mut shifts, mut tried) = (0, 0);
    // Moves are made as long as they help.
    while let Some(shifted) = best_shift(&matrix, reference, &mut tried)
        && tried < MAX_SHIFT_CANDIDATES
        && shifted.cost() < matrix.cost()
    {
        shifts += 1;
        matrix = shifted;
    }
    shifts + matrix.cost()
}

/// The move that leaves the fewest edits; among equals the longest run, then the one that comes first, then the one that
/// goes to the first place.
fn best_shift(matrix: &Matrix, reference: &[u32], tried: &mut usize) -> Option<Matrix> {
    let Alignment { of_reference, reference_errors, hypothesis_errors } = matrix.alignment();
    let hypothesis = &matrix.hypothesis;
    let mut best: Option<((isize, usize, isize, isize), Matrix)> = None;
    'pairs: for start in 0..hypothesis.len() {
        let nearest = start.saturating_sub(MAX_SHIFT_DISTANCE);
        let farthest = (start + MAX_SHIFT_DISTANCE + 1).min(reference.len());
        for target in nearest..farthest {
            let longest = hypothesis[start..].iter().zip(&reference[target..]);
            let longest = longest.take_while(|(a, b)| a == b).take(MAX_SHIFT_SIZE).count();
            for length in 1..=longest {
                // Only what is wrong here and missing there, and not within itself.
                let run = start as isize..(start + length) as isize;
                let wrong = hypothesis_errors[start..start + length].contains(&true)
                    && reference_errors[target..target + length].contains(&true);
                if !wrong || run.contains(&of_reference[target]) {
                    continue;
                }
                let mut previous = None;
                for place in (target..=target + length).map(|place| place.checked_sub(1)) {
                    let index = match place {
                        None => 0,
                        Some(place) => (of_reference[place] + 1) as usize,
                    };
                    if previous.replace(index) == Some(index) {
                        continue;
                    }
                    let shifted = Matrix::new(moved(hypothesis, start, length, index), reference, Some(matrix));
                    let gain = matrix.cost() as isize - shifted.cost() as isize;
                    *tried += 1;
                    let rank = (gain, length, -(start as isize), -(index as isize));
                    if best.as_ref().is_none_or(|(most, _)| rank > *most) {
                        best = Some((rank, shifted));
                    }
                }
                if *tried >= MAX_SHIFT_CANDIDATES {
                    break 'pairs;
                }
            }
        }
    }
    best.map(|(_, matrix)| matrix)
}

/// The words with a run moved before what stood at `target`.
fn moved(words: &[u32], start: usize, length: usize, target: usize) -> Vec<u32> {
    let end = start + length;
    let run = &words[start..end];
    if target < start {
        [&words[..target], run, &words[target..start], &words[end..]].concat()
    } else if target > end {
        [&words[..start], &words[end..target], run, &words[target..]].concat()
    } else {
        // Into itself: it goes on by as much as the place lies behind its beginning.
        let to = (length + target).min(words.len()).max(end);
        [&words[..start], &words[end..to], run, &words[to..]].concat()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Keep,
    Replace,
    Insert,
    Delete,
    /// Outside the band.
    None,
}

/// A row of the edit distance's table, as far as the band reaches.
#[derive(Debug)]
struct Row {
    first: usize,
    cells: Vec<(usize, Operation)>,
}

impl Row {
    fn at(&self, column: usize) -> (usize, Operation) {
        let cell = column.checked_sub(self.first).and_then(|place| self.cells.get(place));
        cell.copied().unwrap_or((INFINITE, Operation::None))
    }
}

/// The table that turns a hypothesis into the reference.
#[derive(Debug)]
struct Matrix {
    hypothesis: Vec<u32>,
    columns: usize,
    /// One more than there are words.
    rows: Vec<Rc<Row>>,
}

/// Which words belong together.
struct Alignment {
    /// For each word of the reference that of the hypothesis, or the one before; -1 before the first.
    of_reference: Vec<isize>,
    reference_errors: Vec<bool>,
    hypothesis_errors: Vec<bool>,
}

impl Matrix {
    /// Takes over the rows of a hypothesis of the same length that begins alike.
    fn new(hypothesis: Vec<u32>, reference: &[u32], like: Option<&Matrix>) -> Matrix {
        let (rows, columns) = (hypothesis.len(), reference.len() + 1);
        let mut table: Vec<Rc<Row>> = match like {
            Some(like) => {
                let same = hypothesis.iter().zip(&like.hypothesis).take_while(|(a, b)| a == b).count();
                like.rows[..=same].to_vec()
            }
            None => vec![Rc::new(Row { first: 0, cells: (0..columns).map(|j| (j, Operation::Insert)).collect() })],
        };
        let ratio = reference.len() as f64 / rows.max(1) as f64;
        let beam = match ratio / 2.0 {
            half if half > BEAM_WIDTH as f64 => (half + BEAM_WIDTH as f64).ceil() as usize,
            _ => BEAM_WIDTH,
        };
        for i in table.len()..=rows {
            let diagonal = (i as f64 * ratio).floor() as usize;
            let first = diagonal.saturating_sub(beam);
            let end = if i == rows { columns } else { columns.min(diagonal + beam) };
            let above = Rc::clone(&table[i - 1]);
            let mut row = Row { first, cells: Vec::with_capacity(end.saturating_sub(first)) };
            for j in first..end {
                let delete = (above.at(j).0 + 1, Operation::Delete);
                let cell = if j == 0 {
                    delete
                } else {
                    let kept = hypothesis[i - 1] == reference[j - 1];
                    let operation = if kept { Operation::Keep } else { Operation::Replace };
                    let diagonal = (above.at(j - 1).0 + usize::from(!kept), operation);
                    let insert = (row.at(j - 1).0 + 1, Operation::Insert);
                    // Of equal costs the first one counts.
                    let candidates = [diagonal, delete, insert];
                    candidates
                        .into_iter()
                        .fold((INFINITE, Operation::None), |best, next| if next.0 < best.0 { next } else { best })
                };
                row.cells.push(cell);
            }
            table.push(Rc::new(row));
        }
        Matrix { hypothesis, columns, rows: table }
    }

    /// The edit distance.
    fn cost(&self) -> usize {
        self.rows.last().map_or(INFINITE, |row| row.at(self.columns - 1).0)
    }

    fn alignment(&self) -> Alignment {
        let (mut i, mut j) = (self.rows.len() - 1, self.columns - 1);
        let mut alignment =
            Alignment { of_reference: vec![-1; j], reference_errors: vec![true; j], hypothesis_errors: vec![true; i] };
        while i > 0 || j > 0 {
            match self.rows[i].at(j).1 {
                operation @ (Operation::Keep | Operation::Replace) if i > 0 && j > 0 => {
                    (i, j) = (i - 1, j - 1);
                    alignment.of_reference[j] = i as isize;
                    let error = operation == Operation::Replace;
                    (alignment.reference_errors[j], alignment.hypothesis_errors[i]) = (error, error);
                }
                Operation::Insert if j > 0 => {
                    j -= 1;
                    alignment.of_reference[j] = i as isize - 1;
                }
                _ if i > 0 => i -= 1,
                _ => {
                    j -= 1;
                    alignment.of_reference[j] = i as isize - 1;
                }
            }
        }
        alignment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_moved() {
        let words = [0, 1, 2, 3, 4, 5];
        assert_eq!(moved(&words, 3, 2, 1), [0, 3, 4, 1, 2, 5]);
        assert_eq!(moved(&words, 1, 2, 5), [0, 3, 4, 1, 2, 5]);
        assert_eq!(moved(&words, 1, 2, 2), [0, 3, 1, 2, 4, 5]);
        assert_eq!(moved(&words, 4, 2, 6), words, "nothing is behind the last");
    }

    #[test]
    fn texts_without_words() {
        let ter = |hypothesis: &str, reference: &str| {
            corpus_ter(&[hypothesis], &[vec![reference]], &TerOptions::default()).unwrap().score
        };
        assert_eq!((ter("", ""), ter("a b", ""), ter("", "a b")), (0.0, 100.0, 100.0));
    }

    /// Memory and time grow with the length, not with its square.
    #[test]
    fn long_texts() {
        let text: String = (0..20_000).map(|n| format!("w{} ", n % 7919)).collect();
        let other = text.replace("w5 ", "x ");
        let ter = corpus_ter(&[&other], &[vec![&text]], &TerOptions::default()).unwrap();
        assert_eq!(ter.edits, 3);
    }
}
