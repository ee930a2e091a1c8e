//! EL-attention generates what multi-head attention generates: every small model of every family, 1 to 6 beams, sources and prompts of several lengths
//! in one batch, and EL in the decoder's self-attention, in cross-attention, or in both.
//!
//! No sentence may differ: the models' margins are wide. (Where a real checkpoint has near ties, `demo_bart` and `demo_gpt2` weigh them.)

use elgen_attention::Kind;
use elgen_models::Kinds;
use elgen_search::{GenerationConfig, GenerationOptions, Hypothesis};
use elgen_tensor::DType;
use elgen_tests::kinds::{Files, Loaded, Start, device, fixtures};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    inputs: Vec<Vec<u32>>,
}

const NEW_TOKENS: usize = 12;

/// Beams with EL in one place only.
const MIXED_BEAMS: [usize; 2] = [1, 4];

/// The recorded inputs, as sources behind which some sentences have a given beginning, or as prompts.
fn starts(inputs: &[Vec<u32>], loaded: &Loaded, config: &GenerationConfig) -> Vec<Start> {
    if !loaded.limits().is_encoder_decoder {
        return inputs.iter().map(|ids| Start { source: Vec::new(), prompt: ids.clone() }).collect();
    }
    let first = config.decoder_start_token_id.expect("a start token");
    let start = |(i, source): (usize, &Vec<u32>)| {
        // A decoder may have a vocabulary of its own.
        let given = source.iter().take(i % 3).map(|id| id % loaded.limits().vocab_size as u32);
        Start { source: source.clone(), prompt: [first].into_iter().chain(given).collect() }
    };
    inputs.iter().enumerate().map(start).collect()
}

fn differences(got: &[Vec<Hypothesis>], want: &[Vec<Hypothesis>], at: &str, wrong: &mut Vec<String>) -> usize {
    assert_eq!(got.len(), want.len(), "{at}");
    let mut compared = 0;
    for (s, (got, want)) in got.iter().zip(want).enumerate() {
        assert_eq!(got.len(), want.len(), "{at}, input {s}: number of sequences");
        for (rank, (g, w)) in got.iter().zip(want).enumerate() {
            compared += 1;
            let same_score = (g.score - w.score).abs() <= 1e-4 * w.score.abs().max(1.0);
            if g.token_ids != w.token_ids || !same_score {
                wrong.push(format!(
                    "{at}, input {s}, rank {rank}: {:?} score {} instead of {:?} score {}",
                    g.token_ids, g.score, w.token_ids, w.score
                ));
            }
        }
    }
    compared
}

const fn kinds(self_: Kind, cross: Kind) -> Kinds {
    Kinds::new(self_, cross)
}

/// EL everywhere and, for encoder-decoders, in one place.
const EL: [Kinds; 3] = [kinds(Kind::EL, Kind::EL), kinds(Kind::EL, Kind::MHA), kinds(Kind::MHA, Kind::EL)];

/// All models of a family, at least `least` of them, with these kinds against MHA.
fn check(family: &str, least: usize, mixes: &[Kinds]) {
    let device = device();
    let dirs = fixtures(family);
    assert!(dirs.len() >= least, "{} models of {family}", dirs.len());
    let (mut compared, mut wrong) = (0, Vec::new());
    for dir in dirs {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(dir.join("reference.json")).expect("reference.json");
        let inputs = serde_json::from_str::<Reference>(&text).expect("a valid reference").inputs;
        let files = Files::open(&dir);
        let mut mha = files.load(&device, Kinds::both(Kind::MHA), DType::F32);
        let mixes = mixes.iter().filter(|kinds| kinds.self_ == kinds.cross || mha.limits().is_encoder_decoder);
        let mut models: Vec<(Kinds, Loaded)> =
            mixes.map(|kinds| (*kinds, files.load(&device, *kinds, DType::F32))).collect();
        for num_beams in 1..=6 {
            let asked = GenerationOptions {
                num_beams: Some(num_beams),
                num_return_sequences: Some(num_beams),
                max_new_tokens: Some(NEW_TOKENS),
                ..GenerationOptions::default()
            };
            let config = files.config(asked, mha.limits());
            let starts = starts(&inputs, &mha, &config);
            let want = mha.generate(&starts, &config);
            assert!(want.iter().flatten().any(|h| h.token_ids.len() > 3), "{name}: nothing was generated");
            for (kinds, model) in &mut models {
                if kinds.self_ == kinds.cross || MIXED_BEAMS.contains(&num_beams) {
                    let at = format!("{name}, self {}, cross {}, {num_beams} beams", kinds.self_, kinds.cross);
                    compared += differences(&model.generate(&starts, &config), &want, &at, &mut wrong);
                }
            }
        }
    }
    println!("{family}: {compared} hypotheses of EL are those of MHA");
    assert!(
        wrong.is_empty(),
        "{} of {compared} hypotheses differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(12)].join("\n")
    );
}

#[test]
fn bart() {
    check("bart-", 8, &EL);
}

#[test]
fn gpt2() {
    check("gpt2-", 6, &EL);
}

#[test]
fn t5() {
    check("t5-", 5, &EL);
}

#[test]
fn marian() {
    check("marian-", 3, &EL);
}

#[test]
fn mbart() {
    check("mbart-", 2, &EL);
}

#[test]
fn pegasus() {
    check("pegasus-", 2, &EL);
}

#[test]
fn opt() {
    check("opt-", 3, &EL);
}

#[test]
fn el_beside_the_baselines() {
    let mixes = [
        kinds(Kind::EL, Kind::MHA_REPLICATED),
        kinds(Kind::MHA_REPLICATED, Kind::EL),
        kinds(Kind::EL, Kind::MHA_NOCACHE),
        kinds(Kind::MHA_NOCACHE, Kind::EL),
    ];
    check("bart-base-like", 1, &mixes);
}
