//! From a recording to the queue: one command encoder and one compute pass where order allows it.

use std::sync::MutexGuard;

use crate::counts::RecordStats;
use crate::device::{Device, IMMEDIATE_BYTES, UNIFORM_BYTES, lock};
use crate::error::{Result, TensorError};
use crate::kernel::Kernel;
use crate::recording::{Command, Recording};
use crate::staging::Staging;
use crate::tensor::Buffer;

/// Alignment of dynamic uniform offsets that every device accepts.
const UNIFORM_STRIDE: usize = 256;

/// Work that was given to the device.
#[derive(Clone, Debug)]
pub struct Submission {
    device: Device,
    index: Option<wgpu::SubmissionIndex>,
}

impl Submission {
    /// Waits until it is done.
    ///
    /// # Errors
    /// The device failed.
    pub fn wait(&self) -> Result<()> {
        match self.index.clone() {
            Some(index) => self.device.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None }),
            None => Ok(()),
        }
    }
}

impl Device {
    pub(crate) fn count(&self, stats: &RecordStats) {
        self.inner.counts.add(stats);
    }

    pub(crate) fn poll(&self, poll: wgpu::PollType) -> Result<()> {
        self.inner.device.poll(poll).map_err(|e| TensorError::Device(e.to_string()))?;
        self.check()
    }

    /// Submits a recording and counts what reached the queue, also where it fails midway.
    pub(crate) fn submit(&self, recording: &mut Recording, stats: &mut RecordStats) -> Result<Submission> {
        self.forget_freed();
        if recording.is_empty() {
            return Ok(Submission { device: self.clone(), index: None });
        }
        // No table is written between the look at it and the submission.
        let order = (!recording.tables.is_empty()).then(|| lock(&self.inner.order));
        recording.check_tables()?;
        let mut uniforms = std::mem::take(&mut recording.uniforms);
        let mut queue = Queue::new(self, &mut uniforms);
        let result = queue.run(recording);
        *stats += queue.stats;
        drop(queue);
        recording.uniforms = uniforms;
        recording.land_tables(result.is_ok());
        drop(order);
        let index = result?;
        for command in &recording.commands {
            if let (Command::ReadBack { to, bytes, .. }, Some(index)) = (command, &index) {
                to.submitted(index, *bytes);
            }
        }
        self.check()?;
        Ok(Submission { device: self.clone(), index })
    }

    /// Copies bytes to a buffer, past any recording: what loading takes, which needs no second copy of them on the host.
    pub(crate) fn upload(&self, to: &Buffer, offset: u64, data: &[u8]) -> Result<()> {
        let mut uniforms = Vec::new();
        let mut queue = Queue::new(self, &mut uniforms);
        queue.upload(to, offset, data)?;
        queue.flush()?;
        self.check()
    }
}

/// What is being encoded.
struct Queue<'d> {
    device: &'d Device,
    encoder: Option<wgpu::CommandEncoder>,
    pass: Option<wgpu::ComputePass<'static>>,
    /// The kernel whose pipeline the pass has set.
    kernel: Option<u64>,
    /// Held from the first upload on.
    staging: Option<MutexGuard<'d, Staging>>,
    /// Constants of the dispatches, on devices without immediates.
    uniforms: &'d mut Vec<u8>,
    /// Since the last submission.
    dispatches: u64,
    stats: RecordStats,
}

impl<'d> Queue<'d> {
    fn new(device: &'d Device, uniforms: &'d mut Vec<u8>) -> Self {
        uniforms.clear();
        Self {
            device,
            encoder: None,
            pass: None,
            kernel: None,
            staging: None,
            uniforms,
            dispatches: 0,
            stats: RecordStats::default(),
        }
    }

    fn run(&mut self, recording: &Recording) -> Result<Option<wgpu::SubmissionIndex>> {
        // Uploads first: the lock of the ring is taken before that of the bind groups.
        for command in recording.front.iter().chain(&recording.commands) {
            match command {
                Command::Upload { to, offset, data } => self.upload(to, *offset, &recording.data[data.clone()])?,
                Command::Dispatch { kernel, buffers, params, grid } => {
                    self.dispatch(
                        kernel,
                        &recording.buffers[buffers.clone()],
                        &recording.params[params.clone()],
                        *grid,
                    )?;
                }
                Command::Copy { from, from_offset, to, to_offset, bytes } => {
                    self.copy(from.raw()?, *from_offset, to.raw()?, *to_offset, *bytes);
                }
                Command::ReadBack { from, from_offset, to, bytes } => {
                    self.copy(from.raw()?, *from_offset, to.buffer.raw()?, 0, *bytes);
                    self.stats.readback_bytes += bytes;
                }
            }
        }
        self.flush()
    }

    fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        let device = &self.device.inner.device;
        self.encoder.get_or_insert_with(|| device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default()))
    }

    fn copy(&mut self, from: &wgpu::Buffer, from_offset: u64, to: &wgpu::Buffer, to_offset: u64, bytes: u64) {
        self.pass = None;
        self.encoder().copy_buffer_to_buffer(from, from_offset, to, to_offset, Some(bytes));
    }

    /// Copies through the ring. A chunk that is full is submitted at once: its copy runs while the next one is filled.
    fn upload(&mut self, to: &Buffer, offset: u64, data: &[u8]) -> Result<()> {
        let device = self.device;
        let mut staging = match self.staging.take() {
            Some(staging) => staging,
            None => lock(&device.inner.staging),
        };
        staging.expect(device, data.len() as u64);
        let mut done = 0;
        while done < data.len() {
            match staging.take(device, &data[done..])? {
                Some(staged) => {
                    self.copy(staged.chunk, staged.offset, to.raw()?, offset + done as u64, staged.bytes);
                    done += staged.bytes as usize;
                }
                None => {
                    self.staging = Some(staging);
                    self.flush()?;
                    staging = match self.staging.take() {
                        Some(staging) => staging,
                        None => lock(&device.inner.staging),
                    };
                }
            }
        }
        self.staging = Some(staging);
        self.stats.uploads += 1;
        self.stats.upload_bytes += data.len() as u64;
        Ok(())
    }

    fn dispatch(&mut self, kernel: &Kernel, buffers: &[Buffer], params: &[u8], grid: [u32; 3]) -> Result<()> {
        if kernel.uniform_group.is_some() && self.uniforms.len() + UNIFORM_STRIDE > UNIFORM_BYTES as usize {
            self.flush()?;
        }
        if self.pass.is_none() {
            let pass = self.encoder().begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            self.pass = Some(pass.forget_lifetime());
            self.kernel = None;
        }
        let Some(pass) = &mut self.pass else { return Ok(()) };
        if self.kernel.replace(kernel.id) != Some(kernel.id) {
            pass.set_pipeline(&kernel.pipeline);
        }
        let groups = &self.device.inner.bind_groups;
        groups.with(self.device, kernel, buffers, |group| pass.set_bind_group(0, group, &[]))?;
        if let Some(uniform_group) = &kernel.uniform_group {
            let offset = self.uniforms.len();
            self.uniforms.extend_from_slice(params);
            self.uniforms.resize(offset + UNIFORM_STRIDE, 0);
            pass.set_bind_group(1, uniform_group, &[offset as u32]);
        } else if !params.is_empty() {
            pass.set_immediates(0, params);
        }
        pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        self.dispatches += 1;
        Ok(())
    }

    /// Submits what is encoded, if anything is.
    fn flush(&mut self) -> Result<Option<wgpu::SubmissionIndex>> {
        self.pass = None;
        let Some(encoder) = self.encoder.take() else { return Ok(None) };
        if let Some(staging) = &mut self.staging {
            staging.close();
        }
        let inner = &self.device.inner;
        // Another thread's constants must not come between these and the submission that reads them.
        let submission = lock(&inner.submission);
        let mut stats = RecordStats { submissions: 1, dispatches: self.dispatches, ..RecordStats::default() };
        if let (Some(buffer), false) = (&inner.uniforms, self.uniforms.is_empty()) {
            inner.queue.write_buffer(buffer, 0, self.uniforms);
            stats.uploads += 1;
            stats.upload_bytes += self.uniforms.len() as u64;
        }
        let index = inner.queue.submit([encoder.finish()]);
        drop(submission);
        self.uniforms.clear();
        self.dispatches = 0;
        self.stats += stats;
        if let Some(staging) = &mut self.staging {
            staging.submitted(&index);
        }
        Ok(Some(index))
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // All that reached the queue, wherever it came from.
        self.device.count(&self.stats);
    }
}

const _: () = assert!(IMMEDIATE_BYTES as usize <= UNIFORM_STRIDE);
