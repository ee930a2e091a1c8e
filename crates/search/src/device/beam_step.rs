//! A sentence's beam step (`beam_step.wgsl`); twin: `twin/beam.rs`.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Device, Kernel, KernelSpec, Recorder, Rows, bind};

use super::candidates::Parts;
use super::{BeamState, DeviceSearch, MAX_POOL, Result};
use crate::config::GenerationConfig;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    vocab: u32,
    parts: u32,
    part_tokens: u32,
    trace_rows: u32,
}

pub(super) fn kernel(device: &Device, config: &GenerationConfig, parts: Parts) -> Result<Arc<Kernel>> {
    let (beams, candidates) = (config.num_beams as u32, config.num_candidates() as u32);
    // A small pool is merged faster by few invocations.
    let threads = (beams + candidates).next_power_of_two().clamp(64, MAX_POOL as u32);
    let spec = KernelSpec::new("beam_step")
        .subgroup(device)
        .define_if(config.mode.samples(), "SAMPLE")
        .constant("WG", threads)
        .constant("BEAMS", beams)
        .constant("K", candidates)
        .constant("LISTS", beams * parts.count)
        .constant("POOL", beams + candidates);
    Ok(device.kernel(&spec)?)
}

/// Takes every active sentence one token further, from the lists of `candidates`.
pub(super) fn beam_step(rec: &mut Recorder, search: &DeviceSearch, beams: &BeamState, rows: &Rows) -> Result<()> {
    let config = &search.config;
    let kernel = kernel(rec.device(), config, beams.parts)?;
    let params = Params {
        vocab: config.vocab_size as u32,
        parts: beams.parts.count,
        part_tokens: beams.parts.quads * 4,
        trace_rows: search.batch_rows() as u32,
    };
    let buffers = bind![
        rows.active(),
        rows.state(),
        &search.buffers.settings.buffer,
        &beams.lists,
        &beams.running,
        &beams.finished,
        &search.buffers.trace,
        &search.buffers.open,
    ];
    // SAFETY: the search checked that the rows are whole sentences of the batch, for whose sizes all buffers were allocated; tokens
    // come from lists that `candidates` wrote.
    unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, [(rows.count() / config.num_beams) as u32, 1, 1])? };
    Ok(())
}
