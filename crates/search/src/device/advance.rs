//! Taking over the parents' prefixes (`advance.wgsl`).

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Device, Kernel, KernelSpec, Recorder, Rows, bind};

use super::{BeamState, Result};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    table: u32,
}

pub(super) fn kernel(device: &Device) -> Result<Arc<Kernel>> {
    Ok(device.kernel(&KernelSpec::new("advance"))?)
}

/// Writes the other parity of the token and slot tables; the caller flips them.
pub(super) fn advance(rec: &mut Recorder, beams: &BeamState, rows: &Rows) -> Result<()> {
    let kernel = kernel(rec.device())?;
    let (next_tokens, next_slots) = rows.next_tables();
    let buffers =
        bind![rows.active(), rows.state(), &beams.running, rows.tokens(), rows.slots(), next_tokens, next_slots];
    let params = Params { table: rows.max_length() as u32 };
    // SAFETY: the rows are those of the batch, for which `running` has an entry each; lengths stay below the width of the tables.
    unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, [rows.count() as u32, 1, 1])? };
    Ok(())
}
