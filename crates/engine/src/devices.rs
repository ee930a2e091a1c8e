//! What `elgen devices` lists.

use elgen_tensor::AdapterReport;
use serde::Serialize;

use crate::error::EngineError;

/// An adapter that a session can be opened on.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DeviceReport {
    /// Its number, for [`crate::SessionOptions::device`].
    pub index: usize,
    /// Name as the driver gives it.
    pub name: String,
    /// Driver name and version.
    pub driver: String,
    /// The graphics interface.
    pub backend: String,
    /// "discrete", "integrated", "virtual", "software" or "other".
    pub device_type: String,
    /// True for adapters that run on the CPU.
    pub software: bool,
    /// Memory in bytes (software adapters: the machine's).
    pub memory_total: Option<u64>,
    /// Bytes that are free.
    pub memory_free: Option<u64>,
    /// Largest storage binding in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Features that kernels can use.
    pub features: Vec<String>,
    /// Cooperative-matrix shapes, as "16x16x16 f16->f32".
    pub matrix_tiles: Vec<String>,
    /// Smallest and largest subgroup size.
    pub subgroup_sizes: (u32, u32),
}

/// All adapters of this machine.
pub fn devices() -> Vec<DeviceReport> {
    elgen_tensor::adapters().into_iter().map(report).collect()
}

/// The adapter that a session would be opened on.
///
/// # Errors
/// There is none, or none of this name or number.
pub fn best_device(selector: Option<&str>) -> Result<DeviceReport, EngineError> {
    Ok(report(elgen_tensor::adapter(selector)?))
}

fn report(a: AdapterReport) -> DeviceReport {
    DeviceReport {
        index: a.index,
        name: a.name,
        driver: a.driver,
        backend: a.backend.into(),
        device_type: a.device_type.into(),
        software: a.software,
        memory_total: a.memory.map(|m| m.total),
        memory_free: a.memory.map(|m| m.free),
        max_binding_bytes: a.max_binding_bytes,
        max_buffer_bytes: a.max_buffer_bytes,
        features: a.features.into_iter().map(str::to_owned).collect(),
        matrix_tiles: a.matrix_tiles,
        subgroup_sizes: a.subgroup_sizes,
    }
}
