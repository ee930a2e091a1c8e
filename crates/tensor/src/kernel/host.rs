//! The host function of a kernel: what a device without shaders runs in its place.

use std::ptr::NonNull;

use crate::error::Result;

/// A buffer as a host function sees it: the memory behind one binding. Those that a kernel only reads may overlap.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HostBuffer {
    /// Its first byte; aligned to 16.
    pub data: NonNull<u8>,
    /// Its size.
    pub bytes: usize,
}

/// What a host function is told beside its bindings and parameters.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct HostCx {
    /// Threads that it may use.
    pub threads: usize,
}

/// A kernel's work on the host, over the bindings and the parameters of its shader. It ignores the grid: what it needs (rows, heads, slabs)
/// is in the parameters.
///
/// # Safety
/// The caller guarantees that the buffers are those of the kernel's bindings, in order and of the sizes that the op validated, that one that
/// the kernel writes overlaps no other, and that nothing else touches them meanwhile.
pub type HostFunction = unsafe fn(&HostCx, &[HostBuffer], &[u8]) -> Result<()>;
