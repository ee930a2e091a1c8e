//! Dispatching `el_attend.wgsl`: EL-attention of expanded queries over hidden states, each read once per tile of query rows.

use bytemuck::{Pod, Zeroable};
use elgen_tensor::ops::Partials;
use elgen_tensor::{
    Bindings, Buffer, DType, Device, KernelSpec, Recorder, Rows, Segment, Tensor, TensorError, bind, padded,
};

use crate::MAX_GROUPS;
use crate::bias::PositionBias;
use crate::block::CrossQueries;
use crate::el_attend_coop;
use crate::shape::Shape;
use crate::splits::SPLIT;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first: u32,
    heads: u32,
    width: u32,
    x_ld: u32,
    q_ld: u32,
    out_ld: u32,
    table_ld: u32,
    split: u32,
    rows: u32,
    scale: f32,
    bias_reach: u32,
    bias_ld: u32,
}

/// Invocations of a workgroup that every device has.
const MAX_WORKGROUP: u32 = 256;

/// Which query rows share hidden states, and where these are.
#[derive(Clone, Copy, Debug)]
pub enum ElQueries<'a> {
    /// The heads of one hypothesis: the live keys of its physical row, through the slot table.
    Slots(&'a Rows),
    /// All heads of a group of rows: the range of the group's first row, `ranges[index[i]]` = (first slot, count).
    Groups(CrossQueries<'a>),
}

/// One EL-attention product.
#[derive(Clone, Copy, Debug)]
pub struct ElAttend<'a> {
    /// Head count, width of the hidden states and scale.
    pub shape: Shape,
    /// Expanded queries `[rows, num_heads * padded(d_model)]` f32.
    pub q: &'a Tensor,
    /// Hidden states `[slots, d_model]` f32 or f16.
    pub x: &'a Tensor,
    /// Added to the scores: a query stands at its row's last position. Only with [`ElQueries::Slots`].
    pub bias: Option<&'a PositionBias>,
    /// Receives the contexts `[rows, num_heads * padded(d_model)]` f32.
    pub out: &'a Tensor,
    /// Where the key splits leave what they make instead of `out`, to be merged ([`elgen_tensor::ops::combine`]), and how many the longest row
    /// has. With fewer than a row needs, the last takes all remaining keys. `None`: a workgroup walks all keys of its rows.
    pub splits: Option<(&'a Partials, usize)>,
    /// The query rows and, for [`ElQueries::Groups`], their groups.
    pub segment: Segment,
}

/// How a product is cut. A row's result depends on `quads`, `subgroup` and `split`, which follow from the width and the device alone, and
/// not on `rows`.
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "tests choose it"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElTile {
    /// Pairs of query row and head per workgroup.
    pub rows: u32,
    /// Quads of a hidden state per invocation.
    pub quads: u32,
    /// Whether subgroups add up the scores.
    pub subgroup: bool,
    /// Keys of a split.
    pub split: usize,
}

#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "tests choose it"))]
impl ElTile {
    /// Every (rows, quads) that is compiled. 16 rows are what a matrix unit takes; rows * quads bounds the registers of an invocation: 4
    /// numbers each for the query and for the context.
    pub const ALL: [(u32, u32); 13] =
        [(1, 1), (2, 1), (4, 1), (8, 1), (12, 1), (16, 1), (1, 2), (4, 2), (8, 2), (1, 4), (4, 4), (1, 8), (2, 8)];

    /// The tile for hidden states of `width` columns that `pairs` pairs of query row and head read; `None`: too wide.
    pub fn choose(device: &Device, width: usize, pairs: usize) -> Option<Self> {
        let capabilities = device.capabilities();
        let subgroup = capabilities.subgroup;
        let quads = quads(width, subgroup)?;
        // A software adapter gains nothing from more than 8 rows, and compiles twice as long.
        let most = if capabilities.software { 8 } else { 16 };
        let fits = |rows: u32| {
            let tile = Self { rows, quads, subgroup, split: SPLIT };
            rows <= most && tile.workgroup_bytes(device, width) <= u64::from(capabilities.workgroup_bytes)
        };
        let rows = choose_rows(Self::ALL.iter().filter(|t| t.1 == quads && fits(t.0)).map(|t| t.0), pairs)?;
        Some(Self { rows, quads, subgroup, split: SPLIT })
    }

    /// Invocations of a workgroup: whole subgroups, one for each row at least.
    fn workgroup(self, device: &Device, width: usize) -> u32 {
        let unit = if self.subgroup { device.report().subgroup_sizes.1.max(16) } else { 16 };
        ((width / 4) as u32).div_ceil(self.quads).max(1).next_multiple_of(unit)
    }

    /// Parts of a score that meet in workgroup memory; an odd number of quads between rows spreads them over the banks.
    fn parts(self, device: &Device, width: usize) -> u32 {
        let workgroup = self.workgroup(device, width);
        if self.subgroup { workgroup.div_ceil(device.report().subgroup_sizes.0.max(1)) } else { workgroup + 1 }
    }

    fn workgroup_bytes(self, device: &Device, width: usize) -> u64 {
        u64::from(self.rows) * (16 * (u64::from(self.parts(device, width)) + 1) + 4)
    }
}

/// Quads of an invocation: as few as a workgroup allows, since they multiply its registers. Without subgroups every invocation leaves its
/// part of the scores in workgroup memory, so fewer share it.
fn quads(width: usize, subgroup: bool) -> Option<u32> {
    let most = |invocations: u32| [1, 2, 4, 8].into_iter().find(|q| ((width / 4) as u32).div_ceil(*q) <= invocations);
    if subgroup { most(MAX_WORKGROUP) } else { most(MAX_WORKGROUP / 2).or_else(|| most(MAX_WORKGROUP)) }
}

/// As few tiles as possible, then as few rows as that takes.
fn choose_rows(candidates: impl Iterator<Item = u32> + Clone, pairs: usize) -> Option<u32> {
    candidates.min_by_key(|rows| (pairs.div_ceil(*rows as usize), *rows))
}

/// Records `out[i, h] = softmax(scale * q[i, h] X^T + bias[h]) X` for the query rows of a segment (docs/el-attention.md §1.3), on cooperative matrices where
/// [`el_attend_coop::el_uses_matrices`].
///
/// # Errors
/// Shapes that do not fit, keys beyond `x`, hidden states wider than 8 quads of 256 invocations, a bias for groups.
pub fn el_attend(rec: &mut Recorder, queries: ElQueries<'_>, a: ElAttend<'_>) -> Result<(), TensorError> {
    run(rec, queries, a, None, None)
}

/// [`el_attend`] with a chosen tile of the portable kernel, for tests and measurements. `counts`: two u32 to which the kernel adds the quads of hidden states
/// that it loads, and its multiply-adds for scores and contexts in units of 4 (only without subgroups and bias).
///
/// # Errors
/// As [`el_attend`]; a tile that is not in [`ElTile::ALL`] or does not cover the width.
#[cfg(feature = "testing")]
pub fn el_attend_tiled(
    rec: &mut Recorder,
    queries: ElQueries<'_>,
    a: ElAttend<'_>,
    tile: Option<ElTile>,
    counts: Option<&Buffer>,
) -> Result<(), TensorError> {
    run(rec, queries, a, tile, counts)
}

fn run(
    rec: &mut Recorder,
    queries: ElQueries<'_>,
    a: ElAttend<'_>,
    tile: Option<ElTile>,
    counts: Option<&Buffer>,
) -> Result<(), TensorError> {
    let width = padded(a.shape.d_model);
    let (heads, columns) = (a.shape.num_heads, a.shape.num_heads.saturating_mul(width));
    let (partials, splits) =
        a.splits.filter(|(_, splits)| *splits > 1).map_or((None, 1), |(p, splits)| (Some(p), splits));
    let slots = matches!(queries, ElQueries::Slots(_));
    // One more than the largest query row, and whether all that the tables name is there.
    let (end, listed) = match queries {
        ElQueries::Slots(rows) => (
            (a.segment.first as usize).saturating_add(a.segment.count as usize),
            rows.hold(a.segment.first, a.segment.count, a.x.rows),
        ),
        ElQueries::Groups(queries) => queries.reach(&a.segment, a.x.rows),
    };
    let fits = (a.q.dtype, a.out.dtype) == (DType::F32, DType::F32)
        && a.q.ld() >= columns
        && a.out.ld() >= columns
        && a.x.ld() >= width
        && end <= a.q.rows.min(a.out.rows)
        && listed
        && a.bias.is_none_or(|bias| slots && bias.num_heads() == heads)
        && (splits == 1 || partials.is_some_and(|p| p.hold(splits, end, columns)));
    let device = rec.device().clone();
    let pairs = heads.saturating_mul(if slots { 1 } else { a.segment.widest_group as usize });
    let chosen = tile.is_some() || counts.is_some();
    let tile = tile.or_else(|| ElTile::choose(&device, width, pairs));
    let covers = |t: &ElTile| {
        ElTile::ALL.contains(&(t.rows, t.quads)) && t.split > 0 && t.workgroup(&device, width) <= MAX_WORKGROUP
    };
    let Some(tile) = tile.filter(|tile| fits && covers(tile)) else {
        let message = format!(
            "{heads} heads over {width} columns, rows {}+{}{}, {splits} splits in {}: q {}, x {}, out {}, bias {}",
            a.segment.first,
            a.segment.count,
            if listed { "" } else { " that are not all listed or have keys beyond x" },
            partials.map_or_else(|| "none".into(), |p| format!("{} of {} rows", p.splits, p.rows)),
            a.q.describe(),
            a.x.describe(),
            a.out.describe(),
            a.bias.map_or_else(|| "none".into(), |bias| bias.table.describe())
        );
        return Err(TensorError::Shape { op: "el_attend", message });
    };
    let matrices = if chosen { None } else { el_attend_coop::spec(&device, width, a.x.dtype) };
    let rows = if matrices.is_some() { el_attend_coop::ROWS } else { tile.rows };
    let spec = matrices.unwrap_or_else(|| portable(&device, a.x.dtype, tile, width, counts.is_some()));
    let spec = spec.define_if(slots, "SLOTS").define_if(a.bias.is_some(), "BIASED");
    let kernel = device.kernel(&spec.define_if(partials.is_some(), "SPLITS"))?;
    let tables = match queries {
        ElQueries::Slots(rows) => bind![rows.active(), rows.state(), rows.slots()],
        ElQueries::Groups(queries) => bind![queries.groups, queries.index, queries.ranges],
    };
    let buffers = Bindings::new(tables).and(&bind![a.q, a.x, partials.map_or(a.out, |p| &p.contexts)]);
    let buffers = buffers.with(partials.map(|p| &p.stats)).with(a.bias.map(|bias| &bias.table)).with(counts);
    let (table_ld, first, count) = match queries {
        ElQueries::Slots(rows) => (rows.max_length() as u32, a.segment.first, a.segment.count),
        ElQueries::Groups(_) => (0, a.segment.first_group, a.segment.groups),
    };
    for at in (first..first + count).step_by(MAX_GROUPS as usize) {
        let params = Params {
            first: at,
            heads: heads as u32,
            width: (width / 4) as u32,
            x_ld: a.x.quads(),
            q_ld: a.q.quads(),
            out_ld: partials.map_or(a.out.quads(), |p| p.contexts.quads()),
            table_ld,
            split: tile.split as u32,
            rows: partials.map_or(0, |p| p.rows as u32),
            scale: a.shape.scale,
            bias_reach: a.bias.map_or(0, |bias| bias.reach as u32),
            bias_ld: a.bias.map_or(0, |bias| bias.table.ld() as u32),
        };
        // The tiles of a group follow each other, so that what they all read stays in a cache.
        let grid = [pairs.div_ceil(rows as usize) as u32, MAX_GROUPS.min(first + count - at), splits as u32];
        // SAFETY: the query rows and the columns of all heads were found to be there, every slot that the tables name lies within x,
        // distances are clamped to the bias, and there is room for the splits.
        unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, grid)? };
    }
    Ok(())
}

/// The portable kernel, without the symbols that its cooperative twin has too.
fn portable(device: &Device, dtype: DType, tile: ElTile, width: usize, counting: bool) -> KernelSpec {
    KernelSpec::new("el_attend")
        .storage(device, dtype)
        .define_if(tile.subgroup, "SUBGROUP")
        .define_if(counting, "COUNTING")
        .set("ROWS", tile.rows)
        .set("QUADS", tile.quads)
        .constant("WG", tile.workgroup(device, width))
        .constant("PARTS", tile.parts(device, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invocations_own_few_quads_and_tiles_are_few_and_tight() {
        assert_eq!(
            [4, 1024, 1028, 2048, 4096, 8192, 8196].map(|d| quads(d, true)).map(Option::unwrap_or_default),
            [1, 1, 2, 2, 4, 8, 0]
        );
        assert_eq!(
            [4, 512, 516, 1024, 4096, 8192, 8196].map(|d| quads(d, false)).map(Option::unwrap_or_default),
            [1, 1, 2, 2, 8, 8, 0]
        );
        let rows = |pairs| choose_rows([1, 2, 4, 8, 12, 16].into_iter(), pairs);
        assert_eq!(
            [1, 3, 8, 9, 12, 16, 20, 32, 48].map(rows),
            [1, 4, 8, 12, 12, 16, 12, 16, 16].map(Some),
            "20 pairs are two tiles of 12"
        );
        assert_eq!(choose_rows([].into_iter(), 4), None);
    }
}
