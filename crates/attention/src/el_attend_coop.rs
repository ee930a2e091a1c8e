//! Dispatching `el_attend_coop.wgsl`: EL's decode kernel on cooperative matrices, for f16 caches.

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Buffer, Capabilities, DType, Device, KernelSpec, Recorder, Rows, Tensor, TensorError, padded};

use crate::bias::PositionBias;
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
