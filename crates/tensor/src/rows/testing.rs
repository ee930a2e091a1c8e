//! Rows as an eviction policy will leave them, for tests of kernels.

use super::Rows;
use crate::device::Device;
use crate::error::{Result, TensorError};

impl Rows {
    /// The rows from 0 on attend to the first `live[row]` entries of their slot tables alone. Which rows are active, and all else, stays.
    ///
    /// # Errors
    /// More rows than there are places, more live keys than a row has positions; the device failed.
    pub fn set_live(&mut self, device: &Device, live: &[u32]) -> Result<()> {
        let mut states = self.read_states(device, live.len())?;
        // Slots are looked at up to a row's length.
        for (row, (state, live)) in states.iter_mut().zip(live).enumerate() {
            if *live > state.length {
                let message = format!("row {row} of {} positions cannot have {live} live keys", state.length);
                return Err(TensorError::Shape { op: "rows", message });
            }
            state.live = *live;
        }
        let (active, segments) = (std::mem::take(&mut self.active_rows), std::mem::take(&mut self.segments));
        let groups = std::mem::take(&mut self.row_groups);
        let _order = self.invalidate(device);
        device.write(&self.state, 0, bytemuck::cast_slice(&states))?;
        (self.active_rows, self.segments, self.row_groups) = (active, segments, groups);
        Ok(())
    }
}
