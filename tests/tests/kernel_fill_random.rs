//! `fill_random.wgsl` against its twin and against its host function: exact bits, whatever the dtype, the window and the orientation.

use elgen_tensor::ops::RandomMatrix;
use elgen_tensor::{Device, Matrix, WeightFormat, padded};
use elgen_tests::harness::{devices, windowed_devices};
use elgen_tests::twin;
use proptest::prelude::*;

/// All elements of a matrix, pads too, in f64.
fn held(device: &Device, matrix: &Matrix) -> Vec<f64> {
    // Rows behind the last one are those that make its window's number of rows a multiple of 4.
    let bytes = matrix.read_windows(device).unwrap().concat();
    let all: Vec<f64> = match matrix.format() {
        WeightFormat::F16 => bytemuck::pod_collect_to_vec::<u8, half::f16>(&bytes).into_iter().map(f64::from).collect(),
        _ => bytemuck::pod_collect_to_vec::<u8, f32>(&bytes).into_iter().map(f64::from).collect(),
    };
    all[..matrix.rows() * padded(matrix.cols())].to_vec()
}

fn zeros(device: &Device, rows: usize, cols: usize, format: WeightFormat) -> Matrix {
    Matrix::build(&device.into(), "random", rows, cols, format).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fill_random_matches_its_twin(
        rows in 1..=40usize, cols in 1..=300usize, key in any::<u64>(), exponent in -14..=0i32,
        begin in (0..=3usize, 0..=3usize), from in (0..=1000usize, 0..=1000usize),
        half in any::<bool>(), transposed in any::<bool>(),
    ) {
        let format = if half { WeightFormat::F16 } else { WeightFormat::F32 };
        let step = 2f64.powi(exponent - 10);
        // A uniform distribution's bound is sqrt(3) deviations.
        let plain = RandomMatrix::new(key, 2f64.powi(exponent) / 3f64.sqrt());
        let random = if transposed { plain.transpose().offset(from.1, from.0) } else { plain.offset(from.0, from.1) };
        let (first_row, first_col) = (begin.0.min(rows - 1), (4 * begin.1).min((cols - 1) / 4 * 4));
        let ld = padded(cols);
        let mut want = vec![0.0; rows * ld];
        twin::fill_random(&mut want, ld, first_row..rows, first_col..cols, key, step, from, transposed);
        for variant in devices() {
            let matrix = zeros(&variant.device, rows, cols, format);
            matrix.fill_random(&variant.device, first_row..rows, first_col..cols, &random).unwrap();
            prop_assert_eq!(&held(&variant.device, &matrix), &want, "{}", variant.name);
        }
        for r in first_row..rows {
            for c in first_col..cols {
                let value = random.value(r - first_row, c - first_col);
                prop_assert_eq!(f64::from(value), want[r * ld + c], "host, row {} column {}", r, c);
                prop_assert!(value.abs() <= random.bound());
            }
        }
    }
}

#[test]
fn windows_do_not_show() {
    let (rows, cols) = (700, 90);
    let random = RandomMatrix::new(7, 0.05).offset(3, 5);
    let mut want = vec![0.0; rows * padded(cols)];
    let step = f64::from(random.bound()) / 1023.0;
    twin::fill_random(&mut want, padded(cols), 2..rows, 4..cols, 7, step, (3, 5), false);
    for variant in windowed_devices() {
        let matrix = zeros(&variant.device, rows, cols, WeightFormat::F32);
        assert!(matrix.window_count() > 2);
        matrix.fill_random(&variant.device, 2..rows, 4..cols, &random).unwrap();
        assert!(held(&variant.device, &matrix) == want, "{}", variant.name);
    }
}

/// A grid holds 65,535 rows: a taller rectangle takes several dispatches.
#[test]
fn tall_rectangles_are_filled_to_the_end() {
    let (rows, cols) = (66_000, 4);
    let random = RandomMatrix::new(3, 0.05);
    let mut want = vec![0.0; rows * cols];
    twin::fill_random(&mut want, cols, 1..rows, 0..cols, 3, f64::from(random.bound()) / 1023.0, (0, 0), false);
    let device = &devices()[0].device;
    let matrix = zeros(device, rows, cols, WeightFormat::F32);
    matrix.fill_random(device, 1..rows, 0..cols, &random).unwrap();
    assert!(held(device, &matrix) == want);
}

#[test]
fn numbers_are_spread() {
    let random = RandomMatrix::new(11, 0.02);
    let values: Vec<f64> =
        (0..200).flat_map(|r| (0..200).map(move |c| (r, c))).map(|(r, c)| f64::from(random.value(r, c))).collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    assert!((0.014..0.029).contains(&deviation), "{deviation}");
    assert!(mean.abs() < 4.0 * deviation / n.sqrt(), "{mean}");
    // Neighbours in a row and in a column do not go together.
    for stride in [1, 200] {
        let together: f64 = values.iter().zip(&values[stride..]).map(|(a, b)| a * b).sum();
        assert!(together.abs() < 5.0 * deviation.powi(2) * n.sqrt(), "{together}");
    }
}

#[test]
fn rectangles_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let matrix = zeros(device, 8, 8, WeightFormat::F32);
    let random = RandomMatrix::new(1, 0.1);
    assert!(matrix.fill_random(device, 0..8, 0..8, &random).is_ok());
    assert!(matrix.fill_random(device, 0..8, 2..8, &random).is_err(), "inside a quad");
    assert!(matrix.fill_random(device, 0..8, 4..12, &random).is_err(), "columns");
    assert!(matrix.fill_random(device, 0..9, 0..8, &random).is_err(), "rows");
    assert!(matrix.fill_random(device, 0..8, 0..8, &random.offset(u32::MAX as usize, 0)).is_err(), "numbers");
}
