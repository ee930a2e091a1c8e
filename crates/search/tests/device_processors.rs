//! The processors and warpers of few checkpoints on the device against the twin: whole searches, and single rows of scores.

mod support;

use elgen_search::{ExponentialDecay, GenerationConfig, GenerationOptions, Mode, twin};
use elgen_tensor::Device;
use support::*;

#[test]
fn greedy_and_beam_search_on_a_checked_device() {
    compare(&open(true, false), 20_000, 40, &further_processors, Kind::Plain);
}

#[test]
fn greedy_and_beam_search_on_a_portable_device() {
    compare(&open(true, true), 21_000, 25, &further_processors, Kind::Plain);
}

#[test]
fn few_finite_logits() {
    compare(&open(false, false), 22_000, 25, &further_processors, Kind::Sparse);
}

#[test]
fn sampling_draws_the_tokens_of_the_twin() {
    let sampling = |dice: &mut Dice, options: &mut GenerationOptions, vocab: &mut usize| {
        further_processors(dice, options, vocab);
        warpers(dice, options);
        options.num_beams = None;
        options.early_stopping = None;
        options.length_penalty = None;
        options.num_return_sequences = Some(1 + dice.below(3));
        options.seed = Some(dice.below(1 << 20) as u64);
        if dice.chance(10) {
            *vocab = dice.pick(&[1023, 2048, 3001]);
        }
    };
    compare(&open(true, false), 23_000, 40, &sampling, Kind::Plain);
    compare(&open(false, true), 24_500, 20, &sampling, Kind::Sparse);
}

/// One row, warped on the device and by the twin.
fn assert_same_warping(device: &Device, config: &GenerationConfig, logits: &[f32], what: &str) {
    let mut expected = logits.to_vec();
    let (made, _) = one_step(device, config, &[0], logits);
    if config.num_beams > 1 {
        twin::processors::log_softmax(&mut expected);
    }
    twin::processors::warp(config, config.min_tokens_to_keep(), &mut expected);
    for (id, (a, b)) in made.iter().zip(&expected).enumerate() {
        assert!(close(*a, *b), "{what} {config:?}: id {id} has {a} for {b}");
    }
}

#[test]
fn warpers_keep_the_support_of_the_twin() {
    for device in [open(true, false), open(true, true)] {
        let mut dice = Dice(4711);
        for case in 0..60 {
            let vocab = dice.pick(&[1, 2, 5, 31, 64, 99, 100, 101, 500, 1025, 2999]);
            let mut options = GenerationOptions { max_new_tokens: Some(1), ..GenerationOptions::default() };
            warpers(&mut dice, &mut options);
            let mut config = resolve(options, vocab);
            if dice.chance(50) && vocab > 2 {
                // Beam sampling with one or two EOS ids.
                config.mode = Mode::BeamSample;
                config.num_beams = 2;
                config.eos_token_id = vec![0; 1 + dice.below(2)];
            }
            let kind = dice.pick(&[Kind::Plain, Kind::Plain, Kind::Sparse, Kind::Rounded]);
            let mut logits = Model { toy: twin::ToyModel { vocab, seed: 70 + case }, kind }.logits(&[1]);
            logits[dice.below(vocab)] = dice.pick(&[4.5, 9.0]);
            assert_same_warping(&device, &config, &logits, &format!("case {case}, {kind:?}"));
        }
    }
}

/// A row of -inf, as forcing a suppressed token leaves it, has nothing to lose and makes no NaN.
#[test]
fn rows_without_a_finite_score_stay() {
    let device = open(true, false);
    let mut dice = Dice(5);
    for _ in 0..20 {
        let mut options = GenerationOptions { max_new_tokens: Some(1), ..GenerationOptions::default() };
        warpers(&mut dice, &mut options);
        options.renormalize_logits = Some(dice.chance(50));
        let (made, _) = one_step(&device, &resolve(options, 37), &[0], &[f32::NEG_INFINITY; 37]);
        assert!(made.iter().all(|score| *score == f32::NEG_INFINITY), "{made:?}");
    }
}

/// The processors alone, on sources and prompts longer than a workgroup as well as on very short ones.
#[test]
fn processors_edit_the_scores_of_the_twin() {
    for device in [open(true, false), open(true, true)] {
        let mut dice = Dice(1234);
        for case in 0..60 {
            let mut vocab = dice.pick(&[5, 9, 40, 700]);
            let mut options = options(&mut dice, vocab, 1);
            further_processors(&mut dice, &mut options, &mut vocab);
            options.max_new_tokens = Some(1);
            if dice.chance(70) {
                options.forced_eos_token_id = None;
            }
            let limits = elgen_search::ModelLimits {
                vocab_size: vocab,
                max_position_embeddings: None,
                is_encoder_decoder: false,
            };
            let Ok((config, _)) = options.resolve(&limits) else { continue };
            let (count, length) = (dice.pick(&[1, 2, 7, 255, 257, 600]), dice.pick(&[1, 2, 5, 300]));
            let (source, prompt) = (dice.ids(count, vocab), dice.ids(length, vocab));
            let mut logits = twin::ToyModel { vocab, seed: 900 + case }.logits(&prompt);
            if config.remove_invalid_values {
                logits[dice.below(vocab)] = dice.pick(&[f32::NAN, -f32::NAN]);
                logits[dice.below(vocab)] = f32::INFINITY;
                logits[dice.below(vocab)] = f32::NEG_INFINITY;
            }
            let (made, _) = one_step_from(&device, &config, &source, &prompt, &logits);
            let lengths = config.lengths(length).unwrap();
            twin::processors::process(&config, lengths, &view(&prompt, &source), &mut logits);
            twin::processors::renormalize(&config, &mut logits);
            for (id, (a, b)) in made.iter().zip(&logits).enumerate() {
                assert!(close(*a, *b), "case {case}, {count} ids, {length} ids, {options:?}: id {id} has {a} for {b}");
            }
        }
    }
}

/// The score of EOS rises step by step, and not where it is banned.
#[test]
fn the_decay_counts_new_tokens() {
    let decay = ExponentialDecay { start: 2.0, factor: 1.5 };
    let options = GenerationOptions {
        exponential_decay_length_penalty: Some(decay),
        eos_token_id: Some(3.into()),
        max_new_tokens: Some(12),
        ..GenerationOptions::default()
    };
    let config = resolve(options, 50);
    let model = Model { toy: twin::ToyModel { vocab: 50, seed: 8 }, kind: Kind::Plain };
    let mut runner = Runner::new(&open(true, false), &config, model, 3, 18);
    let prompts: Vec<(u64, Vec<u32>)> = (1..4).map(|length| (length as u64, vec![7; length])).collect();
    let found = runner.run(&prompts, &mut Dice(1), 50);
    let mut lengths = Vec::new();
    for ((ordinal, prompt), found) in prompts.iter().zip(found) {
        assert_same(&found, &by_twin(&config, model, *ordinal, prompt), "decay");
        lengths.push(found[0].token_ids.len());
    }
    assert!(lengths.iter().any(|length| *length < 12), "the decay ended nothing: {lengths:?}");
}

/// The buffer of sources grows with a longer batch and serves a shorter one.
#[test]
fn sources_of_batches_of_any_length() {
    let options = GenerationOptions {
        encoder_repetition_penalty: Some(2.5),
        encoder_no_repeat_ngram_size: Some(2),
        max_new_tokens: Some(6),
        num_beams: Some(2),
        ..GenerationOptions::default()
    };
    let config = resolve(options, 40);
    let model = Model { toy: twin::ToyModel { vocab: 40, seed: 3 }, kind: Kind::Plain };
    let mut runner = Runner::new(&open(true, false), &config, model, 3, 80);
    let mut dice = Dice(9);
    for length in [2, 70, 5, 33] {
        let prompts: Vec<(u64, Vec<u32>)> = (0..3).map(|i| (i, dice.ids(length + i as usize, 40))).collect();
        for ((ordinal, prompt), found) in prompts.iter().zip(runner.run(&prompts, &mut Dice(2), 0)) {
            assert_same(&found, &by_twin(&config, model, *ordinal, prompt), &format!("sources of {length} ids"));
        }
    }
}

/// What Hugging Face's warpers leave, recorded by `tools/make_option_fixtures.py`.
#[test]
fn warpers_agree_with_hugging_face() {
    let text = include_str!("../../../tests/fixtures/option_warpers.json");
    let read: serde_json::Value = serde_json::from_str(text).unwrap();
    let device = open(true, false);
    for (number, case) in read["cases"].as_array().unwrap().iter().enumerate() {
        let logits: Vec<f32> = case["logits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|logit| logit.as_f64().map_or(f32::NEG_INFINITY, |logit| logit as f32))
            .collect();
        let mut options = GenerationOptions::from_json(case.as_object().unwrap()).unwrap();
        options.do_sample = Some(true);
        options.max_new_tokens = Some(1);
        let mut config = resolve(options, logits.len());
        if case["keep"] == 3 {
            config.mode = Mode::BeamSample;
            config.num_beams = 2;
            config.eos_token_id = vec![0, 1];
        }
        assert_eq!(case["keep"], config.min_tokens_to_keep());
        let (made, _) = one_step(&device, &config, &[0], &logits);
        let kept: Vec<usize> = (0..logits.len()).filter(|&id| made[id].is_finite()).collect();
        assert_eq!(serde_json::json!(kept), case["kept"], "case {number}");
    }
}
