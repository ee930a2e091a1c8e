//! Token and position embeddings (`embed.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::bind;
use crate::binding::Bindings;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::matrix::{Matrix, WeightFormat};
use crate::ops::{MAX_GROUPS, expect, parts};
use crate::recorder::Recorder;
use crate::rows::Rows;
use crate::table::{TableRef, TokenAt};
use crate::tensor::{DType, Tensor};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    w_quads: u32,
    window_first: u32,
    window_rows: u32,
    scale: f32,
    position_offset: u32,
    position_rows: u32,
    position_words: u32,
    position_halves: u32,
    max_length: u32,
    out_ld: u32,
}

/// Embeds the id that each active row feeds in this step: `out[i] = table[id] * scale + positions[position + offset]` with
/// `position = length - 1` of row `active[i]`. `table`: `[vocab, D]`; `positions`: `[P, D]` in f32 or f16 and in one row window, and its offset;
/// `out`: `[active rows or more, D]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn embed_step(
    rec: &mut Recorder,
    rows: &Rows,
    table: &Matrix,
    scale: f32,
    positions: Option<(&Matrix, usize)>,
    out: &Tensor,
) -> Result<()> {
    run(rec, Ids::of_rows(rows)?, Some((table, scale)), positions, out)
}

/// Embeds packed rows: `ids` holds `count` ids or more; otherwise as [`embed_step`].
///
/// # Errors
/// Shapes that do not fit.
pub fn embed_packed(
    rec: &mut Recorder,
    ids: TableRef<'_, TokenAt>,
    count: usize,
    table: &Matrix,
    scale: f32,
    positions: Option<(&Matrix, usize)>,
    out: &Tensor,
) -> Result<()> {
    run(rec, Ids::packed(ids, count)?, Some((table, scale)), positions, out)
}

/// The position part of [`embed_step`] alone: `out[i] = positions[position + offset]`.
///
/// # Errors
/// Shapes that do not fit.
pub fn positions_step(rec: &mut Recorder, rows: &Rows, positions: (&Matrix, usize), out: &Tensor) -> Result<()> {
    run(rec, Ids::of_rows(rows)?, None, Some(positions), out)
}

/// The position part of [`embed_packed`] alone.
///
/// # Errors
/// Shapes that do not fit.
pub fn positions_packed(
    rec: &mut Recorder,
    ids: TableRef<'_, TokenAt>,
    count: usize,
    positions: (&Matrix, usize),
    out: &Tensor,
) -> Result<()> {
    run(rec, Ids::packed(ids, count)?, None, Some(positions), out)
}

/// Where ids and positions of the rows come from.
struct Ids<'a> {
    buffers: Bindings<'a>,
    packed: bool,
    count: usize,
    max_length: usize,
}

impl<'a> Ids<'a> {
    fn of_rows(rows: &'a Rows) -> Result<Self> {
        if !rows.feed(0, rows.count() as u32) {
            let message = "an active row has no id to feed".to_owned();
            return Err(TensorError::Shape { op: "embed", message });
        }
        let buffers = Bindings::new(bind![rows.active(), rows.state(), rows.tokens()]);
        Ok(Self { buffers, packed: false, count: rows.count(), max_length: rows.max_length() })
    }

    fn packed(ids: TableRef<'a, TokenAt>, count: usize) -> Result<Self> {
        match ids.entries().len() < count {
            true => Err(TensorError::Shape {
                op: "embed",
                message: format!("{count} rows of a table of {} ids", ids.entries().len()),
            }),
            false => Ok(Self { buffers: Bindings::new(bind![ids]), packed: true, count, max_length: 0 }),
        }
    }
}

fn run(
    rec: &mut Recorder,
    ids: Ids<'_>,
    table: Option<(&Matrix, f32)>,
    positions: Option<(&Matrix, usize)>,
    out: &Tensor,
) -> Result<()> {
    let op = "embed";
    let Some(first) = table.map(|(table, _)| table).or(positions.map(|(positions, _)| positions)) else {
        return Ok(());
    };
    expect(op, "out", out, ids.count, first.cols())?;
    let places = match positions {
        Some((p, offset)) if p.cols() != first.cols() || p.rows() <= offset => {
            let message = format!("positions {} from {offset} for a table of {} columns", p.describe(), first.cols());
            return Err(TensorError::Shape { op, message });
        }
        Some((p, _)) => Some(p.window(op)?),
        None => None,
    };
    let halves = match positions.map(|(p, _)| (p, p.format().dense())) {
        Some((p, None)) => {
            let message = format!("positions {}, whose elements do not stand alone", p.describe());
            return Err(TensorError::Shape { op, message });
        }
        Some((_, Some(dtype))) => dtype == DType::F16,
        None => false,
    };
    let device = rec.device();
    // Without a table the kernel reads no weights: any format does.
    let format = table.map_or(WeightFormat::F32, |(table, _)| table.format());
    let kernel = device.kernel(&format.select(KernelSpec::new("embed"), device).define_if(ids.packed, "PACKED"))?;
    // Without a table, or without positions, the other one fills the place of the binding.
    let windows = table.iter().flat_map(|(table, _)| table.windows()).map(|w| (w, w.first_row, w.rows));
    let alone = places.filter(|_| table.is_none()).map(|places| (places, 0, 0));
    for (window, window_first, window_rows) in windows.chain(alone) {
        let table_or_places = bind![&window.buffer, &places.unwrap_or(window).buffer];
        let buffers = Bindings::new(table_or_places).and(&ids.buffers).with(Some(out));
        for (first_row, count) in parts(0, ids.count, MAX_GROUPS) {
            let params = Params {
                first_row: first_row as u32,
                w_quads: first.quads(),
                window_first: window_first as u32,
                window_rows: window_rows as u32,
                scale: table.map_or(0.0, |(_, scale)| scale),
                position_offset: positions.map_or(0, |(_, offset)| offset as u32),
                position_rows: positions.map_or(0, |(p, _)| p.rows() as u32),
                position_words: positions.map_or(0, |(p, _)| (p.format().row_bytes(p.cols()) / 4) as u32),
                position_halves: u32::from(halves),
                max_length: ids.max_length as u32,
                out_ld: out.quads(),
            };
            // SAFETY: `count` rows of ids and out were found to be there; the kernel leaves out ids outside the window and clamps
            // positions to the table.
            unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, [count as u32, 1, 1])? };
        }
    }
    Ok(())
}
