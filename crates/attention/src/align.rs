//! Dispatching `align.wgsl`: attention probabilities averaged over heads, and log-sum-exp.

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Bindings, DType, KernelSpec, Range, Recorder, TableRef, Tensor, TensorError, bind};

use crate::MAX_GROUPS;
use crate::shape::Shape;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    heads: u32,
    width: u32,
    key_ld: u32,
    head_stride: u32,
    k_first: u32,
    q_ld: u32,
    q_first: u32,
    out_ld: u32,
    lse_ld: u32,
    scale: f32,
}

/// Receives the attention probabilities of query rows: f32, row `i` belongs to query row `i`.
#[derive(Clone, Copy, Debug)]
pub struct Probabilities<'a> {
    /// `[rows, longest key range]`: the mean over heads of each key's probability, zeros behind a row's own keys.
    pub mean: &'a Tensor,
    /// `[rows, num_heads]`: log-sum-exp of each head's scaled scores, as the block computes them: a block that leaves out the bias of
    /// keys, which adds one number to all scores of a row and head, leaves it out here. The lowest f32 for a row without keys.
    pub log_sum_exp: Option<&'a Tensor>,
}

/// Probabilities of query rows over keys in ranges. `q` `[rows, _]` f32, `k` `[slots, _]` f32 or f16.
#[derive(Clone, Copy, Debug)]
pub struct Align<'a> {
    /// Head count, widths and scale.
    pub shape: Shape,
    /// True for EL: heads share `k` and are `d_model` wide.
    pub shared: bool,
    /// Queries, and the column where they begin.
    pub q: (&'a Tensor, usize),
    /// Keys, and the column where they begin.
    pub k: (&'a Tensor, usize),
    /// First query row.
    pub first: u32,
    /// Number of query rows.
    pub count: u32,
}

/// Records `mean[i, s] = 1/H sum_h softmax_s(scale * q[i, h] K_h^T)` over the keys `ranges[index[i]]` = (first slot, count), as u32
/// pairs (docs/el-attention.md §1.2 and 1.3).
///
/// # Errors
/// Shapes that do not fit; ranges beyond the keys or longer than a row of `mean`.
pub fn align(
    rec: &mut Recorder,
    index: TableRef<'_, u32>,
    ranges: TableRef<'_, Range>,
    a: Align<'_>,
    out: &Probabilities<'_>,
) -> Result<(), TensorError> {
    let heads = a.shape.num_heads;
    let width = if a.shared { elgen_tensor::padded(a.shape.d_model) } else { a.shape.head_width() };
    let columns = heads.saturating_mul(width);
    let key_columns = if a.shared { width } else { columns };
    let end = a.first as usize + a.count as usize;
    let rows = index.entries().get(a.first as usize..end).unwrap_or_default();
    let keys = |row: &u32| ranges.entries().get(*row as usize).map_or(0, |range| range.count as usize);
    let longest = rows.iter().map(keys).max().unwrap_or(0);
    let fits = a.q.1.is_multiple_of(4)
        && a.k.1.is_multiple_of(4)
        && (a.q.0.dtype, out.mean.dtype) == (DType::F32, DType::F32)
        && a.q.1.saturating_add(columns) <= a.q.0.ld()
        && a.k.1.saturating_add(key_columns) <= a.k.0.ld()
        && end <= a.q.0.rows.min(out.mean.rows)
        && index.hold_ranges(a.first as usize, a.count as usize, ranges, a.k.0.rows)
        && longest <= out.mean.cols
        && out.log_sum_exp.is_none_or(|l| l.dtype == DType::F32 && l.rows >= end && l.cols == heads);
    if !fits {
        let message = format!(
            "{heads} heads x {width}, rows {}+{} with up to {} keys of {}: q {} from column {}, k {} from {}, probabilities {}, log-sum-exp {}",
            a.first,
            a.count,
            longest,
            a.k.0.rows,
            a.q.0.describe(),
            a.q.1,
            a.k.0.describe(),
            a.k.1,
            out.mean.describe(),
            out.log_sum_exp.map_or_else(|| "none".into(), Tensor::describe)
        );
        return Err(TensorError::Shape { op: "align", message });
    }
    let device = rec.device();
    let spec = KernelSpec::new("align")
        .storage(device, a.k.0.dtype)
        .subgroup(device)
        .define_if(out.log_sum_exp.is_some(), "LSE");
    let kernel = device.kernel(&spec)?;
    let buffers = Bindings::new(bind![index, ranges, a.q.0, a.k.0, out.mean]).with(out.log_sum_exp);
    for first in (a.first as usize..end).step_by(MAX_GROUPS as usize) {
        let params = Params {
            first_row: first as u32,
            heads: heads as u32,
            width: (width / 4) as u32,
            key_ld: a.k.0.quads(),
            head_stride: if a.shared { 0 } else { (width / 4) as u32 },
            k_first: (a.k.1 / 4) as u32,
            q_ld: a.q.0.quads(),
            q_first: (a.q.1 / 4) as u32,
            out_ld: out.mean.ld() as u32,
            lse_ld: out.log_sum_exp.map_or(0, |l| l.ld() as u32),
            scale: a.shape.scale,
        };
        let grid = [((end - first) as u32).min(MAX_GROUPS), 1, 1];
        // SAFETY: the query rows and the columns of all heads were found to be there, and the ranges lie within the rows of k and are no
        // longer than a row of the probabilities.
        unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, grid)? };
    }
    Ok(())
}
