//! The tokenizer of mteval-v13a, as sacreBLEU writes it.

use crate::text;

/// The tokens of mteval-v13a: punctuation split off, but for dots and commas between digits and hyphens behind letters.
///
/// ```
/// use elgen_metrics::tokenizer_13a::tokens_13a;
/// assert_eq!(tokens_13a("It's 1,000.5 &quot;exactly&quot;."), ["It's", "1,000.5", "\"", "exactly", "\"", "."]);
/// ```
pub fn tokens_13a(line: &str) -> Vec<String> {
    text::words(&normalized(line)).map(str::to_owned).collect()
}

/// The line with spaces between its tokens.
pub(crate) fn normalized(line: &str) -> String {
    let mut line = line.trim_end_matches(text::is_space).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (entity, plain) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        line = line.replace(entity, plain);
    }
    let mut spaced = String::with_capacity(line.len() + line.len() / 4);
    for c in [' '].into_iter().chain(line.chars()).chain([' ']) {
        if is_symbol(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    drop(line);
    let spaced = rewrite_pairs(&spaced, |a, b| !a.is_ascii_digit() && is_point(b), |a, b| [a, ' ', b, ' ']);
    let spaced = rewrite_pairs(&spaced, |a, b| is_point(a) && !b.is_ascii_digit(), |a, b| [' ', a, ' ', b]);
    rewrite_pairs(&spaced, |a, b| a.is_ascii_digit() && b == '-', |a, b| [a, ' ', b, ' '])
}

fn is_symbol(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}

fn is_point(c: char) -> bool {
    c == '.' || c == ','
}

/// Looks at pairs from left to right; a pair that has been rewritten is not looked at again.
fn rewrite_pairs(text: &str, fits: impl Fn(char, char) -> bool, rewrite: impl Fn(char, char) -> [char; 4]) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match rest.next_if(|next| fits(c, *next)) {
            Some(next) => out.extend(rewrite(c, next)),
            None => out.push(c),
        }
    }
    out
}
