//! A bias for the rows that attend to anything (`value_bias.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::bind;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::ops::{MAX_GROUPS, parts};
use crate::recorder::Recorder;
use crate::table::{Range, TableRef};
use crate::tensor::{DType, Tensor};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    quads: u32,
}

/// `x[i] += bias` for the rows `i < rows` of `x` `[rows, n]` whose range `ranges[index[i]]` = (first, count) is not empty; `bias`:
/// `[1, n]`, both f32. This is b_v where a query row may be masked whole (docs/el-attention.md §1.3).
///
/// # Errors
/// Shapes that do not fit.
pub fn value_bias(
    rec: &mut Recorder,
    index: TableRef<'_, u32>,
    ranges: TableRef<'_, Range>,
    bias: &Tensor,
    x: &Tensor,
    rows: usize,
) -> Result<()> {
    let fits = (x.dtype, bias.dtype) == (DType::F32, DType::F32)
        && (bias.rows, bias.cols) == (1, x.cols)
        && rows <= x.rows
        && index.holds(0, rows, ranges.entries().len());
    if !fits {
        let message = format!(
            "{rows} rows of x {}, bias {}, {} row numbers",
            x.describe(),
            bias.describe(),
            index.entries().len()
        );
        return Err(TensorError::Shape { op: "value_bias", message });
    }
    let kernel = rec.device().clone().kernel(&KernelSpec::new("value_bias"))?;
    for (first, count) in parts(0, rows, MAX_GROUPS) {
        let params = Params { first_row: first as u32, quads: x.quads() };
        // SAFETY: rows and columns of x, the bias and the index were found to be there; the numbers in the index are those of `ranges`.
        unsafe { rec.dispatch_trusted(&kernel, &bind![index, ranges, bias, x], &params, [count as u32, 1, 1])? };
    }
    Ok(())
}
