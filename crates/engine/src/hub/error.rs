//! What keeps a model on the hub from being used.

use std::{io, path::PathBuf};

/// Why a name did not lead to a model directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither a directory nor a name.
    #[error("{name}: neither a directory nor a model's name on the hub, as `owner/name` or `owner/name@revision`")]
    Name {
        /// What was given.
        name: String,
    },
    /// Two revisions.
    #[error("{name}: the name has a revision already, and it is not `{revision}`")]
    TwoRevisions {
        /// What was given.
        name: String,
        /// The other revision.
        revision: String,
    },
    /// A revision that cannot be one.
    #[error("revision `{revision}`: not the name of a branch or tag, nor a commit")]
    Revision {
        /// What was given.
        revision: String,
    },
    /// No place for the cache.
    #[error("no home directory for the model cache; set HF_HOME or HF_HUB_CACHE")]
    NoHome,
    /// Not in the cache, and downloading is forbidden.
    #[error("{model}: offline, and the cache {} lacks its {missing}", .cache.display())]
    Offline {
        /// The model.
        model: String,
        /// The first file that is missing.
        missing: String,
        /// Folder of the cache.
        cache: PathBuf,
    },
    /// An address of the hub that cannot be one.
    #[error("HF_ENDPOINT: {}: not the address of a hub: {reason}", shown(.endpoint))]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A token that cannot be sent. It is not told.
    #[error(
        "the token (HF_TOKEN, or the stored one) is none: it has spaces, control characters or letters beyond ASCII"
    )]
    Token,
    /// Too slow, or silent.
    #[error("{model}: {what}: the hub at {host} does not answer: {reason}")]
    Silent {
        /// The model.
        model: String,
        /// What was asked for.
        what: String,
        /// Who does not answer: the hub, or where it redirects.
        host: String,
        /// What did not come, and in what time.
        reason: String,
    },
    /// No answer.
    #[error("{model}: the hub cannot be reached: {reason}")]
    Unreachable {
        /// The model.
        model: String,
        /// What the connection said.
        reason: String,
    },
    /// No such model.
    #[error("{model}: the hub has no such model")]
    NoModel {
        /// The model.
        model: String,
    },
    /// The model exists, the revision does not.
    #[error("{model}: the hub has this model, but no revision `{revision}` of it")]
    NoRevision {
        /// The model without its revision.
        model: String,
        /// The revision.
        revision: String,
    },
    /// 401 or 403.
    #[error("{model}: the hub denies access (status {status}): {hint}")]
    Denied {
        /// The model.
        model: String,
        /// The HTTP status.
        status: u16,
        /// What helps.
        hint: &'static str,
    },
    /// Any other HTTP status that is a failure.
    #[error("{model}: {what}: the hub answered with status {status}{note}")]
    Status {
        /// The model.
        model: String,
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// Who else answered, and how long it wants to be left alone; empty where there is nothing to say.
        note: String,
    },
    /// A file that is larger than one of its kind can be.
    #[error("{model}: {file}: the hub announces {size} bytes; such a file has {limit} at most")]
    TooLarge {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// What was announced.
        size: u64,
        /// What it may have.
        limit: u64,
    },
    /// The disk is too small for a file.
    #[error("{model}: {file}: {missing} more bytes do not fit into {}, where {free} are free", .path.display())]
    NoSpace {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// The cache.
        path: PathBuf,
        /// What is still to be downloaded.
        missing: u64,
        /// What is free.
        free: u64,
    },
    /// Part of the cache is a link to somewhere else, and is not written to.
    #[error("model cache: {}: it leads out of the cache {}", .path.display(), .cache.display())]
    Outside {
        /// The link.
        path: PathBuf,
        /// The cache.
        cache: PathBuf,
    },
    /// The repository is no model that can be loaded.
    #[error("{model}: {reason}")]
    Unusable {
        /// The model.
        model: String,
        /// What it lacks.
        reason: String,
    },
    /// An answer that makes no sense.
    #[error("{model}: {what}: unusable answer of the hub: {reason}")]
    Answer {
        /// The model.
        model: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A connection that broke again and again.
    #[error("{model}: {file}: the download broke off: {reason}")]
    Broken {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// What the connection said.
        reason: String,
    },
    /// Content that is not what the hub announced.
    #[error("{model}: {file}: the downloaded content is damaged: {reason}")]
    Damaged {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// How it differs.
        reason: String,
    },
    /// Another program is downloading the same file.
    #[error("{model}: {file}: another program is downloading it (lock file {})", .lock.display())]
    Busy {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// Its lock file.
        lock: PathBuf,
    },
    /// The cache cannot be read or written.
    #[error("model cache: {}", .path.display())]
    Cache {
        /// The place.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl HubError {
    /// Whether trying again may help.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            HubError::Unreachable { .. }
            | HubError::Silent { .. }
            | HubError::Broken { .. }
            | HubError::Damaged { .. } => true,
            HubError::Status { status, .. } => matches!(status, 408 | 429 | 500..),
            _ => false,
        }
    }
}

/// Text of another program, for a message: without control characters, and no longer than a line should be.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 200;
    let mut shown = String::new();
    for (index, c) in text.chars().enumerate() {
        if index == LONGEST {
            shown.push('…');
            break;
        }
        match c {
            '\'' | '"' => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_harmless_and_short() {
        assert_eq!(shown("a 'b' \"é\""), "a 'b' \"é\"");
        assert_eq!(shown("\u{1b}[31m\n\0\u{202e}"), "\\u{1b}[31m\\n\\0\\u{202e}");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), 201);
    }
}
