//! The demo translator against PyTorch, EL against MHA, and one batch against another.
//!
//! The quick run takes 120 of the 1,000 sentences, 24 for the two baselines that nobody should use, and 40 at batch 1;
//! `ELGEN_FULL=1` takes all 1,000 everywhere.

use elgen_engine::{AttentionChoice, Generation, Session};
use elgen_metrics::{BleuOptions, corpus_bleu};
use elgen_search::GenerationOptions;
use elgen_tests::demo::{
    KINDS, Translations, assert_equal_but_for_near_ties, assert_same, best, config, generate, generate_shuffled, pairs,
    session_options, wanted,
};
use elgen_tests::full;

fn sentences() -> Translations {
    Translations::load().spread(if full() { 1000 } else { 120 })
}

/// Translates with the checkpoint's own options: 4 beams.
fn translate(attention: AttentionChoice, data: &Translations) -> Vec<Generation> {
    let mut session = Session::load(&Translations::model(), &session_options(attention, 64)).unwrap();
    let config = config(&session, GenerationOptions::default());
    assert_eq!(config.num_beams, 4);
    generate(&mut session, &data.requests(), &config)
}

/// Asserts ids, scores and texts.
fn assert_is_pytorchs(results: &[Generation], data: &Translations, what: &str) {
    assert_equal_but_for_near_ties(
        pairs(best(results), wanted(&data.expected)),
        &format!("{what} and PyTorch"),
        |_, pair| pair.score_margin(),
    );
    for (i, result) in results.iter().enumerate() {
        let sequence = &result.sequences[0];
        if sequence.token_ids == data.expected[i].token_ids {
            assert_eq!(sequence.text.as_deref(), Some(data.hypotheses[i].as_str()), "{what}: text {i}");
        }
    }
}

fn assert_bleu_is_pytorchs(results: &[Generation], data: &Translations, what: &str) {
    let texts: Vec<&str> = results.iter().map(|r| r.sequences[0].text.as_deref().unwrap()).collect();
    let options = BleuOptions::default();
    let got = corpus_bleu(&texts, &data.references, &options).unwrap().score;
    let want = corpus_bleu(&data.hypotheses, &data.references, &options).unwrap().score;
    eprintln!("{what}: BLEU {got:.2} on {} sentences, PyTorch {want:.2}", texts.len());
    assert!((got - want).abs() <= 0.1, "{what}: BLEU {got} is not {want}");
    if texts.len() == 1000 {
        let training = std::fs::read_to_string(Translations::model().join("training.json")).unwrap();
        let training: serde_json::Value = serde_json::from_str(&training).unwrap();
        let recorded = training["bleu_multi_reference"].as_f64().unwrap();
        assert!((got - recorded).abs() <= 0.1, "{what}: BLEU {got} is not the recorded {recorded}");
    }
}

#[test]
fn mha_and_el_give_what_pytorch_gives() {
    let data = sentences();
    let mha = translate(AttentionChoice::MHA, &data);
    assert_is_pytorchs(&mha, &data, "mha");
    assert_bleu_is_pytorchs(&mha, &data, "mha");
    let el = translate(AttentionChoice::EL, &data);
    assert_is_pytorchs(&el, &data, "el");
    assert_bleu_is_pytorchs(&el, &data, "el");
    assert_equal_but_for_near_ties(pairs(best(&el), best(&mha)), "el and mha", |_, pair| pair.score_margin());
}

#[test]
fn the_baselines_give_what_pytorch_gives() {
    let data = Translations::load().spread(if full() { 1000 } else { 24 });
    for (kind, name) in [KINDS[1], KINDS[2]] {
        assert_is_pytorchs(&translate(kind, &data), &data, name);
    }
}

#[test]
fn results_do_not_depend_on_batch_and_order() {
    let data = sentences();
    let requests = data.requests();
    for kind in [AttentionChoice::MHA, AttentionChoice::EL] {
        let mut want: Vec<Generation> = Vec::new();
        for batch in [64, 7, 1] {
            let mut session = Session::load(&Translations::model(), &session_options(kind, batch)).unwrap();
            let config = config(&session, GenerationOptions::default());
            let n = if batch == 1 && !full() { 40 } else { requests.len() };
            let what = |order: &str| format!("{kind:?}, batch {batch}, {order}");
            let sorted = generate(&mut session, &requests[..n], &config);
            if want.is_empty() {
                want.clone_from(&sorted);
            }
            assert_same(&sorted, &want[..n], &what("sorted"));
            let shuffled = generate_shuffled(&mut session, &requests[..n], &config, batch);
            assert_same(&shuffled, &want[..n], &what("shuffled"));
        }
    }
}

#[test]
fn cache_bytes_are_those_of_the_formulas() {
    const LAYERS: u64 = 2;
    const WIDTH: u64 = 256;
    const F32: u64 = 4;
    const BEAMS: u64 = 4;
    const NEW: u64 = 5;
    let data = Translations::load().spread(12);
    for (kind, name) in KINDS {
        let mut session = Session::load(&Translations::model(), &session_options(kind, 8)).unwrap();
        let asked = GenerationOptions { max_new_tokens: Some(NEW as usize), ..GenerationOptions::default() };
        let config = config(&session, asked);
        let results = generate(&mut session, &data.requests(), &config);

        // Two batches, 8 and 4 sentences, the longest first: the first is the peak.
        let mut lengths: Vec<u64> = results.iter().map(|r| r.prompt_tokens as u64).collect();
        lengths.sort_unstable_by_key(|n| std::cmp::Reverse(*n));
        let source: u64 = lengths[..8].iter().sum();
        // The decoder prompt is one id; what the last step generates is never fed back.
        let prompt = if kind == AttentionChoice::MHA_REPLICATED { BEAMS } else { 1 };
        let slots = 8 * (prompt + BEAMS * (NEW - 1));
        let (self_slot, cross_slot) = match name {
            "el" => (LAYERS * WIDTH * F32, WIDTH * F32),
            "mha-nocache" => (LAYERS * 2 * WIDTH * F32, WIDTH * F32),
            "mha-replicated" => (LAYERS * 2 * WIDTH * F32, BEAMS * LAYERS * 2 * WIDTH * F32),
            _ => (LAYERS * 2 * WIDTH * F32, LAYERS * 2 * WIDTH * F32),
        };
        let got = session.metrics().cache_bytes;
        assert_eq!((got.self_, got.cross), (slots * self_slot, source * cross_slot), "{name}");
        eprintln!("{name}: {} bytes for self-attention, {} for cross-attention", got.self_, got.cross);
    }
}
