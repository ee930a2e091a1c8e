//! The warpers of sampling (`warp.wgsl`, `top_h.wgsl`, `typical.wgsl`, `cutoff.wgsl`); twin:
//! [`crate::twin::processors::warp`].

use elgen_tensor::{Buffer, Device, KernelSpec, Recorder, Rows, Tensor, bind};

use super::Result;
use super::settings::Settings;
use crate::config::GenerationConfig;

/// Parameters of the kernels of this module and of `renormalize`.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    pub(super) vocab: u32,
    pub(super) quads: u32,
}

/// The kernels that the options ask for, in the order in which they run.
fn stages(device: &Device, config: &GenerationConfig) -> Vec<KernelSpec> {
    if !config.do_sample {
        return Vec::new();
    }
    let spec = |shader| KernelSpec::new(shader).subgroup(device);
    let warp = |heat: bool, cut: bool| spec("warp").constant("HEAT", heat.into()).constant("CUT", cut.into());
    let heat = config.temperature != 1.0;
    let top_k = config.top_k > 0 && config.top_k < config.vocab_size;
    let cut = top_k || config.top_p < 1.0 || config.min_p > 0.0;
    // top_h has its place between the temperature and the others.
    let top_h = config.top_h.is_some();
    let mut stages = Vec::new();
    if top_h {
        stages.extend(heat.then(|| warp(true, false)));
        stages.push(spec("top_h"));
    }
    let heat = heat && !top_h;
    stages.extend((heat || cut).then(|| warp(heat, cut)));
    stages.extend((config.typical_p < 1.0).then(|| spec("typical")));
    stages.extend((config.epsilon_cutoff > 0.0 || config.eta_cutoff > 0.0).then(|| spec("cutoff")));
    stages
}

/// Compiles what the options ask for.
pub(super) fn compile(device: &Device, config: &GenerationConfig) -> Result<()> {
    stages(device, config).iter().try_for_each(|spec| device.kernel(spec).map(drop)).map_err(Into::into)
}

/// Warps `logits` `[active rows, V]` in place.
pub(super) fn warp(
    rec: &mut Recorder,
    config: &GenerationConfig,
    settings: &Settings,
    rows: &Rows,
    open: &Buffer,
    logits: &Tensor,
) -> Result<()> {
    let params = Params { vocab: logits.cols as u32, quads: logits.quads() };
    let buffers = bind![rows.active(), rows.state(), &settings.buffer, open, logits];
    for spec in stages(rec.device(), config) {
        let kernel = rec.device().kernel(&spec)?;
        // SAFETY: the search checked that the logits have a row for each active row and that the rows are those of the batch.
        unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, [rows.count() as u32, 1, 1])? };
    }
    Ok(())
}
