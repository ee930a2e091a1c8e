//! A steady decode step looks up no kernel by text, makes no bind group and allocates nothing of its own.

use elgen_attention::Kind;
use elgen_engine::{AttentionChoice, Session};
use elgen_models::Kinds;
use elgen_search::GenerationOptions;
use elgen_tensor::DType;
use elgen_tests::counting_allocator::CountingAllocator;
use elgen_tests::demo::{Translations, config, generate, requests, session_options};
use elgen_tests::kinds::{Files, Start, device};
use elgen_tests::step_cost::steps;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Rows that leave a batch and beams that the host keeps are uploads of the next step's recording: no submission of their own.
#[test]
fn every_step_is_one_submission_whatever_the_host_uploads() {
    let all = Translations::load().spread(12);
    let mut session =
        Session::load(&Translations::model(), &session_options(AttentionChoice::MHA, 12)).expect("a session");
    let beams = GenerationOptions { num_beams: Some(1), ..GenerationOptions::default() };
    let diverse = GenerationOptions {
        num_beams: Some(4),
        num_beam_groups: Some(2),
        diversity_penalty: Some(1.0),
        ..GenerationOptions::default()
    };
    let mut before = session.metrics();
    for (what, asked) in [("greedy", beams), ("diverse beams", diverse)] {
        let config = config(&session, asked);
        generate(&mut session, &requests(&all.sources), &config);
        let now = session.metrics();
        let steps = (now.steps - before.steps) as f64;
        let of = |count: fn(&elgen_engine::PerStep) -> f64| {
            ((count(&now.per_step) * now.steps as f64 - count(&before.per_step) * before.steps as f64) / steps * 1e6)
                .round()
                / 1e6
        };
        assert_eq!((of(|step| step.submissions), of(|step| step.host_waits)), (1.0, 1.0), "{what}");
        // Without immediates each step uploads its parameters.
        let parameters = if session.device().capabilities().immediates { 0.0 } else { 1.0 };
        let uploads = of(|step| step.uploads) - parameters;
        // Sentences end in several steps, each time with two lists; what the host decides comes with every step but the last.
        let expected = if what == "greedy" { 0.1..=2.0 } else { 0.9..=4.0 };
        assert!(expected.contains(&uploads), "{what}: {uploads} uploads a step");
        before = now;
    }
}

#[test]
fn a_steady_step_finds_everything_where_it_was() {
    let (dir, device) = (Translations::model(), device());
    if !device.capabilities().immediates {
        // Steps are also given to the driver by hand there, which is made for devices with immediates.
        eprintln!("skipped: the device has no immediates");
        return;
    }
    let files = Files::open(&dir);
    let tokenizer = files.tokenizer(&dir);
    for kind in [Kind::MHA, Kind::EL] {
        let mut loaded = files.load(&device, Kinds::both(kind), DType::F32);
        let asked =
            GenerationOptions { min_new_tokens: Some(40), max_new_tokens: Some(40), ..GenerationOptions::default() };
        let config = files.config(asked, loaded.limits());
        let starts: Vec<Start> = Translations::load()
            .spread(3)
            .sources
            .iter()
            .map(|source| Start {
                source: tokenizer.encode(source).expect("ids"),
                prompt: vec![config.decoder_start_token_id.expect("a start token")],
            })
            .collect();
        let costs = steps(&mut loaded, &config, &starts, CountingAllocator::count);
        let steady = &costs[10..];
        assert!(steady.len() >= 20, "{} steps", steady.len());
        for (number, cost) in steady.iter().enumerate() {
            let counts = cost.counts;
            assert_eq!((counts.text_lookups, counts.bind_groups), (0, 0), "{kind}, step {number}");
            assert_eq!(cost.recorded_allocations, 0, "{kind}, step {number}: while it was recorded");
            let reached = (counts.queue.submissions, counts.queue.uploads);
            assert!(cost.bare || reached == (1, 0), "{kind}, step {number}: {reached:?}");
        }
        // What is left happens in wgpu: by hand, the same commands allocate as often.
        let most = |bare: bool| {
            let mut counts: Vec<u64> = steady.iter().filter(|c| c.bare == bare).map(|c| c.allocations).collect();
            counts.sort_unstable();
            counts[counts.len() / 2]
        };
        assert_eq!(most(false), most(true), "{kind}: allocations of a whole step, and by hand");
    }
}
