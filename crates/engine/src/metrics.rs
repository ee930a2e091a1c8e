//! What a session costs: its counters, as programs and people are told them.

use std::time::Instant;

use elgen_models::Runner;
use elgen_tensor::Class;
use serde::{Deserialize, Serialize};

use crate::model::Model;
use crate::plan::AttentionPlan;
use crate::totals::Totals;

/// Counters of a session since it was made; the fields of the statistics that `elgen generate` writes as JSON. Bytes of `peak_bytes` are those of the device, so of
/// all sessions on it.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Metrics {
    /// Adapter name.
    pub device: String,
    /// Driver name and version.
    pub driver: String,
    /// How weights are stored: "f32" or "f16".
    pub weights: &'static str,
    /// How caches are stored: "f32" or "f16".
    pub cache: &'static str,
    /// True if the adapter is software.
    pub software_adapter: bool,
    /// The attention kinds in use.
    pub attention: AttentionKinds,
    /// Requests given.
    pub inputs: u64,
    /// Sources that were cut.
    pub truncated: u64,
    /// Input ids of all requests.
    pub prompt_tokens: u64,
    /// New ids of all returned sequences.
    pub generated_tokens: u64,
    /// Wall-clock seconds by phase.
    pub seconds: Seconds,
    /// Generated tokens per second of encode and decode time.
    pub tokens_per_second: f64,
    /// From the call of `generate` to the first token known to the host.
    pub time_to_first_token_ms: f64,
    /// Decode steps.
    pub steps: u64,
    /// Averages over decode steps.
    pub per_step: PerStep,
    /// Compute dispatches per decoder layer in one decode step.
    pub dispatches_per_decoder_layer: f64,
    /// Peak bytes of the pool by class.
    pub peak_bytes: PeakBytes,
    /// Peak bytes reserved for attention caches.
    pub cache_bytes: PeakCacheBytes,
    /// Bytes reserved in cache slabs beyond the slots handed out, and addressing tables, at their peak.
    pub cache_overhead_bytes: u64,
}

/// Attention kinds in use, by place.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct AttentionKinds {
    /// Encoder self-attention (`None` for decoder-only models).
    pub encoder: Option<String>,
    /// Decoder self-attention.
    #[serde(rename = "self")]
    pub self_: String,
    /// Cross-attention (`None` for decoder-only models).
    pub cross: Option<String>,
    /// Why these; `None` where they were named.
    pub plan: Option<AttentionPlan>,
}

/// Wall-clock seconds by phase.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Seconds {
    /// Reading and uploading weights.
    pub load: f64,
    /// Compiling pipelines.
    pub compile: f64,
    /// Encoder and decoder prefill, and alignments.
    pub encode: f64,
    /// Decode steps.
    pub decode: f64,
    /// Since the session was made, or began to load if it loaded the model.
    pub total: f64,
}

/// Averages over decode steps.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct PerStep {
    /// Rows (live hypotheses) that the step computes.
    pub rows: f64,
    /// Compute dispatches.
    pub dispatches: f64,
    /// Times that the host waited for the device.
    pub host_waits: f64,
    /// Bytes read back.
    pub readback_bytes: f64,
    /// Buffers allocated.
    pub allocations: f64,
    /// Queue submissions.
    pub submissions: f64,
    /// Uploads, each a copy from host to device; on devices without immediates the parameters of a submission are one.
    pub uploads: f64,
}

/// Peak bytes by class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PeakBytes {
    /// Model weights.
    pub weights: u64,
    /// Attention caches and their tables.
    pub cache: u64,
    /// Activations, logits and search state.
    pub activations: u64,
    /// Upload and read-back rings.
    pub staging: u64,
    /// Peak of the sum.
    pub total: u64,
}

/// Bytes reserved for caches (reserved slots x slot bytes).
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct PeakCacheBytes {
    /// Decoder self-attention.
    #[serde(rename = "self")]
    pub self_: u64,
    /// Cross-attention.
    pub cross: u64,
}

/// What a decoding context has counted, and its device.
pub(crate) fn metrics(model: &Model, totals: &Totals, runner: &Runner, opened: Instant) -> Metrics {
    let batch = &totals.batch;
    let report = model.device().report();
    let peak = model.device().pool().peak();
    let steps = batch.steps.max(1) as f64;
    let busy = batch.encode_seconds + batch.decode_seconds;
    let cross = model.limits().is_encoder_decoder;
    let cache = runner.caches().peak_bytes();
    Metrics {
        device: report.name.clone(),
        driver: report.driver.clone(),
        weights: model.formats().weights.name(),
        cache: model.formats().cache.name(),
        software_adapter: report.software,
        attention: AttentionKinds {
            encoder: cross.then(|| model.kinds().encoder.name().to_owned()),
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
            uploads: batch.stats.uploads as f64 / steps,
        },
        dispatches_per_decoder_layer: batch.layer_dispatches as f64 / steps / model.layers().max(1) as f64,
        peak_bytes: PeakBytes {
            weights: peak.of(Class::Weights),
            cache: peak.of(Class::Cache),
            activations: peak.of(Class::Activations),
            staging: peak.of(Class::Staging),
            total: peak.total,
        },
        cache_bytes: PeakCacheBytes { self_: cache.self_, cross: cache.cross },
        cache_overhead_bytes: peak.of(Class::Cache).saturating_sub(cache.self_ + cache.cross),
    }
}
