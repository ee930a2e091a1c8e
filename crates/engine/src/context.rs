//! What a session has of its own: a decoding context on a model's weights.

use elgen_models::Runner;
use elgen_search::GenerationConfig;

use crate::batch::BatchState;
use crate::totals::Totals;

/// Caches, working tensors, counters, and what was told and learned so far.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) runner: Runner,
    pub(crate) state: Option<BatchState>,
    /// Sentences together that went well after memory had run out, and the options of that run.
    pub(crate) proven: Option<(GenerationConfig, usize)>,
    /// The same of targets that are scored.
    pub(crate) proven_targets: Option<usize>,
    /// The same of inputs that are encoded.
    pub(crate) proven_inputs: Option<usize>,
    pub(crate) told_cut: bool,
    /// Whether it was told that cooperative matrices are not used.
    pub(crate) told_fault: bool,
    /// Whether it was told that there is a tokenizer that cannot be used.
    pub(crate) told_tokenizer: bool,
    pub(crate) totals: Totals,
}

impl Context {
    pub(crate) fn new(runner: Runner) -> Self {
        Self {
            runner,
            state: None,
            proven: None,
            proven_targets: None,
            proven_inputs: None,
            told_cut: false,
            told_fault: false,
            told_tokenizer: false,
            totals: Totals::default(),
        }
    }

    /// Gives back what batches use and keep.
    pub(crate) fn let_go(&mut self) {
        self.state = None;
        self.runner.clear();
    }
}
