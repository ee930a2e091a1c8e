//! Token and position embeddings (`embed.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::ops::linear::Linear;
use crate::ops::{MAX_GROUPS, expect, parts};
use crate::recorder::Recorder;
use crate::rows::Rows;
use crate::tensor::{Buffer, Tensor};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    quads: u32,
    window_first: u32,
    window_rows: u32,
    scale: f32,
    position_offset: u32,
    position_rows: u32,
    max_length: u32,
    out_ld: u32,
}

/// Embeds the id that each active row feeds in this step: `out[i] = table[id] * scale + positions[position + offset]` with
/// `position = length - 1` of row `active[i]`. `table`: `[vocab, D]`; `positions`: `[P, D]` of the table's dtype and its offset;
/// `out`: `[active rows or more, D]`.
///
/// # Errors
/// Shapes or dtypes that do not fit.
pub fn embed_step(
    rec: &mut Recorder,
    rows: &Rows,
    table: &Linear,
    scale: f32,
    positions: Option<(&Tensor, usize)>,
    out: &Tensor,
) -> Result<()> {
    let tables = [&rows.active, &rows.state, rows.tokens()];
    run(rec, &tables, "", rows.count(), rows.max_length(), table, scale, positions, out)
}

/// Embeds packed rows: `ids` holds `count` pairs of u32 (id, position); otherwise as [`embed_step`].
///
/// # Errors
/// Shapes or dtypes that do not fit.
pub fn embed_packed(
    rec: &mut Recorder,
    ids: &Buffer,
    count: usize,
    table: &Linear,
    scale: f32,
    positions: Option<(&Tensor, usize)>,
    out: &Tensor,
) -> Result<()> {
    if ids.bytes() < count as u64 * 8 {
        return Err(TensorError::Shape {
            op: "embed",
            message: format!("{count} pairs do not fit a buffer of {} bytes", ids.bytes()),
        });
    }
    run(rec, &[ids], "PACKED", count, 0, table, scale, positions, out)
}

#[expect(clippy::too_many_arguments, reason = "the union of two public operations")]
fn run(
    rec: &mut Recorder,
    tables: &[&Buffer],
    symbol: &str,
    rows: usize,
    max_length: usize,
    table: &Linear,
    scale: f32,
    positions: Option<(&Tensor, usize)>,
    out: &Tensor,
) -> Result<()> {
    expect("embed", "out", out, rows, table.in_features)?;
    if let Some((p, offset)) = positions
        && (p.cols != table.in_features || p.dtype != table.dtype || p.rows <= offset)
    {
        let message = format!(
            "positions {} from {offset} for a table of {} columns in {}",
            p.describe(),
            table.in_features,
            table.dtype.name()
        );
        return Err(TensorError::Shape { op: "embed", message });
    }
    let device = rec.device().clone();
    let kernel =
        device.kernel(&KernelSpec::new("embed").storage(&device, table.dtype).define_if(!symbol.is_empty(), symbol))?;
    for window in &table.windows {
        let weights = &window.tensor.buffer;
        // Without positions, the table itself fills the place of the binding.
        let places = positions.map_or(weights, |(p, _)| &p.buffer);
        let buffers = [tables, &[weights, places, &out.buffer]].concat();
        for (first, count) in parts(0, rows, MAX_GROUPS) {
            let params = Params {
                first_row: first as u32,
                quads: window.tensor.quads(),
                window_first: window.first_row as u32,
                window_rows: window.rows as u32,
                scale,
                position_offset: positions.map_or(0, |(_, offset)| offset as u32),
                position_rows: positions.map_or(0, |(p, _)| p.rows as u32),
                max_length: max_length as u32,
                out_ld: out.quads(),
            };
            rec.dispatch(&kernel, &buffers, &params, [count as u32, 1, 1])?;
        }
    }
    Ok(())
}
