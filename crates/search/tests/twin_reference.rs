//! The twin against Hugging Face: whole searches on the toy model, and the warpers one by one.

use std::path::PathBuf;

use elgen_search::{GenerationOptions, ModelLimits, Warning, twin};
use serde_json::Value;

fn read(path: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap_or(f64::NEG_INFINITY)).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn assert_close(found: f64, expected: f64, what: &str) {
    assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{what}: {found}, expected {expected}");
}

/// Made by `tools/make_toy_search_cases.py`.
#[test]
fn searches_agree_with_hugging_face() {
    let cases = read("tests/twin_cases.json");
    let cases = cases["cases"].as_array().unwrap();
    assert!(cases.len() >= 200);
    for (number, case) in cases.iter().enumerate() {
        let what = format!("case {number}: {} {}", case["prompt"], case["options"]);
        let options = GenerationOptions::from_json(case["options"].as_object().unwrap()).unwrap();
        let model =
            twin::ToyModel { vocab: case["vocab"].as_u64().unwrap() as usize, seed: case["seed"].as_u64().unwrap() };
        let limits = ModelLimits { vocab_size: model.vocab, max_position_embeddings: None, is_encoder_decoder: false };
        let (config, warnings) = options.resolve(&limits).unwrap();
        assert!(
            warnings.iter().all(|w| matches!(w, Warning::Overridden { .. } | Warning::Unreachable { .. })),
            "{what}"
        );

        let prompt = ids(&case["prompt"]);
        let lengths = config.lengths(prompt.len()).unwrap();
        let found = twin::generate(&config, lengths, &prompt, 0, &mut |rows| {
            rows.iter().map(|row| model.logits(row.tokens)).collect()
        })
        .unwrap();

        let expected = case["outputs"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{what}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found.token_ids, ids(&expected["token_ids"]), "{what}");
            assert_close(f64::from(found.score), expected["score"].as_f64().unwrap(), &what);
            assert_eq!(found.token_logprobs.len(), found.token_ids.len(), "{what}");
            for (&found, expected) in found.token_logprobs.iter().zip(numbers(&expected["logprobs"])) {
                assert_close(f64::from(found), expected, &what);
            }
        }
    }
}

/// What transformers' warpers leave of rows of logits; `keep` is min_tokens_to_keep.
fn warpers_agree(file: &str, least: usize) {
    let cases = read(file);
    let cases = cases["cases"].as_array().unwrap();
    assert!(cases.len() >= least);
    for (number, case) in cases.iter().enumerate() {
        let mut options = GenerationOptions::from_json(case.as_object().unwrap()).unwrap();
        options.do_sample = Some(true);
        let what = format!("{file}, case {number}: {}", serde_json::to_string(&options).unwrap());
        let mut scores: Vec<f32> = numbers(&case["logits"]).iter().map(|&logit| logit as f32).collect();
        let limits = ModelLimits { vocab_size: scores.len(), max_position_embeddings: None, is_encoder_decoder: false };
        let (config, _) = options.resolve(&limits).unwrap();
        let keep = case["keep"].as_u64().unwrap_or(1) as usize;
        twin::processors::warp(&config, keep, &mut scores);

        let kept: Vec<u32> = (0..scores.len() as u32).filter(|&id| scores[id as usize].is_finite()).collect();
        assert_eq!(kept, ids(&case["kept"]), "{what}");
        twin::processors::log_softmax(&mut scores);
        for (&id, expected) in kept.iter().zip(numbers(&case["probs"])) {
            assert_close(f64::from(scores[id as usize].exp()), expected, &what);
        }
    }
}

#[test]
fn warpers_agree_with_hugging_face() {
    warpers_agree("../../tests/fixtures/warpers.json", 40);
}

/// Made by `tools/make_option_fixtures.py`.
#[test]
fn further_warpers_agree_with_hugging_face() {
    warpers_agree("../../tests/fixtures/option_warpers.json", 72);
}
