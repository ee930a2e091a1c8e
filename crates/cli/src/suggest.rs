//! What a name that is not there was probably meant to be.

/// ` (did you mean NAME?)` where a known name is near to the one that was typed, else nothing.
pub(crate) fn did_you_mean<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(typed, known).map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

/// The known name that differs by the fewest edits, where no more than a third of the letters are wrong.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Beyond any name; the table has a cell for every pair of characters.
    const LONGEST: usize = 64;
    if typed.chars().count() > LONGEST {
        return None;
    }
    let found = known
        .into_iter()
        .filter(|name| *name != typed)
        .map(|name| (edits(typed, name), name))
        .min_by_key(|(edits, _)| *edits);
    let allowed = (typed.chars().count() / 3).max(1);
    found.filter(|(edits, _)| *edits <= allowed).map(|(_, name)| name)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_far_apart_as_their_edits() {
        for (a, b, expected) in
            [("", "", 0), ("", "ab", 2), ("num_beam", "num_beams", 1), ("tpo_k", "top_k", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!((edits(a, b), edits(b, a)), (expected, expected), "{a} {b}");
        }
    }

    #[test]
    fn only_near_names_are_offered() {
        let known = ["num_beams", "top_k", "bart-base", "bart-large"];
        assert_eq!(nearest("num_beam", known), Some("num_beams"));
        assert_eq!(nearest("bart-bse", known), Some("bart-base"));
        assert_eq!(nearest("Bart-Large", known), Some("bart-large"));
        assert_eq!(nearest("flags", known), None);
        assert_eq!(nearest("", known), None);
        assert_eq!(nearest("top_k", known), None, "what is there needs no other");
        assert_eq!(nearest(&"num_beams".repeat(1000), known), None);
        assert_eq!(did_you_mean("tpo_k", known), " (did you mean top_k?)");
        assert_eq!(did_you_mean("x", known), "");
    }
}
