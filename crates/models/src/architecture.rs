//! What every model family offers to the runner: an encoder (if it has one), a decoder prefill and a decode step. They only record.

use std::fmt;

use elgen_attention::{CacheLayout, Caches, Packed, Probabilities, Step};
use elgen_search::ModelLimits;
use elgen_tensor::{Recorder, TableRef, Tensor, TokenAt};

use crate::error::ModelError;
use crate::space::{Space, StackShape};

/// Sees hidden states while they are recorded: (recorder, "encoder" or "decoder", index, `[rows, d_model]`, rows). Index 0 is the
/// embedding, index `l` the output of layer `l`; `Probe::none` costs nothing. The recorder marks these places anyway.
pub struct Probe<'p>(Option<ProbeFn<'p>>);

/// The function of a [`Probe`].
pub type ProbeFn<'p> = &'p mut dyn FnMut(&mut Recorder, &'static str, usize, &Tensor, usize) -> Result<(), ModelError>;

impl<'p> Probe<'p> {
    /// Sees nothing.
    pub fn none() -> Self {
        Self(None)
    }

    /// Calls `f` for each hidden state.
    pub fn new(f: ProbeFn<'p>) -> Self {
        Self(Some(f))
    }

    pub(crate) fn see(
        &mut self,
        rec: &mut Recorder,
        stack: &'static str,
        index: usize,
        x: &Tensor,
        rows: usize,
    ) -> Result<(), ModelError> {
        rec.mark(stack, index);
        match &mut self.0 {
            Some(f) => f(rec, stack, index, x, rows),
            None => Ok(()),
        }
    }
}

/// A loaded model.
pub trait Architecture: fmt::Debug + Send + Sync {
    /// Vocabulary, positions, and whether there is an encoder.
    fn limits(&self) -> ModelLimits;

    /// Rows of the table that reads the input: the encoder's, or that of a decoder-only model.
    fn source_vocab_size(&self) -> usize {
        self.limits().vocab_size
    }

    /// What the caches must hold.
    fn cache_layout(&self) -> CacheLayout;

    /// Widths of the encoder stack; `None` for decoder-only models.
    fn encoder_shape(&self) -> Option<StackShape>;

    /// Widths of the decoder stack.
    fn decoder_shape(&self) -> StackShape;

    /// Columns of the final hidden states: of the encoder, or of the decoder of a model without one.
    fn hidden_size(&self) -> usize;

    /// Encodes packed sources and fills the cross caches. `ids`: (id, position) pairs, `batch.slots`: cross slots. Gives the final
    /// hidden states `[packed rows, hidden_size]`.
    ///
    /// # Errors
    /// Decoder-only models; shapes that do not fit.
    fn encode<'s>(
        &'s self,
        rec: &mut Recorder,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
        caches: &Caches,
        space: &'s Space,
        probe: Probe<'_>,
    ) -> Result<&'s Tensor, ModelError>;

    /// Runs packed decoder prompts, all but their last id, and fills the self caches. `batch.slots`: self slots. Gives the
    /// final hidden states `[packed rows, _]`, the input of [`Architecture::head`].
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn prefill<'s>(
        &'s self,
        rec: &mut Recorder,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
        caches: &Caches,
        space: &'s Space,
        probe: Probe<'_>,
    ) -> Result<&'s Tensor, ModelError>;

    /// One decode step: feeds the last id of each active row, writes `logits` `[active rows, vocab_size]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn step(
        &self,
        rec: &mut Recorder,
        step: Step<'_>,
        caches: &Caches,
        space: &Space,
        logits: &Tensor,
        probe: Probe<'_>,
    ) -> Result<(), ModelError>;

    /// Runs packed decoder sequences as [`Architecture::prefill`] does, up to the cross-attention of decoder layer `layer`, and writes its
    /// probabilities over the sources instead of that block's output. `layer` is one that the decoder has.
    ///
    /// # Errors
    /// Decoder-only models; shapes that do not fit.
    #[expect(clippy::too_many_arguments, reason = "those of a prefill, the layer and the output")]
    fn align(
        &self,
        rec: &mut Recorder,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
        caches: &Caches,
        space: &Space,
        layer: usize,
        out: &Probabilities<'_>,
    ) -> Result<(), ModelError> {
        let _ = (rec, ids, batch, caches, space, layer, out);
        Err(ModelError::NoCrossAttention)
    }

    /// The head: `logits[r]` `[vocab_size]` of the final hidden state `hidden[r]`, for the rows `0..rows`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn head(&self, rec: &mut Recorder, hidden: &Tensor, logits: &Tensor, rows: usize) -> Result<(), ModelError>;
}
