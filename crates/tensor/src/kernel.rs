//! Compiled shaders.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use elgen_shaders::{Symbols, expand, permutations};

use crate::device::{Device, IMMEDIATE_BYTES, lock, one_line};
use crate::error::{Result, TensorError};
use crate::tensor::DType;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// A compiled permutation with its override constants.
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
}

/// What selects a kernel: the shader, its symbols and its override constants.
#[derive(Clone, Debug)]
pub struct KernelSpec {
    shader: &'static str,
    symbols: Symbols,
    constants: Vec<(&'static str, f64)>,
}

impl KernelSpec {
    /// The shader without symbols.
    pub fn new(shader: &'static str) -> Self {
        Self { shader, symbols: Symbols::new(), constants: Vec::new() }
    }

    /// Defines a symbol.
    #[must_use]
    pub fn define(mut self, name: &str) -> Self {
        self.symbols.define(name);
        self
    }

    /// Defines a symbol if `condition` holds.
    #[must_use]
    pub fn define_if(self, condition: bool, name: &str) -> Self {
        if condition { self.define(name) } else { self }
    }

    /// Gives a symbol a value.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.symbols.set(name, value);
        self
    }

    /// Sets an override constant.
    #[must_use]
    pub fn constant(mut self, name: &'static str, value: u32) -> Self {
        self.constants.push((name, f64::from(value)));
        self
    }

    /// Chooses how weights or caches of this dtype are read: `STORE_F32`, `STORE_F16` or, without SHADER_F16, `STORE_F16_PACKED`.
    #[must_use]
    pub fn storage(self, device: &Device, dtype: DType) -> Self {
        self.define(match dtype {
            DType::F32 => "STORE_F32",
            DType::F16 if device.capabilities().shader_f16 => "STORE_F16",
            DType::F16 => "STORE_F16_PACKED",
        })
    }

    /// Uses subgroups where the device has them (shaders with a `SUBGROUP` twin).
    #[must_use]
    pub fn subgroup(self, device: &Device) -> Self {
        self.define_if(device.capabilities().subgroup, "SUBGROUP")
    }
}

impl Device {
    /// The kernel of a specification; compiled at its first use.
    ///
    /// # Errors
    /// The shader does not expand, is refused by the compiler, or is not in the list of permutations.
    pub fn kernel(&self, spec: &KernelSpec) -> Result<Arc<Kernel>> {
        let mut symbols = spec.symbols.clone();
        if self.capabilities().immediates {
            symbols.define("IMMEDIATES");
        }
        let constants: Vec<String> = spec.constants.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let key = format!("{} [{}] {}", spec.shader, symbols.describe(), constants.join(" "));
        if let Some(kernel) = lock(&self.inner.kernels).get(&key) {
            return Ok(Arc::clone(kernel));
        }
        let started = Instant::now();
        let kernel = Arc::new(self.compile(spec, &symbols, &key)?);
        *lock(&self.inner.compile_seconds) += started.elapsed().as_secs_f64();
        // Two threads may have compiled it at once: all use the first, so that its bind groups are cached once.
        Ok(Arc::clone(lock(&self.inner.kernels).entry(key).or_insert(kernel)))
    }

    fn compile(&self, spec: &KernelSpec, symbols: &Symbols, key: &str) -> Result<Kernel> {
        let fail = |message: String| TensorError::Kernel { kernel: key.to_owned(), message: one_line(&message) };
        let source = expand(spec.shader, symbols).map_err(|e| fail(e.to_string()))?;
        // Devices that check shaders also check that the shader gate saw this permutation.
        if self.inner.checked && !permutations().iter().any(|p| p.shader == spec.shader && p.symbols == *symbols) {
            return Err(fail("is missing in the list of permutations".into()));
        }
        let access = bindings(&source);
        let device = &self.inner.device;
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor = wgpu::ShaderModuleDescriptor {
            label: Some(spec.shader),
            source: wgpu::ShaderSource::Wgsl(source.as_str().into()),
        };
        let checks = if self.inner.checked {
            wgpu::ShaderRuntimeChecks::checked()
        } else {
            wgpu::ShaderRuntimeChecks::unchecked()
        };
        // SAFETY: all shaders are this workspace's own; the test suite runs each of them against its CPU twin with checks on as well as
        // off, every loop has a bound that comes from a parameter, and the dispatching functions validate shapes against buffer sizes.
        let module = unsafe { device.create_shader_module_trusted(descriptor, checks) };
        let entries: Vec<_> = access
            .iter()
            .enumerate()
            .map(|(i, writes)| entry(i as u32, wgpu::BufferBindingType::Storage { read_only: !writes }, false))
            .collect();
        let layout = device
            .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(spec.shader), entries: &entries });
        let uniforms = self.inner.uniforms.as_ref();
        let uniform_layout = uniforms.map(|_| {
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some("dispatch constants"),
                entries: &[entry(0, wgpu::BufferBindingType::Uniform, true)],
            })
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(spec.shader),
            bind_group_layouts: &[Some(&layout), uniform_layout.as_ref()][..1 + usize::from(uniforms.is_some())],
            immediate_size: if uniforms.is_some() { 0 } else { IMMEDIATE_BYTES },
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(key),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &spec.constants,
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
        Ok(Kernel { id, name: key.to_owned(), pipeline, layout, uniform_group, bindings: access.len(), writes })
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
