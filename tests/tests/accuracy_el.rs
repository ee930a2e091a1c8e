//! What rounding costs each attention kind: decode steps of whole blocks against f64, hidden states with outlier channels included
//! (docs/el-attention.md §2, the table). Run with `--nocapture` to see the figures.

use elgen_attention::{BlockSpec, Kind, PositionScheme, Shape};
use elgen_tensor::ops::Activation;
use elgen_tensor::{DType, Device};
use elgen_tests::block_runs::{cross_step, self_step};
use elgen_tests::blocks::{Matrix, Weights};
use elgen_tests::harness::{devices, stored, values};
use elgen_tests::twin;

const D: usize = 1024;
const HEADS: usize = 16;
const KEYS: usize = 300;
const BEAMS: usize = 4;

/// Hidden states: a name, what is added to 4 of the 1024 channels, and the page's errors of MHA with K and V in f16 and of EL with X in f16.
const INPUTS: [(&str, f32, f64, f64); 3] = [
    ("Gaussian", 0.0, 1.1e-4, 5.4e-5),
    ("4 channels offset 60", 60.0, 4.7e-5, 7.6e-6),
    ("4 channels offset 300", 300.0, 3.8e-5, 1.7e-6),
];

fn shape() -> Shape {
    Shape::new(D, HEADS, D / HEADS, 0.125)
}

/// About normally distributed values, exact in f16: f16 storage rounds caches alone.
fn gaussian(seed: u64, n: usize, factor: f32) -> Vec<f32> {
    let twelve = values(seed, 12 * n);
    twelve.chunks(12).map(|v| half::f16::from_f32(v.iter().sum::<f32>() / 2.0 * factor).to_f32()).collect()
}

/// `[KEYS, D]`
fn hidden(offset: f32) -> Vec<f32> {
    let mut x = gaussian(1, KEYS * D, 1.0);
    let outliers = x.iter_mut().enumerate().filter(|(i, _)| i % D % 256 == 17);
    outliers.for_each(|(_, x)| *x = half::f16::from_f32(*x + offset).to_f32());
    x
}

/// Projections of variance 1 / D. W_o is the identity, so that the block's output is its context, or one like the others.
fn weights(identity: bool) -> Weights {
    let matrix = |seed: u64| Matrix { cols: D, values: gaussian(seed, D * D, 1.0 / (D as f32).sqrt()) };
    let mut output = matrix(5);
    if identity {
        output.values.fill(0.0);
        output.values.iter_mut().step_by(D + 1).for_each(|x| *x = 1.0);
    }
    Weights { shape: shape(), matrices: [matrix(2), matrix(3), matrix(4), output], biases: [None, None, None, None] }
}

/// Plain attention in f64 of `queries` over all of `x`: contexts.
fn contexts(weights: &Weights, x: &[f32], queries: &[f32]) -> Vec<f64> {
    let project = |i: usize, x: &[f32]| {
        let w = stored(&weights.matrices[i].values, DType::F32);
        twin::linear(&stored(x, DType::F32), &w, D, None, Activation::None, None)
    };
    let (q, k, v) = (project(0, queries), project(1, x), project(2, x));
    let (k, v): (Vec<&[f64]>, Vec<&[f64]>) = (k.chunks(D).collect(), v.chunks(D).collect());
    q.chunks(D).flat_map(|q| twin::attend(q, &k, &v, HEADS, false, f64::from(shape().scale))).collect()
}

/// Root mean square of the error, relative to that of the values.
fn rms_error(got: &[f32], want: &[f64]) -> f64 {
    let squares = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>();
    let error = squares(&mut got.iter().zip(want).map(|(a, b)| f64::from(*a) - b));
    (error / squares(&mut want.iter().copied())).sqrt()
}

/// The largest difference, relative to the value or, near zero, to the values' root mean square.
fn max_error(got: &[f32], want: &[f32]) -> f64 {
    let want = stored(want, DType::F32);
    let rms = (want.iter().map(|x| x * x).sum::<f64>() / want.len() as f64).sqrt();
    got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).abs() / rms.max(b.abs())).fold(0.0, f64::max)
}

/// A decode step of a block whose W_k and W_v see `x`.
fn step(device: &Device, place: &str, kind: Kind, dtype: DType, weights: &Weights, x: &[f32]) -> Vec<f32> {
    let spec =
        BlockSpec { what: place, layer: 0, shape: shape(), formats: dtype.into(), positions: PositionScheme::None };
    let memory = vec![x.to_vec()];
    match place {
        "cross" => cross_step(device, kind, &spec, weights.get(), &memory, BEAMS, &queries()),
        _ => self_step(device, kind, &spec, weights.get(), &memory),
    }
}

/// Those of cross-attention. In self-attention the last of the hidden states asks.
fn queries() -> Vec<f32> {
    gaussian(6, BEAMS * D, 1.0)
}

#[test]
fn el_is_no_less_accurate_than_mha() {
    let device = &devices()[2].device;
    let (bare, full) = (weights(true), weights(false));
    println!("D {D}, {HEADS} heads, {KEYS} keys; rms error against f64, relative to the rms of what is measured");
    println!(
        "| hidden states | block | measured | MHA f16 | EL f16 | MHA f32 | EL f32 | EL f32 from MHA f32, at most |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, offset, mha_page, el_page) in INPUTS {
        let x = hidden(offset);
        let want = contexts(&bare, &x, &[&queries(), &x[(KEYS - 1) * D..]].concat());
        let (cross, own) = want.split_at(BEAMS * D);
        let w_o = stored(&full.matrices[3].values, DType::F32);
        let projected = twin::linear(cross, &w_o, D, None, Activation::None, None);
        for (place, end, weights, want) in [
            ("cross", "context", &bare, cross),
            ("cross", "output", &full, &projected),
            ("self", "context", &bare, own),
        ] {
            let run = |kind: Kind, dtype: DType| step(device, place, kind, dtype, weights, &x);
            let [mha, el] = [Kind::MHA, Kind::EL].map(|kind| rms_error(&run(kind, DType::F16), want));
            let (mha_f32, el_f32) = (run(Kind::MHA, DType::F32), run(Kind::EL, DType::F32));
            let (wide_mha, wide_el) = (rms_error(&mha_f32, want), rms_error(&el_f32, want));
            let apart = max_error(&el_f32, &mha_f32);
            println!(
                "| {name} | {place} | {end} | {mha:.1e} | {el:.1e} | {wide_mha:.1e} | {wide_el:.1e} | {apart:.1e} |"
            );
            let at = format!("{name}, {place}, {end}");
            assert!(el <= mha, "{at}: f16 costs EL {el:e} and MHA {mha:e}");
            assert!(el <= 5e-4, "{at}: EL {el:e}");
            assert!(mha >= mha_page / 5.0, "{at}: an f16 cache of keys and values rounds: {mha:e}");
            if place == "cross" {
                assert!(mha <= 5e-4 && el <= 2.0 * el_page, "{at}: MHA {mha:e}, EL {el:e}");
            }
            // A query with outliers of its own gives all keys of a head a common score of several hundred, of which f32 keeps 3e-5.
            let bound = if place == "self" && offset > 100.0 { 1e-4 } else { 1e-5 };
            assert!(apart <= bound, "{at}: in f32 EL and MHA are {apart:e} apart");
        }
    }
}

/// The same where hidden states are not exact in f16, as a model's are not: storing them rounds X for EL, and keys and values for MHA.
#[test]
fn rounding_hidden_states_costs_what_rounding_keys_and_values_costs() {
    let device = &devices()[2].device;
    let bare = weights(true);
    println!("| hidden states, f32 | MHA f16 | EL f16 |");
    println!("|---|---|---|");
    for (name, offset, ..) in INPUTS {
        let mut x = hidden(offset);
        x.iter_mut().zip(values(7, KEYS * D)).for_each(|(x, more)| *x += more);
        let want = contexts(&bare, &x, &queries());
        let [mha, el] =
            [Kind::MHA, Kind::EL].map(|kind| rms_error(&step(device, "cross", kind, DType::F16, &bare, &x), &want));
        println!("| {name} | {mha:.1e} | {el:.1e} |");
        assert!(mha.max(el) <= 5e-4 && el <= 1.5 * mha, "{name}: MHA {mha:e}, EL {el:e}");
    }
}
