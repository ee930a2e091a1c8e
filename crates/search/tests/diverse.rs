//! Diverse beam search: what it promises on the CPU twin, and the device against the twin.

use elgen_search::{EarlyStopping, FinishReason, GenerationOptions, Mode, OptionProblem, twin};

#[path = "support/mod.rs"]
mod support;
use support::*;

/// Parts the beams of random options into groups.
fn groups(dice: &mut Dice, options: &mut GenerationOptions, vocab: &mut usize) {
    let (groups, size) = (2 + dice.below(3), 1 + dice.below(3));
    options.num_beams = Some(groups * size);
    options.num_beam_groups = Some(groups);
    options.diversity_penalty = Some(dice.pick(&[0.2, 0.5, 1.0, 3.0, 100.0]));
    options.num_return_sequences = Some(1 + dice.below(groups * size));
    options.early_stopping = Some(dice.pick(&[EarlyStopping::False, EarlyStopping::True, EarlyStopping::Never]));
    options.length_penalty = Some(dice.pick(&[1.0, 0.0, 2.0, -1.0]));
    if dice.chance(10) {
        *vocab = dice.pick(&[2047, 2048, 3001]);
    }
    if dice.chance(40) {
        further_processors(dice, options, vocab);
    }
}

#[test]
fn the_device_finds_what_the_twin_finds() {
    compare(&open(true, false), 400, 40, &groups, Kind::Plain);
}

#[test]
fn on_a_portable_device() {
    compare(&open(false, true), 500, 20, &groups, Kind::Plain);
}

fn asked(num_beams: usize, groups: usize, penalty: f64) -> GenerationOptions {
    GenerationOptions {
        num_beams: Some(num_beams),
        num_beam_groups: Some(groups),
        diversity_penalty: Some(penalty),
        num_return_sequences: Some(num_beams),
        max_new_tokens: Some(6),
        eos_token_id: Some(3.into()),
        ..GenerationOptions::default()
    }
}

/// With a large penalty, no two groups of one beam choose the same token in a step.
#[test]
fn groups_avoid_each_other() {
    let model = Model { toy: twin::ToyModel { vocab: 60, seed: 8 }, kind: Kind::Plain };
    let options = GenerationOptions { eos_token_id: None, ..asked(4, 4, 1000.0) };
    let config = resolve(options, 60);
    assert_eq!(config.mode, Mode::DiverseBeam);
    let found = by_twin(&config, model, 0, &[1]);
    assert_eq!(found.len(), 4);
    for step in 0..6 {
        let mut tokens: Vec<u32> = found.iter().map(|one| one.token_ids[step]).collect();
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), 4, "step {step}: {found:?}");
        assert!(found.iter().all(|one| one.finish_reason == FinishReason::Length));
    }
    // With next to no penalty, all groups find the same.
    let same = by_twin(&resolve(GenerationOptions { eos_token_id: None, ..asked(4, 4, 1e-9) }, 60), model, 0, &[1]);
    assert!(same.windows(2).all(|pair| pair[0].token_ids == pair[1].token_ids));
}

#[test]
fn one_group_is_plain_beam_search() {
    let config = resolve(asked(4, 1, 0.0), 60);
    let plain = resolve(GenerationOptions { num_beam_groups: None, diversity_penalty: None, ..asked(4, 1, 0.0) }, 60);
    assert_eq!((config.mode, &config), (Mode::Beam, &plain));
}

#[test]
fn what_hugging_face_refuses() {
    let limits = elgen_search::ModelLimits { vocab_size: 60, max_position_embeddings: None, is_encoder_decoder: false };
    let refused = |options: GenerationOptions| options.resolve(&limits).unwrap_err();
    assert!(matches!(refused(asked(5, 2, 1.0)).problem, OptionProblem::NotDivisible { .. }));
    assert!(matches!(refused(asked(4, 3, 1.0)).problem, OptionProblem::NotDivisible { .. }));
    assert!(matches!(refused(asked(2, 4, 1.0)).problem, OptionProblem::Exceeds { .. }));
    assert_eq!(refused(asked(4, 2, 0.0)).option, "diversity_penalty");
    assert_eq!(refused(asked(4, 2, -1.0)).option, "diversity_penalty");
    assert_eq!(refused(GenerationOptions { do_sample: Some(true), ..asked(4, 2, 1.0) }).option, "num_beam_groups");
    let (_, warnings) = asked(4, 1, 1.0).resolve(&limits).unwrap();
    assert_eq!(warnings.iter().map(elgen_search::Warning::option).collect::<Vec<_>>(), ["diversity_penalty"]);
}
