//! Beam sampling on the device against its CPU twin.

use elgen_search::{EarlyStopping, GenerationOptions, Mode, twin};

#[path = "support/mod.rs"]
mod support;
use support::{Dice, Kind, Model, Runner, assert_same, by_twin, compare, open, resolve};

/// Makes random options draw their beams.
fn beam_sampling(dice: &mut Dice, options: &mut GenerationOptions, vocab: &mut usize) {
    let num_beams = 2 + dice.below(4);
    options.do_sample = Some(true);
    options.num_beams = Some(num_beams);
    options.num_return_sequences = Some(1 + dice.below(num_beams));
    options.early_stopping = Some(dice.pick(&[EarlyStopping::False, EarlyStopping::True, EarlyStopping::Never]));
    options.length_penalty = Some(dice.pick(&[1.0, 0.0, 2.0]));
    options.temperature = Some(dice.pick(&[1.0, 0.7, 1.7]));
    options.top_k = Some(dice.pick(&[0, 1, 5, 50]));
    options.top_p = Some(dice.pick(&[1.0, 0.9, 0.5, 0.0]));
    options.seed = Some(dice.below(usize::MAX) as u64 * 0x1_0000_0001);
    if dice.chance(10) {
        *vocab = dice.pick(&[1023, 2048, 3001]);
    }
}

#[test]
fn draws_the_candidates_of_the_twin() {
    compare(&open(true, false), 100, 30, &beam_sampling, Kind::Plain);
}

#[test]
fn on_a_portable_device() {
    compare(&open(true, true), 200, 20, &beam_sampling, Kind::Plain);
}

#[test]
fn as_released() {
    compare(&open(false, false), 300, 20, &beam_sampling, Kind::Plain);
}

/// Some seed draws candidates whose scores are not in order, so that rank is not the score's.
#[test]
fn a_draw_is_not_a_ranking() {
    let options = |do_sample, seed| GenerationOptions {
        do_sample: Some(do_sample),
        num_beams: Some(3),
        num_return_sequences: Some(3),
        max_new_tokens: Some(8),
        eos_token_id: Some(3.into()),
        top_k: Some(0),
        seed: Some(seed),
        ..GenerationOptions::default()
    };
    let model = Model { toy: twin::ToyModel { vocab: 40, seed: 2 }, kind: Kind::Plain };
    let drawn = resolve(options(true, 1), 40);
    assert_eq!((drawn.mode, drawn.min_tokens_to_keep()), (Mode::BeamSample, 2));
    let best = by_twin(&resolve(options(false, 1), 40), model, 0, &[1]);
    let mut seen = Vec::new();
    let device = open(false, false);
    for seed in 0..6 {
        let config = resolve(options(true, seed), 40);
        let found = Runner::new(&device, &config, model, 1, 9).run(&[(0, vec![1])], &mut Dice(0), 0).remove(0);
        assert_same(&found, &by_twin(&config, model, 0, &[1]), &format!("seed {seed}"));
        assert_ne!(found, best);
        seen.push(found[0].token_ids.clone());
    }
    seen.sort();
    seen.dedup();
    assert!(seen.len() > 3, "{seen:?}");
}

/// A sentence's draws are its own, whatever the batch and its order.
#[test]
fn results_do_not_depend_on_the_batch() {
    let device = open(false, false);
    let options = GenerationOptions {
        do_sample: Some(true),
        num_beams: Some(3),
        max_new_tokens: Some(9),
        eos_token_id: Some(3.into()),
        seed: Some(11),
        ..Default::default()
    };
    let config = resolve(options, 300);
    let model = Model { toy: twin::ToyModel { vocab: 300, seed: 5 }, kind: Kind::Plain };
    let prompts: Vec<(u64, Vec<u32>)> = (0..5).map(|i| (i, vec![7; 1 + i as usize % 2])).collect();
    let mut runner = Runner::new(&device, &config, model, 5, 12);
    let all = runner.run(&prompts, &mut Dice(1), 30);
    assert_ne!(all[0], all[2], "equal prompts, other draws");
    let reversed: Vec<_> = prompts.iter().rev().cloned().collect();
    let mut backwards = runner.run(&reversed, &mut Dice(2), 0);
    backwards.reverse();
    assert_eq!(all, backwards);
}
