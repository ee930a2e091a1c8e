//! Per-head products with untransposed weights (`heads_expand.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::bind;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::ops::linear::{direct_rows, direct_width};
use crate::ops::{MAX_GROUPS, expect, parts};
use crate::recorder::Recorder;
use crate::tensor::Tensor;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    end_row: u32,
    head_quads: u32,
    n_quads: u32,
    q_ld: u32,
    out_ld: u32,
}

/// EL-attention's `q' = q W_k` per head: `out[r, h * ld(D) + n] = sum_{k < dh4} q[r, h * dh4 + k] * w[h * dh4 + k, n]`.
/// `q`: `[rows or more, H * dh4]`; `w`: `W_k` as loaded, `[H * dh4, D]`; `out`: `[rows or more, H * ld(D)]`.
///
/// # Errors
/// Shapes that do not fit, or heads that are not whole quads.
pub fn heads_expand(
    rec: &mut Recorder,
    q: &Tensor,
    w: &Tensor,
    num_heads: usize,
    out: &Tensor,
    rows: usize,
) -> Result<()> {
    let op = "heads_expand";
    if num_heads == 0 || !w.rows.is_multiple_of(num_heads.saturating_mul(4)) || w.rows == 0 {
        return Err(TensorError::Shape {
            op,
            message: format!("w {} does not split into {num_heads} heads of whole quads", w.describe()),
        });
    }
    expect(op, "q", q, rows, w.rows)?;
    expect(op, "out", out, rows, num_heads * w.ld())?;
    let device = rec.device();
    let (tile, width) = (direct_rows(device.capabilities().software, rows), direct_width(w.quads()));
    let kernel = device
        .kernel(&KernelSpec::new("heads_expand").storage(device, w.dtype).set("TILE_M", tile).constant("WG", width))?;
    for (first, count) in parts(0, rows, MAX_GROUPS * tile as usize) {
        let params = Params {
            first_row: first as u32,
            end_row: (first + count) as u32,
            head_quads: (w.rows / num_heads / 4) as u32,
            n_quads: w.quads(),
            q_ld: q.quads(),
            out_ld: out.quads(),
        };
        let grid = [w.quads().div_ceil(width), (count as u32).div_ceil(tile), num_heads as u32];
        // SAFETY: `rows` rows of q and out and all of w were found to be there; lanes beyond the last quad or row do nothing.
        unsafe { rec.dispatch_trusted(&kernel, &bind![q, w, out], &params, grid)? };
    }
    Ok(())
}
