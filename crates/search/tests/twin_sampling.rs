//! Random numbers, draws and sampled sequences.

use elgen_search::twin::random::{Stream, draw, exponential, philox4x32, words};
use elgen_search::twin::{self, ToyModel};
use elgen_search::{GenerationConfig, GenerationOptions, Hypothesis, ModelLimits};
use serde_json::{Value, json};

const MODEL: ToyModel = ToyModel { vocab: 23, seed: 4 };

fn config(json: Value) -> GenerationConfig {
    let limits = ModelLimits { vocab_size: MODEL.vocab, max_position_embeddings: None, is_encoder_decoder: false };
    serde_json::from_value::<GenerationOptions>(json).unwrap().resolve(&limits).unwrap().0
}

fn generate(json: Value, ordinal: u64) -> Vec<Hypothesis> {
    let config = config(json);
    let lengths = config.lengths(1).unwrap();
    twin::generate(&config, lengths, &[1], ordinal, &mut |rows| {
        rows.iter().map(|row| MODEL.logits(row.tokens)).collect()
    })
    .unwrap()
}

/// The known answers of Random123 (`kat_vectors`, philox4x32 10).
#[test]
fn philox_gives_the_known_answers() {
    assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox4x32([!0; 4], [!0; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    let expected = [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1];
    assert_eq!(philox4x32(counter, [0xa409_3822, 0x299f_31d0]), expected);
}

#[test]
fn the_counter_holds_every_coordinate() {
    let stream = Stream { seed: 0x0102_0304_0506_0708, ordinal: 0xAABB_1122_3344, sequence: 9 };
    assert_eq!(words(stream, 5, 3), philox4x32([3, 5, 0x1122_3344, 0x0009_AABB], [0x0506_0708, 0x0102_0304]));
}

#[test]
fn exponentials_are_accurate_at_both_ends() {
    for word in [0, 1, 2, 1000, (1 << 24) + 256, 1 << 30, (1 << 31) - 256, 1 << 31, 3 << 30, u32::MAX - 255, u32::MAX] {
        let expected = -(-f64::from(word.max(1)) / 4_294_967_296.0).ln_1p();
        let found = f64::from(exponential(word));
        assert!((found - expected).abs() <= 4e-7 * expected, "{word}: {found}, expected {expected}");
    }
}

#[test]
fn exponentials_have_mean_and_variance_one() {
    let stream = Stream { seed: 1, ordinal: 2, sequence: 3 };
    let values: Vec<f64> =
        (0..50_000).flat_map(|quad| words(stream, 0, quad)).map(|word| f64::from(exponential(word))).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
    assert!((mean - 1.0).abs() < 0.01 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
}

/// Chi-squared with 7 degrees of freedom: above 24.3 once in a thousand seeds.
#[test]
fn draws_have_the_frequencies_of_the_softmax() {
    let weights = [0.4_f64, 0.25, 0.15, 0.1, 0.05, 0.03, 0.015, 0.005];
    let mut scores: Vec<f32> = weights.iter().map(|weight| weight.ln() as f32 + 7.0).collect();
    scores.insert(3, f32::NEG_INFINITY);
    let draws = 20_000;
    let mut counts = [0_u32; 9];
    for number in 0..draws {
        let stream = Stream { seed: 99, ordinal: u64::from(number % 100), sequence: number / 1000 };
        counts[draw(&scores, stream, number / 100 % 10)] += 1;
    }
    assert_eq!(counts[3], 0);
    let counts = [&counts[..3], &counts[4..]].concat();
    let chi: f64 = counts
        .iter()
        .zip(weights)
        .map(|(&count, weight)| (f64::from(count) - weight * f64::from(draws)).powi(2) / (weight * f64::from(draws)))
        .sum();
    assert!(chi < 24.3, "{chi} {counts:?}");
}

#[test]
fn top_k_of_one_is_greedy() {
    let greedy = generate(json!({"max_length": 12, "eos_token_id": 3}), 0);
    let sampled = generate(json!({"max_length": 12, "eos_token_id": 3, "do_sample": true, "top_k": 1, "seed": 5}), 8);
    assert_eq!(greedy[0].token_ids, sampled[0].token_ids);
}

#[test]
fn a_sample_depends_on_its_own_coordinates_only() {
    let three = json!({"max_length": 30, "do_sample": true, "num_return_sequences": 3, "seed": 5});
    let one = json!({"max_length": 30, "do_sample": true, "seed": 5});
    let found = generate(three.clone(), 7);
    assert_eq!(found, generate(three, 7));
    assert_eq!(found[0], generate(one.clone(), 7)[0]);
    assert_ne!(found[0], found[1]);
    assert_ne!(found[1], found[2]);
    assert_ne!(found[0], generate(one, 8)[0]);
    assert_ne!(found[0], generate(json!({"max_length": 30, "do_sample": true, "seed": 6}), 7)[0]);
}
