//! Recording dispatches: one command encoder, one compute pass, one submission.

use bytemuck::Pod;

use crate::device::{Device, IMMEDIATE_BYTES, UNIFORM_BYTES, lock};
use crate::error::{Result, TensorError};
use crate::kernel::Kernel;
use crate::tensor::Buffer;
use crate::transfer::Readback;

/// What one recording did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordStats {
    /// Compute dispatches.
    pub dispatches: u64,
    /// Times that the host waited.
    pub host_waits: u64,
    /// Bytes read back.
    pub readback_bytes: u64,
    /// Queue submissions.
    pub submissions: u64,
}

impl std::ops::AddAssign for RecordStats {
    fn add_assign(&mut self, other: Self) {
        self.dispatches += other.dispatches;
        self.host_waits += other.host_waits;
        self.readback_bytes += other.readback_bytes;
        self.submissions += other.submissions;
    }
}

/// Records dispatches and copies in order. Nothing runs before [`Recorder::submit`].
pub struct Recorder {
    device: Device,
    encoder: wgpu::CommandEncoder,
    pass: Option<wgpu::ComputePass<'static>>,
    uniforms: Vec<u8>,
    stats: RecordStats,
}

/// Alignment of dynamic uniform offsets that every device accepts.
const UNIFORM_STRIDE: usize = 256;

impl Device {
    /// Starts a recording.
    pub fn recorder(&self) -> Recorder {
        self.forget_freed();
        let encoder = self.inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        Recorder { device: self.clone(), encoder, pass: None, uniforms: Vec::new(), stats: RecordStats::default() }
    }

    /// Drops cached bind groups of freed buffers, which would keep them alive.
    pub(crate) fn forget_freed(&self) {
        // The list is taken under the lock of the cache: a thread that finds it empty finds the groups gone too.
        let mut groups = lock(&self.inner.bind_groups);
        let freed = self.inner.pool.take_freed();
        if !freed.is_empty() {
            groups.retain(|(_, ids), _| !ids.iter().any(|id| freed.contains(id)));
            *lock(&self.inner.unreclaimed) = true;
        }
    }

    /// Returns once the driver has back what the pool counts as freed. Another thread's recording may have dropped the
    /// bind groups, so the lock is held until the device is idle: whoever finds nothing to reclaim may rely on it.
    pub(crate) fn reclaim(&self) -> Result<()> {
        self.forget_freed();
        let mut unreclaimed = lock(&self.inner.unreclaimed);
        if *unreclaimed {
            self.wait()?;
            *unreclaimed = false;
        }
        Ok(())
    }
}

impl Recorder {
    /// The device that this records for.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Dispatches recorded so far.
    pub fn dispatches(&self) -> u64 {
        self.stats.dispatches
    }

    /// Records one dispatch. `params` is the shader's `Params` struct: u32 and f32 fields only.
    ///
    /// # Errors
    /// The number of buffers or the size of the grid does not fit the kernel or the device. A grid with a zero is a no-op.
    pub fn dispatch(
        &mut self,
        kernel: &Kernel,
        buffers: &[&Buffer],
        params: &impl Pod,
        groups: [u32; 3],
    ) -> Result<()> {
        let params = bytemuck::bytes_of(params);
        let fail = |message: String| TensorError::Kernel { kernel: kernel.name.clone(), message };
        if buffers.len() != kernel.bindings {
            return Err(fail(format!("{} buffers given, {} expected", buffers.len(), kernel.bindings)));
        }
        if params.len() > IMMEDIATE_BYTES as usize {
            return Err(fail(format!("{} bytes of parameters exceed {IMMEDIATE_BYTES}", params.len())));
        }
        if groups.contains(&0) {
            return Ok(());
        }
        if groups.iter().any(|g| *g > 65535) {
            return Err(fail(format!("grid {groups:?} exceeds 65535 workgroups in a dimension")));
        }
        for (i, buffer) in buffers.iter().enumerate() {
            let written = kernel.writes >> i & 1 == 1;
            if written && buffers.iter().filter(|b| b.id() == buffer.id()).count() > 1 {
                return Err(fail(format!("binding {i} is written and bound twice")));
            }
        }
        let group = self.bind_group(kernel, buffers);
        let pass = self.pass.get_or_insert_with(|| {
            self.encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime()
        });
        pass.set_pipeline(&kernel.pipeline);
        pass.set_bind_group(0, &group, &[]);
        if let Some(uniform_group) = &kernel.uniform_group {
            let offset = self.uniforms.len();
            if offset + UNIFORM_STRIDE > UNIFORM_BYTES as usize {
                return Err(fail(format!(
                    "more than {} dispatches in one recording",
                    UNIFORM_BYTES as usize / UNIFORM_STRIDE
                )));
            }
            self.uniforms.extend_from_slice(params);
            self.uniforms.resize(offset + UNIFORM_STRIDE, 0);
            pass.set_bind_group(1, uniform_group, &[offset as u32]);
        } else if !params.is_empty() {
            pass.set_immediates(0, params);
        }
        pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
        self.stats.dispatches += 1;
        Ok(())
    }

    fn bind_group(&self, kernel: &Kernel, buffers: &[&Buffer]) -> wgpu::BindGroup {
        let inner = &self.device.inner;
        let key = (kernel.id, buffers.iter().map(|b| b.id()).collect::<Vec<u64>>());
        let mut cache = lock(&inner.bind_groups);
        cache
            .entry(key)
            .or_insert_with(|| {
                let entries: Vec<_> = buffers
                    .iter()
                    .enumerate()
                    .map(|(i, b)| wgpu::BindGroupEntry { binding: i as u32, resource: b.inner.raw.as_entire_binding() })
                    .collect();
                inner.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &kernel.layout,
                    entries: &entries,
                })
            })
            .clone()
    }

    /// Records a copy of `bytes` bytes; offsets and size are multiples of 4.
    ///
    /// # Errors
    /// The range leaves a buffer.
    pub fn copy(&mut self, from: &Buffer, from_offset: u64, to: &Buffer, to_offset: u64, bytes: u64) -> Result<()> {
        let leaves = |offset: u64, buffer: &Buffer| offset.checked_add(bytes).is_none_or(|end| end > buffer.bytes());
        if leaves(from_offset, from) || leaves(to_offset, to) {
            return Err(TensorError::Shape {
                op: "copy",
                message: format!(
                    "{bytes} bytes at {from_offset} -> {to_offset} leave a buffer of {} or {}",
                    from.bytes(),
                    to.bytes()
                ),
            });
        }
        self.pass = None;
        self.encoder.copy_buffer_to_buffer(&from.inner.raw, from_offset, &to.inner.raw, to_offset, Some(bytes));
        Ok(())
    }

    /// Submits without waiting.
    ///
    /// # Errors
    /// The device failed.
    pub fn submit(mut self) -> Result<RecordStats> {
        self.submit_inner()?;
        Ok(self.stats)
    }

    fn submit_inner(&mut self) -> Result<wgpu::SubmissionIndex> {
        self.pass = None;
        let inner = &self.device.inner;
        // Another thread's constants must not come between these and the submission that reads them.
        let _submission = lock(&inner.submission);
        if let (Some(buffer), false) = (&inner.uniforms, self.uniforms.is_empty()) {
            inner.queue.write_buffer(buffer, 0, &self.uniforms);
        }
        let next = inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let encoder = std::mem::replace(&mut self.encoder, next);
        let index = inner.queue.submit([encoder.finish()]);
        self.stats.submissions += 1;
        self.device.check()?;
        Ok(index)
    }

    /// Submits, waits, and hands the first `bytes` of `from` to the host: the one wait of a decode step.
    ///
    /// # Errors
    /// The device failed.
    pub fn submit_and_read(mut self, readback: &Readback, from: &Buffer, bytes: u64) -> Result<(Vec<u8>, RecordStats)> {
        self.copy(from, 0, &readback.buffer, 0, bytes)?;
        let index = self.submit_inner()?;
        let data = readback.map(&self.device, index, bytes)?;
        self.stats.host_waits += 1;
        self.stats.readback_bytes += bytes;
        Ok((data, self.stats))
    }
}
