//! What the planner is told of a model, and what it tells of its choice.

use elgen_attention::planner::{self, ModelShape, Plan, Stack, Workload};
use elgen_models::{Outline, StackShape};
use serde::Serialize;

use crate::device_class::{MeasuredClass, Measurement};
use crate::options::Expected;

/// What the planner chose, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AttentionPlan {
    /// Why self-attention has its kind, in one sentence.
    #[serde(rename = "self")]
    pub self_reason: String,
    /// The same for cross-attention (`None` for decoder-only models).
    #[serde(rename = "cross")]
    pub cross_reason: Option<String>,
    /// What it was chosen for.
    pub expected: Option<Expected>,
    /// When the device was measured, and how well.
    pub measurement: Option<Measurement>,
    /// Throughputs that differ by this part of the larger one are a tie, which goes to the simpler kinds.
    pub margin: Option<f64>,
    /// Measured bytes per second of the device's memory.
    pub bandwidth: Option<f64>,
    /// EL in self-attention.
    pub el_self: Option<ElBreakEven>,
    /// EL in cross-attention (`None` for decoder-only models).
    pub el_cross: Option<ElBreakEven>,
    /// All that was compared, each at the largest batch that fits.
    pub candidates: Vec<PlannedKinds>,
}

/// EL's speed and what it takes to win.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ElBreakEven {
    /// Measured FLOP/s of its core.
    pub el_flops: f64,
    /// FLOP/s above which it beats shared multi-head attention where memory is the limit: `2 * heads * bandwidth / element size` in
    /// self-attention, that times beams in cross-attention.
    pub break_even_flops: f64,
}

/// A combination of kinds and what was predicted for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PlannedKinds {
    /// Decoder self-attention.
    #[serde(rename = "self")]
    pub self_: String,
    /// Cross-attention (`None` for decoder-only models).
    pub cross: Option<String>,
    /// Sentences together; `None` (and no predictions) if not one fits into memory.
    pub batch: Option<usize>,
    /// Seconds of a decode step at that batch.
    pub step_seconds: Option<f64>,
    /// Sentences per second, encoder and prompts included.
    pub sentences_per_second: Option<f64>,
    /// How it compares with what was chosen.
    pub reason: String,
}

/// The widths that costs depend on.
pub(crate) fn shape(outline: &Outline) -> ModelShape {
    let stack = |layers: usize, shape: StackShape| Stack {
        layers,
        attention: shape.attention,
        ffn: shape.ffn,
        gated: shape.gated,
    };
    ModelShape {
        decoder: stack(outline.decoder_layers, outline.decoder),
        encoder: outline.encoder.map(|shape| stack(outline.encoder_layers, shape)),
        vocab_size: outline.limits.vocab_size,
    }
}

/// What was predicted, for reports.
pub(crate) fn report(plan: &Plan, workload: &Workload, known: &MeasuredClass) -> AttentionPlan {
    let break_even = |at: &planner::BreakEven| ElBreakEven { el_flops: at.measured, break_even_flops: at.needed };
    AttentionPlan {
        self_reason: plan.self_reason.clone(),
        cross_reason: plan.cross_reason.clone(),
        expected: Some(
            Expected::default()
                .with_num_beams(workload.beams)
                .with_source_length(workload.source_length.max(workload.prompt_length))
                .with_max_new_tokens(workload.max_new_tokens),
        ),
        measurement: Some(known.measurement.clone()),
        margin: Some(plan.margin),
        bandwidth: Some(known.class.bandwidth),
        el_self: Some(break_even(&plan.el_self)),
        el_cross: plan.el_cross.as_ref().map(break_even),
        candidates: plan
            .candidates
            .iter()
            .map(|candidate| {
                let p = candidate.prediction.as_ref();
                PlannedKinds {
                    self_: candidate.kinds.self_.name().to_owned(),
                    cross: plan.cross_reason.as_ref().map(|_| candidate.kinds.cross.name().to_owned()),
                    batch: p.map(|p| p.batch),
                    step_seconds: p.map(|p| p.step_seconds),
                    sentences_per_second: p.map(planner::Prediction::sentences_per_second),
                    reason: candidate.reason.clone(),
                }
            })
            .collect(),
    }
}
