//! Dispatching `window_attend.wgsl`.

use std::sync::LazyLock;

use bytemuck::{Pod, Zeroable};
use elgen_attention::{Packed, Shape};
use elgen_tensor::{
    Bindings, DType, KernelSource, KernelSpec, Recorder, Result, Rows, Segment, Tensor, TensorError, bind,
};

/// Made once: each device compiles its permutations once.
static SOURCE: LazyLock<KernelSource> =
    LazyLock::new(|| KernelSource::new("window_attend", include_str!("window_attend.wgsl")));

/// Quads of a head at most: one lane has one of them.
pub(crate) const MAX_HEAD_QUADS: usize = 64;

/// Workgroups that one dimension of a grid has at most.
const MAX_GROUPS: u32 = 65535;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    head_quads: u32,
    window: u32,
    keep_first: u32,
    q_ld: u32,
    kv_ld: u32,
    k_first: u32,
    v_first: u32,
    out_ld: u32,
    table_ld: u32,
    scale: f32,
}

/// The rows that attend.
#[derive(Clone, Copy, Debug)]
pub enum WindowRows<'a> {
    /// Those of a decode step in one slab, to their slots.
    Step(&'a Rows, &'a Segment),
    /// Packed rows, each to the rows of its range.
    Packed(&'a Packed),
}

/// The core of windowed attention.
#[derive(Clone, Copy, Debug)]
pub struct WindowAttend<'a> {
    /// Heads, their width and the scale.
    pub shape: Shape,
    /// Last positions that a query sees, its own counted.
    pub window: u32,
    /// First positions that it sees.
    pub keep_first: u32,
    /// `[rows, inner or more]` f32.
    pub q: &'a Tensor,
    /// `[slots or rows, _]` f32 or f16.
    pub kv: &'a Tensor,
    /// Where keys and values begin in `kv`.
    pub columns: [usize; 2],
    /// `[rows, inner]` f32.
    pub out: &'a Tensor,
}

/// Records `out[r] = softmax(scale q[r] K^T) V` per head over the first `keep_first` and the last `window` keys of each row.
///
/// # Errors
/// Shapes that do not fit.
pub fn window_attend(rec: &mut Recorder, rows: WindowRows<'_>, a: WindowAttend<'_>) -> Result<()> {
    let inner = a.shape.inner();
    let (first, count) = match rows {
        WindowRows::Step(_, segment) => (segment.first, segment.count),
        WindowRows::Packed(batch) => (0, batch.tokens as u32),
    };
    let end = (first as usize).saturating_add(count as usize);
    let fits = a.shape.head_width() / 4 <= MAX_HEAD_QUADS
        && a.q.dtype == DType::F32
        && a.out.dtype == DType::F32
        && a.q.ld() >= inner
        && a.out.ld() >= inner
        && end <= a.q.rows.min(a.out.rows)
        && a.columns.iter().all(|first| first.is_multiple_of(4) && first.saturating_add(inner) <= a.kv.ld());
    if !fits {
        let message = format!(
            "{} heads x {}, rows {first}+{count}: q {}, k and v {} from {:?}, out {}",
            a.shape.num_heads,
            a.shape.head_dim,
            a.q.describe(),
            a.kv.describe(),
            a.columns,
            a.out.describe()
        );
        return Err(TensorError::Shape { op: "window_attend", message });
    }
    let packed = matches!(rows, WindowRows::Packed(_));
    let spec = KernelSpec::from_source(&SOURCE).storage(rec.device(), a.kv.dtype).define_if(packed, "PACKED");
    let kernel = rec.device().kernel(&spec)?;
    let (tables, table_ld) = match rows {
        WindowRows::Step(rows, _) => {
            (Bindings::new(bind![rows.active(), rows.state(), rows.slots()]), rows.max_length() as u32)
        }
        WindowRows::Packed(batch) => (Bindings::new(bind![batch.index.view(), batch.ranges.view()]), 0),
    };
    let buffers = tables.and(&bind![a.q, a.kv, a.out]);
    let mut at = first;
    while (at as usize) < end {
        let params = Params {
            first_row: at,
            head_quads: (a.shape.head_width() / 4) as u32,
            window: a.window,
            keep_first: a.keep_first,
            q_ld: a.q.quads(),
            kv_ld: a.kv.quads(),
            k_first: (a.columns[0] / 4) as u32,
            v_first: (a.columns[1] / 4) as u32,
            out_ld: a.out.quads(),
            table_ld,
            scale: a.shape.scale,
        };
        let groups = MAX_GROUPS.min(end as u32 - at);
        rec.dispatch(&kernel, &buffers, &params, [groups, a.shape.num_heads as u32, 1])?;
        at += groups;
    }
    Ok(())
}
