//! Logits processors that run on the device: a user's own kernels between a model's step and the search.

use std::fmt;

use elgen_tensor::{Recorder, Rows, Tensor, TensorError};

/// What a [`DeviceProcessor`] does with scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Effect {
    /// It sets some scores to minus infinity, whatever they are, and leaves the others as they are.
    Bans,
    /// It computes with scores.
    #[default]
    Scores,
}

/// A logits processor that records kernels: the scores stay on the device, and nothing is read back for it.
///
/// It runs where a user's processors run (docs/generation.md §4, row 16): behind all built-in processors, before the warpers of sampling.
/// Scores are logits in greedy search and sampling, log-probabilities in beam search. A recording is made anew for each step, so the processor
/// may look at what the rows are by then: `rows` has their states ([`elgen_tensor::RowState`]), ids and numbers as bindings that a kernel
/// reads.
///
/// Diverse beam search subtracts its penalty before the processors, while the device's lists get it afterwards: there, only what bans can run,
/// and what computes with scores is refused. Nor does one run beside processors of the host.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use elgen_search::hooks::{DeviceProcessor, Effect, Hooks};
/// use elgen_tensor::{KernelSource, KernelSpec, Recorder, Rows, Tensor, TensorError, bind};
///
/// /// Bans the ids that three divides.
/// #[derive(Debug)]
/// struct NoThrees(KernelSource);
///
/// const WGSL: &str = "
/// struct Params { vocab: u32, stride: u32 }
/// #include params
/// @group(0) @binding(0) var<storage, read_write> scores: array<f32>;
/// @compute @workgroup_size(64)
/// fn main(@builtin(workgroup_id) row: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
///     for (var id = 3u * lane; id < p.vocab; id += 192u) { scores[row.x * p.stride + id] = bitcast<f32>(0xff800000u); }
/// }";
///
/// impl DeviceProcessor for NoThrees {
///     fn name(&self) -> &str {
///         "no-threes"
///     }
///     fn effect(&self) -> Effect {
///         Effect::Bans
///     }
///     fn record(&self, rec: &mut Recorder, rows: &Rows, scores: &Tensor) -> Result<(), TensorError> {
///         let kernel = rec.device().kernel(&KernelSpec::from_source(&self.0))?;
///         let params = [scores.cols as u32, scores.ld() as u32];
///         rec.dispatch(&kernel, &bind![scores], &params, [rows.count() as u32, 1, 1])
///     }
/// }
///
/// let processor = Arc::new(NoThrees(KernelSource::new("no-threes", WGSL)));
/// let hooks = Hooks { device_processors: vec![processor], ..Hooks::default() };
/// ```
pub trait DeviceProcessor: fmt::Debug + Send + Sync {
    /// What it is called in messages.
    fn name(&self) -> &str;

    /// What it does with scores. Undeclared, it computes with them.
    fn effect(&self) -> Effect {
        Effect::Scores
    }

    /// Records what changes `scores` `[active rows or more, V]` f32 in place: row `i` belongs to active row `i` of `rows`.
    ///
    /// # Errors
    /// The processor's own; the batch fails with it, named.
    fn record(&self, rec: &mut Recorder, rows: &Rows, scores: &Tensor) -> Result<(), TensorError>;
}
