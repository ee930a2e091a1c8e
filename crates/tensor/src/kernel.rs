//! Compiled shaders.

mod host;
mod spec;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use elgen_shaders::{Symbols, permutations};
use rustc_hash::FxHashMap;

use crate::device::{Device, IMMEDIATE_BYTES, lock, one_line};
use crate::error::{Result, TensorError};

pub use host::{HostBuffer, HostCx, HostFunction};
use spec::SpecKey;
pub use spec::{KernelSource, KernelSpec};

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// A compiled permutation with its override constants: what a dispatch names. Made by [`Device::kernel`].
#[derive(Debug)]
pub struct Kernel {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    pub(crate) uniform_group: Option<wgpu::BindGroup>,
    pub(crate) bindings: usize,
    /// Bit `i` is set if binding `i` is written.
    pub(crate) writes: u32,
    /// Compiled with bounds checks: no contents of its buffers make it leave them.
    pub(crate) checked: bool,
    own: bool,
    host: Option<HostFunction>,
}

impl Kernel {
    /// Whether it is one of this workspace's.
    pub(crate) fn is_own(&self) -> bool {
        self.own
    }

    /// Shader name, symbols and constants.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a device without shaders runs in its place.
    pub fn host(&self) -> Option<HostFunction> {
        self.host
    }
}

/// The kernels of a device.
#[derive(Debug, Default)]
pub(crate) struct Kernels {
    /// By the numbers of their specifications: all that a step looks at.
    resolved: RwLock<FxHashMap<SpecKey, Arc<Kernel>>>,
    /// By text: names may lie at several addresses.
    compiled: Mutex<HashMap<String, Arc<Kernel>>>,
    compile_seconds: Mutex<f64>,
}

impl Kernels {
    pub(crate) fn compile_seconds(&self) -> f64 {
        *lock(&self.compile_seconds)
    }
}

impl Device {
    /// The kernel of a specification; compiled at its first use.
    ///
    /// # Errors
    /// The shader does not expand, is refused by the compiler, or is not in the list of permutations.
    pub fn kernel(&self, spec: &KernelSpec) -> Result<Arc<Kernel>> {
        let (kernels, key) = (&self.inner.kernels, spec.key());
        if let Some(kernel) = kernels.resolved.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(Arc::clone(kernel));
        }
        let kernel = self.resolve(spec)?;
        let mut resolved = kernels.resolved.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(resolved.entry(key).or_insert(kernel)))
    }

    /// Looks a kernel up by text, and compiles it where it is new.
    fn resolve(&self, spec: &KernelSpec) -> Result<Arc<Kernel>> {
        let kernels = &self.inner.kernels;
        self.inner.counts.text_lookup();
        let symbols = spec.expander_symbols(self.capabilities().immediates);
        let text = spec.describe(&symbols);
        if let Some(fault) = spec.fault() {
            return Err(TensorError::Kernel { kernel: text, message: fault });
        }
        if let Some(kernel) = lock(&kernels.compiled).get(&text) {
            return Ok(Arc::clone(kernel));
        }
        let started = Instant::now();
        let kernel = Arc::new(self.compile(spec, &symbols, &text)?);
        *lock(&kernels.compile_seconds) += started.elapsed().as_secs_f64();
        // Two threads may have compiled it at once: all use the first, so that its bind groups are cached once.
        Ok(Arc::clone(lock(&kernels.compiled).entry(text).or_insert(kernel)))
    }

    fn compile(&self, spec: &KernelSpec, symbols: &Symbols, key: &str) -> Result<Kernel> {
        let fail = |message: String| TensorError::Kernel { kernel: key.to_owned(), message: one_line(&message) };
        let source = spec.expand(symbols).map_err(|e| fail(e.to_string()))?;
        // Devices that check shaders also check that the shader gate saw this permutation.
        let listed = || permutations().iter().any(|p| p.shader == spec.shader() && p.symbols == *symbols);
        if self.inner.checked && spec.is_own() && !listed() {
            return Err(fail("is missing in the list of permutations".into()));
        }
        let access = bindings(&source);
        let device = &self.inner.device;
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(spec.shader()),
            source: wgpu::ShaderSource::Wgsl(source.as_str().into()),
        };
        // What comes from outside is never trusted.
        let checked = self.inner.checked || !spec.is_own();
        let checks =
            if checked { wgpu::ShaderRuntimeChecks::checked() } else { wgpu::ShaderRuntimeChecks::unchecked() };
        // SAFETY: a shader that is compiled without checks is this workspace's own. It is reached only through
        // `Recorder::dispatch_trusted`, whose callers are the ops: they validate shapes against buffer sizes, and indices come from tables
        // whose values were checked. Every loop has a bound that comes from a parameter. The test suite runs each of them with checks, too.
        let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
        let entries: Vec<_> = access
            .iter()
            .enumerate()
            .map(|(i, writes)| entry(i as u32, wgpu::BufferBindingType::Storage { read_only: !writes }, false))
            .collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some(spec.shader()),
            entries: &entries,
        });
        let uniforms = self.inner.uniforms.as_ref();
        let uniform_layout = uniforms.map(|_| {
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some("dispatch constants"),
                entries: &[entry(0, wgpu::BufferBindingType::Uniform, true)],
            })
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(spec.shader()),
            bind_group_layouts: &[Some(&layout), uniform_layout.as_ref()][..1 + usize::from(uniforms.is_some())],
            immediate_size: if uniforms.is_some() { 0 } else { IMMEDIATE_BYTES },
        });
        let constants: Vec<(&str, f64)> = spec.constants().map(|(name, value)| (name, f64::from(value))).collect();
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(key),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(fail(error.to_string()));
        }
        self.check()?;
        let uniform_group = uniforms.zip(uniform_layout.as_ref()).map(|(buffer, layout)| {
            let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset: 0,
                size: std::num::NonZeroU64::new(u64::from(IMMEDIATE_BYTES)),
            });
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("dispatch constants"),
                layout,
                entries: &[wgpu::BindGroupEntry { binding: 0, resource }],
            })
        });
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let writes = access.iter().enumerate().fold(0, |bits, (i, w)| bits | (u32::from(*w) << i));
        Ok(Kernel {
            id,
            name: key.to_owned(),
            pipeline,
            layout,
            uniform_group,
            bindings: access.len(),
            writes,
            checked,
            own: spec.is_own(),
            host: spec.host_function(),
        })
    }
}

fn entry(binding: u32, ty: wgpu::BufferBindingType, has_dynamic_offset: bool) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None },
        count: None,
    }
}

/// Reads the storage bindings of group 0 out of an expanded shader: for each, in order, whether it is written. The shader text is the
/// one place where a kernel's interface is stated.
fn bindings(source: &str) -> Vec<bool> {
    source
        .lines()
        .filter(|line| line.trim_start().starts_with("@group(0)"))
        .map(|line| line.contains("read_write"))
        .collect()
}
