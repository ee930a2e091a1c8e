//! Seconds from costs and a device class.

use elgen_tensor::WeightFormat;
use serde::{Deserialize, Serialize};

use super::cost::{self, Core, Cost, KindCost, ModelShape, StepLoad};
use super::device_class::{ATTEND_FLOPS, Curve, DeviceClass, LINEAR_FLOPS};
use crate::formats::Formats;
use crate::kind::{Kind, Kinds, Place};

/// What a session is expected to do; every sentence is taken to be as long as the longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Rows of a sentence: beams, or returned samples.
    pub beams: usize,
    /// Encoder ids of a sentence; 0 for decoder-only models.
    pub source_length: usize,
    /// Ids of the decoder's prompt; 1 or a little more for encoder-decoder models.
    pub prompt_length: usize,
    /// Ids that are generated.
    pub max_new_tokens: usize,
    /// Sentences that are decoded together at most.
    pub batch_limit: usize,
}

/// What a kind is predicted to take for one batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Sentences of the batch.
    pub batch: usize,
    /// Seconds before the first step: the encoder, what cross-attention keeps of its output, the prompts.
    pub prefill_seconds: f64,
    /// Seconds of a step, as a mean over the steps.
    pub step_seconds: f64,
    /// Of them, self-attention's.
    pub self_seconds: f64,
    /// Of them, cross-attention's.
    pub cross_seconds: f64,
    /// Bytes of self-attention's caches that a step reads, each once, as a mean.
    pub self_bytes: f64,
    /// The same for cross-attention.
    pub cross_bytes: f64,
    /// Steps.
    pub steps: usize,
}

impl Prediction {
    /// Seconds of the whole batch.
    pub fn seconds(&self) -> f64 {
        self.prefill_seconds + self.steps as f64 * self.step_seconds
    }

    /// Sentences per second.
    pub fn sentences_per_second(&self) -> f64 {
        self.batch as f64 / self.seconds()
    }
}

/// Seconds of a product: the measured curve, but never faster than memory gives the weights.
fn products(class: &DeviceClass, cost: &Cost, weights: WeightFormat) -> f64 {
    let elements = cost.weight_bytes / weights.element_bytes();
    if elements == 0.0 {
        return 0.0;
    }
    // The curve is straight enough that products of different row counts may be taken at their mean.
    let rows = cost.projection_flops / (LINEAR_FLOPS * elements);
    (elements * class.linear.at(rows)).max(cost.weight_bytes / class.bandwidth)
}

/// Seconds of a cost whose core takes `core` seconds by the measured curves.
fn seconds(class: &DeviceClass, cost: &Cost, core: f64, weights: WeightFormat) -> f64 {
    products(class, cost, weights)
        + core.max(cost.cache_bytes / class.bandwidth)
        + cost.scratch_bytes / class.bandwidth
        + cost.dispatches * class.dispatch_seconds
}

/// Seconds of the core of attention: `flops` with `rows` query rows for each load of an element.
fn core(curve: &Curve, flops: f64, rows: f64) -> f64 {
    let elements = flops / (ATTEND_FLOPS * rows.max(1.0));
    elements * curve.at(rows)
}

/// Cost and seconds of a layer's attention in one place; `None` of a kind that does not say what it costs.
fn block_seconds(
    class: &DeviceClass,
    model: &ModelShape,
    (place, kind): (Place, Kind),
    load: &StepLoad,
) -> Option<(Cost, f64)> {
    let KindCost { cost, core: by } = kind.cost(place, &model.decoder.attention, load)?;
    let (curve, rows) = match (by, place) {
        (Core::El { rows }, Place::CrossAttention) => (&class.el_cross, rows),
        (Core::El { rows }, _) => (&class.el_self, rows),
        (Core::Mha { rows }, Place::CrossAttention) => (&class.mha_cross, rows),
        (Core::Mha { rows }, _) => (&class.mha_self, rows),
    };
    Some((cost, seconds(class, &cost, core(curve, cost.core_flops, rows), load.formats.weights)))
}

/// Seconds over packed rows, where the rows of a sentence share its keys: as fast as the widest group that was measured.
fn packed_seconds(class: &DeviceClass, cost: &Cost, weights: WeightFormat) -> f64 {
    let rate = class.mha_cross.best_flops(ATTEND_FLOPS);
    let core = if rate > 0.0 { cost.core_flops / rate } else { 0.0 };
    seconds(class, cost, core, weights)
}

/// Predicts one batch of `batch` sentences; `None` with a kind that does not say what it costs.
///
/// Every part of a step grows linearly with its keys (but for the corner where a core's time passes from memory to arithmetic), so the
/// mean over the steps is the step at the mean number of keys.
pub fn predict(
    class: &DeviceClass,
    model: &ModelShape,
    kinds: Kinds,
    workload: &Workload,
    formats: Formats,
    batch: usize,
) -> Option<Prediction> {
    let Workload { beams, source_length, prompt_length, max_new_tokens, .. } = *workload;
    let layers = model.decoder.layers as f64;
    let load = StepLoad {
        sentences: batch,
        beams,
        self_keys: prompt_length as f64 + (max_new_tokens.max(1) as f64 - 1.0) / 2.0,
        shared_keys: prompt_length as f64,
        source_keys: source_length as f64,
        formats,
    };
    let (self_cost, own) = block_seconds(class, model, (Place::SelfAttention, kinds.self_), &load)?;
    let (cross_cost, cross) = match model.encoder {
        Some(_) => block_seconds(class, model, (Place::CrossAttention, kinds.cross), &load)?,
        None => (Cost::default(), 0.0),
    };
    let rest = cost::decode_step(model, kinds, &load).rest;
    let prefill = [
        cost::encode(model, batch, source_length, formats.weights),
        cost::memorize(model, kinds.cross, batch, beams, source_length, formats),
        cost::prefill(model, batch, prompt_length, formats.weights),
    ];
    Some(Prediction {
        batch,
        prefill_seconds: prefill.iter().map(|cost| packed_seconds(class, cost, formats.weights)).sum(),
        step_seconds: layers * (own + cross) + seconds(class, &rest, 0.0, formats.weights) + class.submission_seconds,
        self_seconds: layers * own,
        cross_seconds: layers * cross,
        self_bytes: layers * self_cost.cache_bytes,
        cross_bytes: layers * cross_cost.cache_bytes,
        steps: max_new_tokens.max(1),
    })
}
