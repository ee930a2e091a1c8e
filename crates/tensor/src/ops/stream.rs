//! Reading memory once, to measure its bandwidth (`stream.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::bind;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::ops::MAX_GROUPS;
use crate::recorder::Recorder;
use crate::tensor::{DType, Tensor};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    quads: u32,
    per_group: u32,
}

/// Invocations of a workgroup.
const WORKGROUP: u32 = 256;

/// Reads all of `x` (f32, its pad columns too) with one workgroup per row of `sums`, `[groups, 1024]` f32: with its quads cut into `groups`
/// runs of `ceil(quads / groups)`, `sums[g][4 l + c]` is the sum of column `c` of every 256th quad of run `g` from its `l`-th on.
///
/// # Errors
/// Shapes that do not fit.
pub fn stream(rec: &mut Recorder, x: &Tensor, sums: &Tensor) -> Result<()> {
    let quads = x.rows as u64 * u64::from(x.quads());
    let lanes = 4 * WORKGROUP as usize;
    if x.dtype != DType::F32
        || (sums.cols, sums.dtype) != (lanes, DType::F32)
        || !(1..=MAX_GROUPS).contains(&sums.rows)
        || quads > u64::from(u32::MAX / 2)
    {
        let message = format!("x {} into sums {}, which is not [groups, {lanes}] f32", x.describe(), sums.describe());
        return Err(TensorError::Shape { op: "stream", message });
    }
    let kernel = rec.device().kernel(&KernelSpec::new("stream").constant("WG", WORKGROUP))?;
    let groups = sums.rows as u32;
    let params = Params { quads: quads as u32, per_group: (quads as u32).div_ceil(groups) };
    // SAFETY: the runs of quads end with `params.quads`, all of `x`; a workgroup writes its own row of `sums`, 4 columns a lane.
    unsafe { rec.dispatch_trusted(&kernel, &bind![x, sums], &params, [groups, 1, 1]) }
}
