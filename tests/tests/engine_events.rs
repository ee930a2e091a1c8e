//! What a run tells while it goes on: tokens, notices, cancellation; and what ends a sequence early.

use elgen_engine::{
    AttentionChoice, BatchSize, CancelToken, EngineError, Events, FinishReason, Generation, Model, Notice, Request,
    RunOptions, Session, StreamedToken,
};
use elgen_search::GenerationOptions;
use elgen_tensor::Class;
use elgen_tests::demo::{Story, Translations, assert_same, generate, requests, session_options};

const MIB: u64 = 1 << 20;

/// Keeps everything.
#[derive(Default)]
struct Heard {
    results: Vec<Option<Result<Generation, EngineError>>>,
    tokens: Vec<StreamedToken>,
    ends: Vec<(usize, usize, String)>,
    notices: Vec<Notice>,
    /// Thrown at the first result.
    cancel: Option<CancelToken>,
}

impl Events for Heard {
    fn done(&mut self, index: usize, result: Result<Generation, EngineError>) {
        if self.results.len() <= index {
            self.results.resize_with(index + 1, || None);
        }
        assert!(self.results[index].replace(result).is_none(), "request {index} ended twice");
        if let Some(cancel) = &self.cancel {
            cancel.cancel();
        }
    }

    fn token(&mut self, token: &StreamedToken) {
        assert!(self.results.get(token.index).is_none_or(Option::is_none), "a token behind the result");
        self.tokens.push(token.clone());
    }

    fn sequence_end(&mut self, index: usize, sequence: usize, rest: &str) {
        self.ends.push((index, sequence, rest.to_owned()));
    }

    fn notice(&mut self, notice: &Notice) {
        self.notices.push(notice.clone());
    }
}

impl Heard {
    fn generations(self) -> Vec<Generation> {
        self.results.into_iter().map(|r| r.unwrap().unwrap()).collect()
    }
}

fn asked(num_beams: usize, new: usize) -> GenerationOptions {
    GenerationOptions { num_beams: Some(num_beams), max_new_tokens: Some(new), ..GenerationOptions::default() }
}

fn story() -> Model {
    Model::load(Story::model(), &session_options(AttentionChoice::MHA, 3)).unwrap()
}

#[test]
fn streamed_tokens_are_those_of_the_result() {
    let model = story();
    let prompts = requests(&Story::prompts()[..5]);
    let sampled = GenerationOptions { do_sample: Some(true), num_return_sequences: Some(2), ..asked(1, 12) };
    for options in [asked(1, 12), sampled] {
        let config = model.config(&options).unwrap();
        let mut heard = Heard::default();
        let run = RunOptions::default().with_stream(true);
        let mut session = model.session();
        session.generate(&prompts, &config, &run, &mut heard).unwrap();
        let (tokens, ends) = (std::mem::take(&mut heard.tokens), std::mem::take(&mut heard.ends));
        let got = heard.generations();
        assert_same(&got, &generate(&mut model.session(), &prompts, &config), "with and without streaming");
        let sequences: usize = got.iter().map(|g| g.sequences.len()).sum();
        assert_eq!(ends.len(), sequences);
        for (index, generation) in got.iter().enumerate() {
            for (n, sequence) in generation.sequences.iter().enumerate() {
                let own: Vec<&StreamedToken> = tokens.iter().filter(|t| (t.index, t.sequence) == (index, n)).collect();
                assert!(own.iter().map(|t| t.token_id).eq(sequence.token_ids.iter().copied()), "{index}, {n}");
                for (token, logprob) in own.iter().zip(&sequence.token_logprobs) {
                    assert!((token.logprob - logprob).abs() <= 1e-5 * logprob.abs().max(1.0));
                }
                let rest = &ends.iter().find(|end| (end.0, end.1) == (index, n)).unwrap().2;
                let text = own.iter().map(|t| t.text.as_str()).chain([rest.as_str()]).collect::<String>();
                assert_eq!(Some(&text), sequence.text.as_ref(), "{index}, {n}");
            }
        }
    }
}

#[test]
fn streaming_beams_is_refused() {
    let model = story();
    let config = model.config(&asked(4, 8)).unwrap();
    let run = RunOptions::default().with_stream(true);
    let mut heard = Heard::default();
    let prompts = requests(&Story::prompts()[..1]);
    let error = model.session().generate(&prompts, &config, &run, &mut heard).unwrap_err();
    assert!(matches!(error, EngineError::StreamsOneBeam { num_beams: 4 }) && error.to_string().contains("num_beams"));
    assert!(heard.results.is_empty());
}

#[test]
fn a_cancelled_run_tells_the_open_requests() {
    let model = story();
    let config = model.config(&asked(1, 6)).unwrap();
    let cancel = CancelToken::new();
    let mut heard = Heard { cancel: Some(cancel.clone()), ..Heard::default() };
    let run = RunOptions::default().with_cancel(cancel);
    let prompts = requests(&Story::prompts()[..8]);
    model.session().generate(&prompts, &config, &run, &mut heard).unwrap();
    let cancelled = heard.results.iter().flatten().filter(|r| matches!(r, Err(EngineError::Cancelled))).count();
    assert_eq!((heard.results.iter().flatten().count(), cancelled), (8, 5), "the first batch has three sentences");
}

#[test]
fn out_of_memory_is_told_once_and_changes_nothing() {
    let data = Translations::load().spread(24);
    let run = |memory_limit: Option<u64>| {
        let options = session_options(AttentionChoice::MHA, 24).with_memory_limit(memory_limit);
        let mut session = Session::load(&Translations::model(), &options).unwrap();
        let config = session.model().config(&asked(4, 40)).unwrap();
        let mut heard = Heard::default();
        session.generate(&data.requests(), &config, &RunOptions::default(), &mut heard).unwrap();
        // What went well is where the next run begins.
        let mut again = Heard::default();
        session.generate(&data.requests()[..12], &config, &RunOptions::default(), &mut again).unwrap();
        assert_eq!(again.notices, []);
        (std::mem::take(&mut heard.notices), heard.generations())
    };
    let (no_notices, free) = run(None);
    assert_eq!(no_notices, []);
    let (notices, tight) = run(Some(34 * MIB));
    assert_same(&tight, &free, "within a memory limit");
    let [Notice::BatchHalved { from, to, reason }] = &notices[..] else { panic!("{notices:?}") };
    eprintln!("{}", notices[0]);
    assert!(*from == 24 && *to < 24 && *to >= 1 && reason.contains(" are in use"), "{notices:?}");
}

#[test]
fn the_first_cut_source_is_told() {
    let options = session_options(AttentionChoice::MHA, 4);
    let mut session = Session::load(&Translations::model(), &options).unwrap();
    let config = session.model().config(&asked(1, 4)).unwrap();
    let run = RunOptions::default().with_max_source_length(5);
    for (round, told) in [(0, 1), (1, 0)] {
        let mut heard = Heard::default();
        session.generate(&Translations::load().spread(6).requests(), &config, &run, &mut heard).unwrap();
        assert_eq!(heard.notices.len(), told, "round {round}: {:?}", heard.notices);
        assert!(heard.notices.iter().all(|n| matches!(n, Notice::SourceCut { kept: 5, .. })));
        assert!(heard.generations().iter().any(|g| g.truncated && g.prompt_tokens == 5));
    }
}

#[test]
fn automatic_batches_fit_their_memory_limit_and_change_nothing() {
    let data = Translations::load().spread(36);
    let run = |batch_size: BatchSize, max_batch_tokens: Option<usize>, memory_limit: Option<u64>| {
        let options = session_options(AttentionChoice::EL, 1)
            .with_batch_size(batch_size)
            .with_max_batch_tokens(max_batch_tokens)
            .with_memory_limit(memory_limit);
        let mut session = Session::load(&Translations::model(), &options).unwrap();
        let config = session.model().config(&asked(4, 10)).unwrap();
        let mut heard = Heard::default();
        session.generate(&data.requests(), &config, &RunOptions::default(), &mut heard).unwrap();
        assert_eq!(heard.notices, [], "{batch_size:?}, {memory_limit:?}");
        let metrics = session.metrics();
        (heard.generations(), metrics.steps, metrics.per_step.rows, metrics.peak_bytes.total)
    };
    let (want, steps, ..) = run(16.into(), None, None);
    let (got, auto_steps, rows, peak) = run(BatchSize::Auto, None, None);
    assert_same(&got, &want, "auto");
    assert!(auto_steps <= 10 && auto_steps < steps, "{auto_steps} steps, {steps} in batches of 16");
    let (got, tight_steps, tight_rows, tight_peak) = run(BatchSize::Auto, None, Some(32 * MIB));
    assert_same(&got, &want, "auto within 32 MiB");
    eprintln!("auto: {rows:.0} rows a step, {peak} bytes; within 32 MiB {tight_rows:.0} rows, {tight_peak} bytes");
    assert!(tight_steps > auto_steps && peak > 32 * MIB, "{tight_steps} steps, {peak} bytes");
    // The prediction is no waste: what is left is less than a third.
    assert!(tight_peak * 3 > 32 * MIB * 2, "{tight_peak} bytes");
    let (got, token_steps, token_rows, _) = run(BatchSize::Auto, Some(60), None);
    assert_same(&got, &want, "60 tokens at a time");
    assert!(token_steps > auto_steps && token_rows < rows, "{token_steps} steps");
}

#[test]
fn log_probabilities_add_up_to_the_score() {
    let data = Translations::load().spread(8);
    let mut session = Session::load(&Translations::model(), &session_options(AttentionChoice::MHA, 8)).unwrap();
    for (beams, penalty) in [(1, 1.0), (4, 1.0), (4, 0.6), (3, 2.0)] {
        let options = GenerationOptions {
            length_penalty: (beams > 1).then_some(penalty),
            num_return_sequences: Some(beams),
            ..asked(beams, 20)
        };
        let config = session.model().config(&options).unwrap();
        for generation in generate(&mut session, &data.requests(), &config) {
            for s in generation.sequences {
                assert_eq!(s.token_logprobs.len(), s.token_ids.len());
                let sum: f64 = s.token_logprobs.iter().map(|x| f64::from(*x)).sum();
                let length = if beams > 1 { (s.token_ids.len() as f64).powf(penalty) } else { 1.0 };
                let score = f64::from(s.score);
                assert!((sum / length - score).abs() <= 1e-4 * score.abs().max(1.0), "{beams} beams: {sum}, {score}");
            }
        }
    }
}

#[test]
fn stop_strings_and_time_end_sequences() {
    let model = story();
    let prompts = requests(&Story::prompts()[..4]);
    for num_beams in [1, 3] {
        let config = model.config(&asked(num_beams, 30)).unwrap();
        let plain = generate(&mut model.session(), &prompts, &config);
        let stop = GenerationOptions {
            stop_strings: Some(vec![" a".to_owned(), ".".to_owned()].into()),
            ..asked(num_beams, 30)
        };
        let mut heard = Heard::default();
        let run = RunOptions::default();
        model.session().generate(&prompts, &model.config(&stop).unwrap(), &run, &mut heard).unwrap();
        let got = heard.generations();
        let mut stopped = 0;
        for (n, (g, p)) in got.iter().zip(&plain).enumerate() {
            let (g, p) = (&g.sequences[0], &p.sequences[0]);
            if g.finish_reason == FinishReason::Stop {
                stopped += 1;
                let text = g.text.as_ref().unwrap();
                assert!(text.contains(" a") || text.contains('.'), "{n}: {text:?}");
            }
            // Greedy search ends where the text of the plain run first has one of the strings.
            if num_beams == 1 {
                assert!(g.token_ids.len() <= p.token_ids.len() && p.token_ids.starts_with(&g.token_ids), "{n}");
            }
        }
        assert!(stopped >= 2, "{num_beams} beams: {stopped} of 4 stopped");

        let no_time = GenerationOptions { max_time: Some(0.0), ..asked(num_beams, 30) };
        let mut heard = Heard::default();
        model.session().generate(&prompts, &model.config(&no_time).unwrap(), &run, &mut heard).unwrap();
        for generation in heard.generations() {
            assert_eq!(generation.sequences[0].token_ids.len(), 1, "{num_beams} beams");
            assert_eq!(generation.sequences[0].finish_reason, FinishReason::Stop);
        }
    }
}

#[test]
fn stop_strings_need_a_tokenizer() {
    let stop_at = |text: &str| GenerationOptions { stop_strings: Some(vec![text.to_owned()].into()), ..asked(1, 4) };
    let run = RunOptions::default();
    let ids_only = elgen_tests::repo_root().join("tests/fixtures/gpt2-base-like");
    let mut session = Session::load(&ids_only, &session_options(AttentionChoice::MHA, 4)).unwrap();
    let config = session.model().config(&stop_at("x")).unwrap();
    let result = session.generate(&[Request::new(0, vec![5])], &config, &run, &mut Heard::default());
    assert!(matches!(result, Err(EngineError::NoTokenizer)), "{result:?}");
    assert_eq!(session.device().pool().current().of(Class::Cache), 0);
}
