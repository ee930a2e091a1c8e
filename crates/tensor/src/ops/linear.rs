//! Products with weight matrices (`linear.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::device::Device;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::ops::{MAX_GROUPS, expect, parts};
use crate::pool::Class;
use crate::recorder::Recorder;
use crate::tensor::{Buffer, DType, Tensor, padded};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    end_row: u32,
    k_quads: u32,
    n_quads: u32,
    x_quads: u32,
    out_quads: u32,
    out_first: u32,
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

impl Linear {
    /// Allocates a matrix of zeros (class weights) and uploads the bias.
    ///
    /// # Errors
    /// As [`Device::tensor`]; a bias of another length; four rows that exceed one binding.
    pub fn new(device: &Device, what: &str, out_features: usize, in_features: usize, dtype: DType, bias: Option<&[f32]>) -> Result<Self> {
        if let Some(bias) = bias
            && bias.len() != out_features
        {
            let message = format!("{what}: {} biases for [{out_features}, {in_features}]", bias.len());
            return Err(TensorError::Shape { op: "linear", message });
        }
        let row_bytes = (padded(in_features) as u64 * dtype.bytes()).max(1);
        // A window of whole quads of rows starts at a whole output quad. Four rows too long for a binding are refused by the allocation.
        let fitting = (device.capabilities().max_binding_bytes / row_bytes / 4 * 4).max(4) as usize;
        let windows = parts(0, out_features, fitting)
            .map(|(first_row, rows)| {
                let tensor = device.tensor(what, Class::Weights, padded(rows), in_features, dtype)?;
                Ok(Window { first_row, rows, tensor })
            })
            .collect::<Result<_>>()?;
        let bias = bias.map(|b| device.tensor_from(what, Class::Weights, 1, out_features, DType::F32, b)).transpose()?;
        Ok(Self { out_features, in_features, dtype, windows, bias })
    }

    /// Writes whole rows of `in_features` values from row `first_row` on.
    ///
    /// # Errors
    /// The values are not whole rows or leave the matrix.
    pub fn write_rows(&self, device: &Device, first_row: usize, values: &[f32]) -> Result<()> {
        let rows = values.len() / self.in_features.max(1);
        if rows * self.in_features != values.len() || first_row + rows > self.out_features {
            let message = format!("{} values from row {first_row} on do not fit [{}, {}]", values.len(), self.out_features, self.in_features);
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
                let message = format!("[{}, {}] lies in {} windows, where one is needed", self.out_features, self.in_features, windows.len());
                Err(TensorError::Shape { op: "linear", message })
            }
        }
    }
}

/// Rows and workgroup width of the register-tiled kernels for `rows` rows and `n_quads` quads of columns.
pub(super) fn direct_tile(device: &Device, rows: usize, n_quads: u32) -> (usize, u32) {
    let software = device.capabilities().software;
    let tile = rows.next_power_of_two().clamp(1, 8);
    let width = if software { 8 } else { 64 };
    (tile, n_quads.next_power_of_two().clamp(8, width))
}

struct Product<'a> {
    op: &'static str,
    x: &'a Tensor,
    activation: Activation,
    bias: Option<&'a Buffer>,
    residual: Option<&'a Buffer>,
    out: &'a Tensor,
    rows: usize,
    heads: usize,
}

/// Records `product` for the rows of `w` from output column `first_col` on; `w` covers all heads.
fn run(rec: &mut Recorder, product: &Product<'_>, w: &Tensor, first_col: usize) -> Result<()> {
    let device = rec.device().clone();
    let Product { x, out, rows, heads, .. } = *product;
    let n_quads = (w.rows / 4 / heads) as u32;
    let (tile, width) = direct_tile(&device, rows, n_quads);
    let spec = KernelSpec::new("linear")
        .storage(&device, w.dtype)
        .set("TILE_M", tile)
        .constant("WG", width)
        .constant("ACTIVATION", product.activation as u32)
        .constant("BIAS", product.bias.is_some().into())
        .constant("RESIDUAL", product.residual.is_some().into())
        .constant("HEADS", (heads > 1).into());
    let kernel = device.kernel(&spec)?;
    // An absent operand's place is filled by x, which is not read there.
    let buffers = [&x.buffer, &w.buffer, product.bias.unwrap_or(&x.buffer), product.residual.unwrap_or(&x.buffer), &out.buffer];
    for (first, count) in parts(0, rows, MAX_GROUPS * tile) {
        let params = Params {
            first_row: first as u32,
            end_row: (first + count) as u32,
            k_quads: w.quads(),
            n_quads,
            x_quads: x.quads(),
            out_quads: out.quads(),
            out_first: (first_col / 4) as u32,
        };
        let grid = [n_quads.div_ceil(width), count.div_ceil(tile) as u32, heads as u32];
        rec.dispatch(&kernel, &buffers, &params, grid).map_err(|e| match e {
            TensorError::Kernel { kernel, message } => TensorError::Kernel { kernel, message: format!("{}: {message}", product.op) },
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
    let op = "linear";
    expect(op, "x", x, rows, w.in_features)?;
    expect(op, "out", out, rows, w.out_features)?;
    if let Some(residual) = residual {
        expect(op, "residual", residual, rows, w.out_features)?;
    }
    let bias = w.bias.as_ref().map(|b| &b.buffer);
    let product = Product { op, x, activation, bias, residual: residual.map(|r| &r.buffer), out, rows, heads: 1 };
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
    let op = "heads_contract";
    if num_heads == 0 || w.rows % (4 * num_heads) != 0 || w.rows == 0 {
        return Err(TensorError::Shape { op, message: format!("w {} does not split into {num_heads} heads of whole quads", w.describe()) });
    }
    expect(op, "c", c, rows, num_heads * w.ld())?;
    expect(op, "out", out, rows, w.rows)?;
    if let Some(bias) = bias {
        expect(op, "bias", bias, 1, w.rows)?;
    }
    let bias = bias.map(|b| &b.buffer);
    let product = Product { op, x: c, activation: Activation::None, bias, residual: None, out, rows, heads: num_heads };
    run(rec, &product, w, 0)
}
