//! Properties of every search on random toy models and option sets.

use elgen_search::twin::{self, Row, ToyModel};
use elgen_search::{
    EarlyStopping, FinishReason, GenerationConfig, GenerationOptions, Hypothesis, ModelLimits, TokenIds, TwinError,
};
use proptest::prelude::*;

fn resolve(options: &GenerationOptions, vocab_size: usize) -> GenerationConfig {
    let limits = ModelLimits { vocab_size, max_position_embeddings: None, is_encoder_decoder: false };
    options.resolve(&limits).unwrap().0
}

/// `None` where the scores are not finite: bans can leave no token.
fn generate(options: &GenerationOptions, model: ToyModel, prompt: &[u32], ordinal: u64) -> Option<Vec<Hypothesis>> {
    let config = resolve(options, model.vocab);
    let mut step = |rows: &[Row<'_>]| rows.iter().map(|row| model.logits(row.tokens)).collect();
    match twin::generate(&config, config.lengths(prompt.len()).unwrap(), prompt, ordinal, &mut step) {
        Ok(found) => Some(found),
        Err(TwinError::NotFinite(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

fn models() -> impl Strategy<Value = ToyModel> {
    (8..40_usize, any::<u64>()).prop_map(|(vocab, seed)| ToyModel { vocab, seed })
}

prop_compose! {
    fn option_sets()(
        beams in 1..5_usize, sample in any::<bool>(), returned in 1..4_usize, new in 1..12_usize, shortest in 0..6_usize,
        eos in prop::collection::vec(0..8_u32, 0..3), stop in 0..3_usize, penalty in -1.0..2.0_f64,
        repetition in prop_oneof![Just(None), (0.5..2.0_f64).prop_map(Some)], ngram in 0..4_usize,
        words in prop::collection::vec(prop::collection::vec(0..8_u32, 1..4), 0..3),
        suppressed in prop::collection::vec(0..3_u32, 0..2), top_k in 0..9_usize, top_p in 0.0..=1.0_f64, seed in any::<u64>(),
    ) -> GenerationOptions {
        let sample = sample && beams == 1;
        GenerationOptions {
            num_beams: Some(beams),
            do_sample: Some(sample),
            num_return_sequences: Some(if sample { returned } else { returned.min(beams) }),
            max_new_tokens: Some(new),
            min_new_tokens: Some(shortest),
            eos_token_id: Some(TokenIds(eos)),
            early_stopping: Some([EarlyStopping::False, EarlyStopping::True, EarlyStopping::Never][stop]),
            length_penalty: Some(penalty),
            repetition_penalty: repetition,
            no_repeat_ngram_size: Some(ngram),
            bad_words_ids: Some(words),
            suppress_tokens: Some(suppressed),
            top_k: Some(top_k),
            top_p: Some(top_p),
            seed: Some(seed),
            ..Default::default()
        }
    }
}

/// Whether it is more than a place that was never filled.
fn possible(hypothesis: &Hypothesis) -> bool {
    hypothesis.score > -1e6
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_returned_obeys_the_options(options in option_sets(), model in models(), start in 0..8_u32) {
        let config = resolve(&options, model.vocab);
        let prompt = [start, start / 2];
        let Some(found) = generate(&options, model, &prompt, 3) else { return Ok(()) };
        prop_assert_eq!(found.len(), config.num_return_sequences);
        prop_assert!(found.iter().all(|one| one.score.is_finite()));
        prop_assert!(found.iter().flat_map(|one| &one.token_logprobs).all(|logprob| logprob.is_finite()));
        let (longest, shortest) = (options.max_new_tokens.unwrap(), options.min_new_tokens.unwrap());
        for hypothesis in found.iter().filter(|hypothesis| possible(hypothesis)) {
            let ids = &hypothesis.token_ids;
            prop_assert!((1..=longest).contains(&ids.len()));
            prop_assert_eq!(hypothesis.token_logprobs.len(), ids.len());
            let ended = config.is_eos(ids[ids.len() - 1]);
            prop_assert_eq!(hypothesis.finish_reason, if ended { FinishReason::Eos } else { FinishReason::Length });
            prop_assert!(ended && ids.len() > shortest || !ended && ids.len() == longest);
            prop_assert!(!ids[..ids.len() - 1].iter().any(|&id| config.is_eos(id)));
            prop_assert!(!ids.iter().any(|id| config.suppress_tokens.contains(id)));

            let whole = [&prompt[..], ids].concat();
            for word in &config.bad_words_ids {
                prop_assert!((0..ids.len()).all(|n| !whole[..=n + 2].ends_with(word)), "{word:?} in {whole:?}");
            }
            let size = config.no_repeat_ngram_size;
            if size > 0 {
                for end in prompt.len() + 1..=whole.len() {
                    let (before, last) = (&whole[..end - 1], &whole[end.saturating_sub(size)..end]);
                    prop_assert!(last.len() < size || !before.windows(size).any(|ngram| ngram == last), "{whole:?}");
                }
            }

            let sum: f32 = hypothesis.token_logprobs.iter().sum();
            let length = if config.num_beams > 1 { (ids.len() as f64).powf(config.length_penalty) as f32 } else { 1.0 };
            prop_assert!((hypothesis.score - sum / length).abs() <= 1e-5 * sum.abs().max(1.0));
        }
        if config.num_beams > 1 {
            prop_assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score));
        }
    }

    /// A beam for every prefix leaves nothing to prune: the best hypothesis is the best of all texts.
    #[test]
    fn enough_beams_search_everything(seed in any::<u64>(), new in 1..4_usize, penalty in -1.0..2.0_f64) {
        let model = ToyModel { vocab: 4, seed };
        let options = GenerationOptions {
            num_beams: Some(64), max_new_tokens: Some(new), eos_token_id: Some(2.into()), length_penalty: Some(penalty),
            early_stopping: Some(EarlyStopping::Never), ..Default::default()
        };
        let found = generate(&options, model, &[1], 0).unwrap();
        let mut best = f64::NEG_INFINITY;
        let mut open = vec![(vec![1_u32], 0.0)];
        while let Some((tokens, sum)) = open.pop() {
            let logits = model.logits(&tokens);
            let normaliser = logits.iter().map(|&logit| f64::from(logit).exp()).sum::<f64>().ln();
            for (id, logit) in (0..4).zip(logits) {
                let longer = [&tokens[..], &[id]].concat();
                let sum = sum + f64::from(logit) - normaliser;
                if id == 2 || longer.len() > new {
                    best = best.max(sum / ((longer.len() - 1) as f64).powf(penalty));
                } else {
                    open.push((longer, sum));
                }
            }
        }
        prop_assert!((f64::from(found[0].score) - best).abs() < 1e-4, "{} {best}", found[0].score);
    }

    /// Where the best token has nearly all the probability, every mode must take it.
    #[test]
    fn all_modes_agree_on_a_certain_model(model in models(), new in 1..10_usize, beams in 2..5_usize) {
        let sharp = |rows: &[Row<'_>]| -> Vec<Vec<f32>> {
            rows.iter().map(|row| {
                let mut logits = model.logits(row.tokens);
                let best = twin::processors::argmax(&logits);
                logits[best] += 60.0;
                logits
            }).collect()
        };
        let base = GenerationOptions { max_new_tokens: Some(new), eos_token_id: Some(5.into()), ..Default::default() };
        let run = |options: GenerationOptions| {
            let config = resolve(&options.or(base.clone()), model.vocab);
            let mut step = sharp;
            twin::generate(&config, config.lengths(1).unwrap(), &[0], 1, &mut step).unwrap()[0].token_ids.clone()
        };
        let greedy = run(GenerationOptions::default());
        prop_assert_eq!(&run(GenerationOptions { num_beams: Some(beams), ..Default::default() }), &greedy);
        prop_assert_eq!(&run(GenerationOptions { do_sample: Some(true), ..Default::default() }), &greedy);
    }

    /// Both thresholds against their definitions, on scores with many ties.
    #[test]
    fn thresholds_match_their_definitions(raw in prop::collection::vec(-6..6_i32, 1..40), k in 1..40_usize, p in 0.0..1.0_f64) {
        use twin::processors::{keep_from, ordered_key, top_k_key, top_p_key};
        let scores: Vec<f32> = raw.iter().map(|&score| score as f32 / 2.0).collect();
        let mut sorted = scores.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let mut kept = scores.clone();
        keep_from(top_k_key(k, &scores), &mut kept);
        let limit = sorted[k.min(sorted.len()) - 1];
        prop_assert!(kept.iter().zip(&scores).all(|(kept, &score)| kept.is_finite() == (score >= limit)));

        let total: f64 = scores.iter().map(|&score| f64::from(score).exp()).sum();
        let mass = |limit: f32| {
            scores.iter().filter(|&&score| score <= limit).map(|&score| f64::from(score).exp()).sum::<f64>() / total
        };
        prop_assume!(scores.iter().all(|&score| (mass(score) - (1.0 - p)).abs() > 1e-5));
        let key = top_p_key(p, &scores);
        for &score in &scores {
            let keeps = mass(score) > 1.0 - p || score == sorted[0];
            prop_assert_eq!(ordered_key(score) >= key, keeps, "{} of {:?}", score, scores);
        }
    }
}
