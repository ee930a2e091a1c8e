//! A stack of layers as a stream of hidden states: where its norms stand decides what a block reads and which tensor it adds to.

use elgen_attention::{BlockInput, Epilogue};
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

/// The tensors through which the hidden states of a stack pass, `[rows, d_model]` each. A norm stands before the block that reads its result: it
/// is the prologue of that block's first product.
pub(crate) struct Stream<'s> {
    norms: &'s Norms,
    /// What the next block reads.
    input: BlockInput<'s>,
    /// What the next block adds to. In post-norm order it is what the norm of `input` gives.
    residual: &'s Tensor,
    /// Where the next block's sum goes.
    spare: &'s Tensor,
    /// In pre-norm order, where norms go.
    normed: &'s Tensor,
    rows: usize,
}

impl<'s> Stream<'s> {
    pub(crate) fn new(norms: &'s Norms, space: &'s Space, rows: usize) -> Self {
        Self { norms, input: BlockInput::plain(&space.x), residual: &space.x, spare: &space.y, normed: &space.h, rows }
    }

    /// Where the embeddings go.
    pub(crate) fn embeddings(&self, norm: Option<&Norm>) -> &'s Tensor {
        if norm.is_some() { self.spare } else { self.residual }
    }

    /// Sets the norm behind the embeddings, if there is one, and the first norm of the stack.
    pub(crate) fn begin(&mut self, rec: &mut Recorder, embedding_norm: Option<&'s Norm>) -> Result<(), ModelError> {
        if let Some(norm) = embedding_norm {
            self.input = BlockInput { states: self.spare, norm: Some((norm, self.residual)) };
        }
        if let Some(norm) = self.norms.first() {
            self.settle(rec)?;
            self.input = BlockInput { states: self.residual, norm: Some((norm, self.normed)) };
        }
        Ok(())
    }

    /// What the next block reads.
    pub(crate) fn input(&self) -> BlockInput<'s> {
        self.input
    }

    /// How the next block ends. It is done with its input by then.
    pub(crate) fn epilogue(&self) -> Epilogue<'s> {
        Epilogue { residual: Some(self.residual), out: self.spare }
    }

    /// Goes on behind block `block` of layer `layer`.
    pub(crate) fn advance(&mut self, layer: usize, block: usize) {
        let (sum, norm) = (self.spare, self.norms.behind(layer, block));
        match self.norms.order {
            // The next block reads what its prologue writes over this block's input, and adds to it.
            NormOrder::Post => self.input = BlockInput { states: sum, norm: norm.map(|norm| (norm, self.residual)) },
            NormOrder::Pre => {
                std::mem::swap(&mut self.residual, &mut self.spare);
                self.input = BlockInput { states: sum, norm: norm.map(|norm| (norm, self.normed)) };
            }
        }
    }

    /// The hidden states between two layers, computed: for those who look at them.
    pub(crate) fn states(&mut self, rec: &mut Recorder) -> Result<&'s Tensor, ModelError> {
        if self.norms.order == NormOrder::Post {
            self.settle(rec)?;
        }
        Ok(self.residual)
    }

    /// What the stack gives, after its last norm.
    pub(crate) fn output(&mut self, rec: &mut Recorder) -> Result<&'s Tensor, ModelError> {
        self.settle(rec)
    }

    /// Applies the norm that stands before the next block.
    fn settle(&mut self, rec: &mut Recorder) -> Result<&'s Tensor, ModelError> {
        if let Some((norm, normed)) = self.input.norm {
            layer_norm(rec, self.input.states, norm, normed, self.rows)?;
            self.input = BlockInput::plain(normed);
        }
        Ok(self.input.states)
    }
}
