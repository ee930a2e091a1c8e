//! The search on the device against its CPU twin: whole batches on the toy model, with the row tables checked at every
//! step.

use elgen_search::device::{DeviceSearch, SearchError, SentenceStart};
use elgen_search::{GenerationConfig, GenerationOptions, ModelLimits, twin};
use elgen_tensor::{Class, DType, RowStart, RowState, Rows};

#[path = "support/mod.rs"]
mod support;
use support::*;

#[test]
fn greedy_and_beam_search_on_a_checked_device() {
    compare(&open(true, false), 1, 60, &|_, _, _| {}, Kind::Plain);
}

#[test]
fn greedy_and_beam_search_on_a_portable_device() {
    compare(&open(true, true), 1000, 40, &|_, _, _| {}, Kind::Plain);
}

#[test]
fn greedy_and_beam_search_as_released() {
    compare(&open(false, false), 2000, 60, &|_, _, _| {}, Kind::Plain);
}

/// Vocabularies of several parts, of sizes around the multiples of four and of a part.
#[test]
fn large_vocabularies() {
    compare(
        &open(true, false),
        3000,
        12,
        &|dice, _, vocab| *vocab = dice.pick(&[2047, 2048, 2049, 3000, 4101]),
        Kind::Plain,
    );
}

/// Sentences in which fewer than K candidates are finite.
#[test]
fn few_finite_logits() {
    compare(&open(true, false), 4000, 40, &|_, _, _| {}, Kind::Sparse);
}

/// Ties go to the lower id.
#[test]
fn equal_logits() {
    compare(&open(true, false), 5000, 40, &|_, _, _| {}, Kind::Rounded);
}

#[test]
fn sampling_draws_the_tokens_of_the_twin() {
    compare(&open(true, false), 6000, 60, &sampling, Kind::Plain);
}

#[test]
fn sampling_on_a_portable_device() {
    compare(&open(true, true), 7000, 40, &sampling, Kind::Plain);
}

#[test]
fn sampling_as_released() {
    compare(&open(false, false), 8000, 40, &sampling, Kind::Sparse);
}

/// Many draws from few tokens, where every bit of the noise counts.
#[test]
fn thousands_of_draws() {
    let options = GenerationOptions {
        do_sample: Some(true),
        num_return_sequences: Some(1500),
        max_new_tokens: Some(8),
        seed: Some(0xDEAD_BEEF_0123_4567),
        ..GenerationOptions::default()
    };
    let config = resolve(options, 3);
    let model = Model { toy: twin::ToyModel { vocab: 3, seed: 12 }, kind: Kind::Rounded };
    let mut runner = Runner::new(&open(true, false), &config, model, 1, 9);
    let found = runner.run(&[(1 << 40 | 17, vec![2])], &mut Dice(0), 0);
    assert_same(&found[0], &by_twin(&config, model, 1 << 40 | 17, &[2]), "1500 samples");
}

/// The same tokens survive the warpers as in the twin, and with the same scores.
#[test]
fn warpers_keep_the_support_of_the_twin() {
    for device in [open(true, false), open(true, true)] {
        let mut dice = Dice(77);
        for case in 0..60 {
            let vocab = dice.pick(&[1, 2, 5, 31, 64, 500, 1025, 2999]);
            let options = GenerationOptions {
                do_sample: Some(true),
                max_new_tokens: Some(1),
                temperature: Some(dice.pick(&[1.0, 0.7, 2.0])),
                top_k: Some(dice.pick(&[0, 1, 2, 7, 50, 5000])),
                top_p: Some(dice.pick(&[1.0, 0.95, 0.9, 0.5, 0.01, 0.0])),
                ..GenerationOptions::default()
            };
            let config = resolve(options, vocab);
            let kind = dice.pick(&[Kind::Plain, Kind::Sparse, Kind::Rounded]);
            let mut logits = Model { toy: twin::ToyModel { vocab, seed: case }, kind }.logits(&[1]);
            logits[dice.below(vocab)] = 5.0;
            let (made, _) = one_step(&device, &config, &[0], &logits);
            twin::processors::warp(&config, 1, &mut logits);
            for (id, (a, b)) in made.iter().zip(&logits).enumerate() {
                assert!(close(*a, *b), "case {case} {config:?}: id {id} has {a} for {b}");
            }
        }
    }
}

/// A threshold that falls between two scores of equal weight.
#[test]
fn top_p_at_an_exact_threshold() {
    let options = GenerationOptions {
        do_sample: Some(true),
        max_new_tokens: Some(1),
        top_k: Some(0),
        top_p: Some(0.5),
        ..GenerationOptions::default()
    };
    let config = resolve(options, 2);
    let mut logits = [0.0, -1e-30]; // both weigh 1
    let (made, _) = one_step(&open(true, false), &config, &[0], &logits);
    twin::processors::warp(&config, 1, &mut logits);
    assert_eq!((&made[..], logits), (&logits[..], [0.0, f32::NEG_INFINITY]));
}

/// The processors alone, on prompts that are longer than a workgroup as well as on very short ones.
#[test]
fn processors_edit_the_scores_of_the_twin() {
    let device = open(true, false);
    let mut dice = Dice(99);
    for case in 0..80 {
        let vocab = dice.pick(&[5, 9, 40, 700]);
        let mut options = options(&mut dice, vocab, 1);
        options.max_new_tokens = Some(1);
        if dice.chance(50) {
            options.forced_eos_token_id = None;
        }
        let limits = ModelLimits { vocab_size: vocab, max_position_embeddings: None, is_encoder_decoder: false };
        let Ok((mut config, _)) = options.resolve(&limits) else { continue };
        let length = dice.pick(&[1, 1, 2, 3, 255, 256, 257, 600]);
        let prompt = dice.ids(length, vocab);
        if dice.chance(30) {
            // A word that the whole prompt begins, and one that is longer.
            config.bad_words_ids.push([&prompt[..], &[1]].concat());
            config.bad_words_ids.push([&[0], &prompt[..], &[2]].concat());
        }
        let mut logits = twin::ToyModel { vocab, seed: case }.logits(&prompt);
        let (made, _) = one_step(&device, &config, &prompt, &logits);
        let lengths = config.lengths(length).unwrap();
        twin::processors::process(&config, lengths, &view(&prompt, &prompt), &mut logits);
        for (id, (a, b)) in made.iter().zip(&logits).enumerate() {
            assert!(close(*a, *b), "case {case}, {length} ids, {options:?}: id {id} has {a} for {b}");
        }
    }
}

#[test]
fn odd_logits() {
    let device = open(true, false);
    let greedy = resolve(GenerationOptions { max_new_tokens: Some(1), ..GenerationOptions::default() }, 7);
    let pick = |logits: &[f32]| one_step(&device, &greedy, &[0], logits).1.first().map(|found| found.token_ids[0]);
    let inf = f32::INFINITY;
    assert_eq!(pick(&[-3.0, -inf, -3.0, -inf, -2.0, -2.0, -inf]), Some(4));
    assert_eq!(pick(&[-1.0, -0.0, 0.0, -inf, -inf, -5.0, -5.0]), Some(1));
    assert_eq!(pick(&[0.0, f32::MAX, -inf, f32::MIN, 3.0, 1.0, 2.0]), Some(1));
    assert_eq!(pick(&[-1e30, -2e38, -3.2e38, -3.3e38, -1e31, -1e32, -3e38]), Some(0));
}

/// The same batch twice gives the same bits, also on another `DeviceSearch` and in another order.
#[test]
fn results_do_not_depend_on_the_batch() {
    let device = open(false, false);
    let options = GenerationOptions {
        num_beams: Some(4),
        max_new_tokens: Some(12),
        eos_token_id: Some(3.into()),
        ..Default::default()
    };
    let config = resolve(options, 3000);
    let model = Model { toy: twin::ToyModel { vocab: 3000, seed: 5 }, kind: Kind::Plain };
    let prompts: Vec<(u64, Vec<u32>)> = (0..6).map(|i| (i, vec![i as u32; 1 + i as usize])).collect();
    let mut runner = Runner::new(&device, &config, model, 6, 18);
    let all = runner.run(&prompts, &mut Dice(1), 30);
    let reversed: Vec<_> = prompts.iter().rev().cloned().collect();
    let mut backwards = runner.run(&reversed, &mut Dice(2), 0);
    backwards.reverse();
    assert_eq!(all, backwards);
    let mut single = Runner::new(&device, &config, model, 1, 18);
    for (prompt, expected) in prompts.iter().zip(&all) {
        assert_eq!(single.run(std::slice::from_ref(prompt), &mut Dice(3), 0), std::slice::from_ref(expected));
    }
}

/// The recorded outputs of Hugging Face that the twin is held to.
#[test]
fn searches_agree_with_hugging_face() {
    let cases: serde_json::Value = serde_json::from_str(include_str!("twin_cases.json")).unwrap();
    let ids = |value: &serde_json::Value| serde_json::from_value::<Vec<u32>>(value.clone()).unwrap();
    let device = open(true, false);
    for (number, case) in cases["cases"].as_array().unwrap().iter().enumerate() {
        let vocab = case["vocab"].as_u64().unwrap() as usize;
        let toy = twin::ToyModel { vocab, seed: case["seed"].as_u64().unwrap() };
        let config = resolve(GenerationOptions::from_json(case["options"].as_object().unwrap()).unwrap(), vocab);
        let prompt = ids(&case["prompt"]);
        let max_length = config.lengths(prompt.len()).unwrap().max_length;
        let mut runner = Runner::new(&device, &config, Model { toy, kind: Kind::Plain }, 1, max_length);
        let found = runner.run(&[(0, prompt)], &mut Dice(0), 0).remove(0);
        let expected = case["outputs"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "case {number}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.token_ids, ids(&expected["token_ids"]), "case {number}: {}", case["options"]);
            let score = expected["score"].as_f64().unwrap_or(f64::NEG_INFINITY) as f32;
            assert!(close(found.score, score), "case {number}: score {} for {score}", found.score);
        }
    }
}

/// The most beams and candidates that the kernels take.
#[test]
fn many_beams() {
    for (num_beams, eos) in [(32, 3), (32, 6), (64, 2), (85, 1)] {
        let eos: Vec<u32> = (0..eos).collect();
        let options = GenerationOptions {
            num_beams: Some(num_beams),
            num_return_sequences: Some(num_beams),
            max_new_tokens: Some(6),
            eos_token_id: Some(eos.into()),
            ..GenerationOptions::default()
        };
        let config = resolve(options, 150);
        let model = Model { toy: twin::ToyModel { vocab: 150, seed: 9 }, kind: Kind::Plain };
        let mut runner = Runner::new(&open(true, false), &config, model, 2, 9);
        let prompts = [(0, vec![4, 5]), (1, vec![6])];
        for ((ordinal, prompt), found) in prompts.iter().zip(runner.run(&prompts, &mut Dice(4), 0)) {
            assert_same(&found, &by_twin(&config, model, *ordinal, prompt), &format!("{num_beams} beams"));
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = open(true, false);
    let beams = |num_beams, vocab| {
        resolve(GenerationOptions { num_beams: Some(num_beams), max_new_tokens: Some(4), ..Default::default() }, vocab)
    };
    let error = |config: &GenerationConfig| DeviceSearch::new(&device, config, 2, 4).unwrap_err().to_string();
    assert_eq!(
        error(&beams(86, 50)),
        "beam search: 86 beams and 172 candidates are more than 256 together; use fewer beams"
    );
    assert!(matches!(DeviceSearch::new(&device, &beams(200, 50), 1, 4), Err(SearchError::TooManyBeams { .. })));

    let config = beams(3, 50);
    let mut search = DeviceSearch::new(&device, &config, 2, 4).unwrap();
    let start = |prompt_len: usize| SentenceStart {
        ordinal: 0,
        lengths: config.lengths(prompt_len).unwrap(),
        prompt: &[1; 3][..prompt_len],
        source: &[],
    };
    assert!(search.begin(&[start(1); 3]).is_err());
    assert!(search.begin(&[SentenceStart { prompt: &[], ..start(1) }]).is_err());
    let longer = beams(3, 50).lengths(3).unwrap();
    assert!(search.begin(&[SentenceStart { lengths: longer, ..start(1) }]).is_err());
    search.begin(&[start(1), start(1)]).unwrap();

    let state = |row: u32| RowState {
        sentence: row / 3,
        beam: row % 3,
        width: 3,
        length: 1,
        live: 1,
        prompt_len: 1,
        ..RowState::default()
    };
    let states: Vec<RowState> = (0..6).map(state).collect();
    let mut rows = Rows::new(&device, 6, 8).unwrap();
    let length = config.lengths(1).unwrap().max_length;
    let begin = |max_length: usize| {
        let row = move |state: &RowState| RowStart { state: *state, prompt: &[1], slab: 0, max_length };
        states.iter().map(row).collect::<Vec<_>>()
    };
    rows.begin(&device, &begin(length)).unwrap();
    let mut refused = |rows: &mut Rows, count: usize, vocab: usize, dtype: DType| {
        let logits = device.tensor("logits", Class::Activations, count, vocab, dtype).unwrap();
        search.record_step(&mut device.recorder(), rows, &logits).is_err()
    };
    assert!(!refused(&mut rows, 6, 50, DType::F32));
    assert!(refused(&mut rows, 5, 50, DType::F32));
    assert!(refused(&mut rows, 6, 51, DType::F32));
    assert!(refused(&mut rows, 6, 50, DType::F16));
    for active in [vec![0, 1], vec![1, 2, 3], vec![0, 2, 1]] {
        rows.set_active(&device, active.clone(), &[0; 6]).unwrap();
        assert!(refused(&mut rows, 6, 50, DType::F32), "{active:?}");
    }
    let mut short = Rows::new(&device, 6, 4).unwrap();
    short.begin(&device, &begin(4)).unwrap();
    assert!(refused(&mut short, 6, 50, DType::F32));
}
