//! Layer normalisation and root-mean-square normalisation (`layer_norm.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::arena::Arena;
use crate::bind;
use crate::binding::Bindings;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::load::Vector;
use crate::ops::{MAX_GROUPS, expect, parts};
use crate::pool::Class;
use crate::recorder::Recorder;
use crate::tensor::Tensor;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    quads: u32,
    cols: u32,
    x_ld: u32,
    out_ld: u32,
    eps: f32,
}

/// The norm before or behind a block: a layer norm with gain, shift and epsilon, or an RMS norm (Zhang and Sennrich 2019, arXiv 1910.07467) with gain
/// and epsilon.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Gain `[1, D]`, f32.
    pub weight: Tensor,
    /// Shift `[1, D]`, f32; `None` makes this an RMS norm, which takes no mean and adds no shift.
    pub bias: Option<Tensor>,
    /// Added to the variance, or to the mean of squares.
    pub eps: f32,
}

impl Norm {
    /// A layer norm of as many columns as `weight` has numbers; `what` names it in messages.
    ///
    /// # Errors
    /// As [`Arena::vector`]; `bias` has another length.
    pub fn layer_norm<'a>(
        arena: &Arena,
        what: &str,
        weight: impl Into<Vector<'a>>,
        bias: impl Into<Vector<'a>>,
        eps: f32,
    ) -> Result<Self> {
        let (weight, bias) = (weight.into(), bias.into());
        if weight.len() != bias.len() {
            let message = format!("{what}: {} gains and {} shifts", weight.len(), bias.len());
            return Err(TensorError::Shape { op: "layer_norm", message });
        }
        let bias = arena.vector(what, Class::Weights, bias)?;
        Ok(Self { bias: Some(bias), ..Self::rms(arena, what, weight, eps)? })
    }

    /// An RMS norm of as many columns as `weight` has numbers.
    ///
    /// # Errors
    /// As [`Arena::vector`].
    pub fn rms<'a>(arena: &Arena, what: &str, weight: impl Into<Vector<'a>>, eps: f32) -> Result<Self> {
        Ok(Self { weight: arena.vector(what, Class::Weights, weight)?, bias: None, eps })
    }
}

/// `out[r] = (x[r] - mean) / sqrt(variance + eps) * weight + bias` for rows `0..rows` of `x` `[_, D]`; D is that of `norm`, with f32 statistics and a two-pass variance.
/// An RMS norm gives `x[r] / sqrt(mean(x[r]^2) + eps) * weight`.
///
/// # Errors
/// Shapes that do not fit; `out` shares its buffer with `x`.
pub fn layer_norm(rec: &mut Recorder, x: &Tensor, norm: &Norm, out: &Tensor, rows: usize) -> Result<()> {
    run(rec, x, norm, out, rows, None)
}

/// [`layer_norm`] with a workgroup of `width` invocations, a power of two.
///
/// # Errors
/// As [`layer_norm`].
#[cfg(feature = "testing")]
pub fn layer_norm_tiled(
    rec: &mut Recorder,
    x: &Tensor,
    norm: &Norm,
    out: &Tensor,
    rows: usize,
    width: u32,
) -> Result<()> {
    run(rec, x, norm, out, rows, Some(width))
}

fn run(rec: &mut Recorder, x: &Tensor, norm: &Norm, out: &Tensor, rows: usize, width: Option<u32>) -> Result<()> {
    let cols = norm.weight.cols;
    expect("layer_norm", "x", x, rows, cols)?;
    expect("layer_norm", "weight", &norm.weight, 1, cols)?;
    if let Some(bias) = &norm.bias {
        expect("layer_norm", "bias", bias, 1, cols)?;
    }
    expect("layer_norm", "out", out, rows, cols)?;
    let device = rec.device();
    // A software adapter runs one SIMD vector of lanes at a time: more lanes than that only cost coroutine switches at each barrier.
    let width = width.unwrap_or(if device.capabilities().software { 8 } else { 128 });
    let spec = KernelSpec::new("layer_norm").define_if(norm.bias.is_none(), "RMS");
    let kernel = device.kernel(&spec.subgroup(device).constant("WG", width))?;
    let buffers = Bindings::new(bind![x, &norm.weight]).with(norm.bias.as_ref()).with(Some(out));
    for (first, count) in parts(0, rows, MAX_GROUPS) {
        let params = Params {
            first_row: first as u32,
            quads: norm.weight.quads(),
            cols: cols as u32,
            x_ld: x.quads(),
            out_ld: out.quads(),
            eps: norm.eps,
        };
        // SAFETY: `rows` rows of x and out and a row of gain and shift, of `cols` columns each, were found to be there.
        unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, [count as u32, 1, 1])? };
    }
    Ok(())
}
