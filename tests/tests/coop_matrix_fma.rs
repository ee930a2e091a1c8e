//! `matrix_fma.wgsl`, which measures the rate of cooperative matrices, against its twin: what it times is really done.

use elgen_tensor::DType;
use elgen_tensor::ops::{MatrixLayout, matrix_rounds};
use elgen_tests::harness::{assert_close, coop_devices, devices, poisoned, read_raw, upload};
use elgen_tests::twin;

#[test]
fn coop_rounds_are_computed_by_every_subgroup() {
    for variant in coop_devices() {
        let device = &variant.device;
        let layout = MatrixLayout::of(device).unwrap();
        let (edge, groups) = (layout.edge as usize, 3);
        for rounds in [0, 1, 2, 50] {
            let results = poisoned(device, groups * layout.places, edge * edge, DType::F32);
            let mut rec = device.recorder();
            matrix_rounds(&mut rec, &results, rounds).unwrap();
            rec.submit().unwrap();
            let want = twin::matrix_rounds(edge, rounds);
            let raw = read_raw(device, &results);
            let mut computed = 0;
            for (place, row) in raw.chunks(edge * edge).enumerate() {
                if row.iter().all(|x| x.is_nan()) {
                    continue;
                }
                assert_close(row, &want, &format!("{}: {rounds} rounds, place {place}", variant.name));
                computed += 1;
            }
            assert!(computed >= groups * layout.subgroups, "{}: {computed} subgroups", variant.name);
        }
    }
}

#[test]
fn coop_devices_without_matrices_refuse() {
    let device = &devices()[0].device;
    let x = upload(device, 2, 8, &[0.0; 16]);
    assert!(matrix_rounds(&mut device.recorder(), &x, 1).is_err());
}
