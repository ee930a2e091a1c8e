//! Recording dispatches, uploads, copies and read-backs, and submitting them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Pod;

use crate::binding::Binding;
use crate::counts::RecordStats;
use crate::device::{Device, IMMEDIATE_BYTES};
use crate::error::{Result, TensorError};
use crate::kernel::Kernel;
use crate::readback::{Pending, Readback};
use crate::recording::{Command, Recording, TableUse};
use crate::submit::Submission;
use crate::table::Versions;
use crate::tensor::Buffer;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A place in a recording that whoever submits it may want to know, as an op before it and an op after it tell: the work of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mark {
    /// What is marked.
    pub label: &'static str,
    /// Which of them.
    pub index: usize,
    /// Dispatches recorded before it, since the recorder was made.
    pub dispatches: u64,
}

/// Records commands in order. Nothing runs before [`Recorder::submit`], which leaves the recorder empty: it goes on with the next commands
/// (a recording is cut there). A recorder that is kept allocates nothing once it has seen its largest recording.
///
/// What it records belongs to it: uploads are copied, and buffers and kernels are held until they are submitted.
pub struct Recorder {
    id: u64,
    device: Device,
    recording: Recording,
    marks: Vec<Mark>,
    /// Since [`Recorder::take_stats`].
    stats: RecordStats,
    /// Dispatches since the recorder was made.
    dispatches: u64,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl Device {
    /// Starts a recording.
    pub fn recorder(&self) -> Recorder {
        Recorder {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            device: self.clone(),
            recording: Recording::default(),
            marks: Vec::new(),
            stats: RecordStats::default(),
            dispatches: 0,
        }
    }
}

impl Recorder {
    #[cfg(feature = "testing")]
    pub(crate) fn parts(&mut self) -> (&Device, &mut Recording) {
        (&self.device, &mut self.recording)
    }

    /// The device that this records for.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A number that no other recorder of this process has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Dispatches recorded since the recorder was made.
    pub fn dispatches(&self) -> u64 {
        self.dispatches
    }

    /// What was submitted, waited for and read since the last call.
    pub fn take_stats(&mut self) -> RecordStats {
        std::mem::take(&mut self.stats)
    }

    /// Remembers this place of the recording until it is submitted.
    pub fn mark(&mut self, label: &'static str, index: usize) {
        self.marks.push(Mark { label, index, dispatches: self.dispatches });
    }

    /// The places remembered, in order.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Records one dispatch of a kernel from outside. `params` is the shader's `Params` struct: u32 and f32 fields only.
    ///
    /// # Errors
    /// The number of buffers or the size of the grid does not fit the kernel or the device; a buffer that is written is bound twice; the
    /// kernel is one of this workspace's, which [`Recorder::dispatch_trusted`] takes; it writes a table whose contents are indices. A grid
    /// with a zero is a no-op.
    pub fn dispatch(
        &mut self,
        kernel: &Arc<Kernel>,
        bindings: &[Binding<'_>],
        params: &impl Pod,
        groups: [u32; 3],
    ) -> Result<()> {
        let refuse = |message: String| Err(TensorError::Kernel { kernel: kernel.name.clone(), message });
        if !kernel.checked || kernel.is_own() {
            return refuse("is dispatched by its op alone".into());
        }
        if let Some(at) =
            bindings.iter().enumerate().position(|(i, b)| b.table().is_some() && kernel.writes >> i & 1 == 1)
        {
            return refuse(format!("binding {at} is a table of indices, which a kernel from outside only reads"));
        }
        self.record(kernel, bindings, bytemuck::bytes_of(params), groups)
    }

    /// Records one dispatch of a kernel that runs without bounds checks. `params` is the shader's `Params` struct: u32 and f32 fields only.
    ///
    /// # Errors
    /// As [`Recorder::dispatch`], but for what it refuses of trusted kernels and tables.
    ///
    /// # Safety
    /// The caller has validated that for these parameters, and for every content that the bound buffers can have, each access of the
    /// kernel lies within the buffer that it is bound to, and that what the kernel writes into a table of indices keeps its bound.
    pub unsafe fn dispatch_trusted(
        &mut self,
        kernel: &Arc<Kernel>,
        bindings: &[Binding<'_>],
        params: &impl Pod,
        groups: [u32; 3],
    ) -> Result<()> {
        self.record(kernel, bindings, bytemuck::bytes_of(params), groups)
    }

    fn record(
        &mut self,
        kernel: &Arc<Kernel>,
        bindings: &[Binding<'_>],
        params: &[u8],
        groups: [u32; 3],
    ) -> Result<()> {
        let fail = |message: String| TensorError::Kernel { kernel: kernel.name.clone(), message };
        if bindings.len() != kernel.bindings {
            return Err(fail(format!("{} buffers given, {} expected", bindings.len(), kernel.bindings)));
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
        for (i, binding) in bindings.iter().enumerate() {
            let written = kernel.writes >> i & 1 == 1;
            binding.buffer().raw()?;
            let id = binding.buffer().id();
            if written && bindings.iter().filter(|other| other.buffer().id() == id).count() > 1 {
                return Err(fail(format!("binding {i} is written and bound twice")));
            }
        }
        let recording = &mut self.recording;
        let (first_buffer, first_param) = (recording.buffers.len(), recording.params.len());
        for (versions, version) in bindings.iter().filter_map(Binding::table) {
            recording.read_table(versions, version);
        }
        recording.buffers.extend(bindings.iter().map(|binding| binding.buffer().clone()));
        recording.params.extend_from_slice(params);
        recording.commands.push(Command::Dispatch {
            kernel: Arc::clone(kernel),
            buffers: first_buffer..recording.buffers.len(),
            params: first_param..recording.params.len(),
            grid: groups,
        });
        self.dispatches += 1;
        Ok(())
    }

    /// Records an upload. It takes its place among the commands: what was recorded before does not see it, what comes later does.
    /// `offset` and the length are multiples of 4.
    ///
    /// # Errors
    /// The range leaves the buffer.
    pub fn write(&mut self, to: &Buffer, offset: u64, data: &[u8]) -> Result<()> {
        to.check_write(offset, data.len())?;
        if !data.is_empty() {
            self.recording.upload(to, offset, data);
        }
        Ok(())
    }

    /// What was recorded last writes this content of a table.
    pub(crate) fn wrote(&mut self, versions: &Arc<Versions>, version: u64) {
        self.recording.tables.push(TableUse { versions: Arc::clone(versions), version, writes: true });
    }

    /// Records a copy of `bytes` bytes; offsets and size are multiples of 4.
    ///
    /// # Errors
    /// The range leaves a buffer.
    pub fn copy(&mut self, from: &Buffer, from_offset: u64, to: &Buffer, to_offset: u64, bytes: u64) -> Result<()> {
        let aligned = [from_offset, to_offset, bytes].iter().all(|at| at.is_multiple_of(4));
        if !aligned || from.id() == to.id() || from.is_left_by(from_offset, bytes) || to.is_left_by(to_offset, bytes) {
            return Err(TensorError::Shape {
                op: "copy",
                message: format!(
                    "{bytes} bytes at {from_offset} -> {to_offset} of buffers of {} and {}",
                    from.bytes(),
                    to.bytes()
                ),
            });
        }
        let (from, to) = (from.clone(), to.clone());
        self.recording.commands.push(Command::Copy { from, from_offset, to, to_offset, bytes });
        Ok(())
    }

    /// Records that `bytes` bytes of `from` are to be handed to the host, through a buffer of `ring`. The value that comes back is waited
    /// for, or polled, once the recording is submitted; other recordings may be made and submitted meanwhile.
    ///
    /// # Errors
    /// The range leaves the buffer or is more than the ring's buffers hold; all of them hold what nobody has read yet.
    pub fn read_back(&mut self, ring: &Readback, from: &Buffer, from_offset: u64, bytes: u64) -> Result<Pending> {
        if from.is_left_by(from_offset, bytes) || !from_offset.is_multiple_of(4) || !bytes.is_multiple_of(4) {
            let message = format!("{bytes} bytes at {from_offset} of a buffer of {}", from.bytes());
            return Err(TensorError::Shape { op: "read_back", message });
        }
        let pending = ring.take(&self.device, bytes)?;
        let to = pending.slot();
        self.recording.commands.push(Command::ReadBack { from: from.clone(), from_offset, to, bytes });
        Ok(pending)
    }

    /// Submits what was recorded, without waiting, and goes on with an empty recording. An empty one reaches no queue.
    ///
    /// # Errors
    /// The device failed; uploads for which the memory limit has no room; a table of indices that was written anew since ops were recorded
    /// which read it. Nothing stays recorded then.
    pub fn submit(&mut self) -> Result<Submission> {
        let mut stats = RecordStats::default();
        let submitted = self.device.submit(&mut self.recording, &mut stats);
        self.recording.clear();
        self.marks.clear();
        self.stats += stats;
        submitted
    }

    /// Submits, waits, and hands the first `bytes` of `from` to `see`: the one wait of a decode step.
    ///
    /// # Errors
    /// As [`Recorder::read_back`] and [`Recorder::submit`].
    pub fn submit_and_see<R>(
        &mut self,
        ring: &Readback,
        from: &Buffer,
        bytes: u64,
        see: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        let pending = self.read_back(ring, from, 0, bytes)?;
        self.submit()?;
        self.see(pending, see)
    }

    /// Waits for a value and counts the wait here: [`Pending::see`].
    ///
    /// # Errors
    /// As there.
    pub fn see<R>(&mut self, pending: Pending, see: impl FnOnce(&[u8]) -> R) -> Result<R> {
        pending.see(&mut self.stats, see)
    }

    /// [`Recorder::submit_and_see`], with the bytes as they are.
    ///
    /// # Errors
    /// As there.
    pub fn submit_and_read(&mut self, ring: &Readback, from: &Buffer, bytes: u64) -> Result<Vec<u8>> {
        self.submit_and_see(ring, from, bytes, <[u8]>::to_vec)
    }
}
