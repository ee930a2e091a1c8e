//! What white space is in Python, where the reference implementations live.

/// Unicode's white space and the four information separators, which Python splits at too.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// The words of a text, as Python's `str.split()` gives them.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_spaces() {
        assert_eq!(
            words(" a\u{1c}b\u{a0}c\u{85}\u{3000}d\u{200b}e ").collect::<Vec<_>>(),
            ["a", "b", "c", "d\u{200b}e"]
        );
    }
}
