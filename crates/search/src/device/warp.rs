//! The warpers of sampling (`warp.wgsl`); twin: [`crate::twin::processors::warp`].

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Buffer, Device, Kernel, KernelSpec, Recorder, Rows, Tensor};

use super::Result;
use super::settings::Settings;
use crate::config::GenerationConfig;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    vocab: u32,
    quads: u32,
}

/// Whether any option asks for it.
pub(super) fn is_needed(config: &GenerationConfig) -> bool {
    let top_k = config.top_k > 0 && config.top_k < config.vocab_size;
    config.mode.samples() && (config.temperature != 1.0 || top_k || config.top_p < 1.0)
}

pub(super) fn kernel(device: &Device) -> Result<Arc<Kernel>> {
    Ok(device.kernel(&KernelSpec::new("warp").subgroup(device))?)
}

/// Warps `logits` `[active rows, V]` in place.
pub(super) fn warp(rec: &mut Recorder, settings: &Settings, rows: &Rows, open: &Buffer, logits: &Tensor) -> Result<()> {
    let kernel = kernel(rec.device())?;
    let params = Params { vocab: logits.cols as u32, quads: logits.quads() };
    let buffers = [&rows.active, &rows.state, &settings.buffer, open, &logits.buffer];
    Ok(rec.dispatch(&kernel, &buffers, &params, [rows.count() as u32, 1, 1])?)
}
