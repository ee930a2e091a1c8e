//! The rules of beam search that are easy to get wrong (docs/generation.md §6), each on a model made for it.

use elgen_search::twin::{self, TraceEntry, backtrack};
use elgen_search::{FinishReason, GenerationConfig, GenerationOptions, Hypothesis, ModelLimits, TwinError};
use serde_json::{Value, json};

const EOS: u32 = 0;

fn config(json: Value) -> GenerationConfig {
    let limits = ModelLimits { vocab_size: 4, max_position_embeddings: None, is_encoder_decoder: false };
    let default = GenerationOptions { eos_token_id: Some(EOS.into()), ..Default::default() };
    let asked: GenerationOptions = serde_json::from_value(json).unwrap();
    asked.or(default).resolve(&limits).unwrap().0
}

/// Searches with the probabilities that `model` gives for the new tokens so far. Returns the number of steps too.
fn counted(json: Value, prompt: &[u32], model: impl Fn(&[u32]) -> [f32; 4]) -> (usize, Vec<Hypothesis>) {
    let config = config(json);
    let mut steps = 0;
    let found = twin::generate(&config, config.lengths(prompt.len()).unwrap(), prompt, 0, &mut |rows| {
        steps += 1;
        rows.iter().map(|row| model(&row.tokens[prompt.len()..]).map(f32::ln).to_vec()).collect()
    });
    (steps, found.unwrap())
}

fn search(json: Value, model: impl Fn(&[u32]) -> [f32; 4]) -> Vec<Hypothesis> {
    counted(json, &[3], model).1
}

fn ids(found: &[Hypothesis]) -> Vec<&[u32]> {
    found.iter().map(|hypothesis| &hypothesis.token_ids[..]).collect()
}

fn assert_score(found: &Hypothesis, probabilities: &[f32], divisor: f32) {
    let expected = probabilities.iter().map(|p| p.ln()).sum::<f32>() / divisor;
    assert!((found.score - expected).abs() < 1e-5, "{}, expected {expected}", found.score);
}

/// One beam would follow 1 (0.5), but the better text begins with 2 (0.4).
fn garden_path(new: &[u32]) -> [f32; 4] {
    match new {
        [] => [0.05, 0.5, 0.4, 0.05],
        [1] => [0.3, 0.3, 0.2, 0.2],
        [2] => [0.9, 0.04, 0.03, 0.03],
        _ => [0.97, 0.01, 0.01, 0.01],
    }
}

#[test]
fn beams_find_what_greedy_misses() {
    assert_eq!(search(json!({"max_length": 8}), garden_path)[0].token_ids[0], 1);
    let found = search(json!({"num_beams": 2, "max_length": 8, "num_return_sequences": 2}), garden_path);
    assert_eq!(found[0].token_ids, [2, EOS]);
    assert_eq!(found[0].finish_reason, FinishReason::Eos);
    assert_score(&found[0], &[0.4, 0.9], 2.0);
    assert_eq!(found[0].token_logprobs.len(), 2);
    assert!(found[0].score >= found[1].score);
}

#[test]
fn the_length_counts_the_eos_but_not_the_prompt() {
    for penalty in [-1.0, 0.0, 0.5, 1.0, 2.0] {
        let found = search(json!({"num_beams": 2, "max_length": 8, "length_penalty": penalty}), |new| match new {
            [] => [0.01, 0.97, 0.01, 0.01],
            [1] => [0.01, 0.01, 0.97, 0.01],
            _ => [0.97, 0.01, 0.01, 0.01],
        });
        assert_eq!(ids(&found), [&[1, 2, EOS]]);
        assert_score(&found[0], &[0.97; 3], (3.0_f64.powf(penalty)) as f32);
    }
}

#[test]
fn the_length_penalty_chooses_between_short_and_long() {
    let model = |new: &[u32]| match new {
        [] => [0.3, 0.6, 0.05, 0.05],
        [1] => [0.05, 0.05, 0.6, 0.3],
        _ => [0.6, 0.05, 0.05, 0.3],
    };
    let best = |penalty| search(json!({"num_beams": 3, "max_length": 8, "length_penalty": penalty}), model)[0].clone();
    assert_eq!(best(0.0).token_ids, [EOS]);
    assert_eq!(best(2.0).token_ids, [1, 2, EOS]);
}

/// EOS is the third best first token: among the candidates, but behind two beams' rank.
#[test]
fn an_eos_ranked_behind_the_beams_is_dropped() {
    let model = |new: &[u32]| match new {
        [] => [0.3, 0.35, 0.34, 0.01],
        _ => [0.01, 0.33, 0.33, 0.33],
    };
    let returned = |beams| {
        let found = search(
            json!({"num_beams": beams, "max_length": 3, "num_return_sequences": beams, "length_penalty": 0.0}),
            model,
        );
        ids(&found).contains(&&[EOS][..])
    };
    assert!(!returned(2));
    assert!(returned(3));
}

#[test]
fn at_max_length_only_candidates_of_the_first_ranks_finish() {
    // Two new tokens. Behind 1, EOS and 2 tie for the best places; unended texts are accepted like ended ones.
    let found = search(json!({"num_beams": 2, "max_length": 3, "num_return_sequences": 2}), |new| match new {
        [] => [0.02, 0.9, 0.05, 0.03],
        _ => [0.45, 0.05, 0.44, 0.06],
    });
    assert_eq!(ids(&found), [&[1, EOS], &[1, 2]]);
    assert_eq!([found[0].finish_reason, found[1].finish_reason], [FinishReason::Eos, FinishReason::Length]);
    assert_score(&found[1], &[0.9, 0.44], 2.0);
}

/// Both slots fill early with poor texts, while beam 0 walks towards a far better one.
fn patient(new: &[u32]) -> [f32; 4] {
    match new {
        [] => [0.3, 0.6, 0.05, 0.05],
        [1] => [0.25, 0.05, 0.65, 0.05],
        [.., 2, 2, 2] => [0.99, 0.004, 0.003, 0.003],
        _ => [0.004, 0.003, 0.99, 0.003],
    }
}

#[test]
fn early_stopping_true_stops_with_full_slots() {
    let ask = |stop: Value| {
        search(json!({"num_beams": 2, "max_length": 12, "num_return_sequences": 2, "early_stopping": stop}), patient)
    };
    let early = ask(json!(true));
    assert_eq!(ids(&early), [&[1, EOS][..], &[EOS]]);
    for patient in [ask(json!(false)), ask(json!("never"))] {
        assert_eq!(patient[0].token_ids, [1, 2, 2, 2, EOS]);
    }
}

#[test]
fn an_empty_slot_keeps_the_search_going() {
    let hopeless = |new: &[u32]| match new {
        [] => [0.32, 0.36, 0.31, 0.01],
        _ => [0.001, 0.333, 0.333, 0.333],
    };
    for stop in [json!(false), json!(true), json!("never")] {
        let (steps, _) = counted(json!({"num_beams": 2, "max_length": 14, "early_stopping": stop}), &[3], hopeless);
        assert_eq!(steps, 13);
    }
}

/// Behind two finished texts `false` judges the running beam at its present length, `never` at the longest one.
#[test]
fn never_hopes_for_the_longest_text() {
    let model = |new: &[u32]| match new {
        [] => [0.4, 0.41, 0.1, 0.09],
        [1] => [0.38, 0.3, 0.25, 0.07],
        _ => [0.0001, 0.4, 0.3, 0.2999],
    };
    let steps = |stop: Value, penalty: f64| {
        let ask = json!({"num_beams": 2, "max_length": 14, "early_stopping": stop, "length_penalty": penalty});
        counted(ask, &[3], model).0
    };
    assert_eq!(steps(json!(false), 1.0), 2);
    assert!(steps(json!("never"), 1.0) > 2);
    assert_eq!(steps(json!("never"), 0.0), steps(json!(false), 0.0), "without a penalty length gives no hope");
}

/// Under a negative penalty a longer text is worse, so `never` judges the running beam at its present length.
#[test]
fn never_with_a_negative_penalty_hopes_for_nothing() {
    let ask = |stop| json!({"num_beams": 2, "max_length": 14, "early_stopping": stop, "length_penalty": -1.0});
    let steps = counted(ask(json!("never")), &[3], patient).0;
    assert!(steps > 2);
    assert_eq!(steps, counted(ask(json!(false)), &[3], patient).0);
}

#[test]
fn the_longest_text_is_counted_without_the_prompt() {
    let model = |new: &[u32]| match new {
        [] => [0.49, 0.49, 0.01, 0.01],
        [1] => [0.98, 0.008, 0.007, 0.005],
        _ => [0.25, 0.3, 0.25, 0.2],
    };
    let ask = json!({"num_beams": 2, "max_new_tokens": 4, "early_stopping": "never"});
    assert_eq!(counted(ask.clone(), &[3], model).0, 2);
    assert_eq!(counted(ask, &[3; 41], model).0, 2);
}

#[test]
fn a_forced_first_token_lets_one_beam_expand() {
    let model = |new: &[u32]| match new {
        [2] => [0.1, 0.2, 0.3, 0.4],
        _ => [0.97, 0.01, 0.01, 0.01],
    };
    let ask = json!({"num_beams": 3, "num_return_sequences": 3, "max_length": 6, "forced_bos_token_id": 2});
    let found = search(ask, model);
    assert_eq!(ids(&found), [&[2, 3, EOS], &[2, 2, EOS], &[2, 1, EOS]]);
    assert_score(&found[0], &[1.0, 0.4, 0.97], 3.0);
}

#[test]
fn ties_go_to_the_lower_beam_and_the_lower_id() {
    let found =
        search(json!({"num_beams": 2, "num_return_sequences": 2, "max_length": 3, "suppress_tokens": [0]}), |_| {
            [0.25; 4]
        });
    assert_eq!(ids(&found), [&[1, 1], &[1, 2]]);
    assert_eq!(search(json!({"max_length": 3}), |_| [0.25; 4])[0].token_ids, [0]);
}

#[test]
fn processors_see_log_probabilities_and_masks_are_not_renormalised() {
    let found = search(json!({"num_beams": 2, "max_length": 2, "suppress_tokens": [1]}), |_| [0.2, 0.5, 0.25, 0.05]);
    assert_eq!(ids(&found), [&[2]]);
    assert_score(&found[0], &[0.25], 1.0);
    let greedy = search(json!({"max_length": 2, "suppress_tokens": [1]}), |_| [0.2, 0.5, 0.25, 0.05]);
    assert_score(&greedy[0], &[0.5], 1.0);
    // The prompt's 3 is the best but penalised: a log-probability is never positive, so it is multiplied.
    let found = search(json!({"num_beams": 2, "max_length": 2, "repetition_penalty": 2.0}), |_| [0.2, 0.1, 0.1, 0.6]);
    assert_score(&found[0], &[0.6, 0.6], 1.0);
}

#[test]
fn a_model_that_breaks_the_contract_is_an_error() {
    let config = config(json!({"num_beams": 2, "max_length": 5}));
    let lengths = config.lengths(1).unwrap();
    let rows = twin::generate(&config, lengths, &[3], 0, &mut |_| vec![vec![0.0; 4]]);
    assert_eq!(rows, Err(TwinError::StepRows { expected: 2, found: 1 }));
    let vocabulary = twin::generate(&config, lengths, &[3], 0, &mut |_| vec![vec![0.0; 4], vec![0.0; 5]]);
    assert_eq!(vocabulary, Err(TwinError::StepVocabulary { expected: 4, found: 5 }));
    for prompt in [&[][..], &[3; 5]] {
        let error = twin::generate(&config, lengths, prompt, 0, &mut |rows| vec![vec![0.0; 4]; rows.len()]);
        assert_eq!(error, Err(TwinError::Prompt { prompt_len: prompt.len(), max_length: 5 }));
    }
}

#[test]
fn backtracking_follows_parents() {
    let entry = |token, parent| TraceEntry { token, parent };
    let trace = [entry(10, 0), entry(11, 9), entry(20, 1), entry(21, 0), entry(30, 1), entry(31, 1)];
    assert_eq!(backtrack(&trace, 2, 2, 0), Ok(vec![10, 21, 30]));
    assert_eq!(backtrack(&trace, 2, 1, 0), Ok(vec![11, 20]));
    assert_eq!(backtrack(&trace, 2, 0, 1), Ok(vec![11]));
    let broken = |step, row| TwinError::BrokenTrace { step, row, entries: 6, rows_per_step: 2 };
    assert_eq!(backtrack(&trace, 2, 3, 0), Err(broken(3, 0)));
    assert_eq!(backtrack(&trace, 2, 0, 2), Err(broken(0, 2)));
    let wild = [entry(1, 0), entry(2, 0), entry(3, 7), entry(4, 0)];
    assert!(backtrack(&wild, 2, 1, 0).is_err());
}
