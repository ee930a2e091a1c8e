//! Stopping a run, or one of its requests, from elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A switch that stops a run, or a request, after its current step. Clones share it; it stays thrown.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A switch that is not thrown.
    pub fn new() -> Self {
        Self::default()
    }

    /// Throws it.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether it was thrown.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What ends a request before its time.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    cancel: CancelToken,
    deadline: Option<Instant>,
}

impl Stop {
    pub(crate) fn new(cancel: CancelToken, deadline: Option<Instant>) -> Self {
        Self { cancel, deadline }
    }

    /// Whether the request is to end.
    pub(crate) fn is_due(&self) -> bool {
        self.cancel.is_cancelled() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}
