//! Dispatching `mha_attend.wgsl`: multi-head attention of few query rows over many cached keys and values.

use bytemuck::{Pod, Zeroable};
use elgen_tensor::ops::Partials;
use elgen_tensor::{
    Bindings, Buffer, Capabilities, DType, KernelSpec, Recorder, Rows, Segment, Tensor, TensorError, bind,
};

use crate::MAX_GROUPS;
use crate::bias::PositionBias;
use crate::block::CrossQueries;
use crate::shape::Shape;
use crate::splits::SPLIT;

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

/// Invocations of a workgroup.
const WORKGROUP: u32 = 64;

/// Rows per workgroup that the shader is compiled for.
const ROW_TILES: [u32; 7] = [1, 2, 3, 4, 5, 6, 8];

/// Which query rows attend, and where their keys are.
#[derive(Clone, Copy, Debug)]
pub enum QueryRows<'a> {
    /// Each row of the segment to the live keys of its physical row, through the slot table.
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
    /// Where key splits leave what they make instead of `out`, to be merged ([`elgen_tensor::ops::combine`]), and how many there are at most.
    /// `None`: a workgroup walks all keys of its rows.
    pub splits: Option<(&'a Partials, usize)>,
}

/// How a product is cut into workgroups. A result's bits depend on `workgroup` and `heads`, never on `rows`.
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "tests choose it"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Invocations of a workgroup, a power of two.
    pub workgroup: u32,
    /// Heads of a workgroup, a power of two below `workgroup`.
    pub heads: u32,
    /// Query rows of a workgroup that share their keys.
    pub rows: u32,
}

#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "tests choose it"))]
impl Tiling {
    /// For heads of `width` columns in groups of at most `group` rows.
    pub fn choose(device: Capabilities, num_heads: usize, width: usize, group: u32) -> Self {
        let quads = (width / 4).max(1) as u32;
        // Quads of columns that the heads of a workgroup should fill. A software driver gains from whole workgroups that read what lies
        // together (docs/perf, 2026-11-22, the decode kernel of MHA). A GPU hides latency with many workgroups; there, only heads too narrow
        // for a full line are joined.
        let fill = if device.software { WORKGROUP } else { WORKGROUP / 4 };
        let most = (fill / quads).clamp(1, WORKGROUP / 4);
        let heads = (1 << most.ilog2()).min((num_heads as u32).next_power_of_two());
        let rows = ROW_TILES.into_iter().find(|rows| *rows >= group).unwrap_or(ROW_TILES[ROW_TILES.len() - 1]);
        Self { workgroup: WORKGROUP, heads, rows }
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
/// Shapes that do not fit; keys beyond `kv`.
pub fn mha_attend(rec: &mut Recorder, rows: QueryRows<'_>, a: MhaAttend<'_>) -> Result<(), TensorError> {
    run(rec, rows, a, None, None)
}

/// [`mha_attend`] with a chosen tiling, for tests and measurements. `counts` (without a bias, 1 or 4 rows): u32 to which the kernel adds the
/// quads of `kv` that it loads, its multiply-adds for scores and contexts in units of 4, and, for each quad of `kv`, how often it is loaded.
///
/// # Errors
/// As [`mha_attend`].
#[cfg(feature = "testing")]
pub fn mha_attend_tiled(
    rec: &mut Recorder,
    rows: QueryRows<'_>,
    a: MhaAttend<'_>,
    tiling: Option<Tiling>,
    counts: Option<&Buffer>,
) -> Result<(), TensorError> {
    run(rec, rows, a, tiling, counts)
}

fn run(
    rec: &mut Recorder,
    rows: QueryRows<'_>,
    a: MhaAttend<'_>,
    tiling: Option<Tiling>,
    counts: Option<&Buffer>,
) -> Result<(), TensorError> {
    let (heads, width) = (a.shape.num_heads, a.shape.head_width());
    let (columns, quads) = (a.shape.inner(), (width / 4) as u32);
    // The widest group that a workgroup may take together, and how many rows a group has at most.
    let (segment, shared, group) = match rows {
        QueryRows::Slots(_, segment) => (segment, 1, 1),
        QueryRows::Groups { segment, shared: true, .. } => (segment, segment.widest_group, segment.widest_group),
        QueryRows::Groups { segment, .. } => (segment, 1, segment.widest_group),
    };
    let tiling = tiling.unwrap_or_else(|| Tiling::choose(rec.device().capabilities(), heads, width, shared));
    // One more than the largest query row, and whether all that the tables name is there.
    let (last, listed) = match rows {
        QueryRows::Slots(rows, segment) => (
            (segment.first as usize).saturating_add(segment.count as usize),
            rows.hold(segment.first, segment.count, a.kv.rows),
        ),
        QueryRows::Groups { queries, segment, .. } => queries.reach(segment, a.kv.rows),
    };
    let slots = matches!(rows, QueryRows::Slots(..));
    let fits = [a.q.1, a.columns[0], a.columns[1]].iter().all(|column| column % 4 == 0)
        && (a.q.0.dtype, a.out.dtype) == (DType::F32, DType::F32)
        && a.q.1.saturating_add(columns) <= a.q.0.ld()
        && a.out.ld() >= columns
        && a.columns.iter().all(|first| first.saturating_add(columns) <= a.kv.ld())
        && a.bias.is_none_or(|bias| slots && bias.num_heads() == heads)
        && last <= a.q.0.rows.min(a.out.rows)
        && listed
        && tiling.fits(quads)
        && counts.is_none_or(|counts| counts.bytes() / 4 >= 2 + a.kv.rows as u64 * u64::from(a.kv.quads()))
        && (tiling.rows == 1 || matches!(rows, QueryRows::Groups { shared: true, .. }))
        && a.splits.is_none_or(|(partials, splits)| partials.hold(splits, last, columns));
    if !fits {
        let message = format!(
            "{heads} heads x {width}, rows {}+{}{}, {tiling:?}: q {} from column {}, k and v {} from {:?}, out {}, bias {}",
            segment.first,
            segment.count,
            if listed { "" } else { " that are not all listed or have keys beyond k and v" },
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
    // The values are the bindings of what only these variants have.
    let behind_bias = 6 + u32::from(a.bias.is_some());
    let spec = if splits.is_some() { spec.set("PARTIAL", behind_bias) } else { spec };
    let spec = if counts.is_some() { spec.set("COUNTING", behind_bias + u32::from(splits.is_some())) } else { spec };
    let kernel = rec.device().kernel(&spec)?;
    let out = splits.map_or(a.out, |(partials, _)| &partials.contexts);
    let operands = Bindings::new(bind![a.q.0, a.kv, out]);
    let (first, count, table_ld, buffers) = match rows {
        QueryRows::Slots(rows, _) => {
            let tables = bind![rows.active(), rows.state(), rows.slots()];
            (segment.first, segment.count, rows.max_length(), operands.and(&tables))
        }
        QueryRows::Groups { queries, .. } => {
            let tables = bind![queries.index, queries.ranges, queries.groups];
            (segment.first_group, segment.groups, 0, operands.and(&tables))
        }
    };
    let buffers = buffers.with(a.bias.map(|bias| &bias.table)).with(splits.map(|(p, _)| &p.stats)).with(counts);
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
        // SAFETY: the query rows and the columns of all heads were found to be there, every slot that the tables name lies within kv,
        // distances are clamped to the bias, and there is room for the splits.
        unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, grid)? };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_heads_share_a_workgroup() {
        let device = |software| Capabilities {
            shader_f16: true,
            subgroup: true,
            immediates: true,
            cooperative: None,
            workgroup_invocations: 256,
            subgroup_sizes: (8, 8),
            max_binding_bytes: 1 << 30,
            max_buffer_bytes: 1 << 30,
            workgroup_bytes: 16 << 10,
            software,
        };
        let heads = |software, num_heads, width| Tiling::choose(device(software), num_heads, width, 1).heads;
        // (heads, width): T5 and the demo, BART-large, a head of one quad, one wider than a workgroup.
        assert_eq!([(8, 32), (8, 64), (16, 64), (64, 4), (1, 1024)].map(|(n, w)| heads(true, n, w)), [8, 4, 4, 16, 1]);
        assert_eq!([(8, 32), (8, 64), (16, 16), (5, 4), (3, 12)].map(|(n, w)| heads(false, n, w)), [2, 1, 4, 8, 4]);
        for width in (4..2000).step_by(4) {
            let tiling = Tiling::choose(device(true), 12, width, 3);
            assert!(tiling.fits((width / 4) as u32), "{width}: {tiling:?}");
        }
        let rows = |group| Tiling::choose(device(true), 8, 64, group).rows;
        assert_eq!([1, 2, 4, 5, 7, 8, 40].map(rows), [1, 2, 4, 5, 8, 8, 8]);
    }

    #[test]
    fn tiles_cover_rows_heads_and_columns() {
        let tiling = Tiling { workgroup: 16, heads: 2, rows: 4 };
        assert_eq!([1, 4, 5, 9].map(|group| tiling.tiles(5, 8, group)), [3, 3, 6, 9]);
        assert_eq!(Tiling { heads: 1, ..tiling }.tiles(2, 33, 1), 6, "heads of 33 quads take 3 tiles of 16 columns");
    }
}
