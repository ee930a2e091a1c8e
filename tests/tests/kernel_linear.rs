//! `linear.wgsl` and `heads_expand.wgsl` against their twins, and the promise that the number of rows never changes a bit.

use elgen_tensor::ops::{
    Activation, Linear, Prologue, Tile, heads_contract, heads_contract_tiled, heads_expand, linear, linear_gated,
    linear_tiled,
};
use elgen_tensor::{Arena, DType, Device, Vector, WeightFormat};
use elgen_tests::harness::{
    assert_close, assert_same_bits, compare, devices, matrix, poisoned, read_raw, read_rows, stored, stored_weights,
    upload, values, windowed_devices, zeros,
};
use elgen_tests::twin;
use proptest::prelude::*;

/// All formats, the one for tests among them.
const FORMATS: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::F16, WeightFormat::Int8Blocks];

/// One product, from shapes and a seed.
#[derive(Clone, Debug)]
struct Case {
    rows: usize,
    k: usize,
    n: usize,
    format: WeightFormat,
    bias: bool,
    residual: bool,
    activation: Activation,
    seed: u64,
}

fn cases(max_rows: usize, max_k: usize, max_n: usize) -> impl Strategy<Value = Case> {
    cases_in(max_rows, max_k, max_n, &WeightFormat::ALL)
}

fn cases_in(max_rows: usize, max_k: usize, max_n: usize, formats: &[WeightFormat]) -> impl Strategy<Value = Case> {
    let shape = (1..=max_rows, 1..=max_k, 1..=max_n);
    let format = prop::sample::select(formats.to_vec());
    // The others follow in a test of their own; each costs a pipeline per tile and device.
    let activation = prop::sample::select(vec![Activation::None, Activation::Gelu]);
    (shape, format, any::<bool>(), any::<bool>(), activation, any::<u64>()).prop_map(
        |((rows, k, n), format, bias, residual, activation, seed)| Case {
            rows,
            k,
            n,
            format,
            bias,
            residual,
            activation,
            seed,
        },
    )
}

impl Case {
    fn x(&self) -> Vec<f32> {
        values(self.seed, self.rows * self.k)
    }
    fn w(&self) -> Vec<f32> {
        values(self.seed ^ 1, self.n * self.k)
    }
    fn bias(&self) -> Option<Vec<f32>> {
        self.bias.then(|| values(self.seed ^ 2, self.n))
    }
    fn residual(&self) -> Option<Vec<f32>> {
        self.residual.then(|| values(self.seed ^ 3, self.rows * self.n))
    }

    /// On the device, for the first `rows` rows.
    fn run(&self, device: &Device, rows: usize, tile: Option<Tile>) -> Vec<f32> {
        let w = zeros(device, self.n, self.k, self.format, self.bias().as_deref());
        // In two parts, the second across every window border behind the first.
        let cut = (self.n / 3) * self.k;
        let weights = self.w();
        w.weight.write_rows(&device.into(), 0, &weights[..cut]).unwrap();
        w.weight.write_rows(&device.into(), self.n / 3, &weights[cut..]).unwrap();
        let x = upload(device, self.rows, self.k, &self.x());
        let residual = self.residual().map(|r| upload(device, self.rows, self.n, &r));
        let out = poisoned(device, self.rows + 1, self.n, DType::F32);
        let mut rec = device.recorder();
        linear_tiled(&mut rec, &x, &w, self.activation, residual.as_ref(), &out, rows, tile).unwrap();
        rec.submit().unwrap();
        read_rows(device, &out, rows, "linear")
    }

    /// The same product with a gate in the residual's place: on the device, and its twin.
    fn gated(&self, device: &Device) -> (Vec<f32>, Vec<f64>) {
        let gate = values(self.seed ^ 3, self.rows * self.n);
        let w = zeros(device, self.n, self.k, self.format, self.bias().as_deref());
        w.weight.write_rows(&device.into(), 0, &self.w()).unwrap();
        let x = upload(device, self.rows, self.k, &self.x());
        let out = poisoned(device, self.rows + 1, self.n, DType::F32);
        let mut rec = device.recorder();
        let on_device = upload(device, self.rows, self.n, &gate);
        linear_gated(&mut rec, &x, &w, self.activation, &on_device, &out, self.rows).unwrap();
        rec.submit().unwrap();
        let wide = |v: &[f32]| stored(v, DType::F32);
        let want = twin::linear_gated(
            &wide(&self.x()),
            &stored_weights(&self.w(), self.k, self.format),
            self.k,
            self.bias().map(|b| wide(&b)).as_deref(),
            self.activation,
            &wide(&gate),
        );
        (read_rows(device, &out, self.rows, "linear_gated"), want)
    }

    fn twin(&self) -> Vec<f64> {
        let wide = |v: Vec<f32>| stored(&v, DType::F32);
        let (bias, residual) = (self.bias().map(wide), self.residual().map(wide));
        twin::linear(
            &wide(self.x()),
            &stored_weights(&self.w(), self.k, self.format),
            self.k,
            bias.as_deref(),
            self.activation,
            residual.as_deref(),
        )
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn linear_matches_its_twin(case in cases(40, 70, 150)) {
        let want = case.twin();
        for variant in devices() {
            if let Err(message) = compare(&case.run(&variant.device, case.rows, None), &want) {
                prop_assert!(false, "{}: {message}", variant.name);
            }
        }
    }

    #[test]
    fn gated_linear_matches_its_twin(case in cases(40, 70, 150)) {
        for variant in devices() {
            let (got, want) = case.gated(&variant.device);
            if let Err(message) = compare(&got, &want) {
                prop_assert!(false, "{}: {message}", variant.name);
            }
        }
    }

    #[test]
    fn linear_over_row_windows_matches_its_twin(case in cases(12, 100, 700)) {
        let want = case.twin();
        for variant in windowed_devices() {
            if let Err(message) = compare(&case.run(&variant.device, case.rows, None), &want) {
                prop_assert!(false, "{}: {message}", variant.name);
            }
            let (got, want) = case.gated(&variant.device);
            if let Err(message) = compare(&got, &want) {
                prop_assert!(false, "gated, {}: {message}", variant.name);
            }
        }
    }

    #[test]
    fn heads_match_their_twins(
        (rows, heads, quads, d) in (1..=20usize, 1..=6usize, 1..=5usize, 1..=70usize),
        format in prop::sample::select(FORMATS.to_vec()), with_bias in any::<bool>(), seed in any::<u64>(),
    ) {
        let width = 4 * quads;
        let ld = d.next_multiple_of(4);
        let w = values(seed, heads * width * d);
        let wide_w = stored_weights(&w, d, format);
        let q = values(seed ^ 1, rows * heads * width);
        // Contexts have rows of heads x ld columns, whose pads are zero.
        let mut c = values(seed ^ 2, rows * heads * ld);
        for (i, v) in c.iter_mut().enumerate() {
            if i % ld >= d { *v = 0.0; }
        }
        let bias = with_bias.then(|| values(seed ^ 3, heads * width));
        let expanded = twin::heads_expand(&stored(&q, DType::F32), &wide_w, heads, width, d);
        let dense: Vec<f64> = c.chunks(ld).flat_map(|head| &head[..d]).map(|v| f64::from(*v)).collect();
        let wide_bias = bias.as_deref().map(|b| stored(b, DType::F32));
        let contracted = twin::heads_contract(&dense, &wide_w, wide_bias.as_deref(), heads, width, d);
        for variant in devices() {
            let device = &variant.device;
            let weight = matrix(device, heads * width, d, format, &w);
            let w = Linear { weight, bias: bias.as_deref().map(|b| upload(device, 1, heads * width, b)) };
            let q = upload(device, rows, heads * width, &q);
            let c = upload(device, rows, heads * ld, &c);
            let wide = poisoned(device, rows + 2, heads * ld, DType::F32);
            let narrow = poisoned(device, rows + 2, heads * width, DType::F32);
            let mut rec = device.recorder();
            heads_expand(&mut rec, &q, &w.weight, heads, &wide, rows).unwrap();
            heads_contract(&mut rec, Prologue::None, &c, &w, heads, &narrow, rows).unwrap();
            rec.submit().unwrap();
            let got = read_rows(device, &wide, rows, "heads_expand");
            prop_assert!(got.chunks(ld).all(|head| head[d..].iter().all(|v| *v == 0.0)), "{}: a head's pad is not 0", variant.name);
            let got: Vec<f32> = got.chunks(ld).flat_map(|head| &head[..d]).copied().collect();
            if let Err(message) = compare(&got, &expanded) {
                prop_assert!(false, "heads_expand, {}: {message}", variant.name);
            }
            if let Err(message) = compare(&read_rows(device, &narrow, rows, "heads_contract"), &contracted) {
                prop_assert!(false, "heads_contract, {}: {message}", variant.name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    /// A format whose elements do not stand alone; with windows and without.
    #[test]
    fn linear_over_blocks_matches_its_twin(case in cases_in(12, 100, 700, &[WeightFormat::Int8Blocks])) {
        let want = case.twin();
        for variant in devices().iter().chain(windowed_devices()) {
            if let Err(message) = compare(&case.run(&variant.device, case.rows, None), &want) {
                prop_assert!(false, "{}: {message}", variant.name);
            }
        }
    }
}

/// Row counts that take every tile of every variant, with and without a rest.
const COUNTS: [usize; 7] = [1, 2, 3, 7, 33, 64, 130];

#[test]
fn neither_rows_nor_tiles_change_a_bit() {
    for format in WeightFormat::ALL {
        let case = Case {
            rows: 130,
            k: 203,
            n: 150,
            format,
            bias: true,
            residual: true,
            activation: Activation::Gelu,
            seed: 11,
        };
        let first = case.run(&devices()[0].device, 130, None);
        assert_close(&first, &case.twin(), "130 rows");
        for variant in devices() {
            for rows in COUNTS {
                let got = case.run(&variant.device, rows, None);
                assert_same_bits(&got, &first[..rows * case.n], &format!("{}, {rows} rows", variant.name));
            }
            for tile in Tile::ALL {
                let rows = 33;
                let got = case.run(&variant.device, rows, Some(tile));
                assert_same_bits(&got, &first[..rows * case.n], &format!("{}, {tile:?}", variant.name));
            }
        }
    }
}

#[test]
fn neither_rows_nor_tiles_change_a_bit_of_a_head() {
    let (heads, width, d) = (3, 20, 90);
    let ld = 92;
    let w = values(1, heads * width * d);
    let q = values(2, 130 * heads * width);
    let mut c = values(3, 130 * heads * ld);
    c.chunks_mut(ld).for_each(|head| head[d..].fill(0.0));
    let runs =
        COUNTS.into_iter().rev().map(|rows| (rows, None)).chain(Tile::ALL.into_iter().map(|tile| (20, Some(tile))));
    let runs: Vec<(usize, Option<Tile>)> = runs.collect();
    for dtype in [DType::F32, DType::F16] {
        let mut first: Option<(Vec<f32>, Vec<f32>)> = None;
        for variant in devices() {
            let device = &variant.device;
            let w = Linear::from(matrix(device, heads * width, d, dtype, &w));
            let (q, c) = (upload(device, 130, heads * width, &q), upload(device, 130, heads * ld, &c));
            for &(rows, tile) in &runs {
                let wide = poisoned(device, 130, heads * ld, DType::F32);
                let narrow = poisoned(device, 130, heads * width, DType::F32);
                let mut rec = device.recorder();
                heads_expand(&mut rec, &q, &w.weight, heads, &wide, rows).unwrap();
                heads_contract_tiled(&mut rec, &c, &w, heads, &narrow, rows, tile).unwrap();
                rec.submit().unwrap();
                let got = (read_rows(device, &wide, rows, "expand"), read_rows(device, &narrow, rows, "contract"));
                let (wide, narrow) = first.get_or_insert_with(|| got.clone());
                let what = format!("{}, {rows} rows, {tile:?}", variant.name);
                assert_same_bits(&got.0, &wide[..rows * heads * ld], &what);
                assert_same_bits(&got.1, &narrow[..rows * heads * width], &what);
            }
        }
    }
}

#[test]
fn wider_tensors_are_used_from_their_first_column() {
    let (rows, k, n) = (5, 10, 14);
    let (x, weights, residual) = (values(1, rows * k), values(2, n * k), values(3, rows * n));
    let want = twin::linear(
        &stored(&x, DType::F32),
        &stored(&weights, DType::F32),
        k,
        None,
        Activation::Relu,
        Some(&stored(&residual, DType::F32)),
    );
    // Columns behind the first are anything but zero, from the next whole quad on.
    let widen = |v: &[f32], cols: usize, to: usize| -> Vec<f32> {
        v.chunks(cols)
            .flat_map(|row| {
                (0..to).map(|c| {
                    if c < cols {
                        row[c]
                    } else if c < cols.next_multiple_of(4) {
                        0.0
                    } else {
                        9.0
                    }
                })
            })
            .collect()
    };
    for variant in devices() {
        let device = &variant.device;
        let w = Linear::from(matrix(device, n, k, DType::F32, &weights));
        let x = upload(device, rows, 17, &widen(&x, k, 17));
        let residual = upload(device, rows, 29, &widen(&residual, n, 29));
        for tile in [Tile::Direct(4), Tile::Staged(1)] {
            let out = poisoned(device, rows, 23, DType::F32);
            let mut rec = device.recorder();
            linear_tiled(&mut rec, &x, &w, Activation::Relu, Some(&residual), &out, rows, Some(tile)).unwrap();
            rec.submit().unwrap();
            let raw = read_raw(device, &out);
            let got: Vec<f32> = raw.chunks(24).flat_map(|row| &row[..n]).copied().collect();
            assert_close(&got, &want, &variant.name);
            assert!(
                raw.chunks(24).all(|row| row[14..16] == [0.0, 0.0] && row[16..].iter().all(|v| v.is_nan())),
                "{}",
                variant.name
            );
        }
    }
}

#[test]
fn activations_stay_close_far_from_zero() {
    // A product with the identity hands the inputs on unchanged.
    let mut inputs: Vec<f32> = (-200..=200).map(|i| i as f32 * 0.05).collect();
    inputs.extend([-1e4, -88.0, -30.0, 30.0, 88.0, 1e4, 1e-6, -1e-6]);
    let n = inputs.len();
    for variant in devices() {
        let device = &variant.device;
        let x = upload(device, n, 1, &inputs);
        let w = Linear::from(matrix(device, 1, 1, DType::F32, &[1.0]));
        for activation in Activation::ALL {
            let out = poisoned(device, n, 1, DType::F32);
            let mut rec = device.recorder();
            linear(&mut rec, &x, &w, activation, None, &out, n).unwrap();
            rec.submit().unwrap();
            for (x, y) in inputs.iter().zip(read_rows(device, &out, n, "activation")) {
                let want = twin::activate(activation, f64::from(*x));
                let error = (f64::from(y) - want).abs();
                assert!(error <= 2e-6 * want.abs().max(1.0), "{}: {activation:?}({x}) = {y}, not {want}", variant.name);
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let w = zeros(device, 6, 5, DType::F32, None);
    let (x, out) = (upload(device, 2, 5, &[0.0; 10]), poisoned(device, 2, 6, DType::F32));
    let mut rec = device.recorder();
    assert!(linear(&mut rec, &x, &w, Activation::None, None, &out, 3).is_err(), "more rows than there are");
    assert!(linear(&mut rec, &out, &w, Activation::None, None, &out, 2).is_err(), "wrong columns");
    assert!(linear(&mut rec, &x, &w, Activation::None, Some(&x), &out, 2).is_err(), "wrong residual");
    assert!(linear(&mut rec, &x, &w, Activation::None, Some(&out), &out, 2).is_err(), "residual is the output");
    assert!(linear_gated(&mut rec, &x, &w, Activation::None, &x, &out, 2).is_err(), "wrong gate");
    assert!(linear_gated(&mut rec, &x, &w, Activation::None, &out, &out, 2).is_err(), "the gate is the output");
    assert!(linear(&mut rec, &x, &w, Activation::None, None, &out, 0).is_ok(), "no rows, no work");
    assert_eq!(rec.dispatches(), 0);
    let arena = Arena::from(device);
    let biased = Linear::build(&arena, "w", 6, 5, WeightFormat::F32, Some(Vector::Values(&[0.0; 5])));
    assert!(biased.is_err(), "bias of another length");
    let short = Linear { bias: Some(upload(device, 1, 5, &[0.0; 5])), ..w.clone() };
    assert!(linear(&mut rec, &x, &short, Activation::None, None, &out, 2).is_err(), "a short bias");
    let write = |first: usize, values: &[f32]| w.weight.write_rows(&arena, first, values);
    assert!(write(5, &[0.0; 10]).is_err() && write(0, &[0.0; 7]).is_err());
    assert!(heads_expand(&mut rec, &out, &w.weight, 1, &out, 1).is_err(), "heads of 6 columns");
    assert!(heads_contract(&mut rec, Prologue::None, &out, &w, 1, &out, 1).is_err(), "heads of 6 columns");
    let counted = zeros_of(&Arena::counting(1 << 20), 8, 5);
    assert!(linear(&mut rec, &x, &counted, Activation::None, None, &poisoned(device, 2, 8, DType::F32), 2).is_err());
}

fn zeros_of(arena: &Arena, out: usize, input: usize) -> Linear {
    Linear::build(arena, "w", out, input, WeightFormat::F32, None).unwrap()
}

/// Windows end within heads, at heads, and a head lies in several.
#[test]
fn windows_do_not_change_a_bit_of_a_head() {
    // Few rows: those of all heads have to fit a binding.
    let (d, ld, rows) = (90, 92, 3);
    for (heads, width) in [(6, 200), (30, 40), (2, 800), (3, 352)] {
        let w = values(1, heads * width * d);
        let (q, bias) = (values(2, rows * heads * width), values(4, heads * width));
        let mut c = values(3, rows * heads * ld);
        c.chunks_mut(ld).for_each(|head| head[d..].fill(0.0));
        for format in FORMATS {
            let run = |device: &Device| {
                let weight = matrix(device, heads * width, d, format, &w);
                let windows = weight.window_count();
                let w = Linear { weight, bias: Some(upload(device, 1, heads * width, &bias)) };
                let (q, c) = (upload(device, rows, heads * width, &q), upload(device, rows, heads * ld, &c));
                let wide = poisoned(device, rows + 1, heads * ld, DType::F32);
                let narrow = poisoned(device, rows + 1, heads * width, DType::F32);
                let mut rec = device.recorder();
                heads_expand(&mut rec, &q, &w.weight, heads, &wide, rows).unwrap();
                heads_contract(&mut rec, Prologue::None, &c, &w, heads, &narrow, rows).unwrap();
                rec.submit().unwrap();
                (windows, read_rows(device, &wide, rows, "expand"), read_rows(device, &narrow, rows, "contract"))
            };
            let (windows, wide, narrow) = run(&devices()[0].device);
            assert_eq!(windows, 1);
            for variant in windowed_devices() {
                let what = format!("{heads} heads of {width}, {format}, {}", variant.name);
                let (windows, expanded, contracted) = run(&variant.device);
                assert!(windows > 1, "{what}: one window");
                assert_same_bits(&expanded, &wide, &what);
                assert_same_bits(&contracted, &narrow, &what);
            }
        }
    }
}
