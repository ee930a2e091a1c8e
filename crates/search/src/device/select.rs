//! Choosing a token without beams (`select.wgsl`); twins: [`crate::twin::processors::argmax`] and
//! [`crate::twin::random::draw`].

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Device, Kernel, KernelSpec, Recorder, Rows, Tensor, bind};

use super::{DeviceSearch, Result};
use crate::config::{GenerationConfig, Mode};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    vocab: u32,
    quads: u32,
    table: u32,
    trace_rows: u32,
}

pub(super) fn kernel(device: &Device, config: &GenerationConfig) -> Result<Arc<Kernel>> {
    let spec = KernelSpec::new("select").subgroup(device).constant("SAMPLE", u32::from(config.mode == Mode::Sample));
    Ok(device.kernel(&spec)?)
}

/// Appends a token to every active row that has not ended, in place: the tables keep their parity.
pub(super) fn select(rec: &mut Recorder, search: &DeviceSearch, rows: &Rows, logits: &Tensor) -> Result<()> {
    let kernel = kernel(rec.device(), &search.config)?;
    let params = Params {
        vocab: logits.cols as u32,
        quads: logits.quads(),
        table: rows.max_length() as u32,
        trace_rows: search.batch_rows() as u32,
    };
    let buffers = bind![
        rows.active(),
        rows.state(),
        &search.buffers.settings.buffer,
        logits,
        rows.tokens(),
        rows.slots(),
        &search.buffers.trace,
        &search.buffers.open,
    ];
    // SAFETY: the search checked that the logits have a row for each active row and that the rows are those of the batch, for whose
    // sizes the other buffers were allocated; a row that has reached its length appends nothing.
    unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, [rows.count() as u32, 1, 1])? };
    Ok(())
}
