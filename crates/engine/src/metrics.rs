//! What a session counts.

use std::time::Instant;

use elgen_attention::Kind;
use elgen_tensor::Class;

use crate::batch::BatchStats;
use crate::model::Model;
use crate::session::Context;
use crate::types::{AttentionKinds, CacheBytes, Metrics, PeakBytes, PerStep, Seconds};

/// Sums over the runs of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) inputs: u64,
    pub(crate) truncated: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) generated_tokens: u64,
    pub(crate) first_token_ms: Option<f64>,
    pub(crate) batch: BatchStats,
}

/// The counters of a context.
pub(crate) fn metrics(model: &Model, context: &Context, opened: Instant) -> Metrics {
    let (totals, batch) = (&context.totals, &context.totals.batch);
    let report = model.device().report();
    let peak = model.device().pool().peak();
    let steps = batch.steps.max(1) as f64;
    let busy = batch.encode_seconds + batch.decode_seconds;
    let cross = model.limits().is_encoder_decoder;
    let cache = context.runner.caches().peak_bytes();
    Metrics {
        device: report.name.clone(),
        driver: report.driver.clone(),
        software_adapter: report.software,
        attention: AttentionKinds {
            encoder: cross.then(|| Kind::Mha.name().to_owned()),
            self_: model.kinds().self_.name().to_owned(),
            cross: cross.then(|| model.kinds().cross.name().to_owned()),
            plan: model.plan().cloned(),
        },
        inputs: totals.inputs,
        truncated: totals.truncated,
        prompt_tokens: totals.prompt_tokens,
        generated_tokens: totals.generated_tokens,
        seconds: Seconds {
            load: model.load_seconds(),
            compile: model.device().compile_seconds(),
            encode: batch.encode_seconds,
            decode: batch.decode_seconds,
            total: opened.elapsed().as_secs_f64(),
        },
        tokens_per_second: if busy > 0.0 { totals.generated_tokens as f64 / busy } else { 0.0 },
        time_to_first_token_ms: totals.first_token_ms.unwrap_or(0.0),
        steps: batch.steps,
        per_step: PerStep {
            rows: batch.row_steps as f64 / steps,
            dispatches: batch.stats.dispatches as f64 / steps,
            host_waits: batch.stats.host_waits as f64 / steps,
            readback_bytes: batch.stats.readback_bytes as f64 / steps,
            allocations: batch.allocations as f64 / steps,
            submissions: batch.stats.submissions as f64 / steps,
        },
        dispatches_per_decoder_layer: batch.layer_dispatches as f64 / steps / model.layers().max(1) as f64,
        peak_bytes: PeakBytes {
            weights: peak.of(Class::Weights),
            cache: peak.of(Class::Cache),
            activations: peak.of(Class::Activations),
            staging: peak.of(Class::Staging),
            total: peak.total,
        },
        cache_bytes: CacheBytes { self_: cache.self_, cross: cache.cross },
        cache_overhead_bytes: peak.of(Class::Cache).saturating_sub(cache.self_ + cache.cross),
    }
}
