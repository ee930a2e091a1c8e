//! The attention trait: what a model hands to a block of a layer and what it gets back.

use std::fmt;

use elgen_tensor::ops::{Activation, Linear, Norm, layer_norm, linear};
use elgen_tensor::{
    Arena, Class, DType, Device, Entry, Range, Recorder, Rows, Segment, Table, TableRef, Tensor, TensorError, padded,
};

use crate::align::Probabilities;
use crate::bias::PositionBias;
use crate::caches::{Caches, recomputed};
use crate::combine::{Partials, Splits};
use crate::error::{AttentionError, Result};
use crate::kind::{Kind, Shape};

/// What a block is, apart from its kind and its weights.
#[derive(Clone, Copy, Debug)]
pub struct BlockSpec<'a> {
    /// Names the block in messages.
    pub what: &'a str,
    /// Its layer, from 0: which of the caches is its own.
    pub layer: usize,
    /// Widths, heads and scale.
    pub shape: Shape,
    /// Storage of its weights.
    pub dtype: DType,
    /// Added to the scores of self-attention; cross-attention takes none.
    pub bias: Option<&'a PositionBias>,
    /// True if a query row may have no key at all: its context is zero, so b_v stays with the values, before W_o. False where every
    /// row has a key, and with it probabilities that sum to one: b_v is then folded into b_o (docs/el-attention.md §1.3).
    pub masks_whole_rows: bool,
}

impl BlockSpec<'_> {
    /// The bias of a self-attention block, which must have as many heads.
    pub(crate) fn self_bias(&self) -> Result<Option<PositionBias>> {
        match self.bias {
            Some(bias) if bias.num_heads() != self.shape.num_heads => Err(AttentionError::Shape(format!(
                "{} has {} heads, its position bias has {} heads",
                self.what,
                self.shape.num_heads,
                bias.num_heads()
            ))),
            bias => Ok(bias.cloned()),
        }
    }

    /// Refuses a bias: there is no distance between a source and a target position.
    pub(crate) fn check_cross(&self) -> Result<()> {
        match self.bias {
            None => Ok(()),
            Some(_) => Err(AttentionError::Shape(format!("{}: cross-attention takes no position bias", self.what))),
        }
    }
}

/// How a block ends: `out = context W_o + b_o + residual`, then `normed = LayerNorm(out)`.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// Added to the block's output.
    pub residual: Option<&'a Tensor>,
    /// Receives the sum.
    pub out: &'a Tensor,
    /// The norm that follows, and where its result goes.
    pub norm: Option<(&'a Norm, &'a Tensor)>,
}

impl Epilogue<'_> {
    /// Records the end of a block: `out = input W + b + residual` with the last projection, then the norm. `input`: `[rows or more, in]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn apply(&self, rec: &mut Recorder, context: &Tensor, output: &Linear, rows: usize) -> Result<(), TensorError> {
        linear(rec, context, output, Activation::None, self.residual, self.out, rows)?;
        match self.norm {
            Some((norm, normed)) => layer_norm(rec, self.out, norm, normed, rows),
            None => Ok(()),
        }
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

/// What a [`Workspace`] must hold beside the common parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Room for expanded queries: some EL block attends with these rows.
    pub el: bool,
    /// Room for separate queries, keys and values: some EL block prefills these rows.
    pub el_prefill: bool,
    /// mha-nocache: cross slots of the largest slab.
    pub memory_slots: usize,
    /// Key splits of the longest rows that a decode kernel attends with.
    pub splits: Splits,
}

impl Extras {
    /// True if working tensors made for this also do for `other`.
    pub fn hold(self, other: Self) -> bool {
        self.memory_slots >= other.memory_slots && self.splits.hold(other.splits)
    }

    /// Columns of a row's contexts, all heads, in the widest block.
    fn context_columns(self, shape: Shape) -> usize {
        if self.el { expanded(shape) } else { shape.inner() }
    }
}

/// Columns of EL's expanded queries, all heads.
fn expanded(shape: Shape) -> usize {
    shape.num_heads.saturating_mul(padded(shape.d_model))
}

/// Intermediate results of one block, for a given number of rows.
#[derive(Debug)]
pub struct Workspace {
    /// `[rows, 3 * inner]`: queries, keys and values.
    pub(crate) wide: Tensor,
    /// `[rows, inner]`: contexts.
    pub(crate) context: Tensor,
    /// EL: `[rows, num_heads * d_model]`, expanded queries and contexts.
    el: Option<[Tensor; 2]>,
    /// EL prefill: `[rows, inner]` each, queries, keys and values.
    triple: Option<[Tensor; 3]>,
    /// mha-nocache: `[cross slots, 2 * inner]`, this layer's cross keys and values.
    memory: Option<Tensor>,
    /// Where rows have several key splits: what each leaves behind.
    partials: Option<Partials>,
    splits: Splits,
}

impl Workspace {
    /// That of `rows` rows on a device; see [`Workspace::build`].
    ///
    /// # Errors
    /// Out of memory, or larger than a binding.
    pub fn new(device: &Device, shape: Shape, rows: usize, extras: Extras) -> Result<Self> {
        Self::build(&device.into(), shape, rows, extras)
    }

    /// Allocates or counts for `rows` rows of blocks of this shape.
    ///
    /// # Errors
    /// As [`Arena::tensor`].
    pub fn build(arena: &Arena, shape: Shape, rows: usize, extras: Extras) -> Result<Self> {
        let tensor = |what: &str, n: usize, cols: usize| arena.tensor(what, Class::Activations, n, cols, DType::F32);
        let inner = shape.inner();
        let expanded = |what: &str| tensor(what, rows, expanded(shape));
        let heads = |what: &str| tensor(what, rows, inner);
        Ok(Self {
            wide: tensor("projections", rows, inner.saturating_mul(3))?,
            context: heads("contexts")?,
            el: if extras.el { Some([expanded("EL queries")?, expanded("EL contexts")?]) } else { None },
            triple: if extras.el_prefill { Some([heads("queries")?, heads("keys")?, heads("values")?]) } else { None },
            memory: match extras.memory_slots {
                0 => None,
                slots => Some(recomputed(arena, shape, slots)?),
            },
            partials: match extras.splits.most() {
                1 => None,
                most => Some(Partials::build(arena, rows, most, shape.num_heads, extras.context_columns(shape))?),
            },
            splits: extras.splits,
        })
    }

    /// Key splits that it has room for.
    pub(crate) fn splits(&self) -> Splits {
        self.splits
    }

    /// Where splits leave what they make; `None` where no row has more than one.
    pub(crate) fn partials(&self) -> Option<&Partials> {
        self.partials.as_ref()
    }

    pub(crate) fn memory(&self) -> Result<&Tensor, TensorError> {
        self.memory.as_ref().ok_or_else(|| no_room("recomputed keys and values"))
    }

    pub(crate) fn el(&self) -> Result<&[Tensor; 2], TensorError> {
        self.el.as_ref().ok_or_else(|| no_room("expanded queries"))
    }

    pub(crate) fn triple(&self) -> Result<&[Tensor; 3], TensorError> {
        self.triple.as_ref().ok_or_else(|| no_room("separate queries, keys and values"))
    }
}

fn no_room(what: &str) -> TensorError {
    TensorError::Shape { op: "attention", message: format!("the workspace has no room for {what}") }
}

/// The decoder's self-attention of one layer.
///
/// It receives exactly the tensor that is fed to the QKV projection, owns its four projections, and ends in the [`Epilogue`]. It only
/// records: nothing is submitted, waited for or read back.
pub trait SelfAttention: fmt::Debug + Send + Sync {
    /// What it caches.
    fn kind(&self) -> Kind;

    /// Packed prompt rows `[tokens, d_model]`, each attending to its range; stores what the kind caches into the rows' slots.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn prefill(
        &self,
        rec: &mut Recorder,
        input: &Tensor,
        epilogue: &Epilogue<'_>,
        batch: &Packed,
        caches: &Caches,
        work: &Workspace,
    ) -> Result<()>;

    /// One row per active hypothesis `[rows, d_model]`: stores the fed position and attends to all positions so far.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn step(
        &self,
        rec: &mut Recorder,
        input: &Tensor,
        epilogue: &Epilogue<'_>,
        step: Step<'_>,
        caches: &Caches,
        work: &Workspace,
    ) -> Result<()>;
}

/// The cross-attention of one decoder layer.
pub trait CrossAttention: fmt::Debug + Send + Sync {
    /// What it caches.
    fn kind(&self) -> Kind;

    /// Takes packed encoder outputs `[tokens, d_model]`, stored once for all layers ([`memorize`]), and makes what this layer caches of
    /// them. `batch.slots` are cross slots.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn memorize(
        &self,
        rec: &mut Recorder,
        memory: &Tensor,
        batch: &Packed,
        caches: &Caches,
        work: &Workspace,
    ) -> Result<()>;

    /// Query rows `[count, d_model]` over their sentences' encoder outputs.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn attend(
        &self,
        rec: &mut Recorder,
        input: &Tensor,
        epilogue: &Epilogue<'_>,
        queries: CrossQueries<'_>,
        caches: &Caches,
        work: &Workspace,
    ) -> Result<()>;

    /// The attention probabilities of these query rows `[count, d_model]` over their sentences' encoder outputs, instead of the block's
    /// output: what [`CrossAttention::attend`] weighs values with.
    ///
    /// # Errors
    /// Shapes that do not fit.
    fn probabilities(
        &self,
        rec: &mut Recorder,
        input: &Tensor,
        queries: CrossQueries<'_>,
        caches: &Caches,
        work: &Workspace,
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

/// Stores packed encoder outputs once for all layers, for the kinds that keep them (EL, mha-nocache).
///
/// # Errors
/// Shapes that do not fit.
pub fn memorize(rec: &mut Recorder, memory: &Tensor, batch: &Packed, caches: &Caches) -> Result<()> {
    let Some((_, Kind::El | Kind::MhaNocache)) = caches.layout().cross else { return Ok(()) };
    store_copies(rec, memory, 0, batch, caches, |slab| slab.cross.first())
}

/// Stores packed rows at their slots, once per copy, slab by slab.
pub(crate) fn store_copies<'c>(
    rec: &mut Recorder,
    x: &Tensor,
    first_col: usize,
    batch: &Packed,
    caches: &'c Caches,
    buffer: impl Fn(&'c crate::caches::Slab) -> Option<&'c Tensor>,
) -> Result<()> {
    for slots in &batch.slots {
        for segment in &batch.segments {
            let slab = buffer(slab_of(caches, segment)?).ok_or_else(|| lost_slab(segment))?;
            elgen_tensor::ops::store_packed(
                rec,
                slots.view(),
                segment.first as usize,
                segment.count as usize,
                x,
                first_col,
                slab,
            )?;
        }
    }
    Ok(())
}

pub(crate) fn slab_of<'c>(caches: &'c Caches, segment: &Segment) -> Result<&'c crate::caches::Slab, TensorError> {
    caches.slabs().get(segment.slab).ok_or_else(|| lost_slab(segment))
}

fn lost_slab(segment: &Segment) -> TensorError {
    TensorError::Shape { op: "attention", message: format!("slab {} does not exist or lacks a buffer", segment.slab) }
}
