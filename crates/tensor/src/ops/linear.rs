//! Products with weight matrices (`linear.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::arena::Arena;
use crate::bind;
use crate::binding::Bindings;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::load::Vector;
use crate::matrix::{Matrix, WeightFormat, Window};
use crate::ops::product::Prologue;
use crate::ops::{MAX_GROUPS, check_heads, expect, parts};
use crate::pool::Class;
use crate::recorder::Recorder;
use crate::table::TableRef;
use crate::tensor::{Tensor, padded};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    end_row: u32,
    w_quads: u32,
    w_first: u32,
    n_quads: u32,
    x_first: u32,
    x_head: u32,
    x_ld: u32,
    out_ld: u32,
    residual_ld: u32,
    out_first: u32,
    operands: u32,
}

/// What follows a product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// GELU with the error function.
    Gelu,
    /// GELU with the tanh approximation ("gelu_new").
    GeluTanh,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// `x * sigmoid(x)`.
    Silu,
}

impl Activation {
    /// All activations, in the order of `activate.wgsl`.
    pub const ALL: [Self; 6] = [Self::None, Self::Gelu, Self::GeluTanh, Self::QuickGelu, Self::Relu, Self::Silu];
}

/// A projection: a weight `[out, in]` and, if it has one, a bias.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Matrix,
    /// `[1, out]` f32.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// Allocates or counts a weight of zeros `[out, input]` and uploads the bias; `what` names it in messages.
    ///
    /// # Errors
    /// As [`Matrix::build`] and [`Arena::vector`]; a bias of another length.
    pub fn build(
        arena: &Arena,
        what: &str,
        out: usize,
        input: usize,
        format: WeightFormat,
        bias: Option<Vector<'_>>,
    ) -> Result<Self> {
        if let Some(bias) = bias
            && bias.len() != out
        {
            let message = format!("{what}: {} biases for [{out}, {input}]", bias.len());
            return Err(TensorError::Shape { op: "linear", message });
        }
        let weight = Matrix::build(arena, what, out, input, format)?;
        let bias = bias.map(|bias| arena.vector(what, Class::Weights, bias)).transpose()?;
        Ok(Self { weight, bias })
    }
}

/// A matrix alone.
impl From<Matrix> for Linear {
    fn from(weight: Matrix) -> Self {
        Self { weight, bias: None }
    }
}

/// How a product is cut into workgroups. All tiles give the same bits; they differ in speed alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// Invocations of 1, 2, 4, 8 or 16 rows x 4 columns that read memory directly.
    Direct(u32),
    /// Workgroups that stage their operands in workgroup memory; invocations of 1, 2, 4 or 8 rows x 4 columns.
    Staged(u32),
}

impl Tile {
    /// All tiles.
    pub const ALL: [Self; 9] = [
        Self::Direct(1),
        Self::Direct(2),
        Self::Direct(4),
        Self::Direct(8),
        Self::Direct(16),
        Self::Staged(1),
        Self::Staged(2),
        Self::Staged(4),
        Self::Staged(8),
    ];

    /// The tile for `rows` rows and `columns` columns on this kind of device.
    pub fn choose(software: bool, rows: usize, columns: usize) -> Self {
        // Measured on lavapipe (Mesa 22.3, 2 cores, 768 x 768, f32, GFLOP/s): Direct(1) 4.0 at one row, Direct(4) 9.4 at 4, Direct(8) 12.4 and
        // Direct(16) 14.4 from 16 rows on; barriers keep the staged tiles at 0.3 to 5. On hardware the staged tiles are chosen by reasoning only
        // (coalesced reads of the weights); no GPU was at hand.
        if software {
            return Self::Direct(direct_rows(software, rows));
        }
        // Few rows: small workgroups, so that there are enough of them, and a deep stage, so that many loads are in flight.
        let groups_of_eight = rows.div_ceil(128) * columns.div_ceil(64);
        match rows {
            0..=8 => Self::Staged(1),
            9..=16 => Self::Staged(2),
            _ if groups_of_eight >= 256 => Self::Staged(8),
            _ => Self::Staged(4),
        }
    }

    fn kernel(self, spec: KernelSpec, n_quads: u32) -> (KernelSpec, [u32; 2]) {
        match self {
            Self::Direct(rows) => {
                let width = direct_width(n_quads);
                (spec.set("TILE_M", rows).constant("WG", width), [width, rows])
            }
            Self::Staged(rows) => {
                let (columns, lines, depth) = if rows <= 2 { (8, 8, 16) } else { (16, 16, 4) };
                let spec = spec.define("STAGED").set("TILE_M", rows);
                (
                    spec.constant("COLUMNS", columns).constant("ROWS", lines).constant("KQ", depth),
                    [columns, lines * rows],
                )
            }
        }
    }
}

/// Rows of a direct tile for `rows` rows.
pub(super) fn direct_rows(software: bool, rows: usize) -> u32 {
    if !software {
        // More invocations rather than longer ones.
        return rows.next_power_of_two().clamp(1, 4) as u32;
    }
    // On lavapipe a tile of t rows takes as long as 3.6 + t rows without loads: 298, 372, 504, 732 and 1233 us for t = 1, 2, 4, 8, 16 at 768 x 768.
    let cost = |tile: u32| rows.div_ceil(tile as usize) as u64 * u64::from(36 + 10 * tile);
    [1, 2, 4, 8, 16].into_iter().min_by_key(|tile| cost(*tile)).unwrap_or(1)
}

/// Lanes of a direct workgroup for `n_quads` quads of columns.
pub(super) fn direct_width(n_quads: u32) -> u32 {
    n_quads.next_power_of_two().clamp(8, 64)
}

/// What an activated sum meets before it is written.
#[derive(Clone, Copy)]
pub(super) enum Other<'a> {
    Nothing,
    /// Added.
    Residual(&'a Tensor),
    /// Multiplied.
    Gate(&'a Tensor),
}

impl<'a> Other<'a> {
    fn tensor(self) -> Option<&'a Tensor> {
        match self {
            Self::Nothing => None,
            Self::Residual(tensor) | Self::Gate(tensor) => Some(tensor),
        }
    }

    /// The bit of `operands`.
    fn bit(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Residual(_) => 2,
            Self::Gate(_) => 4,
        }
    }
}

struct Operands<'a> {
    op: &'static str,
    x: &'a Tensor,
    weight: &'a Matrix,
    activation: Activation,
    bias: Option<&'a Tensor>,
    other: Other<'a>,
    out: &'a Tensor,
    /// Rows; of a list, its entries.
    rows: usize,
    list: Option<TableRef<'a, u32>>,
    tile: Option<Tile>,
}

/// Columns of a product whose weights lie in one window.
struct Part<'a> {
    window: &'a Window,
    /// The window's row with which the columns begin, a multiple of 4.
    first: usize,
    heads: usize,
    /// Columns of each head, a multiple of 4.
    columns: usize,
    /// Quad of x with which the first head begins.
    x_first: usize,
    /// Output column with which the first head begins, a multiple of 4.
    out_first: usize,
}

/// Records `part` of `product`.
fn run(rec: &mut Recorder, product: &Operands<'_>, part: &Part<'_>) -> Result<()> {
    let device = rec.device();
    let Operands { op, x, weight, activation, bias, other, out, rows, list, tile } = *product;
    let residual = other.tensor();
    let (n_quads, w_quads) = ((part.columns / 4) as u32, weight.quads());
    let tile = tile.unwrap_or_else(|| Tile::choose(device.capabilities().software, rows, part.heads * part.columns));
    // Bias, residual and gate are flags, not constants of the pipeline: they cost a branch per output, and a pipeline takes longer to compile.
    let spec = weight.format().select(KernelSpec::new("linear"), device).constant("ACTIVATION", activation as u32);
    let spec = spec.define_if(list.is_some(), "LISTED");
    let (spec, [group_quads, group_rows]) = tile.kernel(spec, n_quads);
    let kernel = device.kernel(&spec)?;
    // An absent operand's place is filled by x, which is not read there.
    let buffers = bind![&part.window.buffer, x, bias.unwrap_or(x), residual.unwrap_or(x), out];
    let buffers = Bindings::new(buffers).with(list);
    for (first, count) in parts(0, rows, MAX_GROUPS * group_rows as usize) {
        let params = Params {
            first_row: first as u32,
            end_row: (first + count) as u32,
            w_quads,
            w_first: part.first as u32,
            n_quads,
            x_first: part.x_first as u32,
            x_head: w_quads,
            x_ld: x.quads(),
            out_ld: out.quads(),
            residual_ld: residual.unwrap_or(x).quads(),
            out_first: (part.out_first / 4) as u32,
            operands: u32::from(bias.is_some()) | other.bit(),
        };
        let grid = [n_quads.div_ceil(group_quads), (count as u32).div_ceil(group_rows), part.heads as u32];
        // SAFETY: `rows` rows, or those that the list names, of x, out and the operands that are there were found to have the columns that the product takes, and the part's
        // rows lie in its window; lanes beyond the last row or quad clamp what they read and write nothing.
        let recorded = unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, grid) };
        recorded.map_err(|e| match e {
            TensorError::Kernel { kernel, message } => {
                TensorError::Kernel { kernel, message: format!("{op}: {message}") }
            }
            other => other,
        })?;
    }
    Ok(())
}

/// `out[r, n] = activation(sum_k x[r, k] w[n, k] + bias[n]) + residual[r, n]` for rows `0..rows`.
/// `x`: `[_, in]`; `residual` and `out`: `[_, out]`, all f32 with at least `rows` rows.
///
/// # Errors
/// Shapes that do not fit; `out` shares its buffer with an operand.
pub fn linear(
    rec: &mut Recorder,
    x: &Tensor,
    w: &Linear,
    activation: Activation,
    residual: Option<&Tensor>,
    out: &Tensor,
    rows: usize,
) -> Result<()> {
    multiply(rec, x, w, activation, residual.map_or(Other::Nothing, Other::Residual), out, rows, None, None)
}

/// [`linear`] with a chosen tile (`None`: [`Tile::choose`]).
///
/// # Errors
/// As [`linear`].
#[cfg(feature = "testing")]
#[expect(clippy::too_many_arguments, reason = "those of linear, and the tile")]
pub fn linear_tiled(
    rec: &mut Recorder,
    x: &Tensor,
    w: &Linear,
    activation: Activation,
    residual: Option<&Tensor>,
    out: &Tensor,
    rows: usize,
    tile: Option<Tile>,
) -> Result<()> {
    let other = residual.map_or(Other::Nothing, Other::Residual);
    multiply(rec, x, w, activation, other, out, rows, None, tile)
}

/// `out[r, n] = activation(sum_k x[r, k] w[n, k] + bias[n]) * gate[r, n]` for rows `0..rows`: the first half of a gated feed-forward block
/// (Shazeer 2020, arXiv 2002.05202). `x`: `[_, in]`; `gate` and `out`: `[_, out]`, all f32 with at least `rows` rows.
///
/// # Errors
/// Shapes that do not fit; `out` shares its buffer with an operand.
pub fn linear_gated(
    rec: &mut Recorder,
    x: &Tensor,
    w: &Linear,
    activation: Activation,
    gate: &Tensor,
    out: &Tensor,
    rows: usize,
) -> Result<()> {
    multiply(rec, x, w, activation, Other::Gate(gate), out, rows, None, None)
}

/// All windows of a product over the first `rows` rows; with a list, over those of them that its first so many entries name.
#[expect(clippy::too_many_arguments, reason = "the union of the public operations")]
pub(super) fn multiply(
    rec: &mut Recorder,
    x: &Tensor,
    w: &Linear,
    activation: Activation,
    other: Other<'_>,
    out: &Tensor,
    rows: usize,
    list: Option<(TableRef<'_, u32>, usize)>,
    tile: Option<Tile>,
) -> Result<()> {
    let op = "linear";
    let (columns, inputs) = (w.weight.rows(), w.weight.cols());
    expect(op, "x", x, rows, inputs)?;
    expect(op, "out", out, rows, columns)?;
    match other {
        Other::Nothing => {}
        Other::Residual(residual) => expect(op, "residual", residual, rows, columns)?,
        Other::Gate(gate) => expect(op, "gate", gate, rows, columns)?,
    }
    if let Some(bias) = &w.bias {
        expect(op, "bias", bias, 1, columns)?;
    }
    let (list, rows) = match list {
        None => (None, rows),
        Some((list, count)) if list.holds(0, count, rows) => (Some(list), count),
        Some((_, count)) => {
            let message = format!("{count} listed rows that are not all below {rows}");
            return Err(TensorError::Shape { op, message });
        }
    };
    let product =
        Operands { op, x, weight: &w.weight, activation, bias: w.bias.as_ref(), other, out, rows, list, tile };
    w.weight.windows().iter().try_for_each(|window| {
        let columns = padded(window.rows);
        run(rec, &product, &Part { window, first: 0, heads: 1, columns, x_first: 0, out_first: window.first_row })
    })
}

/// EL-attention's way back from contexts to heads:
/// `out[r, h * dh4 + n] = sum_{k < D} c[r, h * ld(D) + k] * w[h * dh4 + n, k] + bias[h * dh4 + n]` for rows `0..rows`.
/// `c`: `[_, H * ld(D)]`, which `prologue` comes before; `w`: `W_v` as loaded and its bias, `[H * dh4, D]`; `out`: `[_, H * dh4]`.
///
/// # Errors
/// Shapes that do not fit, or heads that are not whole quads.
pub fn heads_contract(
    rec: &mut Recorder,
    prologue: Prologue<'_>,
    c: &Tensor,
    w: &Linear,
    num_heads: usize,
    out: &Tensor,
    rows: usize,
) -> Result<()> {
    let c = prologue.record(rec, c, rows)?;
    contract(rec, c, w, num_heads, out, rows, None)
}

/// [`heads_contract`] with a chosen tile (`None`: [`Tile::choose`]).
///
/// # Errors
/// As [`heads_contract`].
#[cfg(feature = "testing")]
pub fn heads_contract_tiled(
    rec: &mut Recorder,
    c: &Tensor,
    w: &Linear,
    num_heads: usize,
    out: &Tensor,
    rows: usize,
    tile: Option<Tile>,
) -> Result<()> {
    contract(rec, c, w, num_heads, out, rows, tile)
}

fn contract(
    rec: &mut Recorder,
    c: &Tensor,
    w: &Linear,
    num_heads: usize,
    out: &Tensor,
    rows: usize,
    tile: Option<Tile>,
) -> Result<()> {
    let (op, weight) = ("heads_contract", &w.weight);
    check_heads(op, weight, num_heads)?;
    let quads = weight.quads() as usize;
    expect(op, "c", c, rows, num_heads * 4 * quads)?;
    expect(op, "out", out, rows, weight.rows())?;
    if let Some(bias) = &w.bias {
        expect(op, "bias", bias, 1, weight.rows())?;
    }
    let (activation, other) = (Activation::None, Other::Nothing);
    let bias = w.bias.as_ref();
    let product = Operands { op, x: c, weight, activation, bias, other, out, rows, list: None, tile };
    weight.head_runs(num_heads).try_for_each(|part| {
        let part = Part {
            window: part.window,
            first: part.row,
            heads: part.heads,
            columns: part.rows,
            x_first: part.head * quads,
            out_first: part.window.first_row + part.row,
        };
        run(rec, &product, &part)
    })
}
