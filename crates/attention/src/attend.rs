//! Dispatching `attend.wgsl`: query rows over cached keys and values.

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Bindings, DType, Device, Kernel, KernelSpec, Range, Recorder, TableRef, Tensor, TensorError, bind};
use std::sync::Arc;

use crate::MAX_GROUPS;
use crate::bias::PositionBias;
use crate::shape::Shape;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    width: u32,
    kv_ld: u32,
    k_first: u32,
    v_first: u32,
    q_ld: u32,
    q_first: u32,
    out_ld: u32,
    scale: f32,
    bias_reach: u32,
    bias_ld: u32,
}

/// Invocations of a workgroup, and keys of one chunk.
const WORKGROUP: u32 = 64;

/// Where the keys of each row are: `ranges[index[i]]` = (first key row, count), as u32 pairs.
#[derive(Clone, Copy, Debug)]
pub struct KeyRanges<'a> {
    /// Row numbers: entry `i` belongs to query row `i`.
    pub index: TableRef<'a, u32>,
    /// Key ranges by row number.
    pub ranges: TableRef<'a, Range>,
}

/// One attention product. `q` `[rows, _]` f32, `out` `[rows, heads * width]` f32, `k` and `v` `[slots, _]` f32 or f16.
#[derive(Clone, Copy, Debug)]
pub struct Attend<'a> {
    /// Head count, widths and scale.
    pub shape: Shape,
    /// Queries, and the column where they begin.
    pub q: (&'a Tensor, usize),
    /// KeyRanges, and the column where they begin.
    pub k: (&'a Tensor, usize),
    /// Values, and the column where they begin.
    pub v: (&'a Tensor, usize),
    /// Added to the scores. A query row is itself the key row of its number.
    pub bias: Option<&'a PositionBias>,
    /// Receives the contexts.
    pub out: &'a Tensor,
    /// First query row.
    pub first: u32,
    /// Number of query rows.
    pub count: u32,
}

/// Records an attention product: `out[i, h] = softmax(scale * q[i, h] K_h^T + bias[h]) V_h` over the row's keys (docs/el-attention.md §1.2 and 1.3).
///
/// # Errors
/// Shapes that do not fit, ranges beyond the keys, or heads wider than workgroup memory.
pub fn attend(rec: &mut Recorder, keys: KeyRanges<'_>, a: Attend<'_>) -> Result<(), TensorError> {
    let width = a.shape.head_width();
    let (columns, end) = (a.shape.inner(), (a.first as usize).saturating_add(a.count as usize));
    let fits = [a.q.1, a.k.1, a.v.1].iter().all(|column| column % 4 == 0)
        && (a.q.0.dtype, a.out.dtype) == (DType::F32, DType::F32)
        && a.q.1.saturating_add(columns) <= a.q.0.ld()
        && a.out.ld() >= columns
        && a.k.1.saturating_add(columns) <= a.k.0.ld()
        && a.v.1.saturating_add(columns) <= a.v.0.ld()
        && a.k.0.ld() == a.v.0.ld()
        && a.k.0.dtype == a.v.0.dtype
        && a.bias.is_none_or(|bias| bias.num_heads() == a.shape.num_heads)
        && end <= a.q.0.rows.min(a.out.rows)
        && keys.index.hold_ranges(a.first as usize, a.count as usize, keys.ranges, a.k.0.rows.min(a.v.0.rows));
    if !fits {
        let message = format!(
            "{} heads x {width}, rows {}+{} with keys below {}: q {} from column {}, k {} from {}, v {} from {}, out {}, bias {}",
            a.shape.num_heads,
            a.first,
            a.count,
            keys.ranges.end(),
            a.q.0.describe(),
            a.q.1,
            a.k.0.describe(),
            a.k.1,
            a.v.0.describe(),
            a.v.1,
            a.out.describe(),
            a.bias.map_or_else(|| "none".into(), |bias| bias.table.describe())
        );
        return Err(TensorError::Shape { op: "attend", message });
    }
    let device = rec.device().clone();
    let limit = u64::from(device.capabilities().workgroup_bytes);
    if workgroup_bytes(width) > limit {
        let message = format!(
            "heads of width {width} need {} bytes of workgroup memory, the device has {limit}",
            workgroup_bytes(width)
        );
        return Err(TensorError::Shape { op: "attend", message });
    }
    let kernel = kernel(&device, &a, width)?;
    let tables = bind![keys.index, keys.ranges, a.q.0, a.k.0, a.v.0, a.out];
    let buffers = Bindings::new(tables).with(a.bias.map(|bias| &bias.table));
    for first in (a.first..a.first + a.count).step_by(MAX_GROUPS as usize) {
        let params = Params {
            first_row: first,
            width: (width / 4) as u32,
            kv_ld: a.k.0.quads(),
            k_first: (a.k.1 / 4) as u32,
            v_first: (a.v.1 / 4) as u32,
            q_ld: a.q.0.quads(),
            q_first: (a.q.1 / 4) as u32,
            out_ld: a.out.quads(),
            scale: a.shape.scale,
            bias_reach: a.bias.map_or(0, |bias| bias.reach as u32),
            bias_ld: a.bias.map_or(0, |bias| bias.table.ld() as u32),
        };
        let count = MAX_GROUPS.min(a.first + a.count - first);
        // SAFETY: the query rows and the columns of all heads were found to be there, the ranges lie within the rows of k and v, and
        // distances are clamped to the bias.
        unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, [count, a.shape.num_heads as u32, 1])? };
    }
    Ok(())
}

/// Workgroup memory of a head: its running context, weights, maximum and fade.
fn workgroup_bytes(width: usize) -> u64 {
    width as u64 * 4 + u64::from(WORKGROUP) * 4 + 8
}

fn kernel(device: &Device, a: &Attend<'_>, width: usize) -> Result<Arc<Kernel>, TensorError> {
    let spec = KernelSpec::new("attend")
        .storage(device, a.k.0.dtype)
        .define_if(a.bias.is_some(), "BIASED")
        .constant("WG", WORKGROUP)
        .constant("ACC", (width / 4) as u32);
    device.kernel(&spec)
}
