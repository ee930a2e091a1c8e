//! Texts as people read them.

/// Writes a text with its own line ends and tabs. Other control characters are written as escapes: what a model has read
/// somewhere must not steer the reader's terminal.
pub(crate) fn write_raw(bytes: &mut Vec<u8>, text: &str) {
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\t' => bytes.push(c as u8),
            // A line end of the other system is one line end.
            '\r' if rest.peek() == Some(&'\n') => {}
            c if c.is_control() => bytes.extend(c.escape_default().map(|c| c as u8)),
            c => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_line_ends_and_tabs_are_taken_as_they_are() {
        let raw = |text: &str| {
            let mut bytes = Vec::new();
            write_raw(&mut bytes, text);
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(raw("one\n\ntwo\r\nthree\tfour\\n"), "one\n\ntwo\nthree\tfour\\n");
        assert_eq!(raw("a\rb\u{1b}[2Jc\u{9b}d\u{7f}\0"), "a\\rb\\u{1b}[2Jc\\u{9b}d\\u{7f}\\u{0}");
        assert_eq!(raw("é…日"), "é…日");
    }
}
