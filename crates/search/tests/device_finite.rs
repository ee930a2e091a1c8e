//! Scores that are not finite: a sentence that comes to them has no result, in every mode, on the device as by the twin; its neighbours and
//! what is only partly banned are as ever. And what a search that is cut short has so far.

use std::sync::Arc;

use elgen_search::device::{DeviceSearch, SentenceStart};
use elgen_search::hooks::{Hooks, LogitsProcessor, SequenceView, StopCriterion};
use elgen_search::{
    EarlyStopping, FinishReason, GenerationConfig, GenerationOptions, Hypothesis, NotFinite, TwinError, twin,
};
use elgen_tensor::{Class, DType, Device, RowStart, RowState, Rows};

#[path = "support/mod.rs"]
mod support;
use support::*;

const VOCAB: usize = 300;

fn toy(kind: Kind) -> Model {
    Model { toy: twin::ToyModel { vocab: VOCAB, seed: 5 }, kind }
}

/// Every mode, by name.
fn modes() -> Vec<(&'static str, GenerationOptions)> {
    let base = GenerationOptions {
        max_new_tokens: Some(7),
        eos_token_id: Some(2.into()),
        seed: Some(9),
        ..GenerationOptions::default()
    };
    let sampled = GenerationOptions { do_sample: Some(true), num_return_sequences: Some(2), ..base.clone() };
    let beams = GenerationOptions { num_beams: Some(4), num_return_sequences: Some(3), ..base.clone() };
    let drawn = GenerationOptions { do_sample: Some(true), ..beams.clone() };
    let warped = |options: &GenerationOptions| GenerationOptions {
        temperature: Some(0.7),
        top_k: Some(40),
        top_p: Some(0.95),
        min_p: Some(0.01),
        typical_p: Some(0.9),
        epsilon_cutoff: Some(0.0005),
        eta_cutoff: Some(0.0005),
        top_h: Some(0.9),
        ..options.clone()
    };
    vec![
        ("greedy", base.clone()),
        ("processed greedy", GenerationOptions { repetition_penalty: Some(1.2), ..base.clone() }),
        ("renormalised greedy", GenerationOptions { renormalize_logits: Some(true), ..base }),
        ("sampling", GenerationOptions { top_k: Some(0), ..sampled.clone() }),
        ("warped sampling", warped(&sampled)),
        ("beams", beams.clone()),
        (
            "processed beams",
            GenerationOptions { no_repeat_ngram_size: Some(2), min_new_tokens: Some(2), ..beams.clone() },
        ),
        ("beam sampling", GenerationOptions { top_k: Some(0), ..drawn.clone() }),
        ("warped beam sampling", warped(&drawn)),
        (
            "diverse beams",
            GenerationOptions { num_beam_groups: Some(2), diversity_penalty: Some(0.5), ..beams.clone() },
        ),
        (
            "diverse beams by logits",
            GenerationOptions {
                num_beam_groups: Some(2),
                diversity_penalty: Some(0.5),
                renormalize_logits: Some(true),
                ..beams
            },
        ),
    ]
}

/// Never stops, so that the host takes the steps.
#[derive(Debug)]
struct Never;

impl StopCriterion for Never {
    fn should_stop(&self, _: &SequenceView<'_>) -> bool {
        false
    }
}

/// Does nothing, so that the host reads all logits.
#[derive(Debug)]
struct Nothing;

impl LogitsProcessor for Nothing {
    fn process(&self, _: &SequenceView<'_>, _: &mut [f32]) {}
}

/// Bans every token of sequences that end with an even id, or of all, once they have some length.
#[derive(Debug)]
struct Ban {
    length: usize,
    all: bool,
}

impl LogitsProcessor for Ban {
    fn process(&self, sequence: &SequenceView<'_>, scores: &mut [f32]) {
        let even = sequence.token_ids.last().is_some_and(|id| id.is_multiple_of(2));
        if sequence.token_ids.len() >= self.length && (self.all || even) {
            scores.fill(f32::NEG_INFINITY);
        }
    }
}

/// No hooks, and some that change nothing but who takes the steps.
fn plugs() -> [(&'static str, Hooks, bool); 4] {
    let stop = Hooks { stop_criteria: vec![Arc::new(Never)], ..Hooks::default() };
    let process = Hooks { processors: vec![Arc::new(Nothing)], ..Hooks::default() };
    [
        ("alone", Hooks::default(), false),
        ("reported", Hooks::default(), true),
        ("with a criterion", stop, false),
        ("with a processor", process, false),
    ]
}

/// Runs two sentences, of which the model is broken for the one with the longer prompt, say.
fn assert_agrees(
    device: &Device,
    config: &GenerationConfig,
    model: Model,
    plug: &(&str, Hooks, bool),
    what: &str,
) -> [bool; 2] {
    let prompts = [(0, vec![1]), (1, vec![1, 4, 5])];
    let mut runner = Runner::new(device, config, model, 2, 10);
    runner.plug(plug.1.clone(), plug.2 && !config.mode.has_beams());
    let found = runner.try_run(&prompts, &mut Dice(0), 50).unwrap();
    let mut failed = [false; 2];
    for (n, ((ordinal, prompt), found)) in prompts.iter().zip(found).enumerate() {
        let what = format!("{what}, {}, sentence {n}", plug.0);
        match (found, by_twin_with(config, model, *ordinal, prompt, &plug.1)) {
            (Ok(found), Ok(expected)) => assert_same(&found, &expected, &what),
            (Err(NotFinite), Err(TwinError::NotFinite(_))) => failed[n] = true,
            (found, expected) => panic!("{what}: {found:?}, expected {expected:?}"),
        }
    }
    failed
}

#[test]
fn a_sentence_that_overflows_fails_in_every_mode_and_no_other_does() {
    let device = open(true, false);
    // One new token of the second sentence, two of the first are fine.
    let odd = |value: f32, whole: bool| Kind::Odd { length: 4, value, whole };
    let kinds = [
        ("all NaN", odd(f32::NAN, true), true),
        ("one NaN", odd(f32::NAN, false), true),
        ("all infinite", odd(f32::INFINITY, true), true),
        ("one infinite", odd(f32::INFINITY, false), true),
        ("all banned", odd(f32::NEG_INFINITY, true), true),
        ("one banned", odd(f32::NEG_INFINITY, false), false),
        ("a very large one", odd(f32::MAX / 4.0, false), false),
    ];
    for (name, options) in modes() {
        let config = resolve(options, VOCAB);
        for (kind, odd, fails) in kinds {
            for plug in &plugs() {
                let failed = assert_agrees(&device, &config, toy(odd), plug, &format!("{name}, {kind}"));
                assert_eq!(failed[1], fails, "{name}, {kind}, {}", plug.0);
            }
        }
    }
}

/// One beam that overflows is not passed over because others are fine: its numbers were as good as theirs.
#[test]
fn a_beam_that_overflows_beside_others_fails_the_sentence() {
    let device = open(true, false);
    let mut failures = 0;
    for (name, options) in modes() {
        let config = resolve(options, VOCAB);
        for seed in 0..4 {
            let kind = Kind::OddBehindEven { length: 4, value: f32::NAN };
            let model = Model { toy: twin::ToyModel { vocab: VOCAB, seed }, kind };
            for plug in &plugs() {
                let failed = assert_agrees(&device, &config, model, plug, &format!("{name}, seed {seed}"));
                failures += failed.iter().filter(|failed| **failed).count();
            }
        }
    }
    // 11 modes, 4 models, 2 sentences, 4 ways: most come to an even id in some beam.
    assert!(failures > 250, "{failures} of 352");
}

#[test]
fn what_the_portable_kernels_and_released_ones_say_is_the_same() {
    let odd = |value, whole| Kind::Odd { length: 4, value, whole };
    for device in [open(false, false), open(true, true)] {
        for (name, options) in modes() {
            let config = resolve(options, VOCAB);
            for (kind, fails) in
                [(odd(f32::NAN, false), true), (odd(f32::NEG_INFINITY, true), true), (Kind::Plain, false)]
            {
                let failed = assert_agrees(&device, &config, toy(kind), &plugs()[0], name);
                assert_eq!(failed[1], fails, "{name}, {kind:?}");
            }
        }
    }
}

#[test]
fn a_processor_that_bans_everything_fails_the_sentence() {
    let device = open(false, false);
    for (name, options) in modes() {
        let config = resolve(options, VOCAB);
        for (length, all) in [(1, true), (3, true), (4, false)] {
            let hooks = Hooks { processors: vec![Arc::new(Ban { length, all })], ..Hooks::default() };
            let failed = assert_agrees(&device, &config, toy(Kind::Plain), &("banned", hooks, false), name);
            assert!(!all || failed[1], "{name}: all is banned from {length} ids on");
        }
    }
}

/// A beam that leads nowhere is given up, as in Hugging Face, while others go on; finished ones are returned when none does.
#[test]
fn dead_ends_of_some_beams_are_no_failure() {
    let device = open(false, false);
    let hooks = Hooks { processors: vec![Arc::new(Ban { length: 3, all: false })], ..Hooks::default() };
    let options = GenerationOptions {
        num_beams: Some(6),
        max_new_tokens: Some(6),
        eos_token_id: Some(3.into()),
        ..GenerationOptions::default()
    };
    let config = resolve(options, 12);
    let mut passed = 0;
    for seed in 0..12 {
        let model = Model { toy: twin::ToyModel { vocab: 12, seed }, kind: Kind::Plain };
        let failed = assert_agrees(&device, &config, model, &("half banned", hooks.clone(), false), &format!("{seed}"));
        passed += failed.iter().filter(|failed| !**failed).count();
    }
    assert!(passed >= 20, "{passed} of 24");
}

/// The same on the device alone: a model from which nothing can follow any more.
#[test]
fn what_has_finished_before_a_dead_end_is_returned() {
    let device = open(true, false);
    let eos: Vec<u32> = (0..60).map(|id| id * 5).collect();
    let options = GenerationOptions {
        num_beams: Some(3),
        max_new_tokens: Some(7),
        eos_token_id: Some(eos.into()),
        early_stopping: Some(EarlyStopping::Never),
        length_penalty: Some(2.0),
        ..GenerationOptions::default()
    };
    let config = resolve(options, VOCAB);
    let mut finished = 0;
    for seed in 0..8 {
        let kind = Kind::Odd { length: 3, value: f32::NEG_INFINITY, whole: true };
        let model = Model { toy: twin::ToyModel { vocab: VOCAB, seed }, kind };
        let failed = assert_agrees(&device, &config, model, &plugs()[0], &format!("seed {seed}"));
        assert!(failed[1], "the longer prompt has no token at all");
        finished += usize::from(!failed[0]);
    }
    assert!(finished >= 4, "{finished} of 8");
}

/// Values that are repaired are finite.
#[test]
fn remove_invalid_values_repairs_them() {
    let device = open(false, false);
    for (name, options) in modes().into_iter().filter(|(name, _)| !name.starts_with("warped")) {
        let config = resolve(GenerationOptions { remove_invalid_values: Some(true), ..options }, VOCAB);
        for value in [f32::NAN, f32::INFINITY] {
            let kind = Kind::Odd { length: 4, value, whole: false };
            // Greedy search and sampling see logits, of which an infinite one becomes the largest number; a temperature below 1
            // would make it infinite again.
            let failed = assert_agrees(&device, &config, toy(kind), &plugs()[0], name);
            assert!(!failed[1], "{name}: {value} is repaired");
        }
    }
}

/// The first `steps` steps of a search over one sentence, on given logits, and what it has by then.
fn cut_short(device: &Device, config: &GenerationConfig, hooks: &Hooks, steps: usize) -> Vec<Hypothesis> {
    let mut search = DeviceSearch::new(device, config, 1, 9).unwrap();
    search.set_hooks(hooks.clone());
    let width = search.width();
    let mut rows = Rows::new(device, width, 10).unwrap();
    let states: Vec<RowState> = (0..width as u32)
        .map(|beam| RowState {
            beam,
            width: width as u32,
            length: 1,
            live: 1,
            prompt_len: 1,
            gen_base: 1 + beam,
            ..RowState::default()
        })
        .collect();
    let lengths = config.lengths(1).unwrap();
    let start = |state: &RowState| RowStart { state: *state, prompt: &[1], slab: 0, max_length: lengths.max_length };
    rows.begin(device, &states.iter().map(start).collect::<Vec<_>>()).unwrap();
    search.begin(&[SentenceStart { ordinal: 3, lengths, prompt: &[1], source: &[1] }]).unwrap();
    assert_eq!(search.finish().unwrap(), [Ok(Vec::new())], "nothing yet");
    let mut rec = device.recorder();
    for step in 0..steps {
        // The same for every row: a beam's rank is that of its score.
        let toy = twin::ToyModel { vocab: config.vocab_size, seed: 11 };
        let mut logits = toy.logits(&[step as u32, 7]);
        if step == 0 && config.mode.has_beams() {
            logits[2] = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) + 0.5;
        }
        let tensor = device
            .tensor_from("logits", Class::Activations, width, config.vocab_size, DType::F32, &logits.repeat(width))
            .unwrap();
        let report = search.step(&mut rec, &mut rows, &tensor).unwrap();
        assert_eq!(report.done, [false], "step {step}");
    }
    search.finish().unwrap().remove(0).unwrap()
}

#[test]
fn a_search_that_is_cut_short_gives_what_it_has() {
    let device = open(false, false);
    for (name, options) in modes() {
        let options = GenerationOptions { max_new_tokens: Some(9), eos_token_id: Some(2.into()), ..options };
        let config = resolve(options, VOCAB);
        let mut by_host: Vec<Vec<Hypothesis>> = Vec::new();
        for (plug, hooks, _) in plugs() {
            let found = cut_short(&device, &config, &hooks, 3);
            assert!(!found.is_empty() && found.len() <= config.num_return_sequences, "{name}, {plug}: {found:?}");
            for one in &found {
                let sum: f32 = one.token_logprobs.iter().sum();
                let length = if config.mode.has_beams() { one.token_ids.len() as f32 } else { 1.0 };
                assert!(close(one.score, sum / length), "{name}, {plug}: {one:?}");
                let ended = one.token_ids.ends_with(&[2]);
                let reason =
                    if ended && !config.mode.has_beams() { FinishReason::Eos } else { FinishReason::Cancelled };
                assert_eq!(one.finish_reason, reason, "{name}, {plug}: {one:?}");
                assert!(one.token_ids.len() == 3 || ended, "{name}, {plug}: {one:?}");
            }
            if config.mode.has_beams() {
                assert!(found.is_sorted_by(|a, b| a.score >= b.score), "{name}, {plug}: {found:?}");
                assert_eq!(found.len(), 3, "{name}, {plug}");
                // What ended in the first step, where it might, competes with the beams that run.
                let may_not = config.mode.samples() || name == "processed beams";
                assert!(may_not || found.iter().any(|one| one.token_ids == [2]), "{name}, {plug}: {found:?}");
            }
            by_host.push(found);
        }
        // Whoever takes the steps, the same is there.
        for other in &by_host[1..] {
            assert_same(other, &by_host[0], name);
        }
    }
}
