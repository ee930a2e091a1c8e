//! The best tokens of each row and part of the vocabulary (`candidates.wgsl`); twin: steps 1 and 2 in `twin/beam.rs`.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Buffer, Device, Kernel, KernelSpec, Recorder, Rows, Tensor, padded};

use super::{BeamState, Result};
use crate::config::GenerationConfig;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    vocab: u32,
    quads: u32,
    parts: u32,
    part_quads: u32,
}

/// How the vocabulary is cut: a row's candidates are found by one workgroup per part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Number of parts.
    pub(super) count: u32,
    /// Quads of each part but the last.
    pub(super) quads: u32,
}

/// Quads of a part at least: four per invocation.
const PART_QUADS: usize = 512;

/// Parts at most, which bounds the workgroup memory of `beam_step`.
const MAX_PARTS: usize = 32;

impl Parts {
    pub(super) fn of(vocab_size: usize) -> Self {
        let all = padded(vocab_size) / 4;
        let quads = PART_QUADS.max(all.div_ceil(MAX_PARTS));
        Self { count: all.div_ceil(quads).max(1) as u32, quads: quads as u32 }
    }
}

pub(super) fn kernel(device: &Device, config: &GenerationConfig) -> Result<Arc<Kernel>> {
    let spec = KernelSpec::new("candidates").subgroup(device).constant("K", config.num_candidates() as u32);
    Ok(device.kernel(&spec)?)
}

/// Writes `lists` `[active row][part][K]` from the log-probabilities `logits` `[active rows, V]`.
pub(super) fn candidates(
    rec: &mut Recorder,
    config: &GenerationConfig,
    beams: &BeamState,
    rows: &Rows,
    open: &Buffer,
    logits: &Tensor,
) -> Result<()> {
    let kernel = kernel(rec.device(), config)?;
    let Parts { count, quads } = beams.parts;
    let params = Params { vocab: logits.cols as u32, quads: logits.quads(), parts: count, part_quads: quads };
    let buffers = [&rows.active, &rows.state, open, &beams.running, &logits.buffer, &beams.lists];
    Ok(rec.dispatch(&kernel, &buffers, &params, [count, rows.count() as u32, 1])?)
}
