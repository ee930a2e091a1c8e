//! Ending sequences after a time (`MaxTimeCriteria`).

use std::time::{Duration, Instant};

use elgen_search::hooks::{SequenceView, StopCriterion};

/// Ends every sequence once `limit` has passed since `start`.
#[derive(Debug)]
pub(crate) struct MaxTime {
    start: Instant,
    limit: Duration,
}

impl MaxTime {
    /// The clock starts now.
    pub(crate) fn starting_now(limit: Duration) -> Self {
        Self { start: Instant::now(), limit }
    }
}

impl StopCriterion for MaxTime {
    fn should_stop(&self, _: &SequenceView<'_>) -> bool {
        self.start.elapsed() > self.limit
    }
}
