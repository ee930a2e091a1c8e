//! Intermediate results of attention blocks: the common ones, and what kinds ask for.

use elgen_tensor::ops::{Merge, Partials, Prologue};
use elgen_tensor::{Arena, Class, DType, Device, Tensor, TensorError};

use crate::error::Result;
use crate::kind::{AttentionKind, Kind, Kinds, Pass, Place};
use crate::shape::Shape;
use crate::splits::Splits;

/// A working tensor `[rows, columns]` f32 that a kind asks for. Those of one name are one tensor, as wide as the widest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Its name: in messages, and how the block finds it.
    pub what: &'static str,
    /// What its rows are.
    pub rows: ScratchRows,
    /// Its columns.
    pub columns: usize,
}

/// The rows of a [`Scratch`] tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScratchRows {
    /// Those that the block runs over.
    Queries,
    /// The cross slots of the largest slab.
    CrossSlots,
}

/// What a [`Workspace`] is made for, beside its rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// The kinds whose blocks use it.
    pub kinds: Kinds,
    /// Whether an encoder uses it, and then no decoder.
    pub encodes: bool,
    /// What its rows are.
    pub pass: Pass,
    /// Cross slots of the largest slab, where a kind works on them.
    pub cross_slots: usize,
    /// Key splits of the longest rows that a decode kernel attends with.
    pub splits: Splits,
}

impl Extras {
    /// True if working tensors made for this also do for `other`.
    pub fn hold(self, other: Self) -> bool {
        self.cross_slots >= other.cross_slots && self.splits.hold(other.splits)
    }

    fn places(&self) -> impl Iterator<Item = (Place, Kind)> {
        let encoder = [(Place::Encoder, self.kinds.encoder)];
        let decoder = [(Place::SelfAttention, self.kinds.self_), (Place::CrossAttention, self.kinds.cross)];
        let encodes = self.encodes;
        encoder.into_iter().filter(move |_| encodes).chain(decoder.into_iter().filter(move |_| !encodes))
    }

    /// What the kinds ask for, each name once.
    fn scratch(&self, shape: &Shape) -> Vec<Scratch> {
        let mut found: Vec<Scratch> = Vec::new();
        for (place, kind) in self.places() {
            for asked in kind.scratch(place, self.pass, shape) {
                match found.iter_mut().find(|s| s.what == asked.what) {
                    Some(same) => same.columns = same.columns.max(asked.columns),
                    None => found.push(asked),
                }
            }
        }
        found
    }

    /// Columns of a row's contexts in the widest block that splits its keys.
    fn split_columns(&self, shape: &Shape) -> usize {
        self.places().map(|(place, kind)| kind.split_columns(place, self.pass, shape)).max().unwrap_or(0)
    }
}

impl dyn AttentionKind {
    /// Whether it works on all cross slots of a slab.
    pub fn works_on_cross_slots(&self, pass: Pass, shape: &Shape) -> bool {
        self.scratch(Place::CrossAttention, pass, shape).iter().any(|s| s.rows == ScratchRows::CrossSlots)
    }

    /// Allocates or counts its working tensors over `slots` cross slots.
    pub(crate) fn cross_scratch(&self, arena: &Arena, shape: &Shape, slots: usize) -> Result<(), TensorError> {
        let asked = self.scratch(Place::CrossAttention, Pass::Step, shape);
        let over_slots = asked.into_iter().filter(|s| s.rows == ScratchRows::CrossSlots);
        over_slots.map(|s| s.build(arena, 0, slots)).try_for_each(|built| built.map(drop))
    }
}

impl Scratch {
    fn build(&self, arena: &Arena, rows: usize, cross_slots: usize) -> Result<Tensor, TensorError> {
        let rows = match self.rows {
            ScratchRows::Queries => rows,
            ScratchRows::CrossSlots => cross_slots,
        };
        arena.tensor(self.what, Class::Activations, rows, self.columns, DType::F32)
    }
}

/// Intermediate results of one block at a time, for a given number of rows.
#[derive(Debug)]
pub struct Workspace {
    projections: Tensor,
    contexts: Tensor,
    scratch: Vec<(&'static str, Tensor)>,
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
        let tensor = |what: &str, cols: usize| arena.tensor(what, Class::Activations, rows, cols, DType::F32);
        let mut scratch = Vec::new();
        for asked in extras.scratch(&shape) {
            if asked.rows == ScratchRows::Queries || extras.cross_slots > 0 {
                scratch.push((asked.what, asked.build(arena, rows, extras.cross_slots)?));
            }
        }
        Ok(Self {
            projections: tensor("projections", shape.inner().saturating_mul(3))?,
            contexts: tensor("contexts", shape.inner())?,
            scratch,
            partials: match extras.splits.most() {
                1 => None,
                most => Some(Partials::build(arena, rows, most, shape.num_heads, extras.split_columns(&shape))?),
            },
            splits: extras.splits,
        })
    }

    /// `[rows, 3 * inner]`: queries, keys and values of a fused projection.
    pub fn projections(&self) -> &Tensor {
        &self.projections
    }

    /// `[rows, inner]`: contexts, the input of the output projection.
    pub fn contexts(&self) -> &Tensor {
        &self.contexts
    }

    /// The working tensor that the block's kind asked for under this name.
    ///
    /// # Errors
    /// There is none.
    pub fn scratch(&self, what: &str) -> Result<&Tensor, TensorError> {
        let found = self.scratch.iter().find(|(name, _)| *name == what);
        found.map(|(_, tensor)| tensor).ok_or_else(|| TensorError::Shape {
            op: "attention",
            message: format!("the workspace has no room for {what}"),
        })
    }

    /// Key splits that it has room for.
    pub fn splits(&self) -> Splits {
        self.splits
    }

    /// Where `splits` splits of a row leave what they make; `None` for one, whose contexts are whole.
    pub fn room(&self, splits: usize) -> Option<(&Partials, usize)> {
        self.partials.as_ref().filter(|_| splits > 1).map(|partials| (partials, splits))
    }

    /// What makes contexts of it, `num_heads` of `head_width` columns each, before they are multiplied.
    pub fn merge(&self, splits: usize, num_heads: usize, head_width: usize) -> Prologue<'_> {
        match self.room(splits) {
            Some((partials, splits)) => Prologue::Merge(Merge { partials, splits, num_heads, head_width }),
            None => Prologue::None,
        }
    }
}
