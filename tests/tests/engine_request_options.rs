//! Options that belong to one request: it ends alone, has its own search and hooks, and the others of the run never notice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use elgen_engine::{
    AllowedTokens, AttentionChoice, CancelToken, EngineError, FinishReason, Generation, GenerationConfig,
    GenerationOptions, Hooks, Model, ModelLimits, Request, RequestOptions, RunOptions, SequenceView, Session,
    StopCriterion, on_done,
};
use elgen_tests::demo::{Story, assert_same, requests, session_options};
use elgen_tests::hooks::LookOn;

/// More new tokens than any request comes to that is ended early.
const LONG: usize = 40;
/// The request that is ended early; the prompts before and behind it are in its batch.
const CHOSEN: usize = 1;

type Results = Vec<Result<Generation, EngineError>>;

/// What a run tells of its requests, in their order.
fn run(session: &mut Session, requests: &[Request], config: &GenerationConfig, run: &RunOptions) -> Results {
    let mut results: Vec<Option<Result<Generation, EngineError>>> = Vec::new();
    results.resize_with(requests.len(), || None);
    let mut events = on_done(|index, result| {
        assert!(results[index].replace(result).is_none(), "request {index} ended twice");
    });
    session.generate(requests, config, run, &mut events).unwrap();
    results.into_iter().map(|result| result.expect("each request has ended")).collect()
}

fn model(batch: usize) -> Model {
    Model::load(Story::model(), &session_options(AttentionChoice::MHA, batch)).unwrap()
}

/// As many new tokens, whatever comes: an end would part what is compared.
fn of_length(options: &GenerationOptions, new: usize) -> GenerationOptions {
    GenerationOptions { max_new_tokens: Some(new), min_new_tokens: Some(new), ..options.clone() }
}

fn modes() -> [(&'static str, GenerationOptions); 4] {
    let none = GenerationOptions::default;
    let beams = GenerationOptions { num_beams: Some(4), num_return_sequences: Some(2), ..none() };
    [
        ("greedy", GenerationOptions { num_beams: Some(1), ..none() }),
        (
            "sampling",
            GenerationOptions { num_beams: Some(1), do_sample: Some(true), num_return_sequences: Some(2), ..none() },
        ),
        ("diverse", GenerationOptions { num_beam_groups: Some(2), diversity_penalty: Some(0.5), ..beams.clone() }),
        ("beams", beams),
    ]
}

/// Runs four requests as one batch and cancels one of them while they run; again with more patience where its first token had not come.
fn cancel_one(model: &Model, config: &GenerationConfig, run_options: &RunOptions) -> Results {
    let mut asked = requests(&Story::prompts()[..4]);
    for attempt in 0..12 {
        let cancel = CancelToken::new();
        asked[CHOSEN].options = RequestOptions::default().with_cancel(cancel.clone());
        let results = std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(40 << attempt.min(6)));
                cancel.cancel();
            });
            run(&mut model.session(), &asked, config, run_options)
        });
        match &results[CHOSEN] {
            Ok(_) => return results,
            Err(error) => assert!(matches!(error, EngineError::Cancelled), "{error}"),
        }
    }
    panic!("no token came");
}

fn whole(results: Results) -> Vec<Generation> {
    results.into_iter().map(Result::unwrap).collect()
}

#[test]
fn a_request_that_is_cancelled_leaves_its_batch_alone() {
    let model = model(4);
    let process = Hooks { processors: vec![Arc::new(LookOn)], ..Hooks::default() };
    let stop = Hooks { stop_criteria: vec![Arc::new(LookOn)], ..Hooks::default() };
    for (mode, options) in modes() {
        let config = model.config(&of_length(&options, LONG)).unwrap();
        for (who, hooks, stream) in [
            ("the device", Hooks::default(), false),
            ("a stream", Hooks::default(), true),
            ("a criterion", stop.clone(), false),
            ("a processor", process.clone(), false),
        ] {
            let beams = config.mode.has_beams();
            if (who == "a stream" && beams) || (who == "a processor" && mode != "diverse") {
                // What these change in a search is what a criterion does.
                continue;
            }
            let what = format!("{mode}, {who}");
            let run_options = RunOptions::default().with_hooks(hooks.clone()).with_stream(stream);
            let prompts = requests(&Story::prompts()[..4]);
            let expected = whole(run(&mut model.session(), &prompts, &config, &run_options));
            let mut results = whole(cancel_one(&model, &config, &run_options));
            let partial = results[CHOSEN].clone();
            results[CHOSEN] = expected[CHOSEN].clone();
            assert_same(&results, &expected, &what);
            // It has what a run of that length has.
            let length = partial.sequences[0].token_ids.len();
            assert!((1..LONG).contains(&length), "{what}: {length} tokens");
            let short = model.config(&of_length(&options, length)).unwrap();
            let run_options = RunOptions::default().with_hooks(hooks);
            let mut wanted = whole(run(&mut model.session(), &requests(&Story::prompts()[..4]), &short, &run_options))
                .remove(CHOSEN);
            for sequence in &mut wanted.sequences {
                assert_eq!(sequence.finish_reason, FinishReason::Length, "{what}");
                sequence.finish_reason = FinishReason::Cancelled;
            }
            assert_same(&[partial], &[wanted], &what);
        }
    }
}

/// Throws a switch when a sequence has so many new tokens.
#[derive(Debug)]
struct CancelAt {
    ordinal: u64,
    tokens: usize,
    cancel: CancelToken,
}

impl StopCriterion for CancelAt {
    fn should_stop(&self, sequence: &SequenceView<'_>) -> bool {
        if sequence.ordinal == self.ordinal && sequence.token_ids.len() - sequence.prompt_len == self.tokens {
            self.cancel.cancel();
        }
        false
    }
}

#[test]
fn a_request_ends_behind_the_step_in_which_it_is_cancelled() {
    let model = model(4);
    let greedy = GenerationOptions { num_beams: Some(1), ..GenerationOptions::default() };
    let config = model.config(&of_length(&greedy, 12)).unwrap();
    for tokens in [1, 5, 11] {
        let cancel = CancelToken::new();
        let criterion = CancelAt { ordinal: CHOSEN as u64, tokens, cancel: cancel.clone() };
        let hooks = Hooks { stop_criteria: vec![Arc::new(criterion)], ..Hooks::default() };
        let mut asked = requests(&Story::prompts()[..4]);
        asked[CHOSEN].options = RequestOptions::default().with_cancel(cancel);
        let results = whole(run(&mut model.session(), &asked, &config, &RunOptions::default().with_hooks(hooks)));
        for (n, generation) in results.iter().enumerate() {
            let [sequence] = &generation.sequences[..] else { panic!("one sequence") };
            let (length, reason) =
                if n == CHOSEN { (tokens, FinishReason::Cancelled) } else { (12, FinishReason::Length) };
            assert_eq!((sequence.token_ids.len(), sequence.finish_reason), (length, reason), "request {n}, {tokens}");
        }
    }
}

#[test]
fn all_requests_of_a_batch_may_end_one_by_one() {
    let model = model(4);
    let config = model.config(&of_length(&GenerationOptions::default(), LONG)).unwrap();
    let mut asked = requests(&Story::prompts()[..3]);
    let switches: Vec<CancelToken> = asked.iter().map(|_| CancelToken::new()).collect();
    let criteria = switches.iter().enumerate().map(|(n, cancel)| {
        let at = CancelAt { ordinal: n as u64, tokens: 2 + 3 * n, cancel: cancel.clone() };
        Arc::new(at) as Arc<dyn StopCriterion>
    });
    let hooks = Hooks { stop_criteria: criteria.collect(), ..Hooks::default() };
    for (request, cancel) in asked.iter_mut().zip(switches) {
        request.options = RequestOptions::default().with_cancel(cancel);
    }
    let mut session = model.session();
    let results = whole(run(&mut session, &asked, &config, &RunOptions::default().with_hooks(hooks)));
    let lengths: Vec<usize> = results.iter().map(|result| result.sequences[0].token_ids.len()).collect();
    assert_eq!(lengths, [2, 5, 8]);
    assert_eq!(session.metrics().steps, 8, "no step for nobody");
    // The session goes on with other requests.
    let config = model.config(&of_length(&GenerationOptions::default(), 4)).unwrap();
    let again = whole(run(&mut session, &requests(&Story::prompts()[..3]), &config, &RunOptions::default()));
    let fresh = whole(run(&mut model.session(), &requests(&Story::prompts()[..3]), &config, &RunOptions::default()));
    assert_same(&again, &fresh, "behind cancelled requests");
}

#[test]
fn deadlines_end_requests_and_a_runs_is_the_default() {
    let model = model(2);
    let config = model.config(&of_length(&GenerationOptions::default(), 5)).unwrap();
    let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(3600));
    let prompts = &Story::prompts()[..4];
    let expected = whole(run(&mut model.session(), &requests(prompts), &config, &RunOptions::default()));
    let mut asked = requests(prompts);
    asked[CHOSEN].options = RequestOptions::default().with_deadline(now);
    let mut results = run(&mut model.session(), &asked, &config, &RunOptions::default());
    assert!(matches!(results[CHOSEN], Err(EngineError::Cancelled)));
    results[CHOSEN] = Ok(expected[CHOSEN].clone());
    assert_same(&whole(results), &expected, "a deadline that has passed");
    // The other way round.
    asked[CHOSEN].options = RequestOptions::default().with_deadline(later);
    let all = RunOptions::default().with_deadline(now);
    for (n, result) in run(&mut model.session(), &asked, &config, &all).into_iter().enumerate() {
        match result {
            Ok(generation) => assert_same(&[generation], &expected[n..=n], "a later deadline"),
            Err(error) => assert!(n != CHOSEN && matches!(error, EngineError::Cancelled), "request {n}: {error}"),
        }
    }
    // While it runs.
    let config = model.config(&of_length(&GenerationOptions::default(), LONG)).unwrap();
    let cut = (0..12).find_map(|attempt| {
        let deadline = Some(Instant::now() + Duration::from_millis(40 << attempt.min(6)));
        let all = RunOptions::default().with_deadline(deadline);
        run(&mut model.session(), &requests(&prompts[..2]), &config, &all).into_iter().find_map(Result::ok)
    });
    let sequence = &cut.expect("a token came").sequences[0];
    assert_eq!(sequence.finish_reason, FinishReason::Cancelled);
    assert!((1..LONG).contains(&sequence.token_ids.len()));
}

#[test]
fn requests_with_options_of_their_own_give_what_runs_with_these_give() {
    let model = model(8);
    let configs: Vec<Arc<GenerationConfig>> =
        modes().iter().map(|(_, options)| Arc::new(model.config(&of_length(options, 6)).unwrap())).collect();
    let prompts = &Story::prompts()[..8];
    let mut asked = requests(prompts);
    for (n, request) in asked.iter_mut().enumerate() {
        request.options = RequestOptions::default().with_config(Arc::clone(&configs[n % 4]));
    }
    let mut session = model.session();
    let results = whole(run(&mut session, &asked, &configs[0], &RunOptions::default()));
    assert_eq!(session.metrics().steps, 4 * 6, "those with equal options share batches");
    assert_eq!(session.metrics().inputs, 8);
    for (n, config) in configs.iter().enumerate() {
        let alone = whole(run(&mut model.session(), &requests(prompts), config, &RunOptions::default()));
        for index in [n, n + 4] {
            assert_same(&results[index..=index], &alone[index..=index], &format!("request {index}"));
        }
    }
}

#[test]
fn requests_have_hooks_of_their_own() {
    let model = model(4);
    let config = model.config(&of_length(&GenerationOptions::default(), 6)).unwrap();
    let even = |from: u32| Hooks {
        processors: vec![Arc::new(AllowedTokens::new(move |_, _| (from..2000).step_by(2).collect()))],
        ..Hooks::default()
    };
    let mut asked = requests(&Story::prompts()[..4]);
    let odd = Arc::new(even(1));
    for n in [1, 3] {
        asked[n].options = RequestOptions::default().with_hooks(Arc::clone(&odd));
    }
    asked[2].options = RequestOptions::default().with_hooks(Hooks::default());
    let mut session = model.session();
    let results = whole(run(&mut session, &asked, &config, &RunOptions::default().with_hooks(even(0))));
    assert_eq!(session.metrics().steps, 3 * 6);
    let ids = |n: usize| results[n].sequences[0].token_ids.iter();
    assert!(ids(0).all(|id| id % 2 == 0) && ids(1).chain(ids(3)).all(|id| id % 2 == 1));
    let free = whole(run(&mut model.session(), &requests(&Story::prompts()[..4]), &config, &RunOptions::default()));
    assert_same(&results[2..3], &free[2..3], "without hooks");
}

#[test]
fn a_request_whose_own_options_cannot_be_fails_alone() {
    let model = model(4);
    let config =
        model.config(&of_length(&GenerationOptions { num_beams: Some(1), ..GenerationOptions::default() }, 4)).unwrap();
    let prompts = &Story::prompts()[..4];
    let expected = whole(run(&mut model.session(), &requests(prompts), &config, &RunOptions::default()));
    let limits = ModelLimits { vocab_size: 7, ..model.limits() };
    let (other, _) = GenerationOptions::default().resolve(&limits).unwrap();
    let beams = model.config(&GenerationOptions { num_beams: Some(2), ..GenerationOptions::default() }).unwrap();
    let mut asked = requests(prompts);
    asked[0].options = RequestOptions::default().with_config(other);
    asked[2].options = RequestOptions::default().with_config(beams);
    let mut results = run(&mut model.session(), &asked, &config, &RunOptions::default().with_stream(true));
    assert!(matches!(results[0], Err(EngineError::Option(_))), "{:?}", results[0]);
    assert!(matches!(results[2], Err(EngineError::StreamsOneBeam { num_beams: 2 })), "{:?}", results[2]);
    for n in [0, 2] {
        results[n] = Ok(expected[n].clone());
    }
    assert_same(&whole(results), &expected, "beside requests that cannot run");
}
