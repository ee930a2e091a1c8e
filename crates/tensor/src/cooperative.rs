//! Cooperative matrices: what an adapter lists, which tile edge kernels use, and the trial that such a kernel must pass.

use wgpu::{CooperativeMatrixProperties, CooperativeScalarType};

use crate::device::{Device, lock};

/// Whether kernels may use cooperative matrices (tensor cores). Each such kernel has a twin that does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cooperative {
    /// Where the adapter lists square tiles f16 x f16 -> f32 of edge 16 or 8, the larger one.
    #[default]
    Listed,
    /// Never.
    Off,
    /// Tiles of this edge wherever the adapter has the feature, listed or not; for tests. An edge that the driver cannot do is undefined behaviour there.
    Edge(u32),
}

impl Cooperative {
    /// The tile edge to use, if the adapter has the feature.
    pub(crate) fn edge(self, listed: Option<u32>) -> Option<u32> {
        match self {
            Self::Listed => listed,
            Self::Off => None,
            Self::Edge(edge) => Some(edge),
        }
    }
}

/// The largest edge of square tiles f16 x f16 -> f32.
pub(crate) fn listed_edge(tiles: &[CooperativeMatrixProperties]) -> Option<u32> {
    let fits = |t: &&CooperativeMatrixProperties| {
        (t.ab_type, t.cr_type) == (CooperativeScalarType::F16, CooperativeScalarType::F32)
            && (t.m_size, t.n_size) == (t.k_size, t.k_size)
    };
    tiles.iter().filter(fits).map(|t| t.m_size).filter(|edge| [8, 16].contains(edge)).max()
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

impl Device {
    /// Gives up cooperative matrices on this device: from now on [`Device::capabilities`] has none. The first reason is kept.
    pub fn distrust_cooperative(&self, reason: String) {
        lock(&self.inner.cooperative_fault).get_or_insert(reason);
    }

    /// Why cooperative matrices are not used although the adapter has them.
    pub fn cooperative_fault(&self) -> Option<String> {
        lock(&self.inner.cooperative_fault).clone()
    }
}
