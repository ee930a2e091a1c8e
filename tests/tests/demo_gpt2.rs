//! The demo story teller against PyTorch, its samples whatever the batch, and the bytes of its caches.

use elgen_engine::{AttentionChoice, Request, Session};
use elgen_search::GenerationOptions;
use elgen_tests::demo::{
    KINDS, Pair, Story, assert_equal_but_for_near_ties, assert_same, best, config, generate, generate_shuffled, pairs,
    requests, session_options, wanted,
};
use elgen_tests::rescore::Gpt2;

/// Kinds that a decoder-only model has.
fn kinds() -> impl Iterator<Item = (AttentionChoice, &'static str)> {
    KINDS.into_iter().filter(|(kind, _)| *kind != AttentionChoice::MHA_NOCACHE)
}

fn asked(num_beams: usize, max_new_tokens: usize) -> GenerationOptions {
    GenerationOptions {
        num_beams: Some(num_beams),
        max_new_tokens: Some(max_new_tokens),
        ..GenerationOptions::default()
    }
}

#[test]
fn greedy_and_beams_give_what_pytorch_gives() {
    let (prompts, stories) = (Story::prompts(), Story::load());
    assert_eq!(prompts.len(), stories.len());
    let judge = Gpt2::load(&Story::model());
    for (kind, name) in kinds() {
        let mut session = Session::load(&Story::model(), &session_options(kind, 20)).unwrap();
        let tokenizer = session.tokenizer().unwrap();
        for (prompt, story) in prompts.iter().zip(&stories) {
            assert_eq!(tokenizer.encode(prompt).unwrap(), story.input_ids, "{prompt}");
        }
        for (beams, mode) in [(1, "greedy"), (4, "4 beams")] {
            let config = config(&session, asked(beams, Story::NEW_TOKENS));
            let results = generate(&mut session, &requests(&prompts), &config);
            let expected = stories.iter().map(|s| if beams == 1 { &s.greedy } else { &s.beam });
            // Greedy decoding goes another way for good where two tokens are equally likely, so what counts is the margin there.
            let margin = |i: usize, pair: &Pair<'_>| match pair.first_difference() {
                Some((at, got, want)) if beams == 1 => {
                    let prefix = [stories[i].input_ids.as_slice(), &pair.want.0[..at]].concat();
                    let next = judge.next(&prefix);
                    (next[got as usize] - next[want as usize]).abs()
                }
                _ => pair.score_margin(),
            };
            let what = format!("{name}, {mode}, and PyTorch");
            assert_equal_but_for_near_ties(pairs(best(&results), wanted(expected)), &what, margin);
        }
    }
}

#[test]
fn mha_nocache_is_refused() {
    let error =
        Session::load(&Story::model(), &session_options(AttentionChoice::MHA_NOCACHE, 8)).unwrap_err().to_string();
    assert!(error.contains("mha-nocache") && error.contains("encoder") && !error.contains('\n'), "{error}");
}

#[test]
fn samples_do_not_depend_on_batch_and_order() {
    let requests = requests(&Story::prompts()[..12]);
    let asked = GenerationOptions {
        do_sample: Some(true),
        num_return_sequences: Some(2),
        top_k: Some(40),
        top_p: Some(0.9),
        seed: Some(11),
        ..asked(1, 24)
    };
    for kind in [AttentionChoice::MHA, AttentionChoice::EL] {
        let mut want = Vec::new();
        for batch in [12, 5, 1] {
            let mut session = Session::load(&Story::model(), &session_options(kind, batch)).unwrap();
            let config = config(&session, asked.clone());
            let sorted = generate(&mut session, &requests, &config);
            if want.is_empty() {
                assert!(
                    sorted.iter().any(|r| r.sequences[0].token_ids != r.sequences[1].token_ids),
                    "both samples are always the same"
                );
                want.clone_from(&sorted);
            }
            assert_same(&sorted, &want, &format!("{kind:?}, batch {batch}, sorted"));
            let shuffled = generate_shuffled(&mut session, &requests, &config, batch);
            assert_same(&shuffled, &want, &format!("{kind:?}, batch {batch}, shuffled"));
        }
    }
}

#[test]
fn samples_follow_the_seed_and_the_ordinal() {
    let mut session = Session::load(&Story::model(), &session_options(AttentionChoice::EL, 8)).unwrap();
    let mut run = |seed: u64, ordinals: &[u64]| -> Vec<Vec<u32>> {
        let asked = GenerationOptions { do_sample: Some(true), seed: Some(seed), ..asked(1, 12) };
        let config = config(&session, asked);
        let requests: Vec<Request> = ordinals.iter().map(|o| Request::new(*o, "Once upon a time")).collect();
        generate(&mut session, &requests, &config).into_iter().map(|mut r| r.sequences.remove(0).token_ids).collect()
    };
    let first = run(1, &[0, 1]);
    assert_ne!(first[0], first[1], "two inputs with the same text draw the same");
    assert_eq!(run(1, &[1, 0]), [first[1].clone(), first[0].clone()]);
    assert_ne!(run(2, &[0, 1]), first, "the seed changes nothing");
}

#[test]
fn cache_bytes_share_the_prompt() {
    const LAYERS: u64 = 4;
    const WIDTH: u64 = 256;
    const F32: u64 = 4;
    const BEAMS: u64 = 4;
    const NEW: u64 = 4;
    let stories = Story::load();
    let requests: Vec<Request> =
        (0..).zip(&stories[..6]).map(|(ordinal, s)| Request::new(ordinal, s.input_ids.clone())).collect();
    let prompts: u64 = stories[..6].iter().map(|s| s.input_ids.len() as u64).sum();
    for (kind, name) in kinds() {
        let mut session = Session::load(&Story::model(), &session_options(kind, 6)).unwrap();
        let config = config(&session, asked(BEAMS as usize, NEW as usize));
        generate(&mut session, &requests, &config);
        let stored = if kind == AttentionChoice::MHA_REPLICATED { BEAMS * prompts } else { prompts };
        let slots = stored + 6 * BEAMS * (NEW - 1);
        let slot = LAYERS * WIDTH * F32 * if kind == AttentionChoice::EL { 1 } else { 2 };
        let got = session.metrics().cache_bytes;
        assert_eq!((got.self_, got.cross), (slots * slot, 0), "{name}");
    }
}
