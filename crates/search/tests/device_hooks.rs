//! Users' processors, stop criteria and noise, and the reports of tokens, on the device against the CPU twin.

use std::sync::Arc;

use elgen_search::device::SearchError;
use elgen_search::hooks::{AllowedTokens, Hooks, LogitsProcessor, NoiseSource, SequenceView, Stage, StopCriterion};
use elgen_search::{FinishReason, GenerationOptions, twin};

#[path = "support/mod.rs"]
mod support;
use support::*;

/// Ends a sequence behind an id of a class that depends on the sentence and the row.
#[derive(Debug)]
struct Stop(u64);

impl StopCriterion for Stop {
    fn should_stop(&self, sequence: &SequenceView<'_>) -> bool {
        assert_eq!(sequence.source, source_of(&sequence.token_ids[..sequence.prompt_len]));
        let last = sequence.token_ids.last().copied().unwrap_or_default();
        sequence.token_ids.len() > sequence.prompt_len + 1
            && (u64::from(last) + sequence.row as u64 + sequence.ordinal).is_multiple_of(self.0)
    }
}

/// Doubles the scores of some ids and moves others: no order of masks would do the same.
#[derive(Debug)]
struct Tilt(Stage);

impl LogitsProcessor for Tilt {
    fn stage(&self) -> Stage {
        self.0
    }

    fn process(&self, sequence: &SequenceView<'_>, scores: &mut [f32]) {
        let shift = sequence.token_ids.len() + sequence.row;
        for (id, score) in scores.iter_mut().enumerate() {
            match (id + shift) % 3 {
                0 => *score *= 1.25,
                1 => *score -= 0.5,
                _ => {}
            }
        }
    }
}

/// Noise that no counter gives.
#[derive(Debug)]
struct Noise;

impl NoiseSource for Noise {
    fn exponential(&self, ordinal: u64, row: usize, step: usize, out: &mut [f32]) {
        let mut dice = Dice(ordinal.wrapping_mul(1009) ^ (row as u64) << 20 ^ step as u64);
        out.fill_with(|| -((dice.below(1 << 20) as f32 + 0.5) / (1u64 << 20) as f32).ln());
    }
}

fn allowed(dice: &mut Dice, vocab: usize) -> AllowedTokens {
    let step = dice.pick(&[1, 2, 3]);
    AllowedTokens::new(move |ordinal, tokens| {
        let first = (ordinal as usize + tokens.len()) % step;
        (first..vocab).step_by(step).chain([0, 1]).map(|id| id as u32).collect()
    })
}

fn stops(dice: &mut Dice, _: usize) -> (Hooks, bool) {
    let criteria: Vec<Arc<dyn StopCriterion>> = vec![Arc::new(Stop(dice.pick(&[3, 7, 20])))];
    (Hooks { stop_criteria: criteria, ..Hooks::default() }, dice.chance(50))
}

fn processors(dice: &mut Dice, vocab: usize) -> (Hooks, bool) {
    let all: [Arc<dyn LogitsProcessor>; 3] =
        [Arc::new(allowed(dice, vocab)), Arc::new(Tilt(Stage::Constrain)), Arc::new(Tilt(Stage::Last))];
    let mut hooks = if dice.chance(30) { stops(dice, vocab).0 } else { Hooks::default() };
    hooks.processors = all.into_iter().filter(|_| dice.chance(60)).collect();
    (hooks, dice.chance(50))
}

fn noise(dice: &mut Dice, vocab: usize) -> (Hooks, bool) {
    let (mut hooks, report) = match dice.below(4) {
        0 => stops(dice, vocab),
        1 => processors(dice, vocab),
        _ => (Hooks::default(), false),
    };
    hooks.noise = Some(Arc::new(Noise));
    (hooks, report)
}

/// Random options of any mode.
fn any_mode(dice: &mut Dice, options: &mut GenerationOptions, vocab: &mut usize) {
    let num_beams = options.num_beams.unwrap_or(1);
    if dice.chance(40) {
        further_processors(dice, options, vocab);
    }
    match dice.below(4) {
        0 => sampling(dice, options, vocab),
        1 if num_beams > 1 => options.do_sample = Some(true),
        2 if num_beams.is_multiple_of(2) => {
            options.num_beam_groups = Some(2);
            options.diversity_penalty = Some(0.7);
        }
        _ => {}
    }
}

fn drawn(dice: &mut Dice, options: &mut GenerationOptions, vocab: &mut usize) {
    if dice.chance(50) || options.num_beams == Some(1) {
        sampling(dice, options, vocab);
    } else {
        options.do_sample = Some(true);
    }
    if dice.chance(30) {
        warpers(dice, options);
    }
}

#[test]
fn stop_criteria() {
    compare_with(&open(true, false), 10, 40, &any_mode, Kind::Plain, &stops);
}

#[test]
fn logits_processors() {
    compare_with(&open(true, false), 20, 40, &any_mode, Kind::Plain, &processors);
}

#[test]
fn noise_from_outside() {
    compare_with(&open(true, false), 30, 30, &drawn, Kind::Plain, &noise);
}

#[test]
fn reports_alone() {
    let report: Plug<'_> = &|_, _| (Hooks::default(), true);
    compare_with(&open(false, true), 40, 20, &any_mode, Kind::Plain, report);
}

fn model(vocab: usize) -> Model {
    Model { toy: twin::ToyModel { vocab, seed: 3 }, kind: Kind::Plain }
}

/// A sample that stops is computed no more, and its reason is told.
#[test]
fn a_stopped_row_leaves_at_once() {
    let options = GenerationOptions {
        do_sample: Some(true),
        num_return_sequences: Some(6),
        max_new_tokens: Some(12),
        ..GenerationOptions::default()
    };
    let config = resolve(options, 50);
    let hooks = Hooks { stop_criteria: vec![Arc::new(Stop(4))], ..Hooks::default() };
    let mut runner = Runner::new(&open(false, false), &config, model(50), 1, 13);
    runner.plug(hooks, false);
    let found = runner.run(&[(0, vec![1])], &mut Dice(0), 0).remove(0);
    let tokens: usize = found.iter().map(|one| one.token_ids.len()).sum();
    assert_eq!(runner.row_steps, tokens);
    assert!(tokens < 72 && found.iter().any(|one| one.finish_reason == FinishReason::Stop));
    assert!(runner.reported.is_empty(), "nobody asked");
}

/// What a step reads and waits for, by what is plugged in: 2 sentences of 4 beams or 1 row, 50 ids.
#[test]
fn what_hooks_cost() {
    let cost = |num_beams: usize, hooks: Hooks, report: bool| {
        let options =
            GenerationOptions { num_beams: Some(num_beams), max_new_tokens: Some(5), ..GenerationOptions::default() };
        let mut runner = Runner::new(&open(false, false), &resolve(options, 50), model(50), 2, 6);
        runner.plug(hooks, report);
        runner.run(&[(0, vec![1]), (1, vec![2])], &mut Dice(0), 100);
        (runner.stats.host_waits, runner.stats.submissions, runner.stats.readback_bytes)
    };
    #[derive(Debug)]
    struct Never;
    impl StopCriterion for Never {
        fn should_stop(&self, _: &SequenceView<'_>) -> bool {
            false
        }
    }
    let stop = || Hooks { stop_criteria: vec![Arc::new(Never)], ..Hooks::default() };
    let tilt = || Hooks { processors: vec![Arc::new(Tilt(Stage::Last))], ..Hooks::default() };
    assert_eq!(cost(1, Hooks::default(), false), (5, 5, 5 * 2 * 4));
    assert_eq!(cost(1, Hooks::default(), true), (5, 5, 5 * 2 * 12));
    assert_eq!(cost(1, stop(), false), (5, 5, 5 * 2 * 12));
    assert_eq!(cost(1, tilt(), false), (10, 10, 5 * 2 * (52 * 4 + 12)));
    assert_eq!(cost(4, Hooks::default(), true), (5, 5, 5 * 2 * 4));
    // One list of 8 candidates a row; `advance` goes with the next step.
    assert_eq!(cost(4, stop(), false), (5, 5, 5 * 8 * 8 * 8));
    assert_eq!(cost(4, tilt(), false), (5, 5, 5 * 8 * 52 * 4));
}

/// `prefix_allowed_tokens_fn`: no allowed token is an error; allowed ids that nothing has a score for get 0.
#[test]
fn allowed_tokens() {
    for num_beams in [1, 3] {
        let options = GenerationOptions {
            num_beams: Some(num_beams),
            max_new_tokens: Some(4),
            suppress_tokens: Some(vec![9]),
            bad_words_ids: Some(vec![vec![7]]),
            ..GenerationOptions::default()
        };
        let config = resolve(options, 50);
        let mut runner = Runner::new(&open(false, false), &config, model(50), 2, 6);
        let plug =
            |ids: &'static [u32]| Hooks {
                processors: vec![Arc::new(AllowedTokens::new(move |_, tokens| {
                    if tokens.len() == 3 { ids.to_vec() } else { vec![4, 5] }
                }))],
                ..Hooks::default()
            };
        runner.plug(plug(&[]), false);
        let error = runner.try_run(&[(40, vec![1]), (41, vec![2])], &mut Dice(0), 0).unwrap_err();
        assert!(matches!(&error, SearchError::Hook(hook) if hook.ordinal == 40), "{error}");
        assert!(error.to_string().starts_with("input 40: no token is allowed behind the sequence [1, "), "{error}");

        // 7 is banned before, so it is all −inf and becomes 0.
        let hooks = plug(&[7, 70]);
        runner.plug(hooks.clone(), false);
        let found = runner.run(&[(0, vec![1])], &mut Dice(0), 0).remove(0);
        assert_same(&found, &by_twin_with(&config, model(50), 0, &[1], &hooks).unwrap(), "an unsatisfiable constraint");
        assert_eq!((found[0].token_ids[2], found[0].token_logprobs[2]), (7, 0.0));
    }
}

/// The same search without hooks again.
#[test]
fn hooks_come_off() {
    for (num_beams, do_sample) in [(1, false), (1, true), (3, false), (2, true)] {
        let options = GenerationOptions {
            num_beams: Some(num_beams),
            do_sample: Some(do_sample),
            max_new_tokens: Some(5),
            ..GenerationOptions::default()
        };
        let config = resolve(options, 50);
        let mut runner = Runner::new(&open(false, false), &config, model(50), 1, 6);
        let prompt = [(5, vec![1])];
        let hooks = Hooks {
            processors: vec![Arc::new(Tilt(Stage::Last))],
            stop_criteria: vec![Arc::new(Stop(2))],
            noise: Some(Arc::new(Noise)),
            ..Hooks::default()
        };
        runner.plug(hooks, true);
        let with = runner.run(&prompt, &mut Dice(0), 0);
        runner.plug(Hooks::default(), false);
        let without = runner.run(&prompt, &mut Dice(0), 0);
        assert_ne!(with, without);
        assert_same(&without[0], &by_twin(&config, model(50), 5, &[1]), "without hooks");
    }
}
