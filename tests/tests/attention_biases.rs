//! Where the biases of keys and values go: dropped and folded where every row has a key, kept where one may be masked whole.

use elgen_attention::{AttentionWeights, BlockSpec, EncoderAttention, Kind, MatrixSource, Projection, Shape};
use elgen_tensor::{Class, DType, Device, DeviceOptions};
use elgen_tests::block_runs::{cross_step, self_step};
use elgen_tests::blocks::{Matrix, Weights};
use elgen_tests::harness::{compare_within, devices, stored, values};

/// Heads that are not whole quads, and ones that are.
const SHAPES: [(usize, usize, usize); 2] = [(30, 5, 10), (24, 2, 12)];

/// docs/el-attention.md §2: f32 outputs differ by 1e-5 of their magnitude at most.
const F32: f64 = 1e-5;

const BEAMS: usize = 2;

fn shape((d_model, num_heads, head_dim): (usize, usize, usize)) -> Shape {
    Shape { d_model, num_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() }
}

fn spec(shape: Shape, masks_whole_rows: bool) -> BlockSpec<'static> {
    BlockSpec { what: "block", layer: 1, shape, dtype: DType::F32, bias: None, masks_whole_rows }
}

/// Plain attention in f64; without keys, the output bias alone is left.
fn reference(weights: &Weights, memory: &[Vec<f32>], queries: &[f32]) -> Vec<f64> {
    let d = weights.shape.d_model;
    let mut out = Vec::new();
    for (row, query) in queries.chunks(d).enumerate() {
        let memory = stored(&memory[row / BEAMS], DType::F32);
        let memory: Vec<&[f64]> = memory.chunks(d).collect();
        if memory.is_empty() {
            out.extend(stored(weights.biases[3].as_deref().unwrap_or(&vec![0.0; d]), DType::F32));
        } else {
            out.extend(weights.attend(&stored(query, DType::F32), &memory, DType::F32));
        }
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
        let mut masked = memory.clone();
        masked[1].clear();
        let queries = values(700, memory.len() * BEAMS * d);
        for biases in BIASES {
            let mut weights = Weights::new(shape, biases, 3000);
            // A value bias that stands out: were it lost, or added to a row without keys, no tolerance would hide it.
            weights.biases[2].iter_mut().flatten().for_each(|b| *b += 3.0);
            for kind in Kind::ALL {
                let run = |masks: bool, memory: &[Vec<f32>]| {
                    cross_step(device, kind, &spec(shape, masks), weights.get(), memory, BEAMS, &queries)
                };
                for (masks, memory) in [(false, &memory), (true, &memory), (true, &masked)] {
                    let what = format!("{kind}, d {d}, biases {biases:?}, masks whole rows {masks}");
                    let want = reference(&weights, memory, &queries);
                    compare_within(&run(masks, memory), &want, F32).unwrap_or_else(|e| panic!("{what}: {e}"));
                }
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
            for kind in [Kind::Mha, Kind::El] {
                for masks in [false, true] {
                    let what = format!("{kind}, d {d}, biases {biases:?}, masks whole rows {masks}");
                    let got = self_step(device, kind, &spec(shape, masks), weights.get(), &hidden);
                    compare_within(&got, &want, F32).unwrap_or_else(|e| panic!("{what}: {e}"));
                }
            }
        }
    }
}

/// A matrix whose values the device is said to have made itself.
struct OnDevice<'a>(&'a Matrix);

impl MatrixSource for OnDevice<'_> {
    fn rows(&self) -> usize {
        self.0.rows()
    }
    fn cols(&self) -> usize {
        self.0.cols()
    }
    fn read(
        &self,
        first: usize,
        out: &mut [f32],
        dtype: DType,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.read(first, out, dtype)
    }
    fn on_host(&self) -> bool {
        false
    }
}

#[test]
fn values_that_the_host_does_not_have_keep_their_biases() {
    let device = &devices()[0].device;
    let shape = shape(SHAPES[0]);
    let d = shape.d_model;
    let weights = Weights::new(shape, [true; 4], 3000);
    let memory = vec![values(500, 9 * d)];
    let queries = values(700, BEAMS * d);
    let want = reference(&weights, &memory, &queries);
    let o = OnDevice(&weights.matrices[3]);
    let given = weights.get();
    let given = AttentionWeights { o: Projection { weight: &o, ..given.o }, ..given };
    for kind in Kind::ALL {
        let got = cross_step(device, kind, &spec(shape, false), given, &memory, BEAMS, &queries);
        compare_within(&got, &want, F32).unwrap_or_else(|e| panic!("{kind}: {e}"));
    }
}

#[test]
fn folded_biases_take_no_memory() {
    // A device of its own: nothing else allocates on it.
    let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
    let device = &Device::open(&DeviceOptions { selector, ..DeviceOptions::default() }).unwrap();
    let shape = shape(SHAPES[0]);
    let weights = Weights::new(shape, [false, true, true, true], 3000);
    let bytes = |masks: bool| {
        let before = device.pool().current().of(Class::Weights);
        let block = EncoderAttention::new(device, &spec(shape, masks), weights.get()).unwrap();
        let after = device.pool().current().of(Class::Weights);
        drop(block);
        after - before
    };
    assert!(bytes(false) < bytes(true), "{} and {}", bytes(false), bytes(true));
}
