//! The logits processors (`process.wgsl`); twin: [`crate::twin::processors::process`].

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use elgen_tensor::{Bindings, Buffer, Device, Kernel, KernelSpec, Recorder, Rows, Tensor, bind};

use super::settings::Settings;
use super::sources::Sources;
use super::{Result, Sentence};
use crate::config::GenerationConfig;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    vocab: u32,
    quads: u32,
    table: u32,
}

/// Whether any option asks for it, for a batch of these sentences.
pub(super) fn is_needed(config: &GenerationConfig, starts: &[Sentence]) -> bool {
    let has_minimum =
        |start: &Sentence| start.lengths.min_length > start.prompt.len() || start.lengths.min_new_tokens > 0;
    let forced = [&config.forced_eos_token_id, &config.suppress_tokens, &config.begin_suppress_tokens];
    config.num_beams > 1
        || Sources::are_needed(config)
        || !config.sequence_bias.is_empty()
        || config.remove_invalid_values
        || (config.exponential_decay_length_penalty.is_some() && !config.eos_token_id.is_empty())
        || config.repetition_penalty != 1.0
        || config.no_repeat_ngram_size > 0
        || config.forced_bos_token_id.is_some()
        || forced.iter().any(|ids| !ids.is_empty())
        || !config.bad_words_ids.is_empty()
        || (!config.eos_token_id.is_empty() && starts.iter().any(has_minimum))
}

pub(super) fn kernel(device: &Device, config: &GenerationConfig) -> Result<Arc<Kernel>> {
    let spec = KernelSpec::new("process")
        .subgroup(device)
        .define_if(Sources::are_needed(config), "SOURCES")
        .constant("LOG_SOFTMAX", u32::from(config.num_beams > 1));
    Ok(device.kernel(&spec)?)
}

/// Turns `logits` `[active rows, V]` into scores, in place.
pub(super) fn process(
    rec: &mut Recorder,
    config: &GenerationConfig,
    settings: &Settings,
    sources: &Sources,
    rows: &Rows,
    open: &Buffer,
    logits: &Tensor,
) -> Result<()> {
    let kernel = kernel(rec.device(), config)?;
    let params = Params { vocab: logits.cols as u32, quads: logits.quads(), table: rows.max_length() as u32 };
    let buffers = bind![rows.active(), rows.state(), rows.tokens(), &settings.buffer, open, logits];
    let buffers = Bindings::new(buffers).with(sources.buffer());
    // SAFETY: the search checked that the logits have a row for each active row and that the rows are those of the batch, for whose
    // sizes the other buffers were allocated; ids in the settings and tables are below the vocabulary.
    unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, [rows.count() as u32, 1, 1])? };
    Ok(())
}
