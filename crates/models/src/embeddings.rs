//! What stands before the layers of a stack: token embeddings, positions, and what turns their sum into hidden states.

use elgen_tensor::ops::{Linear, Norm, Operand, Product, embed_packed, embed_step, positions_packed, positions_step};
use elgen_tensor::{Matrix, Recorder, Rows, TableRef, Tensor, TensorError, TokenAt};

use crate::error::ModelError;
use crate::space::Space;

/// What stands behind the ids of an input.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum InputEmbeddings<'a> {
    /// The rows of the model's token tables.
    #[default]
    Tokens,
    /// These, and behind the last of them vectors of the caller `[n, d_model]`: the id `vocab_size + i` is row `i`. Not supported yet.
    Vectors(&'a Tensor),
}

/// The ids that are embedded.
#[derive(Clone, Copy)]
pub(crate) enum Ids<'a> {
    /// Packed rows, and how many.
    Packed(TableRef<'a, TokenAt>, usize),
    /// The last id of each active row.
    Step(&'a Rows),
}

impl Ids<'_> {
    /// Rows of the embeddings.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::Packed(_, count) => count,
            Self::Step(rows) => rows.count(),
        }
    }

    /// Writes the embeddings of tokens and, if it is given a table and the row of its position 0, positions.
    fn embed(
        self,
        rec: &mut Recorder,
        table: &Matrix,
        scale: f32,
        places: Option<(&Matrix, usize)>,
        out: &Tensor,
    ) -> elgen_tensor::Result<()> {
        match self {
            Self::Packed(ids, count) => embed_packed(rec, ids, count, table, scale, places, out),
            Self::Step(rows) => embed_step(rec, rows, table, scale, places, out),
        }
    }

    /// Writes the embeddings of positions alone.
    fn place(self, rec: &mut Recorder, places: (&Matrix, usize), out: &Tensor) -> elgen_tensor::Result<()> {
        match self {
            Self::Packed(ids, count) => positions_packed(rec, ids, count, places, out),
            Self::Step(rows) => positions_step(rec, rows, places, out),
        }
    }
}

/// A table of positions.
#[derive(Debug)]
pub(crate) struct PositionTable {
    pub(crate) table: Matrix,
    /// Rows before position 0.
    pub(crate) offset: usize,
}

/// The embeddings of a stack: `norm(projection(table[id] * scale) + positions[position])`.
#[derive(Debug)]
pub(crate) struct Embeddings {
    /// `[vocab_size, table width]`.
    pub(crate) table: Matrix,
    pub(crate) scale: f32,
    /// None where attention alone knows about positions.
    pub(crate) positions: Option<PositionTable>,
    /// `[d_model, table width]`, where the table is narrower or wider than the model.
    pub(crate) projection: Option<Linear>,
    /// Its result is what the layers begin with; see [`crate::stack::Stream::begin`].
    pub(crate) norm: Option<Norm>,
}

impl Embeddings {
    /// Writes all but the norm to `out`, `[rows, d_model]`: one of the first two tensors of hidden states.
    pub(crate) fn write(
        &self,
        rec: &mut Recorder,
        ids: Ids<'_>,
        from: InputEmbeddings<'_>,
        space: &Space,
        out: &Tensor,
    ) -> Result<(), ModelError> {
        if let InputEmbeddings::Vectors(vectors) = from {
            let message = format!("vectors of the caller {} are not supported yet", vectors.describe());
            return Err(TensorError::Shape { op: "embed", message }.into());
        }
        let places = self.positions.as_ref().map(|positions| (&positions.table, positions.offset));
        let Some(projection) = &self.projection else {
            return Ok(ids.embed(rec, &self.table, self.scale, places, out)?);
        };
        // Rows of the table lie in the feed-forward tensor, positions in the tensor that no block has read or written yet.
        let narrow = &space.feed_forward.inner;
        ids.embed(rec, &self.table, self.scale, None, narrow)?;
        if let Some(places) = places {
            ids.place(rec, places, &space.h)?;
        }
        let operand = places.map_or(Operand::None, |_| Operand::Residual(&space.h));
        Ok(Product { operand, ..Product::new(narrow, projection, out, ids.count()) }.record(rec)?)
    }
}
