//! What the memory pool counts, what its limit does, and what 16-bit storage changes.

use elgen_engine::{AttentionChoice, DtypeChoice, EngineError, RunOptions, Session, on_done};
use elgen_search::GenerationOptions;
use elgen_tests::demo::{Translations, assert_same, config, generate, session_options};

const MIB: u64 = 1 << 20;

#[test]
fn the_pool_counts_what_the_allocator_holds() {
    let data = Translations::load().spread(16);
    for kind in [AttentionChoice::MHA, AttentionChoice::EL] {
        let mut session = Session::load(&Translations::model(), &session_options(kind, 16)).unwrap();
        let config = config(&session, GenerationOptions { max_new_tokens: Some(8), ..GenerationOptions::default() });
        generate(&mut session, &data.requests(), &config);
        session.device().wait().unwrap();
        let pool = session.device().pool().current().total;
        let allocator = session.device().allocator_bytes().expect("the Vulkan backend reports");
        eprintln!("{kind:?}: the pool counts {pool} bytes, the allocator holds {allocator}");
        assert!(
            pool.abs_diff(allocator) * 50 <= allocator,
            "{kind:?}: the pool counts {pool} bytes, the allocator holds {allocator}"
        );

        let metrics = session.metrics();
        let peak = metrics.peak_bytes;
        let classes = [peak.weights, peak.cache, peak.activations, peak.staging];
        assert!(classes.iter().all(|class| *class > 0 && *class <= peak.total), "{peak:?}");
        assert!(peak.total >= pool && peak.total <= classes.iter().sum(), "{peak:?}, {pool} bytes now");
        let cache = metrics.cache_bytes.self_ + metrics.cache_bytes.cross + metrics.cache_overhead_bytes;
        assert_eq!(cache, peak.cache, "{kind:?}");
    }
}

#[test]
fn a_tight_memory_limit_halves_the_batch_and_changes_nothing() {
    let data = Translations::load().spread(64);
    for kind in [AttentionChoice::MHA, AttentionChoice::EL] {
        let run = |memory_limit: Option<u64>| {
            let options = session_options(kind, 64).with_memory_limit(memory_limit);
            let mut session = Session::load(&Translations::model(), &options).unwrap();
            let config =
                config(&session, GenerationOptions { max_new_tokens: Some(40), ..GenerationOptions::default() });
            let results = generate(&mut session, &data.requests(), &config);
            let metrics = session.metrics();
            (results, metrics.peak_bytes.total, metrics.steps)
        };
        let (free, free_peak, free_steps) = run(None);
        let (tight, tight_peak, tight_steps) = run(Some(40 * MIB));
        assert_same(&tight, &free, &format!("{kind:?}"));
        assert!(free_peak > 40 * MIB && tight_peak <= 40 * MIB, "{kind:?}: peaks {free_peak} and {tight_peak}");
        assert!(tight_steps > free_steps, "{kind:?}: {tight_steps} steps, {free_steps} without the limit");
        eprintln!(
            "{kind:?}: {free_steps} steps and {free_peak} bytes; within 40 MiB {tight_steps} steps and {tight_peak} bytes"
        );
    }
}

#[test]
fn a_limit_below_the_weights_is_an_error_that_names_class_and_bytes() {
    let options = session_options(AttentionChoice::EL, 64).with_memory_limit(20 * MIB);
    let error = Session::load(&Translations::model(), &options).unwrap_err().to_string();
    eprintln!("{error}");
    assert!(
        error.contains("weights") && error.contains("iB of ") && error.contains(" of 20.0 MiB are in use"),
        "{error}"
    );
    assert!(!error.contains('\n'), "{error}");
}

#[test]
fn a_limit_without_room_for_one_sentence_fails_each_request() {
    let options = session_options(AttentionChoice::MHA, 64).with_memory_limit(64 * MIB);
    let mut session = Session::load(&Translations::model(), &options).unwrap();
    // Fill the pool but for half a MiB, which no sentence of 63 new ids and 4 beams fits.
    let pool = session.device().pool();
    let fill = pool.limit() - pool.current().total - MIB / 2;
    let ballast = session.device().alloc("ballast", elgen_tensor::Class::Activations, fill).unwrap();
    let config = config(&session, GenerationOptions::default());
    let data = Translations::load().spread(3);
    let mut errors = vec![String::new(); 3];
    let keep =
        |i: usize, result: Result<_, EngineError>| errors[i] = result.err().map_or_else(String::new, |e| e.to_string());
    session.generate(&data.requests(), &config, &RunOptions::default(), &mut on_done(keep)).unwrap();
    assert!(errors.iter().all(|e| e.contains("B of ") && e.contains("do not fit") && !e.contains('\n')), "{errors:?}");
    eprintln!("{}", errors[0]);
    // The session serves again once there is room.
    drop(ballast);
    assert_eq!(generate(&mut session, &data.requests(), &config)[0].sequences[0].token_ids, data.expected[0].token_ids);
}

#[test]
fn f16_storage_changes_few_results_and_halves_the_bytes() {
    let data = Translations::load().spread(60);
    for kind in [AttentionChoice::MHA, AttentionChoice::EL] {
        let options = session_options(kind, 32).with_dtype(DtypeChoice::F16);
        let mut session = Session::load(&Translations::model(), &options).unwrap();
        let config = config(&session, GenerationOptions::default());
        let results = generate(&mut session, &data.requests(), &config);
        // What f32 gives is what PyTorch gives: demo_bart.rs.
        let differ =
            results.iter().zip(&data.expected).filter(|(r, e)| r.sequences[0].token_ids != e.token_ids).count();
        eprintln!("{kind:?}: {differ} of 60 sentences differ from f32");
        assert!(differ <= 6, "{kind:?}: {differ} of 60 sentences differ from f32");

        // 32 sentences of 63 new ids: (1 + 4 beams x 62) slots, 2 layers, 256 elements of 2 bytes, key and value or one vector.
        let vectors = if kind == AttentionChoice::EL { 1 } else { 2 };
        assert_eq!(session.metrics().cache_bytes.self_, 32 * (1 + 4 * 62) * 2 * 256 * 2 * vectors, "{kind:?}");
    }
}
