//! Scores become log-probabilities again (`renormalize.wgsl`); twin: [`crate::twin::processors::renormalize`].

use std::sync::Arc;

use elgen_tensor::{Buffer, Device, Kernel, KernelSpec, Recorder, Rows, Tensor, bind};

use super::Result;
use super::warp::Params;

pub(super) fn kernel(device: &Device) -> Result<Arc<Kernel>> {
    Ok(device.kernel(&KernelSpec::new("renormalize").subgroup(device))?)
}

/// The log-softmax of each row of `scores` `[active rows, V]`, in place.
pub(super) fn renormalize(rec: &mut Recorder, rows: &Rows, open: &Buffer, scores: &Tensor) -> Result<()> {
    let kernel = kernel(rec.device())?;
    let params = Params { vocab: scores.cols as u32, quads: scores.quads() };
    let buffers = bind![rows.active(), rows.state(), open, scores];
    // SAFETY: the search checked that the scores have a row for each active row and that the rows are those of the batch.
    unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, [rows.count() as u32, 1, 1])? };
    Ok(())
}
