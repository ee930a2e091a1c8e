//! Moses' n-best lists: `number ||| text ||| score`.
//!
//! Moses writes feature values between text and score; elgen has none. An empty input gives empty texts of score 0, as
//! nothing was left to chance; a failed record gives empty lines, so that every record takes the same number of lines.

use super::{Outcome, escape};

/// Adds the lines of record `index`, `count` of them.
pub(super) fn lines(lines: &mut Vec<u8>, index: u64, count: usize, outcome: &Outcome) {
    let sequences = outcome.sequences();
    for place in 0..count {
        let found = match outcome {
            Outcome::Failed(_) => None,
            Outcome::Empty => Some(("", 0.0)),
            Outcome::Done(_) => sequences.get(place).map(|found| (found.text.as_deref().unwrap_or(""), found.score)),
        };
        if let Some((text, score)) = found {
            lines.extend(format!("{index} ||| ").bytes());
            escape(lines, text);
            lines.extend(format!(" ||| {score}").bytes());
        }
        lines.push(b'\n');
    }
}
