//! How much memory an adapter has and how much of it is free.

// wgpu has no Vulkan on Apple's systems, whatever the features say.
#[cfg(all(feature = "vulkan", not(target_vendor = "apple")))]
mod vulkan;

#[cfg(all(feature = "vulkan", not(target_vendor = "apple")))]
use vulkan::heaps;

/// Memory of a device in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Size of the device-local heaps (software adapters: the machine's memory).
    pub total: u64,
    /// What this process may still take, as the driver or the kernel sees it.
    pub free: u64,
}

/// Asks the Vulkan heaps and their budget; on software adapters `/proc/meminfo`.
pub(crate) fn memory_info(adapter: &wgpu::Adapter) -> Option<MemoryInfo> {
    if adapter.get_info().device_type == wgpu::DeviceType::Cpu {
        return host_memory();
    }
    heap_budget(adapter).or_else(host_memory)
}

/// The sum of the device-local heaps and, with `VK_EXT_memory_budget`, what is left of this process's budget.
fn heap_budget(adapter: &wgpu::Adapter) -> Option<MemoryInfo> {
    let heaps = heaps(adapter)?;
    Some(MemoryInfo { total: heaps.total, free: heaps.budget.map_or(heaps.total, |b| b.free) })
}

/// Bytes of the device-local heaps that the driver says this process holds; `None` on software adapters, whose heap is the machine's memory, and
/// without `VK_EXT_memory_budget`.
pub(crate) fn heap_usage(adapter: &wgpu::Adapter) -> Option<u64> {
    if adapter.get_info().device_type == wgpu::DeviceType::Cpu {
        return None;
    }
    Some(heaps(adapter)?.budget?.used)
}

/// The device-local heaps, in sum.
struct Heaps {
    total: u64,
    budget: Option<Budget>,
}

/// What the driver grants this process.
struct Budget {
    used: u64,
    free: u64,
}

/// Other backends do not tell.
#[cfg(not(all(feature = "vulkan", not(target_vendor = "apple"))))]
fn heaps(_: &wgpu::Adapter) -> Option<Heaps> {
    None
}

fn host_memory() -> Option<MemoryInfo> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |key: &str| {
        let line = text.lines().find(|l| l.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some(MemoryInfo { total: kib("MemTotal:")? * 1024, free: kib("MemAvailable:")? * 1024 })
}
