//! A stack of layers as a stream of hidden states: where its norms stand decides which tensor a block reads and which one it adds to.

use elgen_attention::Epilogue;
use elgen_tensor::ops::{Norm, layer_norm};
use elgen_tensor::{Recorder, Tensor};

use crate::config::NormOrder;
use crate::error::ModelError;
use crate::space::Space;

/// The norms of a stack.
#[derive(Debug)]
pub(crate) struct Norms {
    pub(crate) order: NormOrder,
    /// One per block of each layer, in the order of the blocks.
    pub(crate) layers: Vec<Vec<Norm>>,
    /// Behind the last layer of a pre-norm stack, if there is one.
    pub(crate) last: Option<Norm>,
}

impl Norms {
    /// The norm between the embeddings and the first block.
    fn first(&self) -> Option<&Norm> {
        match self.order {
            NormOrder::Post => None,
            NormOrder::Pre => self.layers.first().and_then(|blocks| blocks.first()).or(self.last.as_ref()),
        }
    }

    /// The norm that follows a block: its own in post-norm order, that of the next block or the last one in pre-norm order.
    fn behind(&self, layer: usize, block: usize) -> Option<&Norm> {
        let at = |l: usize, b: usize| self.layers.get(l).and_then(|blocks| blocks.get(b));
        match self.order {
            NormOrder::Post => at(layer, block),
            NormOrder::Pre => at(layer, block + 1).or_else(|| at(layer + 1, 0)).or(self.last.as_ref()),
        }
    }
}

/// The tensors through which the hidden states of a stack pass, `[rows, d_model]` each.
pub(crate) struct Stream<'s> {
    norms: &'s Norms,
    /// What the next block reads. In post-norm order this is `residual` itself.
    pub(crate) input: &'s Tensor,
    /// What the next block adds to: the hidden states between two layers.
    pub(crate) residual: &'s Tensor,
    /// Where the next block's sum goes.
    spare: &'s Tensor,
    rows: usize,
}

impl<'s> Stream<'s> {
    pub(crate) fn new(norms: &'s Norms, space: &'s Space, rows: usize) -> Self {
        let input = if norms.order == NormOrder::Pre { &space.h } else { &space.x };
        Self { norms, input, residual: &space.x, spare: &space.y, rows }
    }

    /// Where the embeddings go.
    pub(crate) fn embeddings(&self, norm: Option<&Norm>) -> &'s Tensor {
        if norm.is_some() { self.spare } else { self.residual }
    }

    /// Applies the norm behind the embeddings, if there is one, and the first norm of the stack.
    pub(crate) fn begin(&self, rec: &mut Recorder, embedding_norm: Option<&Norm>) -> Result<(), ModelError> {
        if let Some(norm) = embedding_norm {
            layer_norm(rec, self.spare, norm, self.residual, self.rows)?;
        }
        if let Some(norm) = self.norms.first() {
            layer_norm(rec, self.residual, norm, self.input, self.rows)?;
        }
        Ok(())
    }

    /// How block `block` of layer `layer` ends. The norm may write the block's input: that has been read by then.
    pub(crate) fn epilogue(&self, layer: usize, block: usize) -> Epilogue<'s> {
        let norm = self.norms.behind(layer, block).map(|norm| (norm, self.input));
        Epilogue { residual: Some(self.residual), out: self.spare, norm }
    }

    /// Goes on to the next block.
    pub(crate) fn advance(&mut self) {
        // Post-norm: the normalised sum lies in `input`, which is `residual`, and the sum itself is done with.
        if self.norms.order == NormOrder::Pre {
            std::mem::swap(&mut self.residual, &mut self.spare);
        }
    }

    /// What the stack gives, after its last norm.
    pub(crate) fn output(&self) -> &'s Tensor {
        match (self.norms.order, &self.norms.last) {
            (NormOrder::Pre, None) => self.residual,
            _ => self.input,
        }
    }
}
