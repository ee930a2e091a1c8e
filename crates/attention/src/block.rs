//! What a model hands to the attention block of a layer, and what it gets back.

use std::fmt;

use elgen_tensor::ops::{Linear, Norm, Operand, Product, Prologue};
use elgen_tensor::{Entry, Range, Recorder, Rows, Segment, Table, TableRef, Tensor, TensorError};

use crate::align::Probabilities;
use crate::caches::Caches;
use crate::error::Result;
use crate::workspace::Workspace;

/// What every block gets beside its rows: where it records, what it may read and write.
#[derive(Debug)]
#[non_exhaustive]
pub struct Cx<'a> {
    /// What it records into. Nothing is submitted, waited for or read back by a block.
    pub rec: &'a mut Recorder,
    /// The caches of the model.
    pub caches: &'a Caches,
    /// Its working tensors, which the next block overwrites.
    pub work: &'a Workspace,
}

impl<'a> Cx<'a> {
    /// That of these.
    pub fn new(rec: &'a mut Recorder, caches: &'a Caches, work: &'a Workspace) -> Self {
        Self { rec, caches, work }
    }
}

/// What a block reads: the hidden states between two blocks, and the norm that stands before its products, if one does.
#[derive(Clone, Copy, Debug)]
pub struct BlockInput<'a> {
    /// `[rows, d_model]`.
    pub states: &'a Tensor,
    /// The norm, and where its result goes.
    pub norm: Option<(&'a Norm, &'a Tensor)>,
}

impl<'a> BlockInput<'a> {
    /// States that are multiplied as they are.
    pub fn plain(states: &'a Tensor) -> Self {
        Self { states, norm: None }
    }

    /// The prologue of the block's first product over `states`.
    pub fn prologue(&self) -> Prologue<'a> {
        self.norm.map_or(Prologue::None, |(norm, normed)| Prologue::Norm { norm, normed })
    }

    /// What is fed to the block's products, for those behind the first one, and for what is cached of it.
    pub fn normed(&self) -> &'a Tensor {
        self.norm.map_or(self.states, |(_, normed)| normed)
    }
}

/// How a block ends: `out = context W_o + b_o + residual`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// Added to the block's output.
    pub residual: Option<&'a Tensor>,
    /// Receives the sum.
    pub out: &'a Tensor,
}

impl<'a> Epilogue<'a> {
    /// Records the end of a block with the last projection. `input`: `[rows or more, in]`, which `prologue` comes before.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn apply(
        &self,
        rec: &mut Recorder,
        prologue: Prologue<'a>,
        input: &'a Tensor,
        output: &'a Linear,
        rows: usize,
    ) -> Result<(), TensorError> {
        let operand = self.residual.map_or(Operand::None, Operand::Residual);
        Product { prologue, operand, ..Product::new(input, output, self.out, rows) }.record(rec)
    }
}

/// Packed token rows of several sentences: encoder inputs, or decoder prompts.
#[derive(Debug)]
pub struct Packed {
    /// Number of token rows.
    pub tokens: usize,
    /// `0, 1, 2 …` for each token row.
    pub index: Table<u32>,
    /// Per token row: (first, count) of the rows it attends to within this batch.
    pub ranges: Table<Range>,
    /// Runs of token rows whose sentences lie in one slab.
    pub segments: Vec<Segment>,
    /// (first token row, count) of each sentence's rows, as the segments count them.
    pub groups: Table<Range>,
    /// Where token rows are stored: per copy, a slot for each row.
    pub slots: Vec<Table<u32>>,
    /// Per token row: (first, count) of its sentence's cross slots (beam 0's copy); for prompts of encoder-decoder models.
    pub cross_ranges: Option<Table<Range>>,
}

/// The rows of a decode step and where their cross keys are.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Row tables.
    pub rows: &'a Rows,
    /// Per physical row: (first, count) of its cross slots.
    pub cross_ranges: Option<TableRef<'a, Range>>,
}

/// Bidirectional self-attention of one encoder layer. Its [`BlockInput`] is exactly what is fed to the QKV projection; it owns its four
/// projections, and ends in the [`Epilogue`].
pub trait EncoderBlock: fmt::Debug + Send + Sync {
    /// Packed rows `[tokens, d_model]`, each attending to its range. Nothing is cached: `cx.caches` is for others.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn forward(&self, cx: &mut Cx<'_>, input: &BlockInput<'_>, epilogue: &Epilogue<'_>, batch: &Packed) -> Result<()>;
}

/// The decoder's self-attention of one layer.
///
/// Its [`BlockInput`] is exactly what is fed to the QKV projection; it owns its four projections, and ends in the [`Epilogue`]. It only
/// records: nothing is submitted, waited for or read back.
pub trait SelfAttention: fmt::Debug + Send + Sync {
    /// Packed prompt rows `[tokens, d_model]`, each attending to its range; stores what the kind caches into the rows' slots.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn prefill(&self, cx: &mut Cx<'_>, input: &BlockInput<'_>, epilogue: &Epilogue<'_>, batch: &Packed) -> Result<()>;

    /// One row per active hypothesis `[rows, d_model]`: stores the fed position and attends to all positions so far.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn step(&self, cx: &mut Cx<'_>, input: &BlockInput<'_>, epilogue: &Epilogue<'_>, step: Step<'_>) -> Result<()>;
}

/// The cross-attention of one decoder layer.
pub trait CrossAttention: fmt::Debug + Send + Sync {
    /// Makes what this layer caches of packed encoder outputs `[tokens, d_model]`. Where all layers read one copy of these
    /// ([`crate::SlotBuffers::EncoderOutput`]), it has been stored already. `batch.slots` are cross slots.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn cache_sources(&self, cx: &mut Cx<'_>, encoder_output: &Tensor, batch: &Packed) -> Result<()>;

    /// Query rows `[count, d_model]` over their sentences' encoder outputs.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn attend(
        &self,
        cx: &mut Cx<'_>,
        input: &BlockInput<'_>,
        epilogue: &Epilogue<'_>,
        queries: CrossQueries<'_>,
    ) -> Result<()>;

    /// The attention probabilities of these query rows `[count, d_model]` over their sentences' encoder outputs, instead of the block's
    /// output: what [`CrossAttention::attend`] weighs values with.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn probabilities(
        &self,
        cx: &mut Cx<'_>,
        input: &BlockInput<'_>,
        queries: CrossQueries<'_>,
        out: &Probabilities<'_>,
    ) -> Result<()>;
}

/// Query rows of cross-attention: those of a decode step or of packed prompts.
#[derive(Clone, Copy, Debug)]
pub struct CrossQueries<'a> {
    /// Row numbers of the query rows.
    pub index: TableRef<'a, u32>,
    /// (first, count) of the cross slots by row number.
    pub ranges: TableRef<'a, Range>,
    /// (first query row, count) of the rows of one sentence, which all have one range.
    pub groups: TableRef<'a, Range>,
    /// Query rows by slab.
    pub segments: &'a [Segment],
    /// Number of query rows.
    pub count: usize,
}

impl CrossQueries<'_> {
    /// One more than the largest query row of the groups of a segment, and whether these are listed, with ranges below `keys`.
    pub(crate) fn reach(&self, segment: &Segment, keys: usize) -> (usize, bool) {
        let first = segment.first_group as usize;
        let Some(groups) = self.groups.entries().get(first..first.saturating_add(segment.groups as usize)) else {
            return (0, false);
        };
        let end = groups.iter().map(Entry::end).max().unwrap_or(0) as usize;
        let end = end.max((segment.first as usize).saturating_add(segment.count as usize));
        let listed =
            |group: &Range| self.index.hold_ranges(group.first as usize, group.count as usize, self.ranges, keys);
        (end, groups.iter().all(listed))
    }
}
