//! The trace of a search: what each step appended to which row, from which the host rebuilds sequences.

use bytemuck::{Pod, Zeroable};

use crate::error::TwinError;

/// What one row did in one step: it took over the sequence of row `parent` of the step before and appended `token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TraceEntry {
    /// The token appended.
    pub token: u32,
    /// The row of the step before whose sequence was extended; read by no one at step 0.
    pub parent: u32,
}

/// The new tokens of the sequence that `row` holds behind `step`, oldest first. `trace` holds `rows_per_step` entries for
/// each step, steps in order.
///
/// # Errors
/// `step`, `row` or a parent on the way lies outside the trace.
pub fn backtrack(trace: &[TraceEntry], rows_per_step: usize, step: usize, row: usize) -> Result<Vec<u32>, TwinError> {
    let mut tokens = Vec::new();
    let mut at = row;
    for step in (0..=step).rev() {
        let index = step.checked_mul(rows_per_step).and_then(|start| start.checked_add(at));
        let entry = index.filter(|_| at < rows_per_step).and_then(|index| trace.get(index));
        let broken = TwinError::BrokenTrace { step, row: at, entries: trace.len(), rows_per_step };
        let entry = entry.ok_or(broken)?;
        tokens.push(entry.token);
        at = entry.parent as usize;
    }
    tokens.reverse();
    Ok(tokens)
}
