//! Diverse beam search against Hugging Face 4.55 (`diverse.json`); sampling and beam sampling with known noise against 5.23
//! (`sampling.json`). Ids equal, scores within tolerance.

use std::sync::Arc;

use elgen_engine::AttentionChoice;
use elgen_search::Hooks;
use elgen_search::hooks::NoiseSource;
use elgen_tests::recorded::{compare, compare_chosen};

#[test]
fn diverse_beams_mha() {
    compare("", "diverse.json", AttentionChoice::MHA, 400);
}

#[test]
fn diverse_beams_el() {
    compare("", "diverse.json", AttentionChoice::EL, 400);
}

/// The noise of `tools/make_sampling_fixtures.py`: −ln(u), u in (0, 1) a hash of input, row, step and token.
#[derive(Debug)]
struct KnownNoise;

fn splitmix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl NoiseSource for KnownNoise {
    fn exponential(&self, ordinal: u64, row: usize, step: usize, out: &mut [f32]) {
        let place = splitmix(ordinal * 1_000_003 + row as u64 * 1009 + step as u64);
        for (token, e) in out.iter_mut().enumerate() {
            let bits = splitmix(place.wrapping_add(token as u64)) >> 40;
            *e = -((bits as f64 + 0.5) / f64::from(1 << 24)).ln() as f32;
        }
    }
}

fn sampling(attention: AttentionChoice) {
    let hooks = Hooks { noise: Some(Arc::new(KnownNoise)), ..Hooks::default() };
    for drawn_beams in [false, true] {
        let choose = |options: &elgen_search::GenerationOptions| (options.num_beams.unwrap_or(1) > 1) == drawn_beams;
        compare_chosen("", "sampling.json", attention, &hooks, choose, 190);
    }
}

#[test]
fn known_noise_mha() {
    sampling(AttentionChoice::MHA);
}

#[test]
fn known_noise_el() {
    sampling(AttentionChoice::EL);
}
