//! How a whole text is scored by a decoder-only model: what its first token follows, and windows over a long one.

/// How to score a whole text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WholeText {
    /// The first token is given, not scored, even where the model has a begin-of-sequence token. Otherwise that token is put
    /// in front, unless the tokenizer did so.
    pub first_given: bool,
    /// The windows; `None`: the text is scored in one piece and has to fit the model's positions.
    pub windows: Option<TextWindows>,
}

/// Sliding windows, as in Hugging Face's recipe for the perplexity of models with a fixed length: a window begins every
/// `stride` tokens and holds `max_length`; of its tokens those that no earlier window scored are scored, the others are
/// context. The first token of a window is never scored in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextWindows {
    /// Tokens of a window; `None`, or more than the model has positions: as many as it has positions.
    pub max_length: Option<usize>,
    /// Tokens from one window to the next; `None`: half a window. More than a window is a window.
    pub stride: Option<usize>,
}

/// Tokens `begin..from` are context, `from..end` are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) begin: usize,
    pub(super) from: usize,
    pub(super) end: usize,
}

impl WholeText {
    /// The ids with what the first one follows.
    pub(super) fn with_start(&self, mut ids: Vec<u32>, bos: Option<u32>) -> Vec<u32> {
        match bos {
            Some(bos) if !self.first_given && ids.first() != Some(&bos) && !ids.is_empty() => ids.insert(0, bos),
            _ => {}
        }
        ids
    }

    /// The windows over `tokens` ids; none if there is nothing to score.
    pub(super) fn windows(&self, tokens: usize, positions: Option<usize>) -> Vec<Window> {
        let Some(windows) = &self.windows else {
            return if tokens < 2 { Vec::new() } else { vec![Window { begin: 0, from: 1, end: tokens }] };
        };
        let positions = positions.unwrap_or(usize::MAX);
        let length = windows.max_length.unwrap_or(positions).min(positions).max(2);
        let stride = windows.stride.unwrap_or(length / 2).clamp(1, length);
        let mut found = Vec::new();
        let (mut begin, mut scored) = (0_usize, 0);
        while scored < tokens {
            let end = tokens.min(begin.saturating_add(length));
            let from = scored.max(begin.saturating_add(1));
            if from < end {
                found.push(Window { begin, from, end });
            }
            scored = end;
            begin = begin.saturating_add(stride);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(tokens: usize, max_length: usize, stride: usize) -> Vec<(usize, usize, usize)> {
        let windows = Some(TextWindows { max_length: Some(max_length), stride: Some(stride) });
        let whole = WholeText { windows, ..WholeText::default() };
        whole.windows(tokens, Some(8)).iter().map(|w| (w.begin, w.from, w.end)).collect()
    }

    #[test]
    fn windows_score_each_token_once() {
        assert_eq!(windows(10, 4, 2), [(0, 1, 4), (2, 4, 6), (4, 6, 8), (6, 8, 10)]);
        assert_eq!(windows(7, 4, 3), [(0, 1, 4), (3, 4, 7)]);
        // Without overlap the first token of each window has no context: Hugging Face's recipe does not score it either.
        assert_eq!(windows(10, 4, 4), [(0, 1, 4), (4, 5, 8), (8, 9, 10)]);
        assert_eq!(windows(9, 4, 4), [(0, 1, 4), (4, 5, 8)]);
        assert_eq!(windows(3, 4, 1), [(0, 1, 3)]);
        assert_eq!(windows(10, 99, 99), [(0, 1, 8), (8, 9, 10)], "no window exceeds the positions");
        assert_eq!(windows(0, 4, 2), []);
        assert_eq!(windows(1, 4, 2), []);
        let half = WholeText { windows: Some(TextWindows { max_length: None, stride: None }), ..WholeText::default() };
        assert_eq!(half.windows(12, Some(8)).iter().map(|w| w.begin).collect::<Vec<_>>(), [0, 4]);
    }

    #[test]
    fn the_first_token_follows_bos_or_is_given() {
        let whole = WholeText::default();
        assert_eq!(whole.with_start(vec![5, 6], Some(1)), [1, 5, 6]);
        assert_eq!(whole.with_start(vec![1, 6], Some(1)), [1, 6], "not doubled");
        assert_eq!(whole.with_start(vec![5, 6], None), [5, 6]);
        assert!(whole.with_start(Vec::new(), Some(1)).is_empty(), "an empty text has nothing to score");
        let given = WholeText { first_given: true, ..WholeText::default() };
        assert_eq!(given.with_start(vec![5, 6], Some(1)), [5, 6]);
        assert_eq!(whole.windows(3, Some(2)), [Window { begin: 0, from: 1, end: 3 }]);
        assert!(whole.windows(1, None).is_empty());
    }
}
