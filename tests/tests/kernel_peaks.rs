//! `stream.wgsl` and `fma.wgsl`, which measure a device's peaks, against their twins: what they time is really done.

use elgen_tensor::DType;
use elgen_tensor::ops::{fma_rounds, stream};
use elgen_tests::harness::{assert_close, devices, poisoned, read_rows, stored, upload, values};
use elgen_tests::twin;

#[test]
fn a_stream_reads_every_element_once() {
    // Less than a workgroup, whole runs, and a last run that is short, empty or ends within a workgroup's stride.
    for (rows, cols, groups) in [(1, 4, 1), (3, 1000, 2), (8, 4096, 4), (5, 1028, 3), (2, 8, 9)] {
        let x = values(7, rows * cols);
        let want = twin::stream(&stored(&x, DType::F32), groups);
        for variant in devices() {
            let device = &variant.device;
            let (x, sums) = (upload(device, rows, cols, &x), poisoned(device, groups, 1024, DType::F32));
            let mut rec = device.recorder();
            stream(&mut rec, &x, &sums).unwrap();
            rec.submit().unwrap();
            let what = format!("{}: [{rows}, {cols}] in {groups} groups", variant.name);
            assert_close(&read_rows(device, &sums, groups, &what), &want, &what);
        }
    }
}

#[test]
fn every_round_is_computed() {
    for rounds in [0, 1, 7, 100] {
        let want = twin::fma_rounds(rounds, 0.96875, 0.25).repeat(2);
        for variant in devices() {
            let device = &variant.device;
            let results = poisoned(device, 3, 1024, DType::F32);
            let two = elgen_tensor::Tensor { rows: 2, ..results.clone() };
            let mut rec = device.recorder();
            fma_rounds(&mut rec, &two, rounds, 0.96875, 0.25).unwrap();
            rec.submit().unwrap();
            let what = format!("{}: {rounds} rounds", variant.name);
            assert_close(&read_rows(device, &results, 2, &what), &want, &what);
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let x = upload(device, 2, 8, &[0.0; 16]);
    assert!(stream(&mut device.recorder(), &x, &x).is_err());
    assert!(fma_rounds(&mut device.recorder(), &x, 1, 1.0, 1.0).is_err());
}
