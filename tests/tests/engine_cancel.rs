//! What a cancelled run leaves of the requests that had begun, in every mode and whoever takes the steps: what a run of as many new tokens
//! returns.

use std::sync::Arc;
use std::time::Duration;

use elgen_engine::{
    AttentionChoice, CancelToken, EngineError, Events, FinishReason, Generation, GenerationOptions, Hooks, Model,
    RunOptions, StreamedToken,
};
use elgen_tests::demo::{Story, assert_same, requests, session_options};
use elgen_tests::hooks::LookOn;

#[derive(Default)]
struct Heard {
    results: Vec<Option<Result<Generation, EngineError>>>,
    tokens: Vec<StreamedToken>,
    ends: Vec<(usize, usize, String)>,
}

impl Events for Heard {
    fn done(&mut self, index: usize, result: Result<Generation, EngineError>) {
        self.results.resize_with(self.results.len().max(index + 1), || None);
        assert!(self.results[index].replace(result).is_none(), "request {index} ended twice");
    }

    fn token(&mut self, token: &StreamedToken) {
        self.tokens.push(token.clone());
    }

    fn sequence_end(&mut self, index: usize, sequence: usize, rest: &str) {
        self.ends.push((index, sequence, rest.to_owned()));
    }
}

/// More than any run comes to before it is cancelled.
const LONG: usize = 100;

/// As many new tokens, whatever comes: an end would part what is compared.
fn of_length(options: &GenerationOptions, new: usize) -> GenerationOptions {
    GenerationOptions { max_new_tokens: Some(new), min_new_tokens: Some(new), ..options.clone() }
}

/// Cancels a long run of four requests, two at a time, while the first two run; tries again with more patience where the first token had not come.
fn cancelled(model: &Model, options: &GenerationOptions, hooks: &Hooks, stream: bool) -> Heard {
    let config = model.config(&of_length(options, LONG)).unwrap();
    let prompts = requests(&Story::prompts()[..4]);
    for attempt in 0..12 {
        let cancel = CancelToken::new();
        let run = RunOptions::default().with_hooks(hooks.clone()).with_stream(stream).with_cancel(cancel.clone());
        let mut heard = Heard::default();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(40 << attempt.min(6)));
                cancel.cancel();
            });
            model.session().generate(&prompts, &config, &run, &mut heard).unwrap();
        });
        assert_eq!(heard.results.iter().flatten().count(), 4, "each request has ended");
        if heard.results.iter().flatten().any(Result::is_ok) {
            return heard;
        }
        assert!(heard.results.iter().flatten().all(|r| matches!(r, Err(EngineError::Cancelled))));
    }
    panic!("no token came");
}

fn check(name: &str, options: &GenerationOptions) {
    let model = Model::load(Story::model(), &session_options(AttentionChoice::MHA, 2)).unwrap();
    let process = Hooks { processors: vec![Arc::new(LookOn)], ..Hooks::default() };
    let stop = Hooks { stop_criteria: vec![Arc::new(LookOn)], ..Hooks::default() };
    let beams = options.num_beams.is_some_and(|beams| beams > 1);
    for (who, hooks, stream) in [
        ("the device", Hooks::default(), false),
        ("a stream", Hooks::default(), !beams),
        ("a criterion", stop, false),
        ("a processor", process, false),
    ] {
        let what = format!("{name}, {who}");
        let heard = cancelled(&model, options, &hooks, stream);
        let begun: Vec<usize> = (0..4).filter(|n| matches!(heard.results[*n], Some(Ok(_)))).collect();
        // Only the first batch had begun, the longest prompts.
        assert_eq!(begun.len(), 2, "{what}");
        let partial: Vec<&Generation> = heard.results.iter().flatten().flatten().collect();
        let length = partial[0].sequences[0].token_ids.len();
        assert!((1..LONG).contains(&length), "{what}: {length} tokens");
        let sequences: Vec<_> = partial.iter().flat_map(|g| &g.sequences).collect();
        for sequence in &sequences {
            assert_eq!(sequence.finish_reason, FinishReason::Cancelled, "{what}");
            assert_eq!(sequence.token_ids.len(), length, "{what}");
            assert!(sequence.text.is_some() && sequence.score.is_finite(), "{what}");
        }
        // A run of that length.
        let config = model.config(&of_length(options, length)).unwrap();
        let mut whole = Heard::default();
        let run = RunOptions::default().with_hooks(hooks);
        model.session().generate(&requests(&Story::prompts()[..4]), &config, &run, &mut whole).unwrap();
        let mut whole: Vec<Generation> = whole.results.into_iter().map(|result| result.unwrap().unwrap()).collect();
        let mut wanted: Vec<Generation> =
            begun.iter().map(|n| std::mem::replace(&mut whole[*n], partial[0].clone())).collect();
        for sequence in wanted.iter_mut().flat_map(|generation| &mut generation.sequences) {
            assert_eq!(sequence.finish_reason, FinishReason::Length);
            sequence.finish_reason = FinishReason::Cancelled;
        }
        let partial: Vec<Generation> = partial.into_iter().cloned().collect();
        if beams && options.do_sample == Some(true) {
            // At its length a draw that came late is given up, whatever its score; here it still ran.
            for generation in &partial {
                assert!(generation.sequences.is_sorted_by(|a, b| a.score >= b.score), "{what}");
            }
        } else {
            assert_same(&partial, &wanted, &what);
        }
        if stream && !beams {
            // What was told is all of it.
            assert_eq!(heard.ends.len(), sequences.len(), "{what}");
            for (n, generation) in begun.iter().zip(&partial) {
                for (row, sequence) in generation.sequences.iter().enumerate() {
                    let own = heard.tokens.iter().filter(|token| (token.index, token.sequence) == (*n, row));
                    let rest = heard.ends.iter().filter(|end| (end.0, end.1) == (*n, row)).map(|end| end.2.as_str());
                    let text: String = own.map(|token| token.text.as_str()).chain(rest).collect();
                    assert_eq!(Some(text), sequence.text, "{what}");
                }
            }
        }
    }
}

#[test]
fn greedy_search() {
    check("greedy", &GenerationOptions { num_beams: Some(1), ..GenerationOptions::default() });
}

#[test]
fn sampling() {
    let options = GenerationOptions {
        num_beams: Some(1),
        do_sample: Some(true),
        num_return_sequences: Some(2),
        ..GenerationOptions::default()
    };
    check("sampling", &options);
}

fn beams() -> GenerationOptions {
    GenerationOptions {
        num_beams: Some(4),
        num_return_sequences: Some(3),
        length_penalty: Some(0.8),
        ..GenerationOptions::default()
    }
}

#[test]
fn beam_search() {
    check("beams", &beams());
}

#[test]
fn beam_sampling() {
    check("beam sampling", &GenerationOptions { do_sample: Some(true), ..beams() });
}

#[test]
fn diverse_beams() {
    let options = GenerationOptions { num_beam_groups: Some(2), diversity_penalty: Some(0.4), ..beams() };
    check("diverse beams", &options);
}

/// Cancels a run at its n-th streamed token.
struct AtToken {
    cancel: CancelToken,
    left: usize,
    results: Vec<Option<Result<Generation, EngineError>>>,
}

impl Events for AtToken {
    fn done(&mut self, index: usize, result: Result<Generation, EngineError>) {
        self.results[index] = Some(result);
    }

    fn token(&mut self, _: &StreamedToken) {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            self.cancel.cancel();
        }
    }
}

/// A request that is done when the run is cancelled keeps its whole result.
#[test]
fn what_was_done_stays_whole() {
    let model = Model::load(Story::model(), &session_options(AttentionChoice::MHA, 2)).unwrap();
    let prompts = requests(&Story::prompts()[..2]);
    let base = GenerationOptions { num_beams: Some(1), max_new_tokens: Some(20), ..GenerationOptions::default() };
    let mut heard = Heard::default();
    let config = model.config(&base).unwrap();
    model.session().generate(&prompts, &config, &RunOptions::default(), &mut heard).unwrap();
    let ids: Vec<Vec<u32>> =
        heard.results.into_iter().map(|result| result.unwrap().unwrap().sequences.remove(0).token_ids).collect();
    // The first token of one text that the other does not have so soon ends it.
    let (ended, open, eos) = [(0, 1), (1, 0)]
        .into_iter()
        .find_map(|(a, b)| (!ids[b][..4].contains(&ids[a][0])).then_some((a, b, ids[a][0])))
        .expect("the two texts begin differently");
    let config = model.config(&GenerationOptions { eos_token_id: Some(eos.into()), ..base }).unwrap();
    // One token of the one, and four of the other.
    let cancel = CancelToken::new();
    let run = RunOptions::default().with_stream(true).with_cancel(cancel.clone());
    let mut heard = AtToken { cancel, left: 5, results: Vec::from([None, None]) };
    model.session().generate(&prompts, &config, &run, &mut heard).unwrap();
    let sequence = |n: usize| match &heard.results[n] {
        Some(Ok(generation)) => generation.sequences[0].clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((sequence(ended).token_ids, sequence(ended).finish_reason), (vec![eos], FinishReason::Eos));
    assert_eq!(
        (&sequence(open).token_ids[..], sequence(open).finish_reason),
        (&ids[open][..4], FinishReason::Cancelled)
    );
}
