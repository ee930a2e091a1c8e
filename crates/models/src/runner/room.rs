//! What a runner holds beside its caches: the one list of it, allocated for a batch or counted for a plan.

use elgen_attention::Extras;
use elgen_tensor::{Arena, Class, Range, Table};

use super::footprint::{Footprint, PackedSize};
use super::packing::PackedSpace;
use crate::error::ModelError;
use crate::space::Space;

/// Working tensors and index buffers, as far as a batch needed them.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Of decode steps.
    pub(super) step: Option<Space>,
    /// Per physical row: its cross slots.
    pub(super) cross_ranges: Option<Table<Range>>,
    /// Of sources.
    pub(super) encode: Option<PackedSpace>,
    /// Of decoder prompts.
    pub(super) prompt: Option<PackedSpace>,
}

/// What decides the bytes of a [`Room`]; what is `None` or 0 is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RoomSize {
    /// Rows, and what their working tensors are made for.
    pub(super) step: Option<(usize, Extras)>,
    /// Physical rows with cross ranges.
    pub(super) cross_rows: usize,
    pub(super) encode: Option<PackedSize>,
    pub(super) prompt: Option<PackedSize>,
}

impl Room {
    pub(super) fn size(&self) -> RoomSize {
        RoomSize {
            step: self.step.as_ref().map(|space| (space.rows, space.extras)),
            cross_rows: self.cross_ranges.as_ref().map_or(0, Table::capacity),
            encode: self.encode.as_ref().map(PackedSpace::size),
            prompt: self.prompt.as_ref().map(PackedSpace::size),
        }
    }

    /// Allocates or counts what has another size than this one. Of each part the old one goes before the new one comes: the peak is that
    /// of the larger one.
    pub(super) fn resize(&mut self, arena: &Arena, of: &Footprint, size: &RoomSize) -> Result<(), ModelError> {
        let held = self.size();
        if held.step != size.step {
            self.step = None;
            self.step = match size.step {
                Some((rows, extras)) => Some(Space::build(arena, of.decoder, rows, extras)?),
                None => None,
            };
        }
        if held.cross_rows != size.cross_rows {
            self.cross_ranges = None;
            if size.cross_rows > 0 {
                self.cross_ranges = Some(Table::new(arena, "cross ranges", Class::Cache, size.cross_rows)?);
            }
        }
        if held.encode != size.encode {
            self.encode = None;
            if let (Some(shape), Some(size)) = (of.encoder, size.encode) {
                self.encode = Some(PackedSpace::build(arena, shape, size)?);
            }
        }
        if held.prompt != size.prompt {
            self.prompt = None;
            if let Some(size) = size.prompt {
                self.prompt = Some(PackedSpace::build(arena, of.decoder, size)?);
            }
        }
        Ok(())
    }
}
