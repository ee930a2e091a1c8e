//! Hooks that change nothing.

use elgen_engine::{LogitsProcessor, SequenceView, StopCriterion};

/// Looks on: no result changes, but the host takes part in each step.
#[derive(Debug)]
pub struct LookOn;

impl LogitsProcessor for LookOn {
    fn process(&self, _: &SequenceView<'_>, _: &mut [f32]) {}
}

impl StopCriterion for LookOn {
    fn should_stop(&self, _: &SequenceView<'_>) -> bool {
        false
    }
}
