//! Products with weight matrices (`linear.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::bind;
use crate::device::Device;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::ops::{MAX_GROUPS, expect, parts};
use crate::pool::Class;
use crate::recorder::Recorder;
use crate::tensor::{DType, Tensor, padded, product, tensor_bytes};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    end_row: u32,
    k_quads: u32,
    n_quads: u32,
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

/// A run of rows of a [`Linear`] that one binding holds.
#[derive(Clone, Debug)]
pub struct Window {
    /// First row; a multiple of 4.
    pub first_row: usize,
    /// Rows that exist. The tensor has them rounded up to 4, with zeros behind.
    pub rows: usize,
    /// `[round_up(rows, 4), in_features]`.
    pub tensor: Tensor,
}

/// A weight matrix `[out, in]` in row windows, each below one binding, and an optional f32 bias.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Columns of the output.
    pub out_features: usize,
    /// Columns of the input.
    pub in_features: usize,
    /// Storage of the matrix.
    pub dtype: DType,
    /// The matrix, in ascending row order.
    pub windows: Vec<Window>,
    /// `[1, out_features]` f32.
    pub bias: Option<Tensor>,
}

/// Rows of the row windows of a matrix with `in_features` columns, but for the last one. Whole quads of rows, so that a window starts at a
/// whole output quad. Four rows too long for a binding are refused by the allocation.
fn window_rows(in_features: usize, dtype: DType, max_binding_bytes: u64) -> usize {
    let row_bytes = product(&[padded(in_features), dtype.bytes() as usize]).max(1);
    (max_binding_bytes / row_bytes / 4 * 4).clamp(4, u64::from(u32::MAX / 4 * 4)) as usize
}

impl Linear {
    /// Allocates a matrix of zeros (class weights) and uploads the bias.
    ///
    /// # Errors
    /// As [`Device::tensor`]; a bias of another length; four rows that exceed one binding.
    pub fn new(
        device: &Device,
        what: &str,
        out_features: usize,
        in_features: usize,
        dtype: DType,
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        if let Some(bias) = bias
            && bias.len() != out_features
        {
            let message = format!("{what}: {} biases for [{out_features}, {in_features}]", bias.len());
            return Err(TensorError::Shape { op: "linear", message });
        }
        if out_features.max(in_features) > u32::MAX as usize {
            let message = format!("{what}: [{out_features}, {in_features}] is more than a kernel counts");
            return Err(TensorError::Shape { op: "linear", message });
        }
        let fitting = window_rows(in_features, dtype, device.capabilities().max_binding_bytes);
        let windows = parts(0, out_features, fitting)
            .map(|(first_row, rows)| {
                let tensor = device.tensor(what, Class::Weights, padded(rows), in_features, dtype)?;
                Ok(Window { first_row, rows, tensor })
            })
            .collect::<Result<_>>()?;
        let bias =
            bias.map(|b| device.tensor_from(what, Class::Weights, 1, out_features, DType::F32, b)).transpose()?;
        Ok(Self { out_features, in_features, dtype, windows, bias })
    }

    /// Bytes that [`Linear::new`] takes on a device whose bindings hold `max_binding_bytes`.
    pub fn bytes(out_features: usize, in_features: usize, dtype: DType, has_bias: bool, max_binding_bytes: u64) -> u64 {
        let fitting = window_rows(in_features, dtype, max_binding_bytes);
        let window = |rows: usize| tensor_bytes(padded(rows), in_features, dtype);
        let whole = window(fitting).saturating_mul((out_features / fitting) as u64);
        let last = match out_features % fitting {
            0 => 0,
            rows => window(rows),
        };
        let bias = if has_bias { tensor_bytes(1, out_features, DType::F32) } else { 0 };
        whole.saturating_add(last).saturating_add(bias)
    }

    /// Writes whole rows of `in_features` values from row `first_row` on.
    ///
    /// # Errors
    /// The values are not whole rows or leave the matrix.
    pub fn write_rows(&self, device: &Device, first_row: usize, values: &[f32]) -> Result<()> {
        let rows = values.len() / self.in_features.max(1);
        let end = first_row.checked_add(rows);
        if rows * self.in_features != values.len() || end.is_none_or(|end| end > self.out_features) {
            let message = format!(
                "{} values from row {first_row} on do not fit [{}, {}]",
                values.len(),
                self.out_features,
                self.in_features
            );
            return Err(TensorError::Shape { op: "linear", message });
        }
        for window in &self.windows {
            let begin = first_row.max(window.first_row);
            let end = (first_row + rows).min(window.first_row + window.rows);
            if begin < end {
                let part = &values[(begin - first_row) * self.in_features..(end - first_row) * self.in_features];
                device.write_rows(&window.tensor, begin - window.first_row, part)?;
            }
        }
        Ok(())
    }

    /// The whole matrix as one tensor `[round_up(out, 4), in]`.
    ///
    /// # Errors
    /// The matrix is split.
    pub fn window_tensor(&self) -> Result<&Tensor> {
        match &self.windows[..] {
            [window] => Ok(&window.tensor),
            windows => {
                let message = format!(
                    "[{}, {}] lies in {} windows, where one is needed",
                    self.out_features,
                    self.in_features,
                    windows.len()
                );
                Err(TensorError::Shape { op: "linear", message })
            }
        }
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
enum Other<'a> {
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

struct Product<'a> {
    op: &'static str,
    x: &'a Tensor,
    activation: Activation,
    bias: Option<&'a Tensor>,
    other: Other<'a>,
    out: &'a Tensor,
    rows: usize,
    heads: usize,
    tile: Option<Tile>,
}

/// Records `product` for the rows of `w` from output column `first_col` on; `w` covers all heads.
fn run(rec: &mut Recorder, product: &Product<'_>, w: &Tensor, first_col: usize) -> Result<()> {
    let device = rec.device();
    let Product { op, x, activation, bias, other, out, rows, heads, tile } = *product;
    let residual = other.tensor();
    let n_quads = (w.rows / 4 / heads) as u32;
    let tile = tile.unwrap_or_else(|| Tile::choose(device.capabilities().software, rows, w.rows));
    // Bias, residual and gate are flags, not constants of the pipeline: they cost a branch per output, and a pipeline takes longer to compile.
    let spec = KernelSpec::new("linear").storage(device, w.dtype).constant("ACTIVATION", activation as u32);
    let (spec, [group_quads, group_rows]) = tile.kernel(spec, n_quads);
    let kernel = device.kernel(&spec)?;
    // An absent operand's place is filled by x, which is not read there.
    let buffers = bind![x, w, bias.unwrap_or(x), residual.unwrap_or(x), out];
    for (first, count) in parts(0, rows, MAX_GROUPS * group_rows as usize) {
        let params = Params {
            first_row: first as u32,
            end_row: (first + count) as u32,
            k_quads: w.quads(),
            n_quads,
            x_head: w.quads(),
            x_ld: x.quads(),
            out_ld: out.quads(),
            residual_ld: residual.unwrap_or(x).quads(),
            out_first: (first_col / 4) as u32,
            operands: u32::from(bias.is_some()) | other.bit(),
        };
        let grid = [n_quads.div_ceil(group_quads), (count as u32).div_ceil(group_rows), heads as u32];
        // SAFETY: `rows` rows of x, out and the operands that are there, and all of w, were found to have the columns that the product
        // takes; lanes beyond the last row or quad clamp what they read and write nothing.
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
    linear_tiled(rec, x, w, activation, residual, out, rows, None)
}

/// [`linear`] with a chosen tile (`None`: [`Tile::choose`]), for tests and measurements.
///
/// # Errors
/// As [`linear`].
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
    whole(rec, x, w, activation, other, out, rows, tile)
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
    whole(rec, x, w, activation, Other::Gate(gate), out, rows, None)
}

/// All windows of a product.
#[expect(clippy::too_many_arguments, reason = "the union of two public operations")]
fn whole(
    rec: &mut Recorder,
    x: &Tensor,
    w: &Linear,
    activation: Activation,
    other: Other<'_>,
    out: &Tensor,
    rows: usize,
    tile: Option<Tile>,
) -> Result<()> {
    let op = "linear";
    expect(op, "x", x, rows, w.in_features)?;
    expect(op, "out", out, rows, w.out_features)?;
    match other {
        Other::Nothing => {}
        Other::Residual(residual) => expect(op, "residual", residual, rows, w.out_features)?,
        Other::Gate(gate) => expect(op, "gate", gate, rows, w.out_features)?,
    }
    let product = Product { op, x, activation, bias: w.bias.as_ref(), other, out, rows, heads: 1, tile };
    w.windows.iter().try_for_each(|window| run(rec, &product, &window.tensor, window.first_row))
}

/// EL-attention's way back from contexts to heads:
/// `out[r, h * dh4 + n] = sum_{k < D} c[r, h * ld(D) + k] * w[h * dh4 + n, k] + bias[h * dh4 + n]` for rows `0..rows`.
/// `c`: `[_, H * ld(D)]`; `w`: `W_v` as loaded, `[H * dh4, D]`; `bias`: `[1, H * dh4]`; `out`: `[_, H * dh4]`.
///
/// # Errors
/// Shapes that do not fit, or heads that are not whole quads.
pub fn heads_contract(
    rec: &mut Recorder,
    c: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    num_heads: usize,
    out: &Tensor,
    rows: usize,
) -> Result<()> {
    heads_contract_tiled(rec, c, w, bias, num_heads, out, rows, None)
}

/// [`heads_contract`] with a chosen tile (`None`: [`Tile::choose`]), for tests and measurements.
///
/// # Errors
/// As [`heads_contract`].
#[expect(clippy::too_many_arguments, reason = "those of heads_contract, and the tile")]
pub fn heads_contract_tiled(
    rec: &mut Recorder,
    c: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    num_heads: usize,
    out: &Tensor,
    rows: usize,
    tile: Option<Tile>,
) -> Result<()> {
    let op = "heads_contract";
    if num_heads == 0 || !w.rows.is_multiple_of(4 * num_heads) || w.rows == 0 {
        return Err(TensorError::Shape {
            op,
            message: format!("w {} does not split into {num_heads} heads of whole quads", w.describe()),
        });
    }
    expect(op, "c", c, rows, num_heads * w.ld())?;
    expect(op, "out", out, rows, w.rows)?;
    if let Some(bias) = bias {
        expect(op, "bias", bias, 1, w.rows)?;
    }
    let product = Product {
        op,
        x: c,
        activation: Activation::None,
        bias,
        other: Other::Nothing,
        out,
        rows,
        heads: num_heads,
        tile,
    };
    run(rec, &product, w, 0)
}
