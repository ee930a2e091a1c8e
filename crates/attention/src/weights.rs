//! Reading projection weights into the head layout of docs/architecture.md: every head starts at a whole quad.

use elgen_tensor::ops::Linear;
use elgen_tensor::{Arena, Class, MatrixSource, SeeRows, SourceError, Vector, WeightFormat};

use crate::error::{AttentionError, Result};
use crate::shape::Shape;
use crate::spec::BlockSpec;

/// One projection: a weight `[out, in]` and its bias.
#[derive(Clone, Copy)]
pub struct Projection<'a> {
    /// The weight.
    pub weight: &'a dyn MatrixSource,
    /// The bias `[out]`, if there is one.
    pub bias: Option<Vector<'a>>,
}

/// The four projections of an attention block.
#[derive(Clone, Copy)]
pub struct AttentionWeights<'a> {
    /// `[num_heads * head_dim, d_model]`
    pub q: Projection<'a>,
    /// `[num_heads * head_dim, d_model]`
    pub k: Projection<'a>,
    /// `[num_heads * head_dim, d_model]`
    pub v: Projection<'a>,
    /// `[d_model, num_heads * head_dim]`
    pub o: Projection<'a>,
}

/// A block's weights with the biases that its core applies, and b_v where the output projection takes it over.
#[derive(Clone, Copy)]
pub(crate) struct Placed<'a> {
    /// The weights; `v` has no bias, and `k` only where the scores need it.
    pub(crate) weights: AttentionWeights<'a>,
    /// b_v, for [`output_projection`] to fold.
    pub(crate) folded: Option<Vector<'a>>,
}

impl<'a> Placed<'a> {
    /// Decides where the biases of keys and values go (docs/el-attention.md §1.3), the same for every kind.
    ///
    /// b_k adds one number, `q . b_k`, to all scores of a row and head, unless positions come between q and k
    /// ([`PositionScheme::drops_key_bias`]). The softmax of every block here runs over keys alone and its scores never leave it, so b_k has no
    /// effect and is dropped. A sink, a soft cap or returned scores would need it.
    ///
    /// b_v becomes part of b_o: every query row has a key, and with it probabilities that sum to one.
    ///
    /// # Errors
    /// A bias of a wrong length, used or not.
    pub(crate) fn new(spec: &BlockSpec<'_>, mut weights: AttentionWeights<'a>) -> Result<Self> {
        let inner = spec.shape.num_heads.saturating_mul(spec.shape.head_dim);
        let lengths = [("q", inner), ("k", inner), ("v", inner), ("out", spec.shape.d_model)];
        for ((part, length), projection) in lengths.iter().zip([weights.q, weights.k, weights.v, weights.o]) {
            if let Some(bias) = projection.bias
                && bias.len() != *length
            {
                let what = spec.what;
                return Err(AttentionError::Shape(format!(
                    "{what} {part} bias has {} values, expected {length}",
                    bias.len()
                )));
            }
        }
        if spec.positions.drops_key_bias() {
            weights.k.bias = None;
        }
        // Of random numbers W_o b_v + b_o are no better ones than b_o: such a model has no b_v, as any other has none on the device.
        let folded = weights.v.bias.take().filter(|_| weights.o.weight.random().is_none());
        Ok(Self { weights, folded })
    }
}

/// `b_o + W_o b_v`, row by row as W_o is read: in f64, from values that no storage has rounded yet.
struct Folding {
    b_v: Vec<f32>,
    b_o: Vec<f32>,
}

impl Folding {
    /// Takes whole rows of W_o from `first` on.
    fn see(&mut self, first: usize, rows: &[f32]) {
        for (b_o, row) in self.b_o[first..].iter_mut().zip(rows.chunks_exact(self.b_v.len().max(1))) {
            let product: f64 = row.iter().zip(&self.b_v).map(|(w, b)| f64::from(*w) * f64::from(*b)).sum();
            *b_o = (f64::from(*b_o) + product) as f32;
        }
    }
}

fn check(what: &str, weight: &dyn MatrixSource, rows: usize, cols: usize) -> Result<()> {
    if (weight.rows(), weight.cols()) == (rows, cols) {
        return Ok(());
    }
    Err(AttentionError::Shape(format!("{what} is [{}, {}], expected [{rows}, {cols}]", weight.rows(), weight.cols())))
}

/// Spreads numbers of heads side by side to padded heads; `out` begins as zeros.
fn spread(shape: Shape, narrow: &[f32], out: &mut [f32]) {
    let (dim, width) = (shape.head_dim.max(1), shape.head_width().max(1));
    for (head, to) in narrow.chunks_exact(dim).zip(out.chunks_exact_mut(width)) {
        to[..dim].copy_from_slice(head);
    }
}

/// Stacks projections `[num_heads * head_dim, d_model]` into one matrix `[parts * inner, d_model]`, heads padded to quads.
pub(crate) fn stack_heads(
    arena: &Arena,
    what: &str,
    shape: Shape,
    format: WeightFormat,
    parts: &[Projection<'_>],
) -> Result<Linear> {
    let (heads, dim, width, cols) = (shape.num_heads, shape.head_dim, shape.head_width(), shape.d_model);
    let all = shape.inner().saturating_mul(parts.len());
    for part in parts {
        check(what, part.weight, heads.saturating_mul(dim), cols)?;
    }
    let mut stacked = Vec::new();
    let bias = match (parts.iter().any(|part| part.bias.is_some()), arena.device()) {
        (false, _) => None,
        (true, None) => Some(Vector::Counted(all)),
        (true, Some(_)) => {
            // The parts are there, so their rows can be counted.
            stacked.resize(all, 0.0);
            for (part, to) in parts.iter().zip(stacked.chunks_exact_mut(shape.inner().max(1))) {
                if let Some(values) = part.bias.and_then(Vector::values) {
                    spread(shape, values, to);
                }
            }
            Some(Vector::Values(&stacked))
        }
    };
    let linear = Linear::build(arena, what, all, cols, format, bias)?;
    for (p, part) in parts.iter().enumerate() {
        let base = shape.inner().saturating_mul(p);
        if dim == width {
            linear.weight.load(arena, base, part.weight, 0..part.weight.rows())?;
            continue;
        }
        // Pad rows stay the zeros that the matrix was allocated with.
        arena.each(heads, |arena, head| {
            linear.weight.load(arena, base + head * width, part.weight, head * dim..(head + 1) * dim)
        })?;
    }
    Ok(linear)
}

/// The output projection `[d_model, num_heads * head_dim]`, its columns spread to padded heads. `folded` (b_v, `[num_heads * head_dim]`) becomes part of
/// its bias.
pub(crate) fn output_projection(
    arena: &Arena,
    what: &str,
    shape: Shape,
    format: WeightFormat,
    o: Projection<'_>,
    folded: Option<Vector<'_>>,
) -> Result<Linear> {
    let (heads, dim, width, d_model) = (shape.num_heads, shape.head_dim, shape.head_width(), shape.d_model);
    check(what, o.weight, d_model, heads.saturating_mul(dim))?;
    let mut folding = folded.and_then(Vector::values).map(|b_v| {
        let mut wide = vec![0.0; shape.inner()];
        spread(shape, b_v, &mut wide);
        let b_o = o.bias.and_then(Vector::values).map_or_else(|| vec![0.0; d_model], <[f32]>::to_vec);
        Folding { b_v: wide, b_o }
    });
    // What is folded is uploaded once W_o has been seen.
    let own = match (&folding, folded) {
        (Some(_), _) => None,
        (None, Some(_)) => Some(Vector::Counted(d_model)),
        (None, None) => o.bias,
    };
    let mut linear = Linear::build(arena, what, d_model, shape.inner(), format, own)?;
    let mut see = folding.as_mut().map(|folding| |first: usize, rows: &[f32]| folding.see(first, rows));
    let see = see.as_mut().map(|see| see as SeeRows<'_>);
    if dim == width {
        linear.weight.load_seen(arena, 0, o.weight, 0..d_model, see)?;
    } else if let (Some(device), Some(random)) = (arena.device(), o.weight.random()) {
        for head in 0..heads {
            let columns = head * width..head * width + dim;
            linear.weight.fill_random(device, 0..d_model, columns, &random.offset(0, head * dim))?;
        }
    } else {
        linear.weight.load_seen(arena, 0, &PaddedColumns { shape, o: o.weight }, 0..d_model, see)?;
    }
    if let Some(Folding { b_o, .. }) = folding {
        linear.bias = Some(arena.vector(what, Class::Weights, &b_o)?);
    }
    Ok(linear)
}

/// W_o with each head's columns where the padded head begins.
struct PaddedColumns<'a> {
    shape: Shape,
    o: &'a dyn MatrixSource,
}

impl MatrixSource for PaddedColumns<'_> {
    fn rows(&self) -> usize {
        self.o.rows()
    }

    fn cols(&self) -> usize {
        self.shape.inner()
    }

    fn read(&self, first: usize, out: &mut [f32], format: WeightFormat) -> Result<(), SourceError> {
        let wide = self.cols().max(1);
        let mut narrow = vec![0.0; out.len() / wide * self.o.cols()];
        self.o.read(first, &mut narrow, format)?;
        out.fill(0.0);
        for (row, to) in narrow.chunks_exact(self.o.cols().max(1)).zip(out.chunks_exact_mut(wide)) {
            spread(self.shape, row, to);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use elgen_tensor::DType;

    use super::*;
    use crate::position_scheme::{PositionScheme, Rotary};

    /// A matrix of zeros.
    struct Zeros(usize, usize);

    impl MatrixSource for Zeros {
        fn rows(&self) -> usize {
            self.0
        }
        fn cols(&self) -> usize {
            self.1
        }
        fn read(&self, _: usize, out: &mut [f32], _: WeightFormat) -> Result<(), SourceError> {
            out.fill(0.0);
            Ok(())
        }
    }

    /// q . R(i - j) b_k differs from key to key: under rotary positions b_k belongs to the scores (Qwen2 has one).
    #[test]
    fn a_key_bias_is_dropped_only_where_positions_allow_it() {
        let (weight, bias) = (Zeros(4, 4), [1.0; 4]);
        let each = Projection { weight: &weight, bias: Some(Vector::from(&bias)) };
        let weights = AttentionWeights { q: each, k: each, v: each, o: each };
        let placed = |positions| {
            let shape = Shape::new(4, 1, 4, 1.0);
            let spec = BlockSpec { what: "block", layer: 0, shape, formats: DType::F32.into(), positions };
            let placed = Placed::new(&spec, weights).expect("lengths that fit");
            (placed.weights.k.bias.is_some(), placed.weights.v.bias.is_some(), placed.folded.is_some())
        };
        assert_eq!(placed(PositionScheme::None), (false, false, true));
        assert_eq!(placed(PositionScheme::Rotary(Rotary { base: 1e4, dims: 4 })), (true, false, true));
    }

    #[test]
    fn value_biases_are_folded_in_f64() {
        let mut folding = Folding { b_v: vec![1.0, 2.0], b_o: vec![10.0, 20.0, 30.0] };
        folding.see(0, &[1.0, 0.5]);
        folding.see(1, &[0.0, -1.0, 4.0, 0.25]);
        assert_eq!(folding.b_o, [12.0, 18.0, 34.5]);
        // In f32, 1e8 would swallow the ones.
        let mut folding = Folding { b_v: vec![1.0; 4], b_o: vec![0.0] };
        folding.see(0, &[1e8, 1.0, 1.0, -1e8]);
        assert_eq!(folding.b_o, [2.0]);
    }

    #[test]
    fn columns_of_padded_heads_begin_at_whole_quads() {
        struct Count;
        impl MatrixSource for Count {
            fn rows(&self) -> usize {
                2
            }
            fn cols(&self) -> usize {
                6
            }
            fn read(&self, first: usize, out: &mut [f32], _: WeightFormat) -> Result<(), SourceError> {
                out.iter_mut().enumerate().for_each(|(i, x)| *x = (6 * first + i + 1) as f32);
                Ok(())
            }
        }
        let wide = PaddedColumns { shape: Shape::new(2, 2, 3, 1.0), o: &Count };
        let mut rows = [9.0; 16];
        wide.read(0, &mut rows, WeightFormat::F32).unwrap();
        assert_eq!(rows, [1., 2., 3., 0., 4., 5., 6., 0., 7., 8., 9., 0., 10., 11., 12., 0.]);
    }
}
