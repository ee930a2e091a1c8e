//! The include/ifdef expander.
//!
//! WGSL's `override` cannot change types or the number of registers in a tile, so those are symbols of this expander. It knows five
//! directives, each alone on a line: `#include NAME`, `#ifdef NAME`, `#ifndef NAME`, `#else`, `#endif`. Elsewhere, a symbol with a value is
//! replaced where it stands as a whole word behind `#`, as in `#TILE_M`. Nothing else is touched, so an expanded shader is still plain WGSL
//! that keeps its line structure.

use std::collections::BTreeMap;

use crate::sources::{INCLUDES, SHADERS};

/// The symbols that choose one permutation of a shader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbols {
    values: BTreeMap<String, String>,
}

impl Symbols {
    /// No symbols.
    pub fn new() -> Self {
        Self::default()
    }

    /// Defines a symbol without a value.
    pub fn define(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    /// Defines a symbol with a value, to be written `#NAME` in the source.
    pub fn set(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.values.insert(name.to_owned(), value.to_string());
        self
    }

    /// True if the symbol is defined.
    pub fn is_defined(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The symbols as `NAME` or `NAME=VALUE`, in order.
    pub fn describe(&self) -> String {
        let words: Vec<String> =
            self.values.iter().map(|(k, v)| if v.is_empty() { k.clone() } else { format!("{k}={v}") }).collect();
        words.join(" ")
    }
}

/// Why a shader could not be expanded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExpandError {
    /// There is no shader or include file of this name.
    #[error("shader {0:?} does not exist")]
    UnknownFile(String),
    /// A directive is unknown or stands without its partner.
    #[error("shader {file:?} line {line}: {message}")]
    Directive {
        /// File name without `.wgsl`.
        file: String,
        /// Line number from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// Expands shader `name` (file name without `.wgsl`) with the given symbols.
///
/// # Errors
/// An unknown file, an unbalanced or unknown directive, or a `#NAME` without a value.
pub fn expand(name: &str, symbols: &Symbols) -> Result<String, ExpandError> {
    let source = find(SHADERS, name).ok_or_else(|| ExpandError::UnknownFile(name.to_owned()))?;
    let mut out = String::with_capacity(source.len() * 2);
    expand_into(name, source, symbols, &mut out, 0)?;
    Ok(out)
}

/// Expands a text that is not one of [`SHADERS`]; it may include this crate's files. `name` stands in messages.
///
/// # Errors
/// As [`expand`].
pub fn expand_text(name: &str, text: &str, symbols: &Symbols) -> Result<String, ExpandError> {
    let mut out = String::with_capacity(text.len() * 2);
    expand_into(name, text, symbols, &mut out, 0)?;
    Ok(out)
}

fn find(files: &'static [(&'static str, &'static str)], name: &str) -> Option<&'static str> {
    files.iter().find(|(n, _)| *n == name).map(|(_, text)| *text)
}

fn expand_into(file: &str, source: &str, symbols: &Symbols, out: &mut String, depth: usize) -> Result<(), ExpandError> {
    let fail = |line: usize, message: String| ExpandError::Directive { file: file.to_owned(), line: line + 1, message };
    // One entry per open #ifdef: whether this branch is taken, given that all outer ones are.
    let mut open: Vec<bool> = Vec::new();
    for (number, line) in source.lines().enumerate() {
        let live = open.iter().all(|taken| *taken);
        let mut words = line.split_whitespace();
        match words.next() {
            Some("#ifdef" | "#ifndef") => {
                let symbol = words.next().ok_or_else(|| fail(number, "a condition needs a symbol".into()))?;
                open.push(symbols.is_defined(symbol) != line.trim_start().starts_with("#ifndef"));
            }
            Some("#else") => match open.last_mut() {
                Some(taken) => *taken = !*taken,
                None => return Err(fail(number, "#else without #ifdef".into())),
            },
            Some("#endif") => {
                open.pop().ok_or_else(|| fail(number, "#endif without #ifdef".into()))?;
            }
            Some("#include") if live => {
                let name = words.next().ok_or_else(|| fail(number, "#include needs a name".into()))?;
                let text = find(INCLUDES, name).ok_or_else(|| ExpandError::UnknownFile(name.to_owned()))?;
                if depth > 8 {
                    return Err(fail(number, "includes nest too deeply".into()));
                }
                expand_into(name, text, symbols, out, depth + 1)?;
            }
            Some("#include") => {}
            _ if live => {
                substitute(line, symbols, out).map_err(|message| fail(number, message))?;
                out.push('\n');
            }
            _ => {}
        }
    }
    if open.is_empty() { Ok(()) } else { Err(fail(source.lines().count(), "#ifdef without #endif".into())) }
}

fn substitute(line: &str, symbols: &Symbols, out: &mut String) -> Result<(), String> {
    let mut rest = line;
    while let Some(at) = rest.find('#') {
        // A comment may hold any text.
        if rest[..at].contains("//") {
            break;
        }
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        let end = tail.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(tail.len());
        let name = &tail[..end];
        match symbols.values.get(name) {
            Some(value) if !value.is_empty() => out.push_str(value),
            _ => return Err(format!("symbol #{name} has no value")),
        }
        rest = &tail[end..];
    }
    out.push_str(rest);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(source: &str, symbols: &Symbols) -> Result<String, ExpandError> {
        let mut out = String::new();
        expand_into("test", source, symbols, &mut out, 0).map(|()| out)
    }

    #[test]
    fn branches_values_and_comments() {
        let mut symbols = Symbols::new();
        symbols.define("A").set("N", 4);
        let text = "#ifdef A\nx#Ny // #keep\n#else\nno\n#endif\n#ifndef A\nno\n#endif\n#ifdef B\n#ifdef A\nno\n#endif\n#endif\n";
        assert_eq!(
            run(text, &symbols),
            Err(ExpandError::Directive { file: "test".into(), line: 2, message: "symbol #Ny has no value".into() })
        );
        let text = text.replace("x#Ny", "x[#N]");
        assert_eq!(run(&text, &symbols).as_deref(), Ok("x[4] // #keep\n"));
    }

    #[test]
    fn unbalanced_directives_are_errors() {
        for text in ["#endif", "#else", "#ifdef A", "#ifdef"] {
            assert!(matches!(run(text, &Symbols::new()), Err(ExpandError::Directive { .. })), "{text}");
        }
        assert_eq!(run("#include nothing", &Symbols::new()), Err(ExpandError::UnknownFile("nothing".into())));
        assert_eq!(expand("nothing", &Symbols::new()), Err(ExpandError::UnknownFile("nothing".into())));
    }
}
