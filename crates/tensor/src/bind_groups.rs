//! Bind groups, made once for each kernel and its buffers.

use std::hash::{Hash, Hasher};
use std::sync::Mutex;

use rustc_hash::FxHashMap;

use crate::binding::MAX_BINDINGS;
use crate::device::{Device, lock};
use crate::kernel::Kernel;
use crate::tensor::Buffer;

/// A kernel and the buffers that it is bound to, by number.
#[derive(Clone, Copy, Debug)]
struct Key {
    ids: [u64; 1 + MAX_BINDINGS],
    count: usize,
}

impl Key {
    fn new(kernel: &Kernel, buffers: &[Buffer]) -> Self {
        let mut key = Self { ids: [0; 1 + MAX_BINDINGS], count: 1 };
        key.ids[0] = kernel.id;
        // A kernel has no more bindings than a device was asked for.
        for buffer in buffers.iter().take(MAX_BINDINGS) {
            key.ids[key.count] = buffer.id();
            key.count += 1;
        }
        key
    }

    fn used(&self) -> &[u64] {
        &self.ids[..self.count]
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.used() == other.used()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for id in self.used() {
            state.write_u64(*id);
        }
    }
}

/// The bind groups of a device.
#[derive(Debug, Default)]
pub(crate) struct BindGroups {
    groups: Mutex<FxHashMap<Key, wgpu::BindGroup>>,
    /// Whether buffers were freed whose memory the driver may not have back yet.
    unreclaimed: Mutex<bool>,
}

impl BindGroups {
    /// Shows the group of a kernel and its buffers to `see`.
    pub(crate) fn with<R>(
        &self,
        device: &Device,
        kernel: &Kernel,
        buffers: &[Buffer],
        see: impl FnOnce(&wgpu::BindGroup) -> R,
    ) -> R {
        let make = || {
            device.inner.counts.bind_group();
            let entries: Vec<_> = buffers
                .iter()
                .enumerate()
                .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.inner.raw.as_entire_binding() })
                .collect();
            device.inner.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &kernel.layout,
                entries: &entries,
            })
        };
        see(lock(&self.groups).entry(Key::new(kernel, buffers)).or_insert_with(make))
    }
}

impl Device {
    /// Drops cached bind groups of freed buffers, which would keep them alive.
    pub(crate) fn forget_freed(&self) {
        let BindGroups { groups, unreclaimed } = &self.inner.bind_groups;
        // The list is taken under the lock of the cache: a thread that finds it empty finds the groups gone too.
        let mut groups = lock(groups);
        let freed = self.inner.pool.take_freed();
        if !freed.is_empty() {
            groups.retain(|key, _| !key.used()[1..].iter().any(|id| freed.contains(id)));
            *lock(unreclaimed) = true;
        }
    }

    /// Returns once the driver has back what the pool counts as freed. Another thread's recording may have dropped the
    /// bind groups, so the lock is held until the device is idle: whoever finds nothing to reclaim may rely on it.
    pub(crate) fn reclaim(&self) -> crate::error::Result<()> {
        self.forget_freed();
        let mut unreclaimed = lock(&self.inner.bind_groups.unreclaimed);
        if *unreclaimed {
            self.wait()?;
            *unreclaimed = false;
        }
        Ok(())
    }
}
