//! The adapters of this machine, and choosing one.

use wgpu::{DeviceType, Features};

use crate::address_space;
use crate::bytes::Bytes;
use crate::cooperative::tile_names;
use crate::error::{Result, TensorError};
use crate::memory::{MemoryInfo, memory_info};

/// What an adapter offers, for `elgen devices`.
#[derive(Clone, Debug)]
pub struct AdapterReport {
    /// Its number, for [`crate::DeviceOptions::selector`].
    pub index: usize,
    /// Name as the driver gives it.
    pub name: String,
    /// Driver name and version.
    pub driver: String,
    /// "vulkan", "metal" or "dx12".
    pub backend: &'static str,
    /// "discrete", "integrated", "virtual", "software" or "other".
    pub device_type: &'static str,
    /// True for adapters that run on the CPU.
    pub software: bool,
    /// Memory, where it can be told.
    pub memory: Option<MemoryInfo>,
    /// Largest storage binding in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Those of the features that elgen can use which are there.
    pub features: Vec<&'static str>,
    /// Cooperative-matrix shapes at subgroup scope, as "16x16x16 f16->f32".
    pub matrix_tiles: Vec<String>,
    /// Smallest and largest subgroup size.
    pub subgroup_sizes: (u32, u32),
}

/// Features that kernels can use, and their names in reports.
const USEFUL: [(Features, &str); 5] = [
    (Features::SHADER_F16, "shader-f16"),
    (Features::SUBGROUP, "subgroup"),
    (Features::IMMEDIATES, "immediates"),
    (Features::TIMESTAMP_QUERY, "timestamp-query"),
    (Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative-matrix"),
];

/// What this build may use; wgpu passes over those that the platform lacks.
fn backends() -> wgpu::Backends {
    let built = [
        (cfg!(feature = "vulkan"), wgpu::Backends::VULKAN),
        (cfg!(feature = "metal"), wgpu::Backends::METAL),
        (cfg!(feature = "dx12"), wgpu::Backends::DX12),
    ];
    built.iter().filter(|(built, _)| *built).map(|(_, backend)| *backend).collect()
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends();
    descriptor.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(descriptor)
}

fn enumerate() -> Vec<wgpu::Adapter> {
    let mut found = pollster::block_on(instance().enumerate_adapters(backends()));
    // A card may be there once for each backend: its Vulkan adapter comes first, so that the best adapter is that one.
    found.sort_by_key(|adapter| adapter.get_info().backend != wgpu::Backend::Vulkan);
    found
}

fn report(index: usize, adapter: &wgpu::Adapter) -> AdapterReport {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = adapter.features();
    AdapterReport {
        index,
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        name: info.name,
        backend: info.backend.to_str(),
        device_type: match info.device_type {
            DeviceType::DiscreteGpu => "discrete",
            DeviceType::IntegratedGpu => "integrated",
            DeviceType::VirtualGpu => "virtual",
            DeviceType::Cpu => "software",
            DeviceType::Other => "other",
        },
        software: info.device_type == DeviceType::Cpu,
        memory: memory_info(adapter),
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        features: USEFUL.iter().filter(|(f, _)| features.contains(*f)).map(|(_, name)| *name).collect(),
        matrix_tiles: tile_names(&adapter.cooperative_matrix_properties()),
        subgroup_sizes: (info.subgroup_min_size, info.subgroup_max_size),
    }
}

/// All adapters of this machine that wgpu reaches with the backends of this build.
pub fn adapters() -> Vec<AdapterReport> {
    enumerate().iter().enumerate().map(|(i, a)| report(i, a)).collect()
}

/// The adapter that [`crate::Device::open`] takes: the best one, or the one that `selector` names.
///
/// # Errors
/// There is none.
pub fn adapter(selector: Option<&str>) -> Result<AdapterReport> {
    Ok(select(selector)?.1)
}

const NO_DRIVER_HINT: &str = "install your GPU's Vulkan driver, or Mesa's software driver (Debian and Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1)";

/// What may be the reason where there is no adapter. A driver that finds no room in the address space is not listed either.
fn no_driver_hint(address_space: Option<u64>) -> String {
    match address_space {
        None => NO_DRIVER_HINT.to_owned(),
        Some(limit) => {
            let limit = Bytes(limit);
            format!(
                "this process may map only {limit} (ulimit -v), which a driver may not fit into; if it is not that, {NO_DRIVER_HINT}"
            )
        }
    }
}

pub(crate) fn select(selector: Option<&str>) -> Result<(wgpu::Adapter, AdapterReport)> {
    let rank = |a: &AdapterReport| match a.device_type {
        "discrete" => 0,
        "integrated" => 1,
        "virtual" => 2,
        "other" => 3,
        _ => 4,
    };
    let found: Vec<_> = enumerate().into_iter().enumerate().map(|(i, a)| (report(i, &a), a)).collect();
    let names: Vec<String> = found.iter().map(|(r, _)| format!("{:?} (number {})", r.name, r.index)).collect();
    let chosen = match selector {
        None => found.into_iter().min_by_key(|(r, _)| (rank(r), r.index)),
        Some(s) => match s.parse::<usize>() {
            Ok(number) => found.into_iter().find(|(r, _)| r.index == number),
            Err(_) => found.into_iter().find(|(r, _)| r.name.to_lowercase().contains(&s.to_lowercase())),
        },
    };
    chosen.map(|(r, a)| (a, r)).ok_or_else(|| TensorError::NoAdapter {
        selector: selector.map(str::to_owned),
        hint: match names.is_empty() {
            true => no_driver_hint(address_space::limit()),
            false => format!("found {}", names.join(", ")),
        },
    })
}
