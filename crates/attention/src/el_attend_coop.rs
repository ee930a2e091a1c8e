//! Dispatching `el_attend_coop.wgsl`: EL's decode kernel on cooperative matrices, for f16 caches.

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Buffer, Capabilities, DType, KernelSpec, Recorder, Rows, Tensor, TensorError, padded};

use crate::bias::PositionBias;
use crate::combine::{Partials, SPLIT};
use crate::kind::Shape;

/// Query rows of a tile: pairs of a row and a head.
const ROWS: u32 = 16;

/// Tile columns that a subgroup may own, as the shader is listed.
const OWNED: [u32; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

/// Subgroups of a workgroup. More would share the columns of X further, but each adds a tile of partial scores to workgroup memory.
const MAX_SUBGROUPS: u32 = 8;

/// Invocations of a workgroup at most, whatever the device allows.
const MAX_INVOCATIONS: u32 = 512;

/// Query groups of one dispatch: what one dimension of a grid holds on every device.
const MAX_GROUPS: u32 = 65535;

/// How the kernel is cut for a device and a width of hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// Edge of a tile, and keys of a chunk.
    edge: u32,
    /// Invocations of a workgroup.
    workgroup: u32,
    /// Subgroups that it has at most.
    subgroups: u32,
    /// Tile columns of a hidden state.
    tiles: u32,
    /// Of which a subgroup owns so many at most.
    owned: u32,
}

impl Plan {
    /// `None` where the device has no cooperative matrices, or where a chunk of hidden states of `width` elements does not fit its workgroup memory.
    fn new(device: &Capabilities, width: usize) -> Option<Self> {
        let edge = device.cooperative?;
        let tiles = u32::try_from(width).ok()?.div_ceil(edge);
        let (smallest, largest) = device.subgroup_sizes;
        let cut = |least: u32| {
            let workgroup = least * largest;
            let subgroups = workgroup / smallest.max(1);
            let owned = *OWNED.iter().find(|owned| **owned * least >= tiles)?;
            let plan = Self { edge, workgroup, subgroups, tiles, owned };
            let fits = workgroup > 0
                && workgroup.is_multiple_of(ROWS)
                && workgroup <= device.workgroup_invocations.min(MAX_INVOCATIONS)
                && plan.bytes() <= u64::from(device.workgroup_bytes);
            fits.then_some(plan)
        };
        (1..=MAX_SUBGROUPS.min(tiles.next_multiple_of(2))).rev().find_map(cut)
    }

    /// Workgroup memory: staged hidden states, exchanged tiles, P in halves, five numbers per row and a flag.
    fn bytes(&self) -> u64 {
        let (edge, rows) = (u64::from(self.edge), u64::from(ROWS));
        let stage_ld = (u64::from(self.tiles) + 1) * (edge / 4) + (edge - 8) / 4;
        edge * stage_ld * 8 + u64::from(self.subgroups) * rows * edge * 4 + 2 * rows * edge * 2 + 5 * rows * 4 + 16
    }
}

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

/// Query groups and where their keys are.
#[derive(Clone, Copy, Debug)]
pub enum CoopKeys<'a> {
    /// Each row of `first .. first + count` is a group of its own: all positions so far, through the slot table.
    Slots {
        /// Row tables.
        rows: &'a Rows,
        /// First query row.
        first: u32,
        /// Number of query rows.
        count: u32,
    },
    /// Runs of query rows of one sentence.
    Groups {
        /// Row numbers: entry `i` belongs to query row `i`.
        index: &'a Buffer,
        /// (first slot, count) by row number.
        ranges: &'a Buffer,
        /// (first query row, rows) of each group.
        groups: &'a Buffer,
        /// First group.
        first: u32,
        /// Number of groups.
        count: u32,
        /// Rows of the largest.
        widest: u32,
    },
}

/// One product: `q` and `out` `[rows, num_heads * width]` f32, `x` `[slots, width]` f16.
#[derive(Clone, Copy, Debug)]
pub struct CoopAttend<'a> {
    /// Head count, width of the hidden states and scale.
    pub shape: Shape,
    /// Expanded queries.
    pub q: &'a Tensor,
    /// Cached hidden states.
    pub x: &'a Tensor,
    /// Added to the scores of `Slots`.
    pub bias: Option<&'a PositionBias>,
    /// Receives the contexts.
    pub out: &'a Tensor,
    /// Where several splits leave theirs, and how many there are; then `out` is left to `combine`.
    pub partials: Option<(&'a Partials, usize)>,
}

/// Records the product if the device and the sizes allow it; `false` if not, and nothing is recorded.
///
/// # Errors
/// The kernel is refused.
pub fn el_attend_coop(rec: &mut Recorder, keys: CoopKeys<'_>, a: CoopAttend<'_>) -> Result<bool, TensorError> {
    let device = rec.device().clone();
    let width = padded(a.shape.d_model);
    let Some(plan) = Plan::new(&device.capabilities(), width).filter(|_| a.x.dtype == DType::F16) else {
        return Ok(false);
    };
    let kernel = device.kernel(
        &KernelSpec::new("el_attend_coop")
            .define("STORE_F16")
            .set("TILE", format!("coop_mat{0}x{0}", plan.edge))
            .set("EDGE", plan.edge)
            .set("BANDS", ROWS / plan.edge)
            .set("OWNED", plan.owned)
            .define_if(matches!(keys, CoopKeys::Slots { .. }), "SLOTS")
            .define_if(a.bias.is_some(), "BIASED")
            .define_if(a.partials.is_some(), "SPLITS")
            .constant("WG", plan.workgroup)
            .constant("SUBGROUPS", plan.subgroups)
            .constant("TILES", plan.tiles),
    )?;
    let (mut buffers, first, count, widest, table_ld) = match keys {
        CoopKeys::Slots { rows, first, count } => {
            (vec![&rows.active, &rows.state, rows.slots()], first, count, 1, rows.max_length() as u32)
        }
        CoopKeys::Groups { index, ranges, groups, first, count, widest } => {
            (vec![groups, index, ranges], first, count, widest, 0)
        }
    };
    buffers.extend([&a.q.buffer, &a.x.buffer]);
    match a.partials {
        Some((parts, _)) => buffers.extend([&parts.contexts.buffer, &parts.stats]),
        None => buffers.push(&a.out.buffer),
    }
    buffers.extend(a.bias.map(|bias| &bias.table.buffer));
    let heads = a.shape.num_heads as u32;
    for at in (first..first + count).step_by(MAX_GROUPS as usize) {
        let params = Params {
            first: at,
            heads,
            width: (width / 4) as u32,
            x_ld: a.x.quads(),
            q_ld: a.q.quads(),
            out_ld: a.partials.map_or(a.out.quads(), |(parts, _)| parts.contexts.quads()),
            table_ld,
            scale: a.shape.scale,
            split: SPLIT as u32,
            rows: a.partials.map_or(0, |(parts, _)| parts.rows as u32),
            bias_reach: a.bias.map_or(0, |bias| bias.reach as u32),
            bias_ld: a.bias.map_or(0, |bias| bias.table.ld() as u32),
        };
        let splits = a.partials.map_or(1, |(_, splits)| splits as u32);
        rec.dispatch(
            &kernel,
            &buffers,
            &params,
            [MAX_GROUPS.min(first + count - at), (widest * heads).div_ceil(ROWS), splits],
        )?;
    }
    Ok(true)
}
