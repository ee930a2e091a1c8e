//! The working tensors of a stack of layers.

use elgen_attention::{Extras, Shape, Workspace};
use elgen_tensor::{Arena, Class, DType, Device, Tensor};

use crate::error::ModelError;
use crate::feed_forward::FeedForwardSpace;

/// Widths of a stack of layers: what its working tensors depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StackShape {
    /// Shape of its attention blocks.
    pub attention: Shape,
    /// Inner width of its feed-forward blocks.
    pub ffn: usize,
    /// Whether its feed-forward blocks have a gate.
    pub gated: bool,
}

/// Working tensors of a stack for a number of rows: three `[rows, d_model]`, one or two `[rows, ffn]`, and those of attention.
#[derive(Debug)]
pub struct Space {
    pub(crate) attention: Workspace,
    pub(crate) x: Tensor,
    pub(crate) y: Tensor,
    pub(crate) h: Tensor,
    pub(crate) feed_forward: FeedForwardSpace,
    /// Rows that fit.
    pub rows: usize,
    /// What it was made for.
    pub extras: Extras,
}

impl Space {
    /// That of `rows` rows on a device; see [`Space::build`].
    ///
    /// # Errors
    /// Out of memory, or larger than a binding.
    pub fn new(device: &Device, shape: StackShape, rows: usize, extras: Extras) -> Result<Self, ModelError> {
        Self::build(&device.into(), shape, rows, extras)
    }

    /// Allocates or counts for `rows` rows.
    ///
    /// # Errors
    /// As [`Arena::tensor`].
    pub fn build(arena: &Arena, shape: StackShape, rows: usize, extras: Extras) -> Result<Self, ModelError> {
        let tensor = |what: &str, cols: usize| arena.tensor(what, Class::Activations, rows, cols, DType::F32);
        let d = shape.attention.d_model;
        Ok(Self {
            attention: Workspace::build(arena, shape.attention, rows, extras)?,
            x: tensor("hidden states x", d)?,
            y: tensor("hidden states y", d)?,
            h: tensor("hidden states h", d)?,
            feed_forward: FeedForwardSpace {
                inner: tensor("feed-forward", shape.ffn)?,
                up: if shape.gated { Some(tensor("feed-forward gate", shape.ffn)?) } else { None },
            },
            rows,
            extras,
        })
    }

    /// What attention blocks work in.
    pub fn attention(&self) -> &Workspace {
        &self.attention
    }

    /// Three tensors of hidden states `[rows, d_model]`, for an architecture to pass its rows through.
    pub fn hidden(&self) -> [&Tensor; 3] {
        [&self.x, &self.y, &self.h]
    }

    /// `[rows, ffn]`, and for gated blocks a second one.
    pub fn feed_forward(&self) -> (&Tensor, Option<&Tensor>) {
        (&self.feed_forward.inner, self.feed_forward.up.as_ref())
    }

    /// What each row takes.
    pub(crate) fn per_row(shape: StackShape, extras: Extras) -> PerRow {
        PerRow::of(|arena, rows| Self::build(arena, shape, rows, per_row_extras(extras)).map(drop))
    }
}

/// Those without what does not grow with the rows.
pub(crate) fn per_row_extras(extras: Extras) -> Extras {
    Extras { cross_slots: 0, ..extras }
}

/// What each row adds to buffers whose sizes grow evenly with the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PerRow {
    /// Bytes in all.
    pub(crate) bytes: u64,
    /// Bytes in the buffer that has most.
    pub(crate) widest: u64,
}

impl PerRow {
    /// Counted of what `build` allocates for a number of rows. What cannot be counted takes more than there is.
    pub(crate) fn of(build: impl Fn(&Arena, usize) -> Result<(), ModelError>) -> Self {
        let counted = |rows: usize| {
            let arena = Arena::counting(u64::MAX);
            build(&arena, rows).ok().map(|()| arena.tally())
        };
        match (counted(1), counted(3)) {
            (Some(one), Some(three)) if three.usage().total < u64::MAX => {
                // Sizes are rounded up; where there are two rows more, by the same.
                let bytes = (three.usage().total - one.usage().total) / 2;
                Self { bytes, widest: one.largest_binding() }
            }
            _ => Self { bytes: u64::MAX, widest: u64::MAX },
        }
    }

    /// Rows that bindings of `max_binding_bytes` allow.
    pub(crate) fn per_binding(self, max_binding_bytes: u64) -> usize {
        (max_binding_bytes / self.widest.max(1)) as usize
    }

    /// Rows that a budget and bindings of `max_binding_bytes` allow.
    pub(crate) fn within(self, budget: u64, max_binding_bytes: u64) -> usize {
        ((budget / self.bytes.max(1)) as usize).min(self.per_binding(max_binding_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elgen_attention::{Kind, Kinds, Pass, Splits};

    #[test]
    fn a_row_takes_what_every_further_row_adds() {
        let attention = Shape::new(6, 3, 2, 1.0);
        let shape = StackShape { attention, ffn: 9, gated: true };
        // Odd splits of odd heads: sizes that are no multiples of 16 bytes.
        let extras = Extras {
            kinds: Kinds::both(Kind::EL),
            pass: Pass::Step,
            cross_slots: 1,
            splits: Splits { self_: 3, cross: 1 },
            ..Extras::default()
        };
        let total = |rows: usize| {
            let arena = Arena::counting(u64::MAX);
            Space::build(&arena, shape, rows, extras).expect("counted");
            arena.tally()
        };
        let row = Space::per_row(shape, extras);
        for rows in [2, 5, 64] {
            assert_eq!(total(rows + 2).usage().total - total(rows).usage().total, 2 * row.bytes, "{rows}");
            assert_eq!(total(rows).largest_binding(), rows as u64 * row.widest, "{rows}");
        }
        assert_eq!(row.per_binding(10 * row.widest - 1), 9);
        assert_eq!(row.within(4 * row.bytes, u64::MAX), 4);
        let endless = StackShape { ffn: usize::MAX, ..shape };
        assert_eq!(Space::per_row(endless, extras).within(u64::MAX - 1, u64::MAX), 0);
    }
}
