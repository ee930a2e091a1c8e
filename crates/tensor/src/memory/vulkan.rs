//! The memory heaps of a Vulkan adapter.

use ash::vk;

use super::{Budget, Heaps};

/// Asks the driver; `None` if the adapter is not Vulkan's.
pub(super) fn heaps(adapter: &wgpu::Adapter) -> Option<Heaps> {
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
    Some(Heaps {
        total: sum(&|i| memory.memory_heaps[i].size),
        budget: budget.map(|b| Budget {
            used: sum(&|i| b.heap_usage[i]),
            free: sum(&|i| b.heap_budget[i].saturating_sub(b.heap_usage[i])),
        }),
    })
}
