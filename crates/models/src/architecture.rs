//! What every model family offers to the runner: an encoder (if it has one), a decoder prefill and a decode step. They only record.

use std::fmt;

use elgen_attention::{CacheLayout, Caches, Cx, Packed, Probabilities, Step};
use elgen_search::ModelLimits;
use elgen_tensor::{Recorder, TableRef, Tensor, TokenAt, WeightFormat};

use crate::embeddings::InputEmbeddings;
use crate::error::ModelError;
use crate::space::{Space, StackShape};
use crate::stack::Stream;

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

    /// The same, for a shorter time.
    pub(crate) fn reborrow(&mut self) -> Probe<'_> {
        Probe(match &mut self.0 {
            Some(f) => Some(&mut **f),
            None => None,
        })
    }
}

/// What a pass over a model gets beside its rows: where it records, what it may read and write.
#[non_exhaustive]
pub struct PassCx<'r, 's> {
    /// What it records into. Nothing is submitted, waited for or read back.
    pub rec: &'r mut Recorder,
    /// The caches.
    pub caches: &'s Caches,
    /// The working tensors of its rows.
    pub space: &'s Space,
    /// What stands behind the ids.
    pub embeddings: InputEmbeddings<'s>,
    /// Sees the hidden states.
    pub probe: Probe<'r>,
}

impl<'r, 's> PassCx<'r, 's> {
    /// That of these, with the embeddings of the model's own tables, seen by nobody.
    pub fn new(rec: &'r mut Recorder, caches: &'s Caches, space: &'s Space) -> Self {
        Self { rec, caches, space, embeddings: InputEmbeddings::Tokens, probe: Probe::none() }
    }

    /// With a probe.
    #[must_use]
    pub fn with_probe(self, probe: Probe<'r>) -> Self {
        Self { probe, ..self }
    }

    /// With other embeddings.
    #[must_use]
    pub fn with_embeddings(self, embeddings: InputEmbeddings<'s>) -> Self {
        Self { embeddings, ..self }
    }

    /// Marks a place of a stack, and lets the probe look at the hidden states there.
    pub(crate) fn see(
        &mut self,
        stack: &'static str,
        index: usize,
        stream: &mut Stream<'_>,
        rows: usize,
    ) -> Result<(), ModelError> {
        self.rec.mark(stack, index);
        match &mut self.probe.0 {
            Some(see) => {
                let states = stream.states(self.rec)?;
                see(self.rec, stack, index, states, rows)
            }
            None => Ok(()),
        }
    }

    /// What an attention block gets.
    pub fn attention(&mut self) -> Cx<'_> {
        Cx::new(self.rec, self.caches, self.space.attention())
    }
}

impl fmt::Debug for PassCx<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassCx").field("rows", &self.space.rows).finish_non_exhaustive()
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

    /// What the caches must hold, by the kinds that it was loaded with.
    fn cache_layout(&self) -> CacheLayout;

    /// How weight matrices are stored, for reports; `None` where they are not all alike.
    fn weight_format(&self) -> Option<WeightFormat> {
        None
    }

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
    /// Decoder-only models; shapes that do not fit; embeddings that are not supported.
    fn encode<'s>(
        &'s self,
        cx: &mut PassCx<'_, 's>,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
    ) -> Result<&'s Tensor, ModelError>;

    /// Runs packed decoder prompts, all but their last id, and fills the self caches. `batch.slots`: self slots. Gives the
    /// final hidden states `[packed rows, _]`, the input of [`Architecture::head`].
    ///
    /// # Errors
    /// Shapes that do not fit; embeddings that are not supported.
    fn prefill<'s>(
        &'s self,
        cx: &mut PassCx<'_, 's>,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
    ) -> Result<&'s Tensor, ModelError>;

    /// One decode step: feeds the last id of each active row, writes `logits` `[active rows, vocab_size]`.
    ///
    /// # Errors
    /// Shapes that do not fit; embeddings that are not supported.
    fn step<'s>(&'s self, cx: &mut PassCx<'_, 's>, step: Step<'_>, logits: &Tensor) -> Result<(), ModelError>;

    /// Runs packed decoder sequences as [`Architecture::prefill`] does, up to the cross-attention of decoder layer `layer`, and writes its
    /// probabilities over the sources instead of that block's output. `layer` is one that the decoder has.
    ///
    /// # Errors
    /// Decoder-only models; shapes that do not fit.
    fn align<'s>(
        &'s self,
        cx: &mut PassCx<'_, 's>,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
        layer: usize,
        out: &Probabilities<'_>,
    ) -> Result<(), ModelError> {
        let _ = (cx, ids, batch, layer, out);
        Err(ModelError::NoCrossAttention)
    }

    /// The head: `logits[r]` `[vocab_size]` of the final hidden state `hidden[r]`, for the rows `0..rows`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn head(&self, rec: &mut Recorder, hidden: &Tensor, logits: &Tensor, rows: usize) -> Result<(), ModelError>;
}
