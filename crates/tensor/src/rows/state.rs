//! The state of one physical row, as the device has it.

use bytemuck::{Pod, Zeroable};

use crate::error::{Result, TensorError};

/// One physical row; mirrors `shaders/wgsl/include/rows.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RowState {
    /// Index into the per-sentence tables.
    pub sentence: u32,
    /// Index of this row within its sentence.
    pub beam: u32,
    /// Rows of the sentence.
    pub width: u32,
    /// Ids in `tokens[row]`; the one at `length - 1` is fed next.
    pub length: u32,
    /// Keys that the row attends to in the step that feeds its last id, that id's own included; the first `live` entries of its slot table are
    /// theirs. `length`, as long as no cached vector of a row is dropped.
    pub live: u32,
    /// Ids of the decoder prompt.
    pub prompt_len: u32,
    /// Slot of prompt position 0 in the sentence's slab.
    pub prompt_base: u32,
    /// Slot of this row's first generated position.
    pub gen_base: u32,
    /// 1 if this row writes the prompt's slots.
    pub owns_prompt: u32,
    /// Positions that slots were reserved for; 0: any. The last id of a row is never fed, so it has none.
    pub limit: u32,
}

impl RowState {
    /// The row with `length` ids, all of which it attends to.
    #[must_use]
    pub fn with_length(self, length: u32) -> Self {
        Self { length, live: length, ..self }
    }

    /// Refuses rows that attend to fewer keys than they have positions, or to more.
    ///
    /// # Errors
    /// There is one.
    pub(super) fn check_whole<'a>(states: impl IntoIterator<Item = &'a Self>) -> Result<()> {
        match states.into_iter().enumerate().find(|(_, state)| state.live != state.length) {
            Some((row, Self { live, length, .. })) => {
                let message = format!(
                    "row {row} has {live} live keys of {length} positions; only whole histories are supported yet"
                );
                Err(TensorError::Shape { op: "rows", message })
            }
            None => Ok(()),
        }
    }

    /// The slot of a position that this row itself writes, or its last one for positions behind its limit. Positions and slots that no table
    /// has wrap around.
    pub fn own_slot(&self, position: u32) -> u32 {
        let position = position.min(self.limit.wrapping_sub(1));
        if position < self.prompt_len {
            self.prompt_base.wrapping_add(position)
        } else {
            self.gen_base.wrapping_add((position - self.prompt_len).wrapping_mul(self.width))
        }
    }

    /// One more than the largest slot that it writes at positions below `length`.
    pub(super) fn slot_end(&self, length: u32) -> u64 {
        let length = if self.limit > 0 { length.min(self.limit) } else { length };
        let within = |first: u32, steps: u32, by: u32| u64::from(first) + u64::from(steps) * u64::from(by) + 1;
        let prompt = length.min(self.prompt_len).checked_sub(1).map_or(0, |last| within(self.prompt_base, last, 1));
        let behind = length.checked_sub(self.prompt_len).and_then(|n| n.checked_sub(1));
        prompt.max(behind.map_or(0, |steps| within(self.gen_base, steps, self.width)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_has_got_all_its_ids_keeps_off_its_neighbours_slots() {
        let row = RowState { width: 2, prompt_len: 3, prompt_base: 10, gen_base: 13, ..RowState::default() };
        assert_eq!([0, 2, 3, 4, 5].map(|position| row.own_slot(position)), [10, 12, 13, 15, 17]);
        assert_eq!([0, 1, 3, 4, 6].map(|length| row.slot_end(length)), [0, 11, 13, 14, 18]);
        let row = RowState { limit: 4, ..row };
        assert_eq!([2, 3, 4, u32::MAX].map(|position| row.own_slot(position)), [12, 13, 13, 13]);
        assert_eq!([3, 4, 5, u32::MAX].map(|length| row.slot_end(length)), [13, 14, 14, 14]);
        let row = RowState { limit: 1, ..row };
        assert_eq!((row.own_slot(7), row.slot_end(7)), (10, 11));
    }
}
