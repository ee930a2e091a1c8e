//! Where the biases of keys and values go: dropped, and folded into that of the output.

use elgen_attention::{BlockSpec, Kind, PositionScheme, Shape};
use elgen_tensor::{Class, DType, Device, DeviceOptions};
use elgen_tests::block_runs::{cross_step, self_step};
use elgen_tests::blocks::Weights;
use elgen_tests::harness::{compare_within, devices, stored, values};

/// Heads that are not whole quads, and ones that are.
const SHAPES: [(usize, usize, usize); 2] = [(30, 5, 10), (24, 2, 12)];

/// docs/el-attention.md §2: f32 outputs differ by 1e-5 of their magnitude at most.
const F32: f64 = 1e-5;

const BEAMS: usize = 2;

fn shape((d_model, num_heads, head_dim): (usize, usize, usize)) -> Shape {
    Shape::new(d_model, num_heads, head_dim, 1.0 / (head_dim as f32).sqrt())
}

fn spec(shape: Shape) -> BlockSpec<'static> {
    BlockSpec { what: "block", layer: 1, shape, formats: DType::F32.into(), positions: PositionScheme::None }
}

/// Plain attention in f64.
fn reference(weights: &Weights, memory: &[Vec<f32>], queries: &[f32]) -> Vec<f64> {
    let d = weights.shape.d_model;
    let mut out = Vec::new();
    for (row, query) in queries.chunks(d).enumerate() {
        let memory = stored(&memory[row / BEAMS], DType::F32);
        let memory: Vec<&[f64]> = memory.chunks(d).collect();
        out.extend(weights.attend(&stored(query, DType::F32), &memory, DType::F32));
    }
    out
}

/// All mixes of biases that a block can have with a value bias, and none.
const BIASES: [[bool; 4]; 4] =
    [[true; 4], [true, true, true, false], [false, false, true, true], [false, true, false, false]];

#[test]
fn biases_of_cross_attention() {
    let device = &devices()[0].device;
    for shape in SHAPES.map(shape) {
        let d = shape.d_model;
        let memory: Vec<Vec<f32>> = [9, 70, 1].iter().zip(500..).map(|(n, seed)| values(seed, n * d)).collect();
        let queries = values(700, memory.len() * BEAMS * d);
        for biases in BIASES {
            let mut weights = Weights::new(shape, biases, 3000);
            // A value bias that stands out: were it lost, no tolerance would hide it.
            weights.biases[2].iter_mut().flatten().for_each(|b| *b += 3.0);
            for kind in Kind::BUILT_IN {
                let got = cross_step(device, kind, &spec(shape), weights.get(), &memory, BEAMS, &queries);
                let want = reference(&weights, &memory, &queries);
                compare_within(&got, &want, F32).unwrap_or_else(|e| panic!("{kind}, d {d}, biases {biases:?}: {e}"));
            }
        }
    }
}

#[test]
fn biases_of_self_attention() {
    let device = &devices()[0].device;
    for shape in SHAPES.map(shape) {
        let d = shape.d_model;
        let hidden: Vec<Vec<f32>> = [9, 70, 2].iter().zip(500..).map(|(n, seed)| values(seed, n * d)).collect();
        for biases in BIASES {
            let mut weights = Weights::new(shape, biases, 3000);
            weights.biases[2].iter_mut().flatten().for_each(|b| *b += 3.0);
            let mut want = Vec::new();
            for x in &hidden {
                let x = stored(x, DType::F32);
                let rows: Vec<&[f64]> = x.chunks(d).collect();
                want.extend(weights.attend(rows[rows.len() - 1], &rows, DType::F32));
            }
            for kind in [Kind::MHA, Kind::EL] {
                let got = self_step(device, kind, &spec(shape), weights.get(), &hidden);
                compare_within(&got, &want, F32).unwrap_or_else(|e| panic!("{kind}, d {d}, biases {biases:?}: {e}"));
            }
        }
    }
}

#[test]
fn folded_biases_take_no_memory() {
    // A device of its own: nothing else allocates on it.
    let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
    let device = &Device::open(&DeviceOptions { selector, ..DeviceOptions::default() }).unwrap();
    let shape = shape(SHAPES[0]);
    let bytes = |biases: [bool; 4]| {
        let weights = Weights::new(shape, biases, 3000);
        let before = device.pool().current().of(Class::Weights);
        let block = Kind::MHA.encoder_attention(&device.into(), &spec(shape), weights.get()).unwrap();
        let after = device.pool().current().of(Class::Weights);
        drop(block);
        after - before
    };
    // b_k is gone, and b_v is part of b_o.
    assert_eq!(bytes([false, true, true, true]), bytes([false, false, false, true]));
    assert!(bytes([false; 4]) < bytes([false, false, false, true]));
}
