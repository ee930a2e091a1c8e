//! What answers say, taken at its word only where it can be true.

use serde::Deserialize;
use ureq::http::{HeaderMap, header};

use super::error::shown;

/// What is to be known of a file, all of it from one answer of the hub itself. Only the size of a file that lies at another host may
/// come from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileInfo {
    pub(super) etag: Etag,
    pub(super) size: u64,
}

/// The name of a content. It can be the name of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Etag(String);

/// What an etag says about a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HashKind {
    /// Of large files.
    Sha256,
    /// SHA-1 of git's object.
    GitBlob,
}

impl Etag {
    /// Reads `"…"` or `W/"…"` (some mirrors write `"W/…"`): letters, digits, `-` and `_`, 128 at most.
    pub(super) fn parse(text: &str) -> Result<Etag, String> {
        let plain = text.strip_prefix("W/").unwrap_or(text);
        let plain = plain.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(plain);
        let plain = plain.strip_prefix("W/").unwrap_or(plain);
        let is_good = plain.len() <= 128
            && plain.starts_with(|c: char| c.is_ascii_alphanumeric())
            && plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if is_good { Ok(Etag(plain.to_owned())) } else { Err(format!("etag `{}`", shown(text))) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The hub's etags are hashes; those of mirrors may be anything.
    pub(super) fn hash(&self) -> Option<HashKind> {
        match self.0.len() {
            _ if !self.0.bytes().all(|byte| byte.is_ascii_hexdigit()) => None,
            64 => Some(HashKind::Sha256),
            40 => Some(HashKind::GitBlob),
            _ => None,
        }
    }
}

/// Whether this is a commit, in full.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The one value of a header; an error if there are several, or if it is no plain text.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, String> {
    let mut found = None;
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| format!("{name} is not ASCII"))?.trim();
        if found.is_some_and(|other| other != text) {
            return Err(format!("two values of {name}"));
        }
        found = Some(text);
    }
    Ok(found)
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// A header that is a number.
pub(super) fn number_header(headers: &HeaderMap, name: &str) -> Result<Option<u64>, String> {
    let Some(text) = header(headers, name)? else { return Ok(None) };
    number(text).map(Some).ok_or_else(|| format!("{name} `{}`", shown(text)))
}

/// Which bytes of how many an answer holds, by its `Content-Range`: first and last, if any, and all.
pub(super) type Range = (Option<(u64, u64)>, Option<u64>);

/// Reads `Content-Range`.
pub(super) fn content_range(headers: &HeaderMap) -> Result<Option<Range>, String> {
    let Some(text) = header(headers, "content-range")? else { return Ok(None) };
    let read = || {
        let (part, size) = text.strip_prefix("bytes ")?.split_once('/')?;
        let size = if size == "*" { None } else { Some(number(size)?) };
        let part = if part == "*" {
            None
        } else {
            let (first, last) = part.split_once('-')?;
            Some((number(first)?, number(last)?))
        };
        let is_sound = part.is_none_or(|(first, last)| first <= last && size.is_none_or(|size| last < size));
        is_sound.then_some((part, size))
    };
    read().map(Some).ok_or_else(|| format!("content-range `{}`", shown(text)))
}

/// Refuses packed bodies: none was asked for, and what they hold is not what was announced.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), String> {
    match header(headers, "content-encoding")? {
        None | Some("" | "identity") => Ok(()),
        Some(other) => Err(format!("content-encoding `{}`, which was not asked for", shown(other))),
    }
}

/// Etag and commit, if the answer names them. `X-Linked-Etag` is that of the content behind a redirect.
pub(super) fn etag(headers: &HeaderMap) -> Result<Option<Etag>, String> {
    let text = match header(headers, "x-linked-etag")? {
        Some(text) => Some(text),
        None => header(headers, header::ETAG.as_str())?,
    };
    text.map(Etag::parse).transpose()
}

/// Fails if the answer names another commit.
pub(super) fn check_commit(headers: &HeaderMap, wanted: &str) -> Result<bool, String> {
    match header(headers, "x-repo-commit")? {
        Some(commit) if commit == wanted => Ok(true),
        Some(other) => Err(format!("commit `{}` instead of {wanted}", shown(other))),
        None => Ok(false),
    }
}

/// The size of a whole file by an answer to a request for its first byte.
pub(super) fn whole_size(status: u16, headers: &HeaderMap) -> Result<Option<u64>, String> {
    let linked = number_header(headers, "x-linked-size")?;
    let said = match (status, content_range(headers)?) {
        (206, Some((Some((0, _)), size))) => size,
        (206, _) => return Err("part of a file, but not the part that was asked for".to_owned()),
        // There is no first byte.
        (416, Some((None, Some(0)))) => Some(0),
        (200, None) => number_header(headers, header::CONTENT_LENGTH.as_str())?,
        (200, Some(_)) => return Err("a whole file, and a part of it".to_owned()),
        _ => None,
    };
    match (linked, said) {
        (Some(linked), Some(said)) if linked != said => Err(format!("{linked} and {said} bytes")),
        (linked, said) => Ok(linked.or(said)),
    }
}

/// A list of files.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

impl Listing {
    /// Reads the hub's JSON.
    pub(super) fn parse(text: &[u8]) -> Result<Listing, String> {
        #[derive(Deserialize)]
        struct Info {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let info: Info = serde_json::from_slice(text).map_err(|error| shown(&error.to_string()))?;
        if !is_commit(&info.sha) {
            return Err(format!("`{}` is no commit", shown(&info.sha)));
        }
        Ok(Listing { commit: info.sha, files: info.siblings.into_iter().map(|file| file.rfilename).collect() })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|file| file == name)
    }
}

#[cfg(test)]
mod tests {
    use ureq::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |&(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn etags_can_be_file_names() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        for (text, plain) in [
            (format!("\"{hash}\""), hash),
            (format!("W/\"{hash}\""), hash),
            (hash.to_owned(), hash),
            ("\"0af5-18c\"".to_owned(), "0af5-18c"),
            ("\"W/0af5-18c\"".to_owned(), "0af5-18c"),
        ] {
            assert_eq!(Etag::parse(&text).unwrap().as_str(), plain);
        }
        assert_eq!(Etag::parse(hash).unwrap().hash(), Some(HashKind::GitBlob));
        assert_eq!(Etag::parse(&"aF".repeat(32)).unwrap().hash(), Some(HashKind::Sha256));
        assert_eq!(Etag::parse(&"ag".repeat(32)).unwrap().hash(), None);
        for text in [
            "",
            "\"\"",
            "\"",
            "..",
            "\"..\"",
            ".",
            "a/b",
            "/etc/passwd",
            "../x",
            "a\\b",
            "a.b",
            "a b",
            "a\tb",
            "-rf",
            "_",
            "W/",
            "\"a\"b\"",
            "a\"",
            "C:",
            "é",
            "*",
            "~",
            "$HOME",
            "a\u{7f}",
        ] {
            assert!(Etag::parse(text).is_err(), "{text:?}");
        }
        assert!(Etag::parse(&"a".repeat(129)).is_err());
    }

    #[test]
    fn sizes_come_from_sound_answers_only() {
        let size = |status, pairs: &[(&str, &str)]| whole_size(status, &headers(pairs));
        assert_eq!(size(206, &[("content-range", "bytes 0-0/813")]), Ok(Some(813)));
        assert_eq!(size(200, &[("content-length", "813")]), Ok(Some(813)));
        assert_eq!(size(416, &[("content-range", "bytes */0")]), Ok(Some(0)));
        assert_eq!(size(302, &[("x-linked-size", "9"), ("content-length", "0")]), Ok(Some(9)));
        for (status, pairs) in [
            (206, &[("content-range", "bytes 0-0/*")][..]),
            (200, &[]),
            (302, &[("content-length", "0")]),
            (416, &[("content-range", "bytes */5")]),
        ] {
            assert_eq!(size(status, pairs), Ok(None), "{status} {pairs:?}");
        }
        for (status, pairs) in [
            (206, &[][..]),
            (206, &[("content-range", "bytes 1-1/813")]),
            (206, &[("content-range", "bytes 0-813/813")]),
            (206, &[("content-range", "bytes 0-0/-813")]),
            (206, &[("content-range", "bytes 0-0/+813")]),
            (206, &[("content-range", "bytes 0-0/18446744073709551616")]),
            (206, &[("content-range", "0-0/813")]),
            (206, &[("content-range", "bytes 0-0/813"), ("content-range", "bytes 0-0/814")]),
            (206, &[("content-range", "bytes 0-0/813"), ("x-linked-size", "814")]),
            (200, &[("content-length", "+813")]),
            (200, &[("content-length", "8"), ("content-range", "bytes 0-7/8")]),
            (302, &[("x-linked-size", "1e9")]),
        ] {
            assert!(size(status, pairs).is_err(), "{status} {pairs:?}");
        }
    }

    #[test]
    fn headers_that_contradict_each_other_say_nothing() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(check_commit(&headers(&[("x-repo-commit", commit)]), commit), Ok(true));
        assert_eq!(check_commit(&headers(&[]), commit), Ok(false));
        assert!(check_commit(&headers(&[("x-repo-commit", "../..")]), commit).is_err());
        assert!(check_commit(&headers(&[("x-repo-commit", commit), ("x-repo-commit", "main")]), commit).is_err());
        assert!(etag(&headers(&[("etag", "a"), ("etag", "b")])).is_err());
        assert_eq!(etag(&headers(&[("etag", "a"), ("x-linked-etag", "b")])).unwrap().unwrap().as_str(), "b");
        assert!(check_encoding(&headers(&[("content-encoding", "identity")])).is_ok());
        for packed in ["gzip", "br", "identity, gzip", "GZIP"] {
            assert!(check_encoding(&headers(&[("content-encoding", packed)])).is_err());
        }
    }

    #[test]
    fn lists_name_a_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let text = format!(r#"{{"sha":"{commit}","more":[{{}}],"siblings":[{{"rfilename":"../x","size":1}}]}}"#);
        let listing = Listing::parse(text.as_bytes()).unwrap();
        assert!(listing.commit == commit && listing.has("../x") && !listing.has("x"));
        for bad in [
            "",
            "[]",
            "{",
            "null",
            r#"{"sha":"main","siblings":[]}"#,
            r#"{"sha":"../../../../../../../../../../../../../..x","siblings":[]}"#,
            r#"{"siblings":[]}"#,
            &format!(r#"{{"sha":"{commit}"}}"#),
            &format!(r#"{{"sha":"{commit}","siblings":[{{"rfilename":1}}]}}"#),
            &format!(r#"{{"sha":"{commit}","sha":"{commit}","siblings":[]}}"#),
            &"[".repeat(100_000),
        ] {
            assert!(Listing::parse(bad.as_bytes()).is_err(), "{bad:.100}");
        }
        let noisy = format!(r#"{{"sha":"\u001b[31m{}","siblings":[]}}"#, "x".repeat(10_000));
        let reason = Listing::parse(noisy.as_bytes()).unwrap_err();
        assert!(!reason.contains('\u{1b}') && reason.len() < 300, "{reason}");
    }
}
