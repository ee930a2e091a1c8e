//! Where memory runs out: the same records fail at every batch size, those that do not fit alone, in generation, scoring and encoding.

use elgen_engine::{
    AttentionChoice, BatchSize, EngineError, Events, Generation, GenerationOptions, Input, Model, Notice, Request,
    RunOptions, ScoreInput, ScoreRequest,
};
use elgen_tests::demo::{Translations, session_options};

/// Room for the demo model's weights and not for its longest sentences.
const LIMIT: u64 = 27_600_000;

fn open(batch_size: usize, memory_limit: u64) -> Model {
    let options = session_options(AttentionChoice::MHA, 1)
        .with_memory_limit(memory_limit)
        .with_batch_size(BatchSize::Sentences(batch_size));
    Model::load(Translations::model(), &options).unwrap()
}

/// The first of the test set: English beside one of its French translations.
fn pairs(count: usize) -> Vec<(String, String)> {
    let all = Translations::load();
    (0..count).map(|n| (all.sources[n].clone(), all.references[n][0].clone())).collect()
}

/// Which of some results failed, all of them because they did not fit.
fn failed<T>(results: &[Result<T, EngineError>]) -> Vec<usize> {
    let failed = results.iter().enumerate().filter_map(|(n, result)| Some((n, result.as_ref().err()?)));
    failed
        .map(|(n, error)| {
            assert!(error.kind().may_fit_smaller(), "{n}: {error}");
            n
        })
        .collect()
}

fn scored(model: &Model, pairs: &[(String, String)], notices: &mut Vec<Notice>) -> Vec<Result<f64, EngineError>> {
    let config = model.config(&GenerationOptions::default()).unwrap();
    let request = |(source, target): &(String, String)| {
        ScoreInput::Target(ScoreRequest { source: source.as_str().into(), target: target.as_str().into() })
    };
    let inputs: Vec<ScoreInput> = pairs.iter().map(request).collect();
    let mut notice = |notice: &Notice| notices.push(notice.clone());
    let scores = model.session().score_with(&inputs, &config, &RunOptions::default(), None, &mut notice).unwrap();
    scores.into_iter().map(|score| score.map(|score| score.sum())).collect()
}

#[test]
fn scoring_fails_the_same_records_at_every_batch_size() {
    let pairs = pairs(24);
    let mut notices = Vec::new();
    let free = scored(&open(24, 1 << 30), &pairs, &mut notices);
    assert!(failed(&free).is_empty() && notices.is_empty());
    let alone: Vec<usize> = (0..24)
        .filter(|n| {
            let found = scored(&open(1, LIMIT), &pairs[*n..=*n], &mut Vec::new());
            !failed(&found).is_empty()
        })
        .collect();
    eprintln!("{alone:?} do not fit alone");
    assert!((1..23).contains(&alone.len()), "{alone:?}");
    for batch_size in [1, 8, 24] {
        let mut notices = Vec::new();
        let found = scored(&open(batch_size, LIMIT), &pairs, &mut notices);
        assert_eq!(failed(&found), alone, "{batch_size} at a time");
        for (found, free) in found.iter().flatten().zip(free.iter().enumerate().filter(|(n, _)| !alone.contains(n))) {
            assert_eq!(found, free.1.as_ref().unwrap(), "{batch_size} at a time: record {}", free.0);
        }
        let halved = notices.iter().filter(|notice| matches!(notice, Notice::BatchHalved { .. })).count();
        assert_eq!(halved, usize::from(batch_size > 1), "{notices:?}");
    }
}

#[derive(Default)]
struct Heard(Vec<Option<Result<Generation, EngineError>>>, Vec<Notice>);

impl Events for Heard {
    fn done(&mut self, index: usize, result: Result<Generation, EngineError>) {
        self.0.resize_with(self.0.len().max(index + 1), || None);
        self.0[index] = Some(result);
    }

    fn notice(&mut self, notice: &Notice) {
        self.1.push(notice.clone());
    }
}

#[test]
fn generation_fails_the_same_records_at_every_batch_size() {
    let pairs = pairs(12);
    let options = GenerationOptions { num_beams: Some(4), max_new_tokens: Some(3), ..GenerationOptions::default() };
    let generated = |model: &Model, pairs: &[(String, String)]| {
        let config = model.config(&options).unwrap();
        let requests: Vec<Request> = (0..).zip(pairs).map(|(n, pair)| Request::new(n, pair.0.clone())).collect();
        let mut heard = Heard::default();
        model.session().generate(&requests, &config, &RunOptions::default(), &mut heard).unwrap();
        assert!(heard.1.len() <= 1, "{:?}", heard.1);
        heard.0.into_iter().map(Option::unwrap).collect::<Vec<_>>()
    };
    let all = |limit: u64| -> Vec<usize> {
        (0..12).filter(|n| !failed(&generated(&open(1, limit), &pairs[*n..=*n])).is_empty()).collect()
    };
    // The tightest limits at which some fit.
    let limits: Vec<u64> = (0..8).map(|n| LIMIT + n * 200_000).collect();
    let (limit, alone) = limits
        .into_iter()
        .map(|limit| (limit, all(limit)))
        .find(|(_, alone)| alone.len() < 12)
        .expect("a limit at which something fits");
    eprintln!("{alone:?} do not fit alone in {limit} bytes");
    for batch_size in [1, 3, 12] {
        assert_eq!(failed(&generated(&open(batch_size, limit), &pairs)), alone, "{batch_size} at a time");
    }
}

#[test]
fn encoding_fails_the_same_inputs_at_every_batch_size() {
    let inputs: Vec<Input> = pairs(16).iter().map(|pair| pair.0.as_str().into()).collect();
    let encoded = |batch_size: usize, limit: u64| {
        open(batch_size, limit).session().encode(&inputs, &RunOptions::default()).unwrap()
    };
    let free = encoded(16, 1 << 30);
    assert!(failed(&free).is_empty());
    let alone = encoded(1, LIMIT);
    eprintln!("{:?} do not fit alone", failed(&alone));
    for batch_size in [4, 16] {
        let found = encoded(batch_size, LIMIT);
        assert_eq!(failed(&found), failed(&alone), "{batch_size} at a time");
        for (found, free) in found.iter().zip(&free).filter(|(found, _)| found.is_ok()) {
            assert_eq!(found.as_ref().unwrap(), free.as_ref().unwrap(), "{batch_size} at a time");
        }
    }
}
