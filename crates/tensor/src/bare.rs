//! The driver's part of a recording alone, for measurements: what a program that calls wgpu by hand would do.

use std::sync::Arc;

use crate::error::{Result, TensorError};
use crate::kernel::Kernel;
use crate::readback::Pending;
use crate::recorder::Recorder;
use crate::recording::Command;

/// One command with its handles at hand.
enum BareCommand {
    Dispatch { kernel: Arc<Kernel>, group: wgpu::BindGroup, params: Vec<u8>, grid: [u32; 3] },
    Copy { from: wgpu::Buffer, from_offset: u64, to: wgpu::Buffer, to_offset: u64, bytes: u64 },
}

/// A recording whose pipelines and bind groups were looked up beforehand.
pub struct Bare {
    device: crate::Device,
    commands: Vec<BareCommand>,
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bare").field("commands", &self.commands.len()).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Takes what was recorded and looks up its handles.
    ///
    /// # Errors
    /// There are uploads, or the device has no immediates: neither is measured.
    pub fn take_bare(&mut self) -> Result<Bare> {
        let (device, recording) = self.parts();
        let fail = |message: &str| TensorError::Shape { op: "bare", message: message.to_owned() };
        if !recording.front.is_empty() || !device.capabilities().immediates {
            return Err(fail("a recording with uploads, or a device without immediates"));
        }
        let mut bare = Bare { device: device.clone(), commands: Vec::new() };
        for command in recording.commands.drain(..) {
            bare.commands.push(match command {
                Command::Dispatch { kernel, buffers, params, grid } => {
                    let group =
                        device.inner.bind_groups.with(device, &kernel, &recording.buffers[buffers], Clone::clone);
                    BareCommand::Dispatch { kernel, group, params: recording.params[params].to_vec(), grid }
                }
                Command::Copy { from, from_offset, to, to_offset, bytes } => {
                    let (from, to) = (from.inner.raw.clone(), to.inner.raw.clone());
                    BareCommand::Copy { from, from_offset, to, to_offset, bytes }
                }
                Command::ReadBack { from, from_offset, to, bytes } => {
                    let (from, to) = (from.inner.raw.clone(), to.buffer.inner.raw.clone());
                    BareCommand::Copy { from, from_offset, to, to_offset: 0, bytes }
                }
                Command::Upload { .. } => return Err(fail("a recording with uploads")),
            });
        }
        recording.clear();
        Ok(bare)
    }
}

impl Bare {
    /// Dispatches of the recording.
    pub fn dispatches(&self) -> usize {
        self.commands.iter().filter(|command| matches!(command, BareCommand::Dispatch { .. })).count()
    }

    /// Whether the commands are the same, handle by handle and parameter by parameter.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |a: &BareCommand, b: &BareCommand| match (a, b) {
            (
                BareCommand::Dispatch { kernel: k, group: g, params: p, grid: n },
                BareCommand::Dispatch { kernel, group, params, grid },
            ) => k.id == kernel.id && g == group && p == params && n == grid,
            (
                BareCommand::Copy { from: f, from_offset: i, to: t, to_offset: j, bytes: n },
                BareCommand::Copy { from, from_offset, to, to_offset, bytes },
            ) => f == from && t == to && [i, j, n] == [from_offset, to_offset, bytes],
            _ => false,
        };
        self.commands.len() == other.commands.len()
            && self.commands.iter().zip(&other.commands).all(|(a, b)| same(a, b))
    }

    /// Encodes and submits the commands with nothing but wgpu's calls; `pending` is the value that they read back.
    ///
    /// # Errors
    /// The device failed.
    pub fn submit(&self, pending: &Pending) -> Result<()> {
        let inner = &self.device.inner;
        let mut encoder = inner.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass: Option<wgpu::ComputePass<'static>> = None;
        for command in &self.commands {
            match command {
                BareCommand::Dispatch { kernel, group, params, grid } => {
                    let pass = pass.get_or_insert_with(|| {
                        encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()).forget_lifetime()
                    });
                    pass.set_pipeline(&kernel.pipeline);
                    pass.set_bind_group(0, group, &[]);
                    if !params.is_empty() {
                        pass.set_immediates(0, params);
                    }
                    pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
                }
                BareCommand::Copy { from, from_offset, to, to_offset, bytes } => {
                    pass = None;
                    encoder.copy_buffer_to_buffer(from, *from_offset, to, *to_offset, Some(*bytes));
                }
            }
        }
        drop(pass);
        let index = inner.queue.submit([encoder.finish()]);
        pending.submitted(&index);
        self.device.check()
    }
}
