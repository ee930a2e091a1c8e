//! What a decoding context counts while it runs.

use crate::batch::BatchStats;

/// Sums over the runs of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) inputs: u64,
    pub(crate) truncated: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) generated_tokens: u64,
    pub(crate) first_token_ms: Option<f64>,
    pub(crate) batch: BatchStats,
}
