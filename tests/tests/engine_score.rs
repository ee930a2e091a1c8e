//! Saved runs against runs of other attention kinds and storage, and whole texts in windows.

use std::path::Path;

use elgen_engine::{
    AttentionChoice, Divergence, DtypeChoice, Input, RunComparison, RunHeader, RunOptions, RunReader, RunWriter,
    ScoreInput, ScoreRequest, Session, SessionOptions, TextWindows, WholeText,
};
use elgen_search::{GenerationConfig, GenerationOptions};
use elgen_tests::repo_root;

fn open(model: &str, attention: AttentionChoice, dtype: DtypeChoice) -> (Session, GenerationConfig) {
    let device = std::env::var("ELGEN_TEST_DEVICE").ok();
    let options =
        SessionOptions::default().with_attention(attention).with_device(device).with_dtype(dtype).with_batch_size(3);
    let session = Session::load(&repo_root().join("tests/fixtures").join(model), &options).unwrap();
    let config = session.model().config(&GenerationOptions::default()).unwrap();
    (session, config)
}

/// Sources and targets of several lengths; one has no target and fails.
fn requests() -> Vec<ScoreInput> {
    let ids = |n: u32, seed: u32| -> Vec<u32> { (0..n).map(|i| 3 + (i * 7 + seed * 13 + i * i) % 80).collect() };
    let pair = |(n, m): (u32, u32)| ScoreRequest { source: ids(n, m).into(), target: ids(m, n).into() }.into();
    [(5, 12), (1, 3), (9, 1), (4, 0), (17, 9)].into_iter().map(pair).collect()
}

fn save(model: &str, path: &Path) {
    let (mut session, config) = open(model, AttentionChoice::MHA, DtypeChoice::F32);
    let vocab_size = session.limits().vocab_size;
    let header = RunHeader { vocab_size, model: model.to_owned(), labels: [].into() };
    let mut run = RunWriter::create(path, &header).unwrap();
    let mut see = |record: usize, place: usize, row: &[f32]| run.row(record, place, row).unwrap();
    let scores = session.score_inputs(&requests(), &config, &RunOptions::default(), Some(&mut see)).unwrap();
    for (number, score) in scores.iter().enumerate() {
        run.end_record(&number.to_string(), score.as_ref().ok()).unwrap();
    }
    run.finish().unwrap();
}

fn compare(model: &str, attention: AttentionChoice, dtype: DtypeChoice, path: &Path) -> Divergence {
    let (mut session, config) = open(model, attention, dtype);
    let mut comparison = RunComparison::new(RunReader::open(path).unwrap());
    let mut see = |record: usize, place: usize, row: &[f32]| comparison.row(record, place, row).unwrap();
    let scores = session.score_inputs(&requests(), &config, &RunOptions::default(), Some(&mut see)).unwrap();
    for (number, score) in scores.iter().enumerate() {
        comparison.end_record(&number.to_string(), score.as_ref().ok()).unwrap();
    }
    comparison.finish().unwrap()
}

#[test]
fn el_attention_changes_nothing_and_f16_little() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["bart-base-like", "gpt2-base-like"] {
        let path = dir.path().join(model);
        save(model, &path);
        let same = compare(model, AttentionChoice::MHA, DtypeChoice::F32, &path);
        assert_eq!((same.max_kl, same.max_logprob_difference, same.top1_agreement), (0.0, 0.0, 1.0), "{model}");
        assert_eq!((same.left_out, same.this.records, same.this.tokens), (1, 4, 25));
        let el = compare(model, AttentionChoice::EL, DtypeChoice::F32, &path);
        assert!(el.max_kl < 1e-6 && el.top1_agreement == 1.0, "{model}: {el:?}");
        assert!(el.max_logprob_difference < 1e-4, "{model}: {el:?}");
        for attention in [AttentionChoice::MHA, AttentionChoice::EL] {
            let half = compare(model, attention, DtypeChoice::F16, &path);
            assert!(half.mean_kl > 0.0 && half.mean_kl < 1e-3, "{model}: {half:?}");
            assert!(half.mean_kl > el.mean_kl && half.p99_kl <= half.max_kl, "{model}: {half:?}");
            assert!(half.top1_agreement > 0.8, "{model}: {half:?}");
        }
    }
}

#[test]
fn windows_of_a_text_are_scored_like_prompts_and_targets() {
    let (mut session, config) = open("gpt2-base-like", AttentionChoice::EL, DtypeChoice::F32);
    let ids: Vec<u32> = (0..29).map(|i| 5 + (i * i + 3 * i) % 70).collect();
    let windows = Some(TextWindows { max_length: Some(12), stride: Some(8) });
    let given = WholeText { first_given: true, windows };
    let whole = |how: &WholeText| ScoreInput::Whole(Input::Ids(ids.clone()), how.clone());
    let part = |begin: usize, from: usize, end: usize| -> ScoreInput {
        ScoreRequest { source: ids[begin..from].to_vec().into(), target: ids[from..end].to_vec().into() }.into()
    };
    let bos = config.bos_token_id.expect("GPT-2 has one");
    let mut behind_bos = part(0, 0, 29);
    if let ScoreInput::Target(request) = &mut behind_bos {
        request.source = vec![bos].into();
    }
    let one_piece = WholeText { first_given: true, windows: None };
    let inputs = [
        whole(&given),
        part(0, 1, 12),
        part(8, 12, 20),
        part(16, 20, 28),
        part(24, 28, 29),
        whole(&one_piece),
        part(0, 1, 29),
        whole(&WholeText::default()),
        behind_bos,
        ScoreInput::Whole(Input::Ids(ids[..1].to_vec()), one_piece.clone()),
    ];
    let mut places = Vec::new();
    let mut see = |request: usize, place: usize, row: &[f32]| {
        if request == 0 {
            places.push((place, row[ids[place + 1] as usize]));
        }
    };
    let scores = session.score_inputs(&inputs, &config, &RunOptions::default(), Some(&mut see)).unwrap();
    let logprobs = |n: usize| scores[n].as_ref().unwrap().token_logprobs.clone();
    assert_eq!(logprobs(0), (1..5).flat_map(logprobs).collect::<Vec<_>>());
    assert_eq!(scores[0].as_ref().unwrap().token_ids, ids[1..]);
    assert_eq!(scores[0].as_ref().unwrap().prompt_ids, ids[..1]);
    assert_eq!(logprobs(5), logprobs(6));
    assert_eq!(logprobs(7), logprobs(8));
    assert_eq!(scores[7].as_ref().unwrap().token_ids, ids);
    assert!(scores[9].as_ref().unwrap_err().to_string().contains("no tokens"));
    places.sort_by_key(|(place, _)| *place);
    assert_eq!(places.len(), 28);
    for (n, ((place, logprob), want)) in places.iter().zip(logprobs(0)).enumerate() {
        assert!(*place == n && (logprob - want).abs() < 1e-4, "{n}: {place}, {logprob} is not {want}");
    }
}

#[test]
fn a_text_alone_is_nothing_for_an_encoder_decoder() {
    let (mut session, config) = open("bart-base-like", AttentionChoice::MHA, DtypeChoice::F32);
    let input = ScoreInput::Whole(Input::Ids(vec![5, 6, 7]), WholeText::default());
    let scores = session.score_inputs(&[input], &config, &RunOptions::default(), None).unwrap();
    assert!(scores[0].as_ref().unwrap_err().to_string().contains("the target is missing"));
}
