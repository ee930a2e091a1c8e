//! Each processor by hand, and the order among them.

use elgen_search::hooks::SequenceView;
use elgen_search::twin::processors::*;
use elgen_search::{ExponentialDecay, GenerationConfig, GenerationOptions, Lengths, ModelLimits};
use serde_json::{Value, json};

const NONE: f32 = f32::NEG_INFINITY;
const NOTHING: [u32; 0] = [];

fn config(json: Value) -> GenerationConfig {
    let limits = ModelLimits { vocab_size: 5, max_position_embeddings: None, is_encoder_decoder: false };
    serde_json::from_value::<GenerationOptions>(json).unwrap().resolve(&limits).unwrap().0
}

/// A sequence whose source is 0 1 2 1 3.
fn view(token_ids: &[u32], prompt_len: usize) -> SequenceView<'_> {
    SequenceView { ordinal: 0, row: 0, source: &[0, 1, 2, 1, 3], prompt_len, token_ids }
}

/// The ids that the processors ban behind `tokens`.
fn banned(json: Value, tokens: &[u32], prompt_len: usize) -> Vec<u32> {
    let config = config(json);
    let mut scores = [-0.5; 5];
    process(&config, config.lengths(prompt_len).unwrap(), &view(tokens, prompt_len), &mut scores);
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
    process(&config, config.lengths(1).unwrap(), &view(&[0, 0], 1), &mut scores);
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
    process(&config, Lengths { max_length: 9, min_length: 0, min_new_tokens: 0 }, &view(&[0, 1, 3], 1), &mut scores);
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
    warp(&config, 1, &mut scores);
    // Of the two that top-k leaves, the best has 0.72: top-p looks at their softmax, not at that of all five.
    assert_eq!(scores, [NONE, 2.0, NONE, NONE, NONE]);
}

#[test]
fn biases_add_up() {
    let biases =
        [(vec![1], 1.0), (vec![2, 1], 0.25), (vec![0, 2, 1], 8.0), (vec![3, 4], -2.0), (vec![9, 9, 9, 4], 5.0)];
    let biased = |tokens: &[u32]| {
        let mut scores = [0.5; 5];
        bias_sequences(&biases, tokens, &mut scores);
        scores
    };
    assert_eq!(biased(&[0]), [0.5, 1.5, 0.5, 0.5, 0.5]);
    assert_eq!(biased(&[2]), [0.5, 1.75, 0.5, 0.5, 0.5]);
    assert_eq!(biased(&[0, 2]), [0.5, 9.75, 0.5, 0.5, 0.5]);
    assert_eq!(biased(&[0, 3]), [0.5, 1.5, 0.5, 0.5, -1.5]);
    assert_eq!(biased(&[9, 9, 9]), [0.5, 1.5, 0.5, 0.5, 5.5]);
}

#[test]
fn the_source_is_rewarded_once_an_id() {
    let config = config(json!({"encoder_repetition_penalty": 2.0, "max_length": 9}));
    let mut scores = [3.0, -1.0, 0.0, 5.0, 7.0];
    process(&config, config.lengths(1).unwrap(), &view(&[4], 1), &mut scores);
    assert_eq!(scores, [6.0, -0.5, 0.0, 10.0, 7.0]);
}

#[test]
fn ngrams_of_the_source() {
    let ngrams = |size: usize| json!({"encoder_no_repeat_ngram_size": size});
    assert_eq!(banned(ngrams(2), &[1], 1), [2, 3]);
    assert_eq!(banned(ngrams(2), &[4, 2], 1), [1]);
    assert_eq!(banned(ngrams(2), &[4], 1), NOTHING);
    assert_eq!(banned(ngrams(3), &[1], 1), NOTHING, "shorter than the rest of an n-gram");
    assert_eq!(banned(ngrams(3), &[1, 2], 1), [1], "one short of an n-gram is enough");
    assert_eq!(banned(ngrams(1), &[4], 1), [0, 1, 2, 3]);
}

#[test]
fn invalid_values_become_finite() {
    let mut scores = [f32::NAN, f32::INFINITY, NONE, -1.0, f32::MAX];
    remove_invalid(&mut scores);
    assert_eq!(scores, [0.0, f32::MAX, f32::MIN, -1.0, f32::MAX]);
    let config = config(json!({"remove_invalid_values": true, "bad_words_ids": [[1]], "suppress_tokens": [2]}));
    let mut scores = [-1.0; 5];
    process(&config, config.lengths(1).unwrap(), &view(&[4], 1), &mut scores);
    assert_eq!(scores, [-1.0, f32::MIN, NONE, -1.0, -1.0], "behind the bans, before the suppression");
}

#[test]
fn the_decay_raises_eos() {
    let decay = ExponentialDecay { start: 2.0, factor: 2.0 };
    let grown = |new: usize| {
        let mut scores = [-1.0, 3.0, NONE, -1.0];
        grow_eos(decay, &[0, 1, 2], new, &mut scores);
        scores
    };
    assert_eq!(grown(2), [-1.0, 3.0, NONE, -1.0]);
    assert_eq!(grown(3), [0.0, 6.0, NONE, -1.0]);
    assert_eq!(grown(5), [6.0, 24.0, NONE, -1.0]);
}

#[test]
fn renormalising_is_last() {
    let config = config(json!({"renormalize_logits": true}));
    let mut scores = [0.0, 0.0, NONE, NONE, NONE];
    renormalize(&config, &mut scores);
    let half = -std::f32::consts::LN_2;
    assert_eq!(scores, [half, half, NONE, NONE, NONE]);
}

/// The ids that warpers leave of five with probabilities 0.4, 0.3, 0.15, 0.1 and 0.05.
fn left(mut options: Value, keep: usize) -> Vec<u32> {
    options["do_sample"] = json!(true);
    options["top_k"] = json!(0);
    let mut scores = [0.1_f32.ln(), 0.4_f32.ln(), 0.05_f32.ln(), 0.3_f32.ln(), 0.15_f32.ln()];
    warp(&config(options), keep, &mut scores);
    (0..5).filter(|&id| scores[id as usize] > NONE).collect()
}

#[test]
fn thresholds_of_probability() {
    assert_eq!(left(json!({"min_p": 0.3}), 1), [1, 3, 4]);
    assert_eq!(left(json!({"min_p": 1.0}), 1), [1]);
    assert_eq!(left(json!({"min_p": 1.0}), 3), [1, 3, 4], "as many as must stay");
    assert_eq!(left(json!({"min_p": 0.0}), 1), [0, 1, 2, 3, 4]);
    assert_eq!(left(json!({"epsilon_cutoff": 0.12}), 1), [1, 3, 4]);
    assert_eq!(left(json!({"epsilon_cutoff": 0.9}), 1), [1]);
    assert_eq!(left(json!({"epsilon_cutoff": 0.9}), 2), [1, 3]);
    // The entropy is 1.39 nats: the bar is sqrt(0.5) exp(-1.39) = 0.176.
    assert_eq!(left(json!({"eta_cutoff": 0.5}), 1), [1, 3]);
    assert_eq!(
        left(json!({"eta_cutoff": 0.08}), 1),
        [0, 1, 3, 4],
        "the lower of the two bars: sqrt(0.08) exp(-1.39) = 0.07"
    );
}

#[test]
fn typical_tokens_need_not_be_the_best() {
    // Surprises 0.92, 1.20, 1.90, 2.30, 3.00 against an entropy of 1.39: nearest is the second, then the best, then the third.
    assert_eq!(left(json!({"typical_p": 0.2}), 1), [3]);
    assert_eq!(left(json!({"typical_p": 0.5}), 1), [1, 3]);
    assert_eq!(left(json!({"typical_p": 0.2}), 3), [1, 3, 4]);
    assert_eq!(left(json!({"typical_p": 0.97}), 1), [0, 1, 2, 3, 4]);
}

#[test]
fn top_h_bounds_the_entropy() {
    // Terms 0.367, 0.361, 0.285, 0.230 and 0.150 of 1.393.
    assert_eq!(left(json!({"top_h": 0.1}), 1), [1], "the first always stays");
    assert_eq!(left(json!({"top_h": 0.53}), 1), [1, 3]);
    assert_eq!(left(json!({"top_h": 0.52}), 1), [1]);
    assert_eq!(left(json!({"top_h": 0.9}), 1), [0, 1, 3, 4]);
    assert_eq!(left(json!({"top_h": 0.1}), 3), [1], "top_h keeps no more");
    let config = config(json!({"do_sample": true, "top_h": 1.0, "top_k": 0}));
    let mut scores = [0.0; 130];
    warp(&config, 1, &mut scores);
    assert!(scores[..99].iter().all(|score| *score == 0.0), "of equal scores the first hundred");
    assert!(scores[100..].iter().all(|score| *score == NONE));
}
