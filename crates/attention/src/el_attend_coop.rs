//! `el_attend_coop.wgsl`: EL's decode kernel on cooperative matrices, for f16 caches. [`crate::el_attend`] takes it in place of the portable kernel where the device and
//! the width of the hidden states allow it.

use elgen_tensor::{Capabilities, DType, Device, KernelSpec, padded, tile_name};

/// Query rows of a tile: pairs of a row and a head.
pub(crate) const ROWS: u32 = 16;

/// Tile columns that a subgroup may own, as the shader is listed.
const OWNED: [u32; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

/// Subgroups of a workgroup. More would share the columns of X further, but each adds a tile of partial scores to workgroup memory.
const MAX_SUBGROUPS: u32 = 8;

/// Invocations of a workgroup at most, whatever the device allows.
const MAX_INVOCATIONS: u32 = 512;

/// How the kernel is cut for a device and a width of hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Edge of a tile, and keys of a chunk.
    pub(crate) edge: u32,
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
    pub(crate) fn new(device: &Capabilities, width: usize) -> Option<Self> {
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

/// Whether [`crate::el_attend`] takes cooperative matrices for hidden states of this width and storage.
pub fn el_uses_matrices(device: &Device, d_model: usize, dtype: DType) -> bool {
    dtype == DType::F16 && Plan::new(&device.capabilities(), padded(d_model)).is_some()
}

/// The kernel, without the symbols that its twin has too; `None`: the portable one does it.
pub(crate) fn spec(device: &Device, width: usize, dtype: DType) -> Option<KernelSpec> {
    let plan = Plan::new(&device.capabilities(), width).filter(|_| dtype == DType::F16)?;
    let spec = KernelSpec::new("el_attend_coop")
        .storage(device, dtype)
        .set_text("TILE", tile_name(plan.edge))
        .set("EDGE", plan.edge)
        .set("BANDS", ROWS / plan.edge)
        .set("OWNED", plan.owned)
        .constant("WG", plan.workgroup)
        .constant("SUBGROUPS", plan.subgroups)
        .constant("TILES", plan.tiles);
    Some(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(edge: u32, lanes: u32, kib: u32) -> Capabilities {
        Capabilities {
            shader_f16: true,
            subgroup: true,
            immediates: true,
            max_binding_bytes: 1 << 30,
            max_buffer_bytes: 1 << 30,
            workgroup_bytes: kib << 10,
            workgroup_invocations: 1024,
            subgroup_sizes: (lanes, lanes),
            cooperative: Some(edge),
            software: false,
        }
    }

    #[test]
    fn columns_are_dealt_out_to_as_many_subgroups_as_memory_allows() {
        let cut = |edge, lanes, kib, width| {
            Plan::new(&device(edge, lanes, kib), width).map(|p| (p.workgroup / lanes, p.owned))
        };
        // BART-base, GPT-2, BART-large and GPT-2 large; 48 KiB and 32 lanes.
        assert_eq!([512, 768, 1024, 1280].map(|d| cut(16, 32, 48, d)), [(8, 4), (8, 6), (8, 8), (5, 16)].map(Some));
        // 32 KiB and 8 lanes: a software driver.
        assert_eq!([64, 512, 768].map(|d| cut(16, 8, 32, d)), [(4, 1), (8, 4), (4, 12)].map(Some));
        assert_eq!([8, 64, 1024].map(|d| cut(8, 8, 32, d)), [(2, 1), (8, 1), (8, 16)].map(Some));
        // What docs/el-attention.md §3 says.
        let largest = |edge, lanes, kib| (1..1024).map(|n| 4 * n).rfind(|d| cut(edge, lanes, kib, *d).is_some());
        assert_eq!(
            [(16, 8, 32), (16, 32, 48), (16, 32, 64)].map(|(e, l, k)| largest(e, l, k)),
            [816, 1280, 1744].map(Some)
        );
        assert_eq!(largest(8, 8, 32), Some(1024));
        // Subgroups of 64, and of 8 to 32, of which a workgroup may then have four times as many.
        assert_eq!(cut(16, 64, 64, 1024), Some((8, 8)));
        let varying = Capabilities { subgroup_sizes: (8, 32), ..device(16, 32, 64) };
        assert_eq!(Plan::new(&varying, 256).map(|p| (p.workgroup, p.subgroups)), Some((256, 32)));
        assert_eq!(Plan::new(&Capabilities { cooperative: None, ..device(16, 32, 48) }, 64), None);
    }
}
