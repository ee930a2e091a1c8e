//! `layer_norm.wgsl` against its twins, with and without a mean.

use elgen_tensor::DType;
use elgen_tensor::ops::{Norm, layer_norm, layer_norm_tiled};
use elgen_tests::harness::{assert_same_bits, compare_within, devices, poisoned, read_rows, stored, upload, values};
use elgen_tests::twin;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layer_norm_matches_its_twin(
        rows in 1..=20usize,
        cols in prop_oneof![Just(1usize), Just(3), Just(1024), 1..=600usize],
        shift in prop_oneof![Just(0.0f32), Just(30.0)],
        seed in any::<u64>(),
    ) {
        let x: Vec<f32> = values(seed, rows * cols).into_iter().map(|v| v + shift).collect();
        let (weight, bias) = (values(seed ^ 1, cols), values(seed ^ 2, cols));
        let wide = |v: &[f32]| stored(v, DType::F32);
        let want = twin::layer_norm(&wide(&x), &wide(&weight), &wide(&bias), 1e-5);
        // An f32 mean near 30 is off by 1e-6, which a narrow row's small deviation magnifies; a one-pass variance would be off by 1e-2.
        let tolerance = if shift == 0.0 { 1e-4 } else { 1e-3 };
        let mut by_features: [Option<Vec<f32>>; 2] = [None, None];
        for (i, variant) in devices().iter().enumerate() {
            let device = &variant.device;
            let norm = Norm::layer_norm(&device.into(), "norm", &weight, &bias, 1e-5).unwrap();
            let x = upload(device, rows, cols, &x);
            let out = poisoned(device, rows + 1, cols, DType::F32);
            let mut rec = device.recorder();
            layer_norm(&mut rec, &x, &norm, &out, rows).unwrap();
            rec.submit().unwrap();
            let got = read_rows(device, &out, rows, &variant.name);
            if let Err(message) = compare_within(&got, &want, tolerance) {
                prop_assert!(false, "{}: {message}", variant.name);
            }
            // Checks must not change a bit; the subgroup twin may.
            match &by_features[i % 2] {
                Some(first) => assert_same_bits(&got, first, &variant.name),
                slot => { let _ = slot; by_features[i % 2] = Some(got); }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rms_norm_matches_its_twin(
        rows in 1..=20usize,
        cols in prop_oneof![Just(1usize), Just(3), Just(1024), 1..=600usize],
        shift in prop_oneof![Just(0.0f32), Just(30.0)],
        factor in prop_oneof![Just(1.0f32), Just(1e-3)],
        seed in any::<u64>(),
    ) {
        let x: Vec<f32> = values(seed, rows * cols).into_iter().map(|v| v * factor + shift).collect();
        let weight = values(seed ^ 1, cols);
        let want = twin::rms_norm(&stored(&x, DType::F32), &stored(&weight, DType::F32), 1e-6);
        let mut by_features: [Option<Vec<f32>>; 2] = [None, None];
        for (i, variant) in devices().iter().enumerate() {
            let device = &variant.device;
            let norm = Norm::rms(&device.into(), "norm", &weight, 1e-6).unwrap();
            // Columns behind the norm's are none of its business.
            let wide: Vec<f32> = x.chunks(cols).flat_map(|row| row.iter().copied().chain([7.0; 5])).collect();
            let x = upload(device, rows, cols + 5, &wide);
            let out = poisoned(device, rows + 1, cols, DType::F32);
            let mut rec = device.recorder();
            layer_norm(&mut rec, &x, &norm, &out, rows).unwrap();
            rec.submit().unwrap();
            let got = read_rows(device, &out, rows, &variant.name);
            if let Err(message) = compare_within(&got, &want, 1e-5) {
                prop_assert!(false, "{}: {message}", variant.name);
            }
            match &by_features[i % 2] {
                Some(first) => assert_same_bits(&got, first, &variant.name),
                slot => { let _ = slot; by_features[i % 2] = Some(got); }
            }
        }
    }
}

/// Hardware adapters take 128 invocations, software ones 8: every width on every adapter.
#[test]
fn any_workgroup_width_matches_the_twin() {
    for (rows, cols) in [(1, 1), (3, 37), (2, 1024)] {
        let (x, weight, bias) = (values(7, rows * cols), values(8, cols), values(9, cols));
        let wide = |v: &[f32]| stored(v, DType::F32);
        let want = twin::layer_norm(&wide(&x), &wide(&weight), &wide(&bias), 1e-5);
        let want_rms = twin::rms_norm(&wide(&x), &wide(&weight), 1e-6);
        for variant in devices() {
            let device = &variant.device;
            let norm = Norm::layer_norm(&device.into(), "norm", &weight, &bias, 1e-5).unwrap();
            let rms = Norm::rms(&device.into(), "norm", &weight, 1e-6).unwrap();
            let x = upload(device, rows, cols, &x);
            for width in [8, 32, 64, 128, 256] {
                let out = poisoned(device, rows + 1, cols, DType::F32);
                let mut rec = device.recorder();
                layer_norm_tiled(&mut rec, &x, &norm, &out, rows, width).unwrap();
                rec.submit().unwrap();
                let got = read_rows(device, &out, rows, &variant.name);
                compare_within(&got, &want, 1e-4)
                    .unwrap_or_else(|e| panic!("{}, width {width}, [{rows}, {cols}]: {e}", variant.name));
                let out = poisoned(device, rows + 1, cols, DType::F32);
                let mut rec = device.recorder();
                layer_norm_tiled(&mut rec, &x, &rms, &out, rows, width).unwrap();
                rec.submit().unwrap();
                let got = read_rows(device, &out, rows, &variant.name);
                compare_within(&got, &want_rms, 1e-5)
                    .unwrap_or_else(|e| panic!("{}, RMS, width {width}, [{rows}, {cols}]: {e}", variant.name));
            }
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let norm = Norm::layer_norm(&device.into(), "norm", &[1.0; 5], &[0.0; 5], 1e-5).unwrap();
    let (x, out) = (upload(device, 1, 4, &[0.0; 4]), poisoned(device, 1, 6, DType::F32));
    assert!(layer_norm(&mut device.recorder(), &x, &norm, &out, 1).is_err());
    assert!(Norm::layer_norm(&device.into(), "norm", &[1.0; 5], &[0.0; 4], 1e-5).is_err());
    let norm = Norm::rms(&device.into(), "norm", &[1.0; 5], 1e-6).unwrap();
    assert!(layer_norm(&mut device.recorder(), &x, &norm, &out, 1).is_err());
    let x = upload(device, 1, 5, &[0.0; 5]);
    assert!(layer_norm(&mut device.recorder(), &x, &norm, &out, 1).is_ok());
}
