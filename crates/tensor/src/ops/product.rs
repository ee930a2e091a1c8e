//! A product with a weight matrix and all that stands around it, as one value: what comes before, what follows, and where the result goes.
//!
//! Whoever asks for a product does not know into how many kernels it falls. The portable kernels run its parts one after the other; one that does
//! more at once changes no caller.

use crate::error::{Result, TensorError};
use crate::ops::combine::{Partials, combine};
use crate::ops::layer_norm::{Norm, layer_norm};
use crate::ops::linear::{Activation, Linear, Other, multiply};
use crate::ops::store::{store, store_packed};
use crate::recorder::Recorder;
use crate::rows::{Rows, Segment};
use crate::table::TableRef;
use crate::tensor::Tensor;

/// What is done to the input of a product before it is multiplied.
#[derive(Clone, Copy, Debug, Default)]
pub enum Prologue<'a> {
    /// Nothing.
    #[default]
    None,
    /// Its rows are normalised. Afterwards `normed` `[rows or more, in]` holds the normalised rows, for those who need them too.
    Norm {
        /// The norm.
        norm: &'a Norm,
        /// Where its result goes.
        normed: &'a Tensor,
    },
    /// It is merged of what splits of keys left behind. Afterwards the input holds the merged rows.
    Merge(Merge<'a>),
}

/// What splits of keys left behind, to be merged.
#[derive(Clone, Copy, Debug)]
pub struct Merge<'a> {
    /// Un-normalised contexts, and maximum and sum of the weights of each head.
    pub partials: &'a Partials,
    /// Splits of each row.
    pub splits: usize,
    /// Heads.
    pub num_heads: usize,
    /// Columns of each head, whole quads.
    pub head_width: usize,
}

/// What an activated sum meets before it is written.
#[derive(Clone, Copy, Debug, Default)]
pub enum Operand<'a> {
    /// Nothing.
    #[default]
    None,
    /// `[rows or more, out]`: added.
    Residual(&'a Tensor),
    /// `[rows or more, out]`: multiplied (Shazeer 2020, arXiv 2002.05202).
    Gate(&'a Tensor),
}

/// The rows that a product is made of.
#[derive(Clone, Copy, Debug)]
pub enum RowList<'a> {
    /// The first so many.
    First(usize),
    /// Those of the first so many entries of a table, each at its own place in input, operands and output. All others stay as they are.
    Listed(TableRef<'a, u32>, usize),
}

/// Cache slots that columns of the result go to, beside `out`.
#[derive(Clone, Copy, Debug)]
pub enum Slots<'a> {
    /// Those of the positions that the rows of a segment feed in this step.
    Step(&'a Rows, Segment),
    /// Those of packed rows: row `first + i` goes to slot `slots[first + i]`, for `i < count`.
    Packed {
        /// A slot for each row.
        slots: TableRef<'a, u32>,
        /// The first row.
        first: usize,
        /// How many.
        count: usize,
    },
}

/// A destination of some columns of the result.
#[derive(Clone, Copy, Debug)]
pub struct Store<'a> {
    /// The first of the columns, a multiple of 4; there are as many as a slot of the slab has.
    pub first_column: usize,
    /// The slots.
    pub to: Slots<'a>,
    /// `[slots, columns]` f32 or f16.
    pub slab: &'a Tensor,
}

/// `out = operand(activation(prologue(x) W^T + b))`, and copies of some of its columns in cache slots.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// `[rows or more, in]` f32.
    pub x: &'a Tensor,
    /// What is done to it first.
    pub prologue: Prologue<'a>,
    /// The matrix and its bias.
    pub weight: &'a Linear,
    /// What follows the sum.
    pub activation: Activation,
    /// What follows the activation.
    pub operand: Operand<'a>,
    /// `[rows or more, out]` f32.
    pub out: &'a Tensor,
    /// Where columns of it go beside.
    pub stores: &'a [Store<'a>],
    /// The rows.
    pub rows: RowList<'a>,
}

impl<'a> Product<'a> {
    /// `x W^T + b` of the first `rows` rows, to `out` alone.
    pub fn new(x: &'a Tensor, weight: &'a Linear, out: &'a Tensor, rows: usize) -> Self {
        Self {
            x,
            prologue: Prologue::None,
            weight,
            activation: Activation::None,
            operand: Operand::None,
            out,
            stores: &[],
            rows: RowList::First(rows),
        }
    }

    /// Records it.
    ///
    /// # Errors
    /// Shapes that do not fit; rows or slots beyond their tensors; `out` shares its buffer with an operand.
    pub fn record(&self, rec: &mut Recorder) -> Result<()> {
        let (end, list) = match self.rows {
            RowList::First(rows) => (rows, None),
            RowList::Listed(list, count) => {
                let message = || format!("{count} of {} listed rows", list.entries().len());
                let listed = list.entries().get(..count);
                let listed = listed.ok_or_else(|| TensorError::Shape { op: "product", message: message() })?;
                let end = listed.iter().map(|row| *row as usize + 1).max().unwrap_or(0);
                (end, Some((list, count)))
            }
        };
        let x = self.prologue.record(rec, self.x, end)?;
        let other = match self.operand {
            Operand::None => Other::Nothing,
            Operand::Residual(tensor) => Other::Residual(tensor),
            Operand::Gate(tensor) => Other::Gate(tensor),
        };
        multiply(rec, x, self.weight, self.activation, other, self.out, end, list, None)?;
        self.stores.iter().try_for_each(|store| store.record(rec, self.out))
    }
}

impl Store<'_> {
    /// Records it alone, for columns of `x` `[rows or more, _]` f32 that are there already.
    ///
    /// # Errors
    /// Shapes that do not fit; slots beyond the slab.
    pub fn record(&self, rec: &mut Recorder, x: &Tensor) -> Result<()> {
        let Self { first_column, to, slab } = *self;
        match to {
            Slots::Step(rows, segment) => store(rec, rows, segment, x, first_column, slab),
            Slots::Packed { slots, first, count } => store_packed(rec, slots, first, count, x, first_column, slab),
        }
    }
}

impl<'a> Prologue<'a> {
    /// Records it over the first `rows` rows of `x`; gives what is multiplied.
    pub(super) fn record(self, rec: &mut Recorder, x: &'a Tensor, rows: usize) -> Result<&'a Tensor> {
        match self {
            Self::None => Ok(x),
            Self::Norm { norm, normed } => {
                layer_norm(rec, x, norm, normed, rows)?;
                Ok(normed)
            }
            Self::Merge(Merge { partials, splits, num_heads, head_width }) => {
                combine(rec, partials, splits, (num_heads, head_width), x, 0, rows as u32)?;
                Ok(x)
            }
        }
    }
}
