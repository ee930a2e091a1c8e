//! Multiply-adds without memory, to measure the arithmetic rate (`fma.wgsl`).

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
    rounds: u32,
    factor: f32,
    offset: f32,
}

/// Invocations of a workgroup.
const WORKGROUP: u32 = 256;

/// f32 multiply-adds that [`fma_rounds`] makes per element of its result and round.
pub const FMA_CHAINS: u64 = 4;

/// Each invocation `i` of each workgroup starts 16 chains `x = i, i + 1 … i + 15`, repeats `x = x * factor + offset` `rounds` times, and
/// writes a quad: column `c` is the sum of the chains `c`, `c + 4`, `c + 8` and `c + 12`. `results`: `[groups, 1024]` f32, 4 columns per
/// invocation.
///
/// # Errors
/// Shapes that do not fit.
pub fn fma_rounds(rec: &mut Recorder, results: &Tensor, rounds: u32, factor: f32, offset: f32) -> Result<()> {
    let lanes = 4 * WORKGROUP as usize;
    if (results.cols, results.dtype) != (lanes, DType::F32) || results.rows > MAX_GROUPS {
        let message = format!("results are {}, not [groups, {lanes}] f32", results.describe());
        return Err(TensorError::Shape { op: "fma", message });
    }
    let kernel = rec.device().kernel(&KernelSpec::new("fma").constant("WG", WORKGROUP))?;
    let params = Params { rounds, factor, offset };
    // SAFETY: a workgroup writes its own row of `results`, which has as many columns as the workgroup has lanes times 4.
    unsafe { rec.dispatch_trusted(&kernel, &bind![results], &params, [results.rows as u32, 1, 1]) }
}
