//! `--attention auto`: which kinds a model is loaded with. Decided once, from what the session is expected to do.

use elgen_attention::planner::{Workload, choose};
use elgen_attention::{Formats, Kind, Kinds};
use elgen_models::{ModelConfig, Outline};
use elgen_search::{GenerationConfig, GenerationOptions, ModelLimits};
use elgen_tensor::Device;

use super::MemoryPlan;
use super::report::{AttentionPlan, report, shape};
use crate::bisect::largest;
use crate::capacity::most_sentences;
use crate::device_class::class_of;
use crate::options::{BatchSize, SessionOptions};

/// Source tokens of a model whose positions set no limit.
const UNLIMITED_SOURCE: usize = 512;
/// Rows of a sentence at most.
const MOST_ROWS: usize = 1 << 16;
/// New tokens where the checkpoint's own options cannot be resolved: Hugging Face's default.
const NEW_TOKENS: usize = 20;

/// The kinds to load a model with, and why, if they were chosen here.
pub(crate) fn decide(
    device: &Device,
    config: &ModelConfig,
    checkpoint: &GenerationOptions,
    options: &SessionOptions,
    formats: Formats,
) -> (Kinds, Option<AttentionPlan>) {
    if let Some(kinds) = options.attention.named() {
        return (kinds, None);
    }
    let outline = Outline::new(config);
    let mha = |reason: String| {
        let cross = outline.limits.is_encoder_decoder.then(|| reason.clone());
        (
            Kinds::both(Kind::MHA),
            Some(AttentionPlan { self_reason: reason, cross_reason: cross, ..AttentionPlan::default() }),
        )
    };
    if options.expected.max_new_tokens == Some(0) {
        return mha("nothing is generated: prompts are computed as multi-head attention whatever is cached".into());
    }
    let Some((workload, run)) = workload(checkpoint, &outline.limits, options, most_sentences(device)) else {
        return mha("the checkpoint's generation options contradict each other".into());
    };
    let known = match class_of(device, formats, false, options.on_measurement) {
        Ok(known) => known,
        Err(error) => return mha(format!("the device could not be measured: {error}")),
    };
    let fits = |kinds| {
        let memory = MemoryPlan {
            model: config,
            kinds,
            formats,
            max_binding_bytes: device.capabilities().max_binding_bytes,
            memory_limit: device.pool().limit(),
        };
        largest_batch(&memory, &workload, &run)
    };
    let plan = choose(&known.class, &shape(&outline), &workload, formats, options.registry.kinds(), fits);
    (plan.pick, Some(report(&plan, &workload, &known)))
}

/// What is expected, with the checkpoint's own options and the position table where the caller says nothing, and options of such a run.
/// `most`: sentences together where the caller lets the engine choose.
fn workload(
    checkpoint: &GenerationOptions,
    limits: &ModelLimits,
    options: &SessionOptions,
    most: usize,
) -> Option<(Workload, GenerationConfig)> {
    let expected = &options.expected;
    let own = checkpoint.clone().resolve(limits).ok().map(|(config, _)| config);
    let beams = expected.num_beams.or(own.as_ref().map(GenerationConfig::rows_per_sentence)).unwrap_or(1);
    // What is more than a search can have is refused where it is to run.
    let beams = beams.clamp(1, MOST_ROWS);
    let positions = limits.max_position_embeddings;
    let new_tokens = |prompt: usize| {
        let default = own.as_ref().and_then(|config| config.lengths(prompt).ok());
        let default = default.map_or(NEW_TOKENS, |lengths| lengths.max_length - prompt);
        expected.max_new_tokens.unwrap_or(default).min(positions.unwrap_or(usize::MAX)).max(1)
    };
    let source = |taken: usize| {
        let longest = positions.unwrap_or(UNLIMITED_SOURCE).saturating_sub(taken).max(1);
        expected.source_length.unwrap_or(longest).min(positions.map_or(usize::MAX, |_| longest)).max(1)
    };
    let (source_length, prompt_length, max_new_tokens) = if limits.is_encoder_decoder {
        (source(0), 1, new_tokens(1))
    } else {
        let new = new_tokens(1);
        (0, source(new), new)
    };
    let longest = source_length.max(prompt_length);
    let most = match options.batch_size {
        BatchSize::Sentences(sentences) => sentences,
        BatchSize::Auto => most,
    };
    let by_tokens = options.max_batch_tokens.map_or(usize::MAX, |tokens| (tokens / longest).max(1));
    let run = GenerationOptions {
        num_beams: Some(beams),
        max_new_tokens: Some(max_new_tokens),
        eos_token_id: checkpoint.eos_token_id.clone(),
        pad_token_id: checkpoint.pad_token_id,
        bos_token_id: checkpoint.bos_token_id,
        decoder_start_token_id: checkpoint.decoder_start_token_id,
        ..GenerationOptions::default()
    };
    let (run, _) = run.resolve(limits).ok()?;
    let batch_limit = most.min(by_tokens).max(1);
    Some((Workload { beams, source_length, prompt_length, max_new_tokens, batch_limit }, run))
}

/// The most sentences of a workload that the memory limit allows.
fn largest_batch(memory: &MemoryPlan<'_>, workload: &Workload, run: &GenerationConfig) -> Option<usize> {
    let Workload { source_length, prompt_length, max_new_tokens, batch_limit, .. } = *workload;
    let sentences = super::BatchWorkload::new(run, source_length, prompt_length, max_new_tokens);
    largest(batch_limit, |batch| {
        memory.predict(&sentences, batch).is_ok_and(|bytes| bytes.total <= memory.memory_limit)
    })
}

#[cfg(test)]
mod tests;
