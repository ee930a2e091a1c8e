//! How much memory an adapter has and how much of it is free.

use ash::vk;

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
    let heaps = Heaps::query(adapter)?;
    Some(MemoryInfo { total: heaps.total, free: heaps.budget.map_or(heaps.total, |b| b.free) })
}

/// Bytes of the device-local heaps that the driver says this process holds; `None` on software adapters, whose heap is the machine's memory, and
/// without `VK_EXT_memory_budget`.
pub(crate) fn heap_usage(adapter: &wgpu::Adapter) -> Option<u64> {
    if adapter.get_info().device_type == wgpu::DeviceType::Cpu {
        return None;
    }
    Some(Heaps::query(adapter)?.budget?.used)
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

impl Heaps {
    fn query(adapter: &wgpu::Adapter) -> Option<Self> {
        // SAFETY: the guard is only read: the handles are used for two queries while the adapter is alive, and nothing is destroyed.
        let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
        let instance = hal.shared_instance().raw_instance();
        let device = hal.raw_physical_device();
        // SAFETY: `device` was enumerated from `instance`, both are alive, and the output structures outlive the calls.
        let (memory, budget) = unsafe {
            let has_budget = instance
                .enumerate_device_extension_properties(device)
                .ok()?
                .iter()
                .any(|e| e.extension_name_as_c_str().is_ok_and(|name| name == ash::ext::memory_budget::NAME));
            let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
            let mut query = vk::PhysicalDeviceMemoryProperties2::default();
            if has_budget {
                query = query.push_next(&mut budget);
            }
            instance.get_physical_device_memory_properties2(device, &mut query);
            let memory = query.memory_properties;
            (memory, has_budget.then_some(budget))
        };
        let local = |i: &usize| memory.memory_heaps[*i].flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
        let heaps: Vec<usize> = (0..memory.memory_heap_count as usize).filter(local).collect();
        let sum = |see: &dyn Fn(usize) -> u64| heaps.iter().map(|i| see(*i)).sum();
        Some(Self {
            total: sum(&|i| memory.memory_heaps[i].size),
            budget: budget.map(|b| Budget {
                used: sum(&|i| b.heap_usage[i]),
                free: sum(&|i| b.heap_budget[i].saturating_sub(b.heap_usage[i])),
            }),
        })
    }
}

fn host_memory() -> Option<MemoryInfo> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |key: &str| {
        let line = text.lines().find(|l| l.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some(MemoryInfo { total: kib("MemTotal:")? * 1024, free: kib("MemAvailable:")? * 1024 })
}
