//! Prefixes, given targets and stop strings against what Hugging Face transformers recorded
//! (tools/make_engine_references.py).

use std::collections::{BTreeMap, BTreeSet};

use elgen_engine::{
    AttentionChoice, DtypeChoice, Generation, Model, Request, RunOptions, ScoreRequest, Session, SessionOptions,
    StopStringCriterion, TokenBytes, on_done,
};
use elgen_search::GenerationOptions;
use elgen_tests::repo_root;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Recorded<T> {
    cases: Vec<T>,
}

#[derive(Deserialize)]
struct PrefixCase {
    model: String,
    input: Vec<u32>,
    prefix: Vec<u32>,
    generation: serde_json::Map<String, serde_json::Value>,
    outputs: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    token_ids: Vec<u32>,
    score: f32,
}

#[derive(Deserialize)]
struct ScoreCase {
    model: String,
    source: Vec<u32>,
    target: Vec<u32>,
    top_ids: Vec<u32>,
    token_logprobs: Vec<f32>,
    last_row: Option<Vec<f32>>,
}

#[derive(Deserialize)]
struct StopStringCases {
    vocabulary: Vec<String>,
    cases: Vec<StopStringCase>,
}

#[derive(Deserialize)]
struct StopStringCase {
    token_ids: Vec<u32>,
    strings: Vec<String>,
    stops: bool,
}

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = repo_root().join("tests/fixtures").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn options(attention: AttentionChoice) -> SessionOptions {
    let device = std::env::var("ELGEN_TEST_DEVICE").ok();
    SessionOptions::default()
        .with_attention(attention)
        .with_device(device)
        .with_dtype(DtypeChoice::F32)
        .with_batch_size(5)
}

fn session<'a>(
    sessions: &'a mut BTreeMap<String, Session>,
    model: &str,
    attention: AttentionChoice,
) -> &'a mut Session {
    sessions
        .entry(model.to_owned())
        .or_insert_with(|| Session::load(&repo_root().join("tests/fixtures").join(model), &options(attention)).unwrap())
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-4 * b.abs().max(1.0)
}

#[test]
fn prefixes_give_what_decoder_input_ids_give() {
    let recorded: Recorded<PrefixCase> = read("prefix.json");
    assert!(recorded.cases.len() >= 60);
    for attention in [AttentionChoice::MHA, AttentionChoice::EL, AttentionChoice::MHA_REPLICATED] {
        let mut sessions = BTreeMap::new();
        for (n, case) in recorded.cases.iter().enumerate() {
            let session = session(&mut sessions, &case.model, attention);
            let asked = GenerationOptions::from_json(&case.generation).unwrap();
            let mut defaults = session.checkpoint_options().clone();
            // A null in the recorded options switches the checkpoint's own value off.
            defaults.forced_bos_token_id = None;
            let config = asked.or(defaults).resolve(&session.limits()).unwrap().0;
            let request = Request::new(0, case.input.clone()).with_prefix(case.prefix.clone());
            // Beside one of another length, so that prompts of a batch are ragged.
            let beside = Request::new(1, case.input[..1].to_vec());
            let mut results: Vec<Option<Generation>> = vec![None, None];
            let mut events = on_done(|i: usize, r| results[i] = r.ok());
            session.generate(&[request, beside], &config, &RunOptions::default(), &mut events).unwrap();
            let got = results[0].take().unwrap().sequences;
            assert_eq!(got.len(), case.outputs.len());
            for (g, want) in got.iter().zip(&case.outputs) {
                let at = format!("{attention:?}, case {n} of {}, prefix {:?}", case.model, case.prefix);
                assert_eq!(g.token_ids, want.token_ids, "{at}");
                assert!(close(g.score, want.score), "{at}: score {} is not {}", g.score, want.score);
            }
        }
    }
}

#[test]
fn scored_targets_have_transformers_log_probabilities() {
    let recorded: Recorded<ScoreCase> = read("scores.json");
    for attention in [AttentionChoice::MHA, AttentionChoice::EL, AttentionChoice::MHA_REPLICATED] {
        let mut sessions = BTreeMap::new();
        let models: BTreeSet<&str> = recorded.cases.iter().map(|c| c.model.as_str()).collect();
        for family in ["bart", "gpt2", "t5", "marian", "mbart", "pegasus", "opt"] {
            assert!(models.iter().any(|model| model.split('-').next() == Some(family)), "{family}");
        }
        for model in models {
            let cases: Vec<&ScoreCase> = recorded.cases.iter().filter(|c| c.model == model).collect();
            let session = session(&mut sessions, model, attention);
            let config = session.model().config(&GenerationOptions::default()).unwrap();
            let mut requests: Vec<ScoreRequest> = cases
                .iter()
                .map(|c| ScoreRequest { source: c.source.clone().into(), target: c.target.clone().into() })
                .collect();
            requests.push(ScoreRequest { source: vec![5].into(), target: vec![].into() });
            let mut rows: BTreeMap<(usize, usize), Vec<f32>> = BTreeMap::new();
            let mut see = |request: usize, place: usize, row: &[f32]| {
                assert!(rows.insert((request, place), row.to_vec()).is_none());
            };
            let scores = session.score(&requests, &config, &RunOptions::default(), Some(&mut see)).unwrap();
            assert!(scores[cases.len()].as_ref().unwrap_err().to_string().contains("no tokens"));
            for (n, (case, got)) in cases.iter().zip(&scores).enumerate() {
                let at = format!("{attention:?}, {model}, target {n}");
                let got = got.as_ref().unwrap();
                assert_eq!((&got.token_ids, &got.top_ids), (&case.target, &case.top_ids), "{at}");
                assert_eq!(got.token_logprobs.len(), case.token_logprobs.len(), "{at}");
                for (place, (g, want)) in got.token_logprobs.iter().zip(&case.token_logprobs).enumerate() {
                    assert!(close(*g, *want), "{at}, token {place}: {g} is not {want}");
                    let row = &rows[&(n, place)];
                    assert!(close(row[case.target[place] as usize], *want), "{at}, row {place}");
                    assert!(close(row[case.top_ids[place] as usize], got.top_logprobs[place]), "{at}, row {place}");
                }
                if let Some(want) = &case.last_row {
                    let row = &rows[&(n, case.target.len() - 1)];
                    assert!(row.len() == want.len() && row.iter().zip(want).all(|(g, w)| close(*g, *w)), "{at}: row");
                }
            }
            assert_eq!(rows.len(), cases.iter().map(|c| c.target.len()).sum::<usize>());
        }
    }
}

#[test]
fn targets_are_scored_as_they_were_generated() {
    let model = Model::load(repo_root().join("tests/fixtures/gpt2-base-like"), &options(AttentionChoice::EL)).unwrap();
    let asked = GenerationOptions { num_beams: Some(1), max_new_tokens: Some(12), ..GenerationOptions::default() };
    let asked = GenerationOptions { no_repeat_ngram_size: Some(0), repetition_penalty: Some(1.0), ..asked };
    let config = model.config(&asked).unwrap();
    let prompts = [vec![5, 9, 40], vec![17]];
    let generated = model.generate(&prompts, &config).unwrap();
    let requests: Vec<ScoreRequest> = prompts
        .iter()
        .zip(&generated)
        .map(|(p, g)| ScoreRequest { source: p.clone().into(), target: g.sequences[0].token_ids.clone().into() })
        .collect();
    let scores = model.session().score(&requests, &config, &RunOptions::default(), None).unwrap();
    for (score, generation) in scores.into_iter().zip(generated) {
        let (score, sequence) = (score.unwrap(), &generation.sequences[0]);
        for (a, b) in score.token_logprobs.iter().zip(&sequence.token_logprobs) {
            assert!(close(*a, *b), "{a} is not {b}");
        }
        assert!((score.sum() - f64::from(sequence.score)).abs() < 1e-3 && score.perplexity() >= 1.0);
        assert_eq!(score.top_ids, sequence.token_ids, "greedy search takes the most likely");
    }
}

#[test]
fn stop_strings_end_what_transformers_ends() {
    let recorded: StopStringCases = read("stop_strings.json");
    let bytes = |hex: &String| -> Vec<u8> {
        (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
    };
    let table = TokenBytes::new(recorded.vocabulary.len(), |id| recorded.vocabulary.get(id as usize).map(bytes));
    let (mut ended, mut refused) = (0, 0);
    for (n, case) in recorded.cases.iter().enumerate() {
        match StopStringCriterion::new(&case.strings, table.clone()) {
            Ok(criterion) => assert_eq!(criterion.matches(&case.token_ids), case.stops, "case {n}: {:?}", case.strings),
            // Refused because no token can end it, so nothing could have been ended.
            Err(error) => {
                refused += 1;
                assert!(!case.stops, "case {n}: {error}");
            }
        }
        ended += usize::from(case.stops);
    }
    assert!(recorded.cases.len() >= 40 && ended >= 15 && refused <= 4, "{ended} ended, {refused} refused");
}
