//! Each processor by hand, and the order among them.

use elgen_search::twin::processors::*;
use elgen_search::{GenerationConfig, GenerationOptions, Lengths, ModelLimits};
use serde_json::{Value, json};

const NONE: f32 = f32::NEG_INFINITY;
const NOTHING: [u32; 0] = [];

fn config(json: Value) -> GenerationConfig {
    let limits = ModelLimits { vocab_size: 5, max_position_embeddings: None, is_encoder_decoder: false };
    serde_json::from_value::<GenerationOptions>(json).unwrap().resolve(&limits).unwrap().0
}

/// The ids that the processors ban behind `tokens`.
fn banned(json: Value, tokens: &[u32], prompt_len: usize) -> Vec<u32> {
    let config = config(json);
    let mut scores = [-0.5; 5];
    process(&config, config.lengths(prompt_len).unwrap(), tokens, prompt_len, &mut scores);
    (0..5).filter(|&id| scores[id as usize] == NONE).collect()
}

#[test]
fn keys_order_like_floats() {
    let ascending = [NONE, f32::MIN, -1.0, -f32::MIN_POSITIVE, 0.0, f32::MIN_POSITIVE, 1.0, f32::MAX, f32::INFINITY];
    assert!(ascending.windows(2).all(|pair| ordered_key(pair[0]) < ordered_key(pair[1])));
    assert_eq!(ordered_key(-0.0), ordered_key(0.0));
    assert_eq!([ordered_key(f32::NAN), ordered_key(-f32::NAN)], [0, 0]);
    assert!(ordered_key(NONE) > 0);
    assert_eq!(argmax(&[f32::NAN, 1.0, 3.0, 3.0]), 2);
    assert_eq!(argmax(&[NONE, NONE]), 0);
}

#[test]
fn log_softmax_of_large_and_masked_rows() {
    let mut scores = [1000.0, 1000.0, NONE];
    log_softmax(&mut scores);
    assert_eq!(scores, [-std::f32::consts::LN_2, -std::f32::consts::LN_2, NONE]);
    let mut scores = [NONE; 3];
    log_softmax(&mut scores);
    assert_eq!(scores, [NONE; 3]);
}

#[test]
fn repetition_counts_an_id_once_and_by_its_sign() {
    let mut scores = [3.0, -1.0, 0.0, 5.0];
    penalise_repetition(2.0, &[0, 1, 0, 2, 9], &mut scores);
    assert_eq!(scores, [1.5, -2.0, 0.0, 5.0]);
}

#[test]
fn ngrams() {
    assert_eq!(banned(json!({"no_repeat_ngram_size": 2}), &[1, 2, 1], 1), [2]);
    assert_eq!(banned(json!({"no_repeat_ngram_size": 2}), &[1, 2, 1, 3, 1], 1), [2, 3]);
    assert_eq!(banned(json!({"no_repeat_ngram_size": 3}), &[1, 2, 1], 1), NOTHING);
    assert_eq!(banned(json!({"no_repeat_ngram_size": 3}), &[1, 2, 3, 4, 1, 2], 1), [3]);
    assert_eq!(banned(json!({"no_repeat_ngram_size": 1}), &[1, 4], 1), [1, 4]);
    assert_eq!(banned(json!({"no_repeat_ngram_size": 4}), &[1, 2, 3], 1), NOTHING);
    assert_eq!(banned(json!({"no_repeat_ngram_size": 2}), &[1, 1], 1), [1]);
}

#[test]
fn bad_words() {
    let words = json!({"bad_words_ids": [[0], [1, 2], [3, 1, 4], [2]], "eos_token_id": 2});
    assert_eq!(banned(words.clone(), &[0], 1), [0]);
    assert_eq!(banned(words.clone(), &[0, 1], 1), [0, 2]);
    assert_eq!(banned(words.clone(), &[3, 1], 1), [0, 2, 4]);
    assert_eq!(banned(words, &[1], 1), [0, 2], "a word longer than the sequence by one can be completed");
}

#[test]
fn minimum_lengths() {
    let total = json!({"min_length": 3, "eos_token_id": [1, 2]});
    assert_eq!(banned(total.clone(), &[0, 0], 1), [1, 2]);
    assert_eq!(banned(total.clone(), &[0, 0, 0], 1), NOTHING);
    assert_eq!(banned(total, &[0, 0, 0], 3), NOTHING, "the prompt counts");
    let new = json!({"min_new_tokens": 2, "eos_token_id": 1});
    assert_eq!(banned(new.clone(), &[0, 0, 0, 0], 3), [1]);
    assert_eq!(banned(new, &[0, 0, 0, 0, 0], 3), NOTHING);
}

#[test]
fn forced_tokens() {
    let bos = json!({"forced_bos_token_id": 2});
    assert_eq!(banned(bos.clone(), &[0], 1), [0, 1, 3, 4]);
    assert_eq!(banned(bos.clone(), &[0, 2], 1), NOTHING);
    assert_eq!(banned(bos, &[0, 1], 2), NOTHING, "a longer prompt is not a beginning");
    let eos = json!({"forced_eos_token_id": [1, 3], "max_length": 4});
    assert_eq!(banned(eos.clone(), &[0, 0, 0], 1), [0, 2, 4]);
    assert_eq!(banned(eos, &[0, 0], 1), NOTHING);

    let config = config(json!({"forced_eos_token_id": 1, "eos_token_id": 1, "min_length": 9, "max_length": 3}));
    let mut scores = [0.5; 5];
    process(&config, config.lengths(1).unwrap(), &[0, 0], 1, &mut scores);
    assert_eq!(scores, [NONE, 0.0, NONE, NONE, NONE], "forcing comes behind the minimum length");
}

#[test]
fn suppressed_tokens() {
    assert_eq!(banned(json!({"suppress_tokens": [1, 4]}), &[0, 0], 1), [1, 4]);
    let begin = json!({"begin_suppress_tokens": [3]});
    assert_eq!(banned(begin.clone(), &[0, 0], 2), [3]);
    assert_eq!(banned(begin, &[0, 0], 1), NOTHING);
    let behind_bos = json!({"begin_suppress_tokens": [3], "forced_bos_token_id": 3});
    assert_eq!(banned(behind_bos.clone(), &[0], 1), [0, 1, 2, 4], "the forced token is not the beginning");
    assert_eq!(banned(behind_bos, &[0, 3], 1), [3]);
    let forced = json!({"forced_bos_token_id": 3, "begin_suppress_tokens": [3]});
    assert_eq!(banned(forced, &[0, 0], 2), [3]);
    let both = json!({"forced_eos_token_id": [1, 2], "suppress_tokens": [1], "max_length": 3});
    assert_eq!(banned(both, &[0, 0], 1), [0, 1, 3, 4], "suppression comes behind forcing");
}

#[test]
fn the_penalty_comes_before_the_masks() {
    let config = config(json!({"repetition_penalty": 2.0, "suppress_tokens": [0], "max_length": 9}));
    let mut scores = [4.0, 4.0, 4.0, -4.0, 4.0];
    process(&config, Lengths { max_length: 9, min_length: 0, min_new_tokens: 0 }, &[0, 1, 3], 1, &mut scores);
    assert_eq!(scores, [NONE, 2.0, 4.0, -8.0, 4.0]);
}

#[test]
fn top_k_keeps_ties() {
    let scores = [1.0, 3.0, 2.0, 2.0, 0.0];
    assert_eq!(top_k_key(2, &scores), ordered_key(2.0));
    assert_eq!(top_k_key(1, &scores), ordered_key(3.0));
    assert_eq!(top_k_key(9, &scores), 0);
    assert_eq!(top_k_key(3, &[1.0, NONE, NONE, NONE]), ordered_key(NONE));
    let mut kept = scores;
    keep_from(top_k_key(2, &scores), &mut kept);
    assert_eq!(kept, [NONE, 3.0, 2.0, 2.0, NONE]);
}

#[test]
fn top_p_cuts_the_lower_tail() {
    let ln = |p: f32| p.ln();
    let scores = [ln(0.5), ln(0.1), ln(0.25), ln(0.15), NONE];
    assert_eq!(top_p_key(0.3, &scores), ordered_key(scores[0]));
    assert_eq!(top_p_key(0.6, &scores), ordered_key(scores[2]));
    assert_eq!(top_p_key(0.8, &scores), ordered_key(scores[3]));
    assert_eq!(top_p_key(0.95, &scores), ordered_key(scores[1]));
    assert_eq!(top_p_key(0.0, &scores), ordered_key(scores[0]), "the best always stays");
    let ties = [0.0, 0.0, 0.0, 1.0];
    assert_eq!(top_p_key(0.7, &ties), ordered_key(0.0), "equal scores stay together");
    assert_eq!(top_p_key(0.0, &[NONE; 3]), 0);
}

#[test]
fn warpers_run_one_after_the_other() {
    let config = config(json!({"do_sample": true, "temperature": 2.0, "top_k": 2, "top_p": 0.6}));
    let mut scores = [2.0, 4.0, 2.1, 1.0, NONE];
    warp(&config, &mut scores);
    // Of the two that top-k leaves, the best has 0.72: top-p looks at their softmax, not at that of all five.
    assert_eq!(scores, [NONE, 2.0, NONE, NONE, NONE]);
}
