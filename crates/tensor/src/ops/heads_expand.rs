//! Per-head products with untransposed weights (`heads_expand.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::bind;
use crate::error::Result;
use crate::kernel::KernelSpec;
use crate::matrix::Matrix;
use crate::ops::linear::{direct_rows, direct_width};
use crate::ops::{MAX_GROUPS, check_heads, expect, parts};
use crate::recorder::Recorder;
use crate::tensor::Tensor;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    end_row: u32,
    k_quads: u32,
    w_quads: u32,
    w_first: u32,
    q_first: u32,
    q_head: u32,
    q_ld: u32,
    out_ld: u32,
    out_first: u32,
    continued: u32,
}

/// EL-attention's `q' = q W_k` per head: `out[r, h * ld(D) + n] = sum_{k < dh4} q[r, h * dh4 + k] * w[h * dh4 + k, n]`.
/// `q`: `[rows or more, H * dh4]`; `w`: `W_k` as loaded, `[H * dh4, D]`; `out`: `[rows or more, H * ld(D)]`.
///
/// # Errors
/// Shapes that do not fit, or heads that are not whole quads.
pub fn heads_expand(
    rec: &mut Recorder,
    q: &Tensor,
    w: &Matrix,
    num_heads: usize,
    out: &Tensor,
    rows: usize,
) -> Result<()> {
    let op = "heads_expand";
    check_heads(op, w, num_heads)?;
    let w_quads = w.quads();
    expect(op, "q", q, rows, w.rows())?;
    expect(op, "out", out, rows, num_heads * 4 * w_quads as usize)?;
    let device = rec.device();
    let (tile, width) = (direct_rows(device.capabilities().software, rows), direct_width(w_quads));
    let spec = w.format().select(KernelSpec::new("heads_expand"), device).set("TILE_M", tile).constant("WG", width);
    let kernel = device.kernel(&spec)?;
    let head_quads = w.rows() / num_heads / 4;
    for part in w.head_runs(num_heads) {
        let buffers = bind![&part.window.buffer, q, out];
        for (first, count) in parts(0, rows, MAX_GROUPS * tile as usize) {
            let params = Params {
                first_row: first as u32,
                end_row: (first + count) as u32,
                k_quads: (part.rows / 4) as u32,
                w_quads,
                w_first: part.row as u32,
                q_first: (part.head * head_quads + part.from / 4) as u32,
                q_head: head_quads as u32,
                q_ld: q.quads(),
                out_ld: out.quads(),
                out_first: part.head as u32 * w_quads,
                // Windows come in the order of their rows: the sum over the head's earlier rows is there.
                continued: u32::from(part.from > 0),
            };
            let grid = [w_quads.div_ceil(width), (count as u32).div_ceil(tile), part.heads as u32];
            // SAFETY: `rows` rows of q and out were found to be there, and the part's rows lie in its window; lanes beyond the last quad or row do
            // nothing.
            unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, grid)? };
        }
    }
    Ok(())
}
