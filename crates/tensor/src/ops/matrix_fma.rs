//! Multiply-adds of cooperative matrices without memory, to measure their rate (`matrix_fma.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::bind;
use crate::cooperative::tile_name;
use crate::device::Device;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::ops::MAX_GROUPS;
use crate::recorder::Recorder;
use crate::tensor::{DType, Tensor};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    rounds: u32,
}

/// Invocations of a workgroup.
const WORKGROUP: u32 = 128;

/// Sums of a subgroup.
const CHAINS: u64 = 4;

/// How a workgroup of [`matrix_rounds`] is laid out on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatrixLayout {
    /// Rows and columns of a tile.
    pub edge: u32,
    /// Rows of the results that a workgroup has: its subgroups at most.
    pub places: usize,
    /// Its subgroups at least; what a device with varying sizes makes of it is not known before.
    pub subgroups: usize,
}

impl MatrixLayout {
    /// That of a device; `None` where cooperative matrices are not used.
    pub fn of(device: &Device) -> Option<Self> {
        let capabilities = device.capabilities();
        let (smallest, largest) = capabilities.subgroup_sizes;
        let groups_of = |size: u32| (WORKGROUP / size.clamp(1, WORKGROUP)) as usize;
        let edge = capabilities.cooperative?;
        Some(Self { edge, places: groups_of(smallest), subgroups: groups_of(largest) })
    }

    /// FLOPs of a workgroup in one round, at least.
    pub fn flops(&self) -> u64 {
        self.subgroups as u64 * CHAINS * 2 * u64::from(self.edge).pow(3)
    }
}

/// Each subgroup computes `sum_n rounds * A B_n` for 4 tiles `B_n`, one multiply-add after the other: `A[i, k] = (i + k) mod 5 / 8`,
/// `B_n[k, j] = ((n * edge + k) * edge + j) mod 7 / 8 - 1/4`. `results`: `[workgroups * places, edge * edge]` f32, a row for each subgroup.
///
/// # Errors
/// A device without cooperative matrices; shapes that do not fit.
pub fn matrix_rounds(rec: &mut Recorder, results: &Tensor, rounds: u32) -> Result<()> {
    let refuse = |message: String| TensorError::Shape { op: "matrix_fma", message };
    let layout = MatrixLayout::of(rec.device()).ok_or_else(|| refuse("no cooperative matrices here".into()))?;
    let (edge, places) = (layout.edge as usize, layout.places);
    let groups = results.rows / places;
    let fits = results.dtype == DType::F32 && results.cols == edge * edge && results.ld() == edge * edge;
    if !fits || groups * places != results.rows || groups > MAX_GROUPS {
        let wanted = format!("not [workgroups * {places}, {edge} * {edge}] f32");
        return Err(refuse(format!("results are {}, {wanted}", results.describe())));
    }
    let spec = KernelSpec::new("matrix_fma")
        .storage(rec.device(), DType::F16)
        .set_text("TILE", tile_name(layout.edge))
        .set("EDGE", layout.edge)
        .constant("WG", WORKGROUP)
        .constant("PLACES", places as u32);
    let kernel = rec.device().kernel(&spec)?;
    // SAFETY: each subgroup writes a row of `results`, which has one for each that the workgroups can have, of edge * edge columns.
    unsafe { rec.dispatch_trusted(&kernel, &bind![results], &Params { rounds }, [groups as u32, 1, 1]) }
}
