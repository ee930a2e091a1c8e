//! Storing activation rows into cache slabs (`store.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::bind;
use crate::binding::Bindings;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::ops::{MAX_GROUPS, parts};
use crate::recorder::Recorder;
use crate::rows::{Rows, Segment};
use crate::table::TableRef;
use crate::tensor::{DType, Tensor};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    quads: u32,
    x_first: u32,
    x_ld: u32,
}

/// Stores columns `first_col .. first_col + slab.cols` of `x` `[active rows, _]` (f32) at the slots of the positions that the rows of
/// `segment` feed in this step. `slab`: `[slots, width]`, f32 or f16.
///
/// # Errors
/// Shapes that do not fit; slots beyond the slab.
pub fn store(
    rec: &mut Recorder,
    rows: &Rows,
    segment: Segment,
    x: &Tensor,
    first_col: usize,
    slab: &Tensor,
) -> Result<()> {
    let (first, count) = (segment.first as usize, segment.count as usize);
    let holds = rows.hold(segment.first, segment.count, slab.rows) && rows.feed(segment.first, segment.count);
    run(rec, Bindings::new(bind![rows.active(), rows.state()]), false, (first, count, holds), x, first_col, slab)
}

/// Stores packed rows: columns `first_col .. first_col + slab.cols` of row `first_row + i` of `x` (f32) go to slot `slots[first_row + i]` (u32),
/// for `i < count`.
///
/// # Errors
/// Shapes that do not fit.
pub fn store_packed(
    rec: &mut Recorder,
    slots: TableRef<'_, u32>,
    first_row: usize,
    count: usize,
    x: &Tensor,
    first_col: usize,
    slab: &Tensor,
) -> Result<()> {
    let holds = slots.holds(first_row, count, slab.rows);
    run(rec, Bindings::new(bind![slots]), true, (first_row, count, holds), x, first_col, slab)
}

fn run(
    rec: &mut Recorder,
    tables: Bindings<'_>,
    packed: bool,
    (first, count, holds): (usize, usize, bool),
    x: &Tensor,
    first_col: usize,
    slab: &Tensor,
) -> Result<()> {
    let end = first.saturating_add(count);
    if x.dtype != DType::F32
        || !first_col.is_multiple_of(4)
        || first_col.saturating_add(slab.ld()) > x.ld()
        || end > x.rows
        || !holds
    {
        let message = format!(
            "columns from {first_col} of rows {first}..{end} of x {}, whose slots are {}in slab {}",
            x.describe(),
            if holds { "" } else { "not all known or not all " },
            slab.describe()
        );
        return Err(TensorError::Shape { op: "store", message });
    }
    let device = rec.device();
    let kernel = device.kernel(&KernelSpec::new("store").storage(device, slab.dtype).define_if(packed, "PACKED"))?;
    let buffers = tables.and(&bind![x, slab]);
    for (first, count) in parts(first, count, MAX_GROUPS) {
        let params =
            Params { first_row: first as u32, quads: slab.quads(), x_first: (first_col / 4) as u32, x_ld: x.quads() };
        // SAFETY: the rows of x and of the tables were found to be there, and every slot that the tables name lies in the slab.
        unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, [count as u32, 1, 1])? };
    }
    Ok(())
}
