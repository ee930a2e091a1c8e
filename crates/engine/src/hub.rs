//! Models by their name on the Hugging Face hub.
//!
//! [`ModelName`] reads such a name. With the feature `hub`, `resolve_model` downloads what a model needs into the cache that
//! Python's `huggingface_hub` uses, and gives back its directory there.
//!
//! # Requests
//!
//! All are `GET`, with `Accept-Encoding: identity`. ENDPOINT is `https://huggingface.co` or `HubOptions::endpoint`.
//!
//! 1. `ENDPOINT/api/models/OWNER/NAME/revision/REVISION`: commit and names of the files.
//! 2. For each file that is needed, weights last, `ENDPOINT/OWNER/NAME/resolve/COMMIT/FILE` with `Range: bytes=0-0`: the answer says
//!    commit, etag and size. Where it redirects to another host and names the size (`X-Linked-Size`), that host is not asked.
//! 3. Unless the cache has that content, the same address with `Range: bytes=N-`, N being what has arrived so far.
//!
//! What the answer to 2 said decides about path, name, size and content. An answer to 3 that says something else is refused, no
//! more bytes than announced are read, and a content becomes part of the cache once its hash is right. Whatever becomes part of a path is
//! checked before: commits are 40 hexadecimal digits, etags are letters, digits, `-` and `_`, and of the files' names only known ones and those of
//! shards are used. Folders that are written to must lie in the cache, links followed.
//!
//! The token goes to the endpoint's own scheme, host and port. A request that was redirected elsewhere has none from there on, even if
//! that leads back. A redirect from `https` to `http` is refused, and so is the sixth. `HubLimits` holds the bounds in time and size.
//!
//! ```
//! use elgen_engine::hub::ModelName;
//! let name = ModelName::parse("facebook/bart-base@refs/pr/3").unwrap();
//! assert_eq!((name.id(), name.revision()), ("facebook/bart-base", Some("refs/pr/3")));
//! assert!(ModelName::parse("./models/bart").is_none());
//! ```

#[cfg(feature = "hub")]
mod address;
#[cfg(feature = "hub")]
mod answers;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod error;
#[cfg(feature = "hub")]
mod events;
#[cfg(feature = "hub")]
mod limits;
#[cfg(feature = "hub")]
mod resolve;
#[cfg(feature = "hub")]
mod snapshot;
#[cfg(feature = "hub")]
mod store;
#[cfg(feature = "hub")]
mod watch;

#[cfg(feature = "hub")]
pub use error::HubError;
#[cfg(feature = "hub")]
pub use events::HubEvent;
#[cfg(feature = "hub")]
pub use limits::HubLimits;
#[cfg(feature = "hub")]
pub use resolve::{HubOptions, fetch_model, resolve_model};

use std::fmt;

/// The name of a model on the hub: `owner/name`, or `owner/name@revision`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelName {
    id: String,
    revision: Option<String>,
}

impl ModelName {
    /// Reads a name; `None` if `text` is none, but a path or something else.
    pub fn parse(text: &str) -> Option<ModelName> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let (owner, name) = id.split_once('/')?;
        if !is_part(owner) || !is_part(name) || revision.is_some_and(|revision| !is_revision(revision)) {
            return None;
        }
        Some(ModelName { id: id.to_owned(), revision: revision.map(str::to_owned) })
    }

    /// The same model at another revision: a branch, a tag or a commit. `None` if this cannot be one.
    #[must_use]
    pub fn at(&self, revision: &str) -> Option<ModelName> {
        is_revision(revision).then(|| ModelName { id: self.id.clone(), revision: Some(revision.to_owned()) })
    }

    /// `owner/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The revision that the name asks for.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        self.revision.as_ref().map_or(Ok(()), |revision| write!(f, "@{revision}"))
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

fn is_part(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('.') && text.chars().all(is_plain)
}

/// Revisions become file names of the cache, so none may lead out of it.
fn is_revision(text: &str) -> bool {
    text.split('/').all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_paths() {
        for name in
            ["facebook/bart-base", "Helsinki-NLP/opus-mt-en-fr", "a/b.c", "a/b@main", "a/b@v1.0", "a/b@refs/pr/1"]
        {
            assert_eq!(ModelName::parse(name).map(|name| name.to_string()).as_deref(), Some(name));
        }
        for path in [
            "bart", "./a/b", "/a/b", "a/b/c", "../a", "a b/c", "a/", "/a", "", "/", "a/b@", "a/b@../c", "a/b@x//y",
            "a/b@/x", "a@b/c", "a/b@c@d", "é/b",
        ] {
            assert_eq!(ModelName::parse(path), None, "{path}");
        }
    }

    #[test]
    fn revisions_are_checked() {
        let name = ModelName::parse("a/b").unwrap();
        assert_eq!(name.revision(), None);
        assert_eq!(name.at("main").unwrap().to_string(), "a/b@main");
        assert_eq!(name.at("../../x"), None);
    }
}
