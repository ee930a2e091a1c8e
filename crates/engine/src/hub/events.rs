//! What happens while a model is fetched.

use std::{path::Path, time::Duration};

use super::{HubError, ModelName};

/// A step of a download, for whoever shows it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum HubEvent<'a> {
    /// Files of a model are downloaded from here on.
    Begin {
        /// The model.
        model: &'a ModelName,
        /// Folder of the cache.
        cache: &'a Path,
    },
    /// A file begins, or goes on where an earlier run ended.
    File {
        /// Its name in the repository.
        name: &'a str,
        /// Bytes that are there already.
        bytes: u64,
        /// Bytes of the whole.
        size: u64,
    },
    /// More of it has arrived.
    Bytes {
        /// Its name in the repository.
        name: &'a str,
        /// Bytes that are there now; fewer than before if the file begins anew.
        bytes: u64,
        /// Bytes of the whole.
        size: u64,
    },
    /// An attempt failed and is made again after a pause.
    Retry {
        /// Why it failed.
        error: &'a HubError,
        /// The pause.
        pause: Duration,
    },
}
