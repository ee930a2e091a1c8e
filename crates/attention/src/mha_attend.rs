//! Dispatching `mha_attend.wgsl`: multi-head attention of few query rows over many cached keys and values.

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Buffer, Capabilities, DType, KernelSpec, Recorder, Rows, Segment, Tensor, TensorError};

use crate::bias::PositionBias;
use crate::block::CrossQueries;
use crate::combine::{Partials, SPLIT, combine};
use crate::kind::Shape;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first: u32,
    heads: u32,
    width: u32,
    kv_ld: u32,
    k_first: u32,
    v_first: u32,
    q_ld: u32,
    q_first: u32,
    out_ld: u32,
    table_ld: u32,
    split: u32,
    split_rows: u32,
    scale: f32,
    bias_reach: u32,
    bias_ld: u32,
}

/// Query rows or groups of one dispatch: what one dimension of a grid holds on every device.
const MAX_GROUPS: u32 = 65535;

/// Rows per workgroup that the shader is compiled for.
const ROW_TILES: [u32; 7] = [1, 2, 3, 4, 5, 6, 8];

/// Which query rows attend, and where their keys are.
#[derive(Clone, Copy, Debug)]
pub enum QueryRows<'a> {
    /// Each row of the segment to all positions so far of its physical row, through the slot table.
    Slots(&'a Rows, &'a Segment),
    /// The groups of the segment, each to the range of its rows.
    Groups {
        /// Row numbers, ranges by row number, and groups.
        queries: &'a CrossQueries<'a>,
        /// Those of one slab.
        segment: &'a Segment,
        /// True if the rows of a group have one range, so that a load of a key serves them all; else each has its own.
        shared: bool,
    },
}

/// One product of multi-head attention. `q` `[rows, _]` f32, `out` `[rows, heads * width]` f32, `kv` `[slots, _]` f32 or f16.
#[derive(Clone, Copy, Debug)]
pub struct MhaAttend<'a> {
    /// Head count, widths and scale.
    pub shape: Shape,
    /// Queries, and the column where they begin.
    pub q: (&'a Tensor, usize),
    /// Keys and values.
    pub kv: &'a Tensor,
    /// Columns where keys and values begin.
    pub columns: [usize; 2],
    /// Added to the scores, for [`QueryRows::Slots`]; a query stands at its row's last position.
    pub bias: Option<&'a PositionBias>,
    /// Receives the contexts.
    pub out: &'a Tensor,
    /// Where key splits leave what they make, and how many there are at most. `None`: a workgroup walks all keys of its rows.
    pub splits: Option<(&'a Partials, usize)>,
}

/// How a product is cut into workgroups. A result's bits depend on `workgroup` and `heads`, never on `rows`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Invocations of a workgroup, a power of two.
    pub workgroup: u32,
    /// Heads of a workgroup, a power of two below `workgroup`.
    pub heads: u32,
    /// Query rows of a workgroup that share their keys.
    pub rows: u32,
}

impl Tiling {
    /// For heads of `width` columns in groups of at most `group` rows.
    pub fn choose(device: Capabilities, num_heads: usize, width: usize, group: u32) -> Self {
        let quads = (width / 4).max(1) as u32;
        // A software driver runs an invocation's lanes in vectors and switches between them at each barrier: as few as hold a head's columns.
        let workgroup = if device.software { 16 } else { 64 };
        let heads = (workgroup / quads).max(1).min(workgroup / 4);
        // The largest power of two that is not above.
        let heads = (1 << heads.ilog2()).min((num_heads as u32).next_power_of_two());
        let rows = ROW_TILES.into_iter().find(|rows| *rows >= group).unwrap_or(ROW_TILES[ROW_TILES.len() - 1]);
        Self { workgroup, heads, rows }
    }

    /// Workgroups along y: tiles of rows, heads and columns.
    fn tiles(self, num_heads: u32, quads: u32, group: u32) -> u32 {
        group.div_ceil(self.rows) * num_heads.div_ceil(self.heads) * (self.heads * quads).div_ceil(self.workgroup)
    }

    fn fits(self, quads: u32) -> bool {
        self.workgroup.is_power_of_two()
            && self.heads.is_power_of_two()
            && self.heads <= self.workgroup
            && (self.heads == 1 || self.heads * quads <= self.workgroup)
            && ROW_TILES.contains(&self.rows)
    }
}

/// Records a product of multi-head attention: `out[i, h] = softmax(scale * q[i, h] K_h^T + bias[h]) V_h` over the row's keys
/// (docs/el-attention.md §1.2).
///
/// # Errors
/// Shapes that do not fit.
pub fn mha_attend(rec: &mut Recorder, rows: QueryRows<'_>, a: MhaAttend<'_>) -> Result<(), TensorError> {
    mha_attend_tiled(rec, rows, a, None)
}

/// [`mha_attend`] with a chosen tiling, for tests and measurements.
///
/// # Errors
/// As [`mha_attend`].
pub fn mha_attend_tiled(
    rec: &mut Recorder,
    rows: QueryRows<'_>,
    a: MhaAttend<'_>,
    tiling: Option<Tiling>,
) -> Result<(), TensorError> {
    let (heads, width) = (a.shape.num_heads, a.shape.head_width());
    let (columns, quads) = (heads * width, (width / 4) as u32);
    // The widest group that a workgroup may take together, and how many rows a group has at most.
    let (segment, shared, group) = match rows {
        QueryRows::Slots(_, segment) => (segment, 1, 1),
        QueryRows::Groups { segment, shared: true, .. } => (segment, segment.widest_group, segment.widest_group),
        QueryRows::Groups { segment, .. } => (segment, 1, segment.widest_group),
    };
    let tiling = tiling.unwrap_or_else(|| Tiling::choose(rec.device().capabilities(), heads, width, shared));
    let last = (segment.first + segment.count) as usize;
    let slots = matches!(rows, QueryRows::Slots(..));
    let fits = [a.q.1, a.columns[0], a.columns[1]].iter().all(|column| column % 4 == 0)
        && (a.q.0.dtype, a.out.dtype) == (DType::F32, DType::F32)
        && a.q.1 + columns <= a.q.0.ld()
        && a.out.ld() >= columns
        && a.columns.iter().all(|first| first + columns <= a.kv.ld())
        && a.bias.is_none_or(|bias| slots && bias.num_heads() == heads)
        && last <= a.q.0.rows.min(a.out.rows)
        && tiling.fits(quads)
        && (tiling.rows == 1 || matches!(rows, QueryRows::Groups { shared: true, .. }))
        && a.splits.is_none_or(|(partials, splits)| {
            splits <= partials.splits && last <= partials.rows && columns <= partials.contexts.ld()
        });
    if !fits {
        let message = format!(
            "{heads} heads x {width}, rows {}+{}, {tiling:?}: q {} from column {}, k and v {} from {:?}, out {}, bias {}",
            segment.first,
            segment.count,
            a.q.0.describe(),
            a.q.1,
            a.kv.describe(),
            a.columns,
            a.out.describe(),
            a.bias.map_or_else(|| "none".into(), |bias| bias.table.describe())
        );
        return Err(TensorError::Shape { op: "mha_attend", message });
    }
    let splits = a.splits.filter(|(_, splits)| *splits > 1);
    let spec = KernelSpec::new("mha_attend")
        .storage(rec.device(), a.kv.dtype)
        .set("ROWS", tiling.rows)
        .define_if(slots, "SLOTS")
        .define_if(a.bias.is_some(), "BIASED")
        .constant("WG", tiling.workgroup)
        .constant("HEADS", tiling.heads);
    // The value is the binding of the splits' maxima and sums, behind the bias.
    let spec = if splits.is_some() { spec.set("PARTIAL", 6 + u32::from(a.bias.is_some())) } else { spec };
    let kernel = rec.device().kernel(&spec)?;
    let (first, count, table_ld, [index, places, table]): (u32, u32, usize, [&Buffer; 3]) = match rows {
        QueryRows::Slots(rows, _) => {
            (segment.first, segment.count, rows.max_length(), [&rows.active, &rows.state, rows.slots()])
        }
        QueryRows::Groups { queries, .. } => {
            (segment.first_group, segment.groups, 0, [queries.index, queries.ranges, queries.groups])
        }
    };
    let out = splits.map_or(a.out, |(partials, _)| &partials.contexts);
    let mut buffers = vec![&a.q.0.buffer, &a.kv.buffer, &out.buffer, index, places, table];
    buffers.extend(a.bias.map(|bias| &bias.table.buffer));
    buffers.extend(splits.map(|(partials, _)| &partials.stats));
    for at in (first..first + count).step_by(MAX_GROUPS as usize) {
        let params = Params {
            first: at,
            heads: heads as u32,
            width: quads,
            kv_ld: a.kv.quads(),
            k_first: (a.columns[0] / 4) as u32,
            v_first: (a.columns[1] / 4) as u32,
            q_ld: a.q.0.quads(),
            q_first: (a.q.1 / 4) as u32,
            out_ld: out.quads(),
            table_ld: table_ld as u32,
            split: if splits.is_some() { SPLIT as u32 } else { u32::MAX },
            split_rows: splits.map_or(0, |(partials, _)| partials.rows as u32),
            scale: a.shape.scale,
            bias_reach: a.bias.map_or(0, |bias| bias.reach as u32),
            bias_ld: a.bias.map_or(0, |bias| bias.table.ld() as u32),
        };
        let z = splits.map_or(1, |(_, splits)| splits as u32);
        let grid = [MAX_GROUPS.min(first + count - at), tiling.tiles(heads as u32, quads, group), z];
        rec.dispatch(&kernel, &buffers, &params, grid)?;
    }
    match splits {
        Some((partials, splits)) => {
            combine(rec, partials, splits, (heads, width), a.out, segment.first, segment.count)
        }
        None => Ok(()),
    }
}
