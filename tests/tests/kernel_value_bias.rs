//! `value_bias.wgsl` against its twin: rows with and without keys, in any order.

use elgen_tensor::DType;
use elgen_tensor::ops::value_bias;
use elgen_tests::harness::{assert_close, devices, numbers, ranges, read_raw, stored, upload, values};
use elgen_tests::twin;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn value_bias_matches_its_twin(
        keys in prop::collection::vec(0..3u32, 1..=9), left_out in 0..2usize,
        cols in (1..=70usize).prop_map(|quads| 4 * quads), seed in any::<u64>(),
    ) {
        let n = keys.len();
        // Row i of `x` is physical row n - 1 - i; the last may lie behind the rows of the dispatch.
        let index: Vec<u32> = (0..n as u32).rev().collect();
        let rows = n - left_out.min(n - 1);
        let pairs: Vec<[u32; 2]> = (0..n).rev().map(|i| [7, keys[i]]).collect();
        let (x, bias) = (values(seed, n * cols), values(seed ^ 1, cols));
        let mut want = stored(&x, DType::F32);
        twin::value_bias(&mut want, &stored(&bias, DType::F32), &keys[..rows]);
        for variant in devices() {
            let device = &variant.device;
            let (on_device, bias) = (upload(device, n, cols, &x), upload(device, 1, cols, &bias));
            let (index, ranges) = (numbers(device, &index), ranges(device, &pairs));
            let mut rec = device.recorder();
            value_bias(&mut rec, index.view(), ranges.view(), &bias, &on_device, rows).unwrap();
            rec.submit().unwrap();
            assert_close(&read_raw(device, &on_device), &want, &variant.name);
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let (index, ranges) = (numbers(device, &[0, 1]), ranges(device, &[[0, 1], [0, 1]]));
    let (x, bias) = (upload(device, 4, 8, &[0.0; 32]), upload(device, 1, 8, &[0.0; 8]));
    let mut rec = device.recorder();
    assert!(value_bias(&mut rec, index.view(), ranges.view(), &bias, &x, 2).is_ok());
    assert!(value_bias(&mut rec, index.view(), ranges.view(), &bias, &x, 5).is_err(), "more rows than x has");
    let narrow = upload(device, 1, 4, &[0.0; 4]);
    assert!(value_bias(&mut rec, index.view(), ranges.view(), &narrow, &x, 2).is_err(), "a narrow bias");
}
