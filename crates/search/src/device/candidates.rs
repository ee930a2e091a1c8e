//! The best tokens of each row and part of the vocabulary (`candidates.wgsl`); twin: steps 1 and 2 in `twin/beam.rs`.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Bindings, Device, Kernel, KernelSpec, Recorder, Rows, Tensor, bind, padded, product};

use super::{BeamState, DeviceSearch, Result};
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
    let spec = KernelSpec::new("candidates")
        .subgroup(device)
        .define_if(config.mode.samples(), "SAMPLE")
        .constant("K", list_length(config) as u32);
    Ok(device.kernel(&spec)?)
}

/// Tokens of a list. A group of diverse beams also needs as many more as there can be tokens that earlier groups chose and
/// that a penalty moves back.
pub(super) fn list_length(config: &GenerationConfig) -> usize {
    let groups = config.num_beam_groups.max(1);
    let others = config.num_beams - config.num_beams / groups;
    (config.num_candidates() / groups).saturating_add(others)
}

/// Words of an entry: token, log-probability, and when sampling the key that they are ordered by.
pub(super) fn entry_words(config: &GenerationConfig) -> usize {
    if config.mode.samples() { 3 } else { 2 }
}

/// Bytes of all lists of this many rows.
pub(super) fn list_bytes(rows: usize, config: &GenerationConfig) -> u64 {
    product(&[rows, Parts::of(config.vocab_size).count as usize, list_length(config), entry_words(config), 4])
}

/// Writes `lists` `[active row][part][K]` from the log-probabilities `logits` `[active rows, V]`.
pub(super) fn candidates(
    rec: &mut Recorder,
    search: &DeviceSearch,
    beams: &BeamState,
    rows: &Rows,
    logits: &Tensor,
) -> Result<()> {
    let kernel = kernel(rec.device(), &search.config)?;
    let Parts { count, quads } = beams.parts;
    let params = Params { vocab: logits.cols as u32, quads: logits.quads(), parts: count, part_quads: quads };
    let buffers = bind![rows.active(), rows.state(), &search.buffers.open, &beams.running, logits, &beams.lists];
    let settings = search.config.mode.samples().then_some(&search.buffers.settings.buffer);
    let buffers = Bindings::new(buffers).with(settings);
    // SAFETY: the search checked that the logits have a row for each active row and that the rows are those of the batch, for whose
    // sizes the lists were allocated.
    unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, [count, rows.count() as u32, 1])? };
    Ok(())
}
