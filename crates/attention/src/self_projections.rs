//! The projections of self-attention, for kinds that project queries, keys and values of one input in one product.

use elgen_tensor::Arena;
use elgen_tensor::ops::{Linear, Product, Store};

use crate::bias::PositionBias;
use crate::block::{BlockInput, Cx, Epilogue};
use crate::error::Result;
use crate::shape::Shape;
use crate::spec::BlockSpec;
use crate::weights::{AttentionWeights, Placed, output_projection, stack_heads};

/// W_q, W_k and W_v stacked into one matrix, and W_o with the end of the block. Biases lie where the scores allow it: b_v is part of b_o, and b_k
/// is there only under position schemes that need it (docs/el-attention.md §1.3).
#[derive(Debug)]
pub struct SelfProjections {
    shape: Shape,
    bias: Option<PositionBias>,
    qkv: Linear,
    output: Linear,
}

impl SelfProjections {
    /// Loads or counts the weights.
    ///
    /// # Errors
    /// Weights that do not fit the shape or cannot be read.
    pub fn new(arena: &Arena, spec: &BlockSpec<'_>, w: AttentionWeights<'_>) -> Result<Self> {
        let BlockSpec { what, shape, formats, .. } = *spec;
        let Placed { weights: w, folded } = Placed::new(spec, w)?;
        Ok(Self {
            shape,
            bias: spec.position_bias()?,
            qkv: stack_heads(arena, &format!("{what} qkv"), shape, formats.weights, &[w.q, w.k, w.v])?,
            output: output_projection(arena, &format!("{what} out"), shape, formats.weights, w.o, folded)?,
        })
    }

    /// The shape of the block.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The bias by distance, if that is the block's position scheme.
    pub fn position_bias(&self) -> Option<&PositionBias> {
        self.bias.as_ref()
    }

    /// Records queries, keys and values of `rows` rows `[_, d_model]` into the workspace's projections: in columns from 0, `inner` and
    /// `2 * inner` on; `stores` are where keys and values go beside.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn project(&self, cx: &mut Cx<'_>, input: &BlockInput<'_>, stores: &[Store<'_>], rows: usize) -> Result<()> {
        let product = Product::new(input.states, &self.qkv, cx.work.projections(), rows);
        Ok(Product { prologue: input.prologue(), stores, ..product }.record(cx.rec)?)
    }

    /// Records the output projection of the workspace's contexts, and the end of the block. `splits`: of the keys of a row, which are merged
    /// first.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn finish(&self, cx: &mut Cx<'_>, epilogue: &Epilogue<'_>, splits: usize, rows: usize) -> Result<()> {
        let merge = cx.work.merge(splits, self.shape.num_heads, self.shape.head_width());
        Ok(epilogue.apply(cx.rec, merge, cx.work.contexts(), &self.output, rows)?)
    }
}
