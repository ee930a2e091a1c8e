//! The tokenizer of mteval-v13a, as sacreBLEU writes it.

use crate::text;

/// The tokens of mteval-v13a: punctuation split off, but for dots and commas between digits and hyphens behind letters.
///
/// ```
/// use elgen_metrics::tokenizer_13a::tokens_13a;
/// assert_eq!(tokens_13a("It's 1,000.5 &quot;exactly&quot;."), ["It's", "1,000.5", "\"", "exactly", "\"", "."]);
/// ```
pub fn tokens_13a(line: &str) -> Vec<String> {
    let mut line = line.trim_end_matches(text::is_space).replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    for (entity, plain) in [("&quot;", "\""), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">")] {
        line = line.replace(entity, plain);
    }
    let mut spaced = Vec::with_capacity(line.len() * 2);
    for c in [' '].into_iter().chain(line.chars()).chain([' ']) {
        if is_symbol(c) {
            spaced.extend([' ', c, ' ']);
        } else {
            spaced.push(c);
        }
    }
    let spaced = rewrite_pairs(&spaced, |a, b| !a.is_ascii_digit() && is_point(b), |a, b| vec![a, ' ', b, ' ']);
    let spaced = rewrite_pairs(&spaced, |a, b| is_point(a) && !b.is_ascii_digit(), |a, b| vec![' ', a, ' ', b]);
    let spaced = rewrite_pairs(&spaced, |a, b| a.is_ascii_digit() && b == '-', |a, b| vec![a, ' ', b, ' ']);
    text::words(&spaced.into_iter().collect::<String>()).map(str::to_owned).collect()
}

fn is_symbol(c: char) -> bool {
    matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/')
}

fn is_point(c: char) -> bool {
    c == '.' || c == ','
}

/// Looks at pairs from left to right; a pair that has been rewritten is not looked at again.
fn rewrite_pairs(
    text: &[char],
    fits: impl Fn(char, char) -> bool,
    rewrite: impl Fn(char, char) -> Vec<char>,
) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len() * 2);
    let mut at = 0;
    while at < text.len() {
        match text.get(at + 1) {
            Some(next) if fits(text[at], *next) => {
                out.extend(rewrite(text[at], *next));
                at += 2;
            }
            _ => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}
