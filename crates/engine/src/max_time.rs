//! Ending sequences after a time (`MaxTimeCriteria`).

use std::time::Instant;

use elgen_search::hooks::{SequenceView, StopCriterion};

/// Ends every sequence once `seconds` have passed since `start`.
#[derive(Debug)]
pub(crate) struct MaxTime {
    start: Instant,
    seconds: f64,
}

impl MaxTime {
    /// The clock starts now.
    pub(crate) fn starting_now(seconds: f64) -> Self {
        Self { start: Instant::now(), seconds }
    }
}

impl StopCriterion for MaxTime {
    fn should_stop(&self, _: &SequenceView<'_>) -> bool {
        self.start.elapsed().as_secs_f64() > self.seconds
    }
}
