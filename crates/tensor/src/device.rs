//! An open device, and what it can do.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use wgpu::Features;

use crate::adapter::{AdapterReport, select};
use crate::bind_groups::BindGroups;
use crate::cooperative::{Cooperative, Trials, listed_edge};
use crate::counts::{Counters, DeviceCounts};
use crate::error::{Result, TensorError};
use crate::kernel::Kernels;
use crate::pool::Pool;
use crate::staging::Staging;

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct DeviceOptions {
    /// Number in [`crate::adapters`] or part of a name (case-insensitive); `None` takes the best hardware adapter, else a software one.
    pub selector: Option<String>,
    /// Bytes that the pool may hold; `None`: 90 % of what is free.
    pub memory_limit: Option<u64>,
    /// Compile shaders with bounds checks and loop bounds.
    pub checked: bool,
    /// Use only what every WebGPU device has: no f16 arithmetic, subgroups or immediates.
    pub portable: bool,
    /// Whether kernels may use cooperative matrices; `portable` has none.
    pub cooperative: Cooperative,
    /// Bytes that one binding may hold at most, below the device's own limit; for tests of row windows and slabs.
    #[cfg(feature = "testing")]
    pub binding_limit: Option<u64>,
}

/// Bytes of immediates that kernels use at most.
pub(crate) const IMMEDIATE_BYTES: u32 = 64;

/// What the chosen device can do; kernels pick their permutations by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// 16-bit floats in shaders and storage.
    pub shader_f16: bool,
    /// Subgroup operations of any size.
    pub subgroup: bool,
    /// Immediates of at least 64 bytes.
    pub immediates: bool,
    /// Largest storage binding in bytes.
    pub max_binding_bytes: u64,
    /// Largest buffer in bytes.
    pub max_buffer_bytes: u64,
    /// Workgroup memory in bytes.
    pub workgroup_bytes: u32,
    /// Invocations of a workgroup, at most.
    pub workgroup_invocations: u32,
    /// Smallest and largest subgroup size.
    pub subgroup_sizes: (u32, u32),
    /// Edge of the cooperative-matrix tiles (f16 x f16 -> f32) that kernels use, 16 or 8; `None`: they use none.
    pub cooperative: Option<u32>,
    /// Runs on the CPU.
    pub software: bool,
}

/// An open device: the queue, the memory pool, compiled kernels and cached bind groups. Cheap to clone.
///
/// Threads may share it, each with its own recordings, tensors and read-backs. Uploads go through one ring and take turns;
/// constants of dispatches are written and submitted under one lock; what one thread frees is reclaimed before another's
/// allocation relies on it.
#[derive(Clone)]
pub struct Device {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) pool: Arc<Pool>,
    pub(crate) capabilities: Capabilities,
    pub(crate) checked: bool,
    pub(crate) kernels: Kernels,
    pub(crate) bind_groups: BindGroups,
    pub(crate) counts: Counters,
    pub(crate) staging: Mutex<Staging>,
    /// Held while tables of indices are checked or written and the work that reads them is submitted; taken before all other locks.
    pub(crate) order: Mutex<()>,
    pub(crate) uniforms: Option<wgpu::Buffer>,
    pub(crate) trials: Trials,
    /// Held while `uniforms` is written and the work that reads it is submitted.
    pub(crate) submission: Mutex<()>,
    failure: Arc<Mutex<Option<String>>>,
    report: AdapterReport,
    adapter: wgpu::Adapter,
    baseline_bytes: u64,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("adapter", &self.inner.report.name).finish_non_exhaustive()
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of the uniform buffer that replaces immediates: 256-byte windows for 8192 dispatches of one recording.
pub(crate) const UNIFORM_BYTES: u64 = 2 << 20;

/// What is asked of an adapter: the features that kernels can use, and its own limits where they need more than every device has.
struct Asked {
    features: Features,
    required: wgpu::Limits,
    immediates: bool,
    /// Edge of the cooperative-matrix tiles.
    edge: Option<u32>,
}

impl Asked {
    fn of(options: &DeviceOptions, adapter: &wgpu::Adapter, report: &AdapterReport) -> Self {
        let limits = adapter.limits();
        let available = if options.portable { Features::empty() } else { adapter.features() };
        let immediates = available.contains(Features::IMMEDIATES) && limits.max_immediate_size >= IMMEDIATE_BYTES;
        let mut wanted = available & (Features::SHADER_F16 | Features::SUBGROUP);
        if immediates {
            wanted |= Features::IMMEDIATES;
        }
        let matrices = Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let listed = listed_edge(&adapter.cooperative_matrix_properties()).filter(|_| !report.software);
        let edge = options
            .cooperative
            .edge(listed)
            .filter(|_| available.contains(wanted | matrices | Features::SUBGROUP | Features::SHADER_F16));
        if edge.is_some() {
            wanted |= matrices;
        }
        let base = wgpu::Limits::default();
        let required = wgpu::Limits {
            max_storage_buffer_binding_size: limits.max_storage_buffer_binding_size,
            max_buffer_size: limits.max_buffer_size,
            max_compute_workgroup_storage_size: limits.max_compute_workgroup_storage_size,
            max_compute_invocations_per_workgroup: limits.max_compute_invocations_per_workgroup,
            max_compute_workgroup_size_x: limits.max_compute_workgroup_size_x,
            max_storage_buffers_per_shader_stage: limits
                .max_storage_buffers_per_shader_stage
                .min(16)
                .max(base.max_storage_buffers_per_shader_stage),
            max_immediate_size: if immediates { IMMEDIATE_BYTES } else { 0 },
            ..base
        };
        Self { features: wanted, required, immediates, edge }
    }
}

impl Device {
    /// Opens a device.
    ///
    /// Mesa's device-select layer asks the desktop for its preferred GPU. Where there is no desktop, libwayland prints `error: XDG_RUNTIME_DIR is
    /// invalid or not set in the environment` to the standard error of any program that opens a device or lists adapters. It is harmless. A program that wants none of
    /// it is started with `NODEVICE_SELECT=1`, or with `XDG_RUNTIME_DIR` set to anything; the libraries do not change the environment.
    ///
    /// # Errors
    /// No adapter, or one that refuses.
    pub fn open(options: &DeviceOptions) -> Result<Self> {
        let (adapter, report) = select(options.selector.as_deref())?;
        let limits = adapter.limits();
        let Asked { features, required, immediates, edge } = Asked::of(options, &adapter, &report);
        let refused = |e: wgpu::RequestDeviceError| TensorError::NoDevice {
            adapter: report.name.clone(),
            message: e.to_string(),
        };
        let experimental_features = if edge.is_some() {
            // SAFETY: asked for only where kernels will use cooperative matrices. All shaders are this workspace's own, each permutation goes
            // through naga's validator in a test, and a kernel that uses them must first solve a known problem (`try_cooperative`).
            unsafe { wgpu::ExperimentalFeatures::enabled() }
        } else {
            wgpu::ExperimentalFeatures::disabled()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("elgen"),
            required_features: features,
            required_limits: required,
            experimental_features,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        }))
        .map_err(refused)?;

        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        let on_error = Arc::clone(&failure);
        device.on_uncaptured_error(Arc::new(move |error| {
            lock(&on_error).get_or_insert_with(|| one_line(&error.to_string()));
        }));
        let on_lost = Arc::clone(&failure);
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                lock(&on_lost).get_or_insert_with(|| format!("device lost: {}", one_line(&message)));
            }
        });

        let free = report.memory.map_or(u64::MAX, |m| m.free);
        let limit = options.memory_limit.unwrap_or(free / 10 * 9);
        let binding = limits.max_storage_buffer_binding_size;
        #[cfg(feature = "testing")]
        let binding = binding.min(options.binding_limit.unwrap_or(u64::MAX));
        let capabilities = Capabilities {
            shader_f16: features.contains(Features::SHADER_F16),
            subgroup: features.contains(Features::SUBGROUP),
            immediates,
            max_binding_bytes: binding,
            max_buffer_bytes: limits.max_buffer_size,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_invocations: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
            subgroup_sizes: report.subgroup_sizes,
            cooperative: edge,
            software: report.software,
        };
        let uniforms = (!immediates).then(|| {
            device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("dispatch constants"),
                size: UNIFORM_BYTES,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        let baseline_bytes = device.generate_allocator_report().map_or(0, |r| r.total_allocated_bytes);
        Ok(Self {
            inner: Arc::new(Inner {
                device,
                queue,
                pool: Pool::new(limit),
                capabilities,
                checked: options.checked,
                kernels: Kernels::default(),
                bind_groups: BindGroups::default(),
                counts: Counters::default(),
                staging: Mutex::default(),
                order: Mutex::default(),
                uniforms,
                trials: Trials::default(),
                submission: Mutex::default(),
                failure,
                report,
                adapter,
                baseline_bytes,
            }),
        })
    }

    /// What the device can do.
    pub fn capabilities(&self) -> Capabilities {
        let all = self.inner.capabilities;
        let trusted = all.cooperative.filter(|_| self.cooperative_fault().is_none());
        Capabilities { cooperative: trusted, ..all }
    }

    /// The adapter it was opened on.
    pub fn report(&self) -> &AdapterReport {
        &self.inner.report
    }

    /// The memory pool.
    pub fn pool(&self) -> &Pool {
        &self.inner.pool
    }

    /// Seconds spent compiling kernels so far.
    pub fn compile_seconds(&self) -> f64 {
        self.inner.kernels.compile_seconds()
    }

    /// What it has done so far, by all threads.
    pub fn counts(&self) -> DeviceCounts {
        self.inner.counts.read()
    }

    /// Bytes that wgpu's allocator holds beyond those of the bare device; `None` where the backend does not report.
    pub fn allocator_bytes(&self) -> Option<u64> {
        self.inner
            .device
            .generate_allocator_report()
            .map(|r| r.total_allocated_bytes.saturating_sub(self.inner.baseline_bytes))
    }

    /// Bytes of device-local memory that this process holds by the driver's account (`VK_EXT_memory_budget`); `None` on software adapters and
    /// where the driver does not tell.
    pub fn driver_bytes(&self) -> Option<u64> {
        crate::memory::heap_usage(&self.inner.adapter)
    }

    /// The first error that the driver reported outside of a checked call.
    ///
    /// # Errors
    /// [`TensorError::Device`] from then on.
    pub fn check(&self) -> Result<()> {
        match lock(&self.inner.failure).as_ref() {
            Some(message) => Err(TensorError::Device(message.clone())),
            None => Ok(()),
        }
    }
}

/// Driver messages are long and nested; errors of this crate stay on one line.
pub(crate) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
