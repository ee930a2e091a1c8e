//! A real BART made by others (English letters to phonemes) against PyTorch's results, from `$ELGEN_DATA`; skipped with a message where that is unset.

use std::path::PathBuf;

use elgen_engine::{AttentionChoice, Request, RunOptions, Session, SessionOptions, on_done};
use elgen_search::GenerationOptions;
use serde::Deserialize;

#[derive(Deserialize)]
struct Word {
    word: String,
    input_ids: Vec<u32>,
    greedy_ids: Vec<u32>,
    beam4: Vec<Beam>,
}

#[derive(Deserialize)]
struct Beam {
    ids: Vec<u32>,
    score: f32,
}

fn model() -> Option<PathBuf> {
    let Some(data) = std::env::var_os("ELGEN_DATA") else {
        println!("skipped: ELGEN_DATA is not set (it names the folder that holds models/misaki-us-bart)");
        return None;
    };
    let dir = PathBuf::from(data).join("models/misaki-us-bart");
    if !dir.is_dir() {
        println!("skipped: {} does not exist", dir.display());
        return None;
    }
    Some(dir)
}

/// Drops the start token and everything behind the first EOS.
fn new_ids(ids: &[u32]) -> Vec<u32> {
    let end = ids.iter().skip(1).position(|id| *id == 2).map_or(ids.len(), |at| at + 2);
    ids[1..end].to_vec()
}

fn check(attention: AttentionChoice) {
    let Some(dir) = model() else { return };
    let text = std::fs::read_to_string(dir.join("reference.jsonl")).expect("reference.jsonl");
    let words: Vec<Word> = text.lines().map(|line| serde_json::from_str(line).expect("a reference word")).collect();
    let options = SessionOptions::default().with_attention(attention).with_batch_size(64);
    let mut session = Session::load(&dir, &options).expect("the model");
    let requests: Vec<Request> =
        words.iter().enumerate().map(|(i, w)| Request::new(i as u64, w.input_ids.clone())).collect();
    for beams in [1, 4] {
        // The references were made with a length that none of them reaches.
        let asked = GenerationOptions {
            num_beams: Some(beams),
            num_return_sequences: Some(beams),
            max_length: Some(64),
            ..GenerationOptions::default()
        };
        let (config, _) =
            asked.or(session.checkpoint_options().clone()).resolve(&session.limits()).expect("valid options");
        let mut wrong = Vec::new();
        session
            .generate(
                &requests,
                &config,
                &RunOptions::default(),
                &mut on_done(|i, result| {
                    let (word, got) = (&words[i], result.expect("a result").sequences);
                    let same = if beams == 1 {
                        got[0].token_ids == new_ids(&word.greedy_ids)
                    } else {
                        got.iter()
                            .zip(&word.beam4)
                            .all(|(g, e)| g.token_ids == new_ids(&e.ids) && (g.score - e.score).abs() <= 1e-4)
                    };
                    if !same {
                        wrong.push(format!("{}: {:?}", word.word, got[0]));
                    }
                }),
            )
            .expect("a run");
        assert!(wrong.is_empty(), "{beams} beams: {} of {} words differ: {wrong:?}", wrong.len(), words.len());
        println!("{attention:?}, {beams} beams: {} words equal", words.len());
    }
}

#[test]
fn real_bart_mha() {
    check(AttentionChoice::MHA);
}

#[test]
fn real_bart_el() {
    check(AttentionChoice::EL);
}
