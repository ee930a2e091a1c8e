//! Cooperative matrices: what an adapter lists, which tile edge kernels use, and the trial that such a kernel must pass.

use std::collections::HashSet;
use std::sync::{Mutex, OnceLock};

use wgpu::{CooperativeMatrixProperties, CooperativeScalarType};

use crate::device::{Device, lock};
use crate::error::{Result, TensorError};

/// Edges of the tiles that kernels are written for.
const EDGES: [u32; 2] = [8, 16];

/// Whether kernels may use cooperative matrices (tensor cores). Each such kernel has a twin that does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cooperative {
    /// Where a hardware adapter lists square tiles f16 x f16 -> f32 of edge 16 or 8, the larger one. Software emulates them, which gains nothing.
    #[default]
    Listed,
    /// Never.
    Off,
    /// Tiles of this edge, 8 or 16, wherever the adapter has the feature, listed or not; for tests. Another number is none; an edge that the driver cannot do is undefined behaviour there.
    Edge(u32),
}

impl Cooperative {
    /// The tile edge to use, if the adapter has the feature.
    pub(crate) fn edge(self, listed: Option<u32>) -> Option<u32> {
        match self {
            Self::Listed => listed,
            Self::Off => None,
            Self::Edge(edge) => Some(edge).filter(|edge| EDGES.contains(edge)),
        }
    }
}

/// The largest edge of square tiles f16 x f16 -> f32.
pub(crate) fn listed_edge(tiles: &[CooperativeMatrixProperties]) -> Option<u32> {
    let fits = |t: &&CooperativeMatrixProperties| {
        (t.ab_type, t.cr_type) == (CooperativeScalarType::F16, CooperativeScalarType::F32)
            && (t.m_size, t.n_size) == (t.k_size, t.k_size)
    };
    tiles.iter().filter(fits).map(|t| t.m_size).filter(|edge| EDGES.contains(edge)).max()
}

/// The WGSL type of a tile of this edge, for the symbol `TILE` of a kernel.
pub fn tile_name(edge: u32) -> &'static &'static str {
    if edge == 16 { &"coop_mat16x16" } else { &"coop_mat8x8" }
}

/// Shapes for reports: "m x n x k factors->sums", each once.
pub(crate) fn tile_names(tiles: &[CooperativeMatrixProperties]) -> Vec<String> {
    let scalar = |t| match t {
        CooperativeScalarType::F32 => "f32",
        CooperativeScalarType::F16 => "f16",
        CooperativeScalarType::I32 => "i32",
        CooperativeScalarType::U32 => "u32",
    };
    let mut names: Vec<String> = Vec::new();
    for t in tiles {
        let name = format!("{}x{}x{} {}->{}", t.m_size, t.n_size, t.k_size, scalar(t.ab_type), scalar(t.cr_type));
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Which kernels were tried on a device, and what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Trials {
    /// Held during a trial: whoever needs the same kernel waits for the verdict.
    solved: Mutex<HashSet<String>>,
    fault: OnceLock<String>,
}

impl Device {
    /// Lets a kernel that uses cooperative matrices solve a known problem, once per device and `kernel` (which names all that selects it). `problem` returns what
    /// is wrong with the answer, if anything. A wrong answer, or a kernel that the compiler refuses, ends the use of cooperative matrices on this device:
    /// [`Device::capabilities`] has none from then on, and [`Device::cooperative_fault`] says why.
    ///
    /// # Errors
    /// What else `problem` failed with: memory, a lost device.
    pub fn try_cooperative(&self, kernel: &str, problem: impl FnOnce() -> Result<Option<String>>) -> Result<()> {
        let trials = &self.inner.trials;
        let mut solved = lock(&trials.solved);
        if self.capabilities().cooperative.is_none() || solved.contains(kernel) {
            return Ok(());
        }
        let fault = match problem() {
            Ok(None) => {
                solved.insert(kernel.to_owned());
                return Ok(());
            }
            Ok(Some(wrong)) => format!("{kernel}: {wrong}"),
            Err(refused @ TensorError::Kernel { .. }) => refused.to_string(),
            Err(error) => return Err(error),
        };
        // Only this function sets it, one thread at a time.
        let _ = trials.fault.set(fault);
        Ok(())
    }

    /// Why cooperative matrices are not used although the adapter has them.
    pub fn cooperative_fault(&self) -> Option<&str> {
        self.inner.trials.fault.get().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(
        m: u32,
        n: u32,
        k: u32,
        ab: CooperativeScalarType,
        cr: CooperativeScalarType,
    ) -> CooperativeMatrixProperties {
        let saturating_accumulation = false;
        CooperativeMatrixProperties {
            m_size: m,
            n_size: n,
            k_size: k,
            ab_type: ab,
            cr_type: cr,
            saturating_accumulation,
        }
    }

    #[test]
    fn only_square_half_tiles_with_f32_sums_count() {
        use CooperativeScalarType::{F16, F32};
        let (small, large) = (tile(8, 8, 8, F16, F32), tile(16, 16, 16, F16, F32));
        assert_eq!(listed_edge(&[small]), Some(8));
        assert_eq!(listed_edge(&[large, small]), Some(16));
        assert_eq!(
            listed_edge(&[tile(16, 8, 16, F16, F32), tile(16, 16, 16, F16, F16), tile(8, 8, 8, F32, F32)]),
            None
        );
        assert_eq!(tile_names(&[small, large, small]), ["8x8x8 f16->f32", "16x16x16 f16->f32"]);
        assert_eq!(
            [Cooperative::Listed, Cooperative::Off, Cooperative::Edge(16)].map(|c| c.edge(Some(8))),
            [Some(8), None, Some(16)]
        );
    }
}
