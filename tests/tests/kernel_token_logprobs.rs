//! `token_logprobs.wgsl` against its twin.

use elgen_tensor::ops::{TokenScore, token_logprobs};
use elgen_tensor::{Class, DType};
use elgen_tests::harness::{devices, numbers, stored, upload, values};
use elgen_tests::twin;
use proptest::prelude::*;

fn check(rows: usize, vocab: usize, spread: f32, shift: f32, seed: u64) -> Result<(), TestCaseError> {
    let logits: Vec<f32> = values(seed, rows * vocab).into_iter().map(|v| v * spread + shift).collect();
    let ids: Vec<u32> = (0..rows).map(|r| (seed.wrapping_mul(r as u64 + 1) % vocab as u64) as u32).collect();
    let want = twin::token_logprobs(&stored(&logits, DType::F32), vocab, &ids);
    for variant in devices() {
        let device = &variant.device;
        let (x, id_buffer) = (upload(device, rows, vocab, &logits), numbers(device, &ids));
        let scores = device.alloc("scores", Class::Activations, (rows as u64 + 1) * 12).unwrap();
        device.write(&scores, 0, &vec![0xff; scores.bytes() as usize]).unwrap();
        let mut rec = device.recorder();
        token_logprobs(&mut rec, &x, id_buffer.view(), &scores, rows).unwrap();
        rec.submit().unwrap();
        let bytes = device.read(&scores, (rows as u64 + 1) * 12).unwrap();
        let got: Vec<TokenScore> = bytemuck::pod_collect_to_vec(&bytes);
        for (r, (g, w)) in got.iter().zip(&want).enumerate() {
            let near = |a: f32, b: f64| (f64::from(a) - b).abs() <= 1e-4 * b.abs().max(1.0);
            let same = near(g.logprob, w.0) && g.top_id == w.1 && near(g.top_logprob, w.2);
            prop_assert!(same, "{}, row {r} of [{rows}, {vocab}]: {g:?}, wanted {w:?}", variant.name);
        }
        prop_assert!(got[rows].logprob.is_nan(), "{}: a row behind the last was written", variant.name);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn token_logprobs_match_their_twin(
        rows in 1..=20usize,
        vocab in prop_oneof![Just(1usize), Just(3), Just(1023), 1..=3000usize],
        spread in prop_oneof![Just(1.0f32), Just(20.0)],
        shift in prop_oneof![Just(0.0f32), Just(-60.0), Just(60.0)],
        seed in any::<u64>(),
    ) {
        check(rows, vocab, spread, shift, seed)?;
    }
}

#[test]
fn the_first_of_equal_logits_is_the_top() {
    for vocab in [2, 5, 700, 2049] {
        check(3, vocab, 0.0, 1.5, 11).unwrap();
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let device = &devices()[0].device;
    let (x, ids) = (upload(device, 2, 5, &[0.0; 10]), numbers(device, &[0; 8]));
    let scores = device.alloc("scores", Class::Activations, 128).unwrap();
    let try_rows = |rows: usize| token_logprobs(&mut device.recorder(), &x, ids.view(), &scores, rows);
    assert!(try_rows(2).is_ok());
    assert!(try_rows(3).is_err());
    let small = device.alloc("scores", Class::Activations, 16).unwrap();
    assert!(token_logprobs(&mut device.recorder(), &x, ids.view(), &small, 2).is_err());
}
