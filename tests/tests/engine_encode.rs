//! Hidden states of the encoder, or of the decoder of a model without one: Hugging Face's, whatever the batch.

use std::path::Path;

use elgen_engine::{AttentionChoice, DtypeChoice, EngineError, Input, Model, RunOptions, SessionOptions};
use elgen_models::Checkpoint;
use elgen_tests::demo::Translations;
use elgen_tests::harness::assert_close;
use elgen_tests::repo_root;
use elgen_tests::states::{Reference, StatesFile, models_with_states};

fn open(dir: &Path, attention: AttentionChoice, batch_size: usize) -> Model {
    let options = SessionOptions::default()
        .with_attention(attention)
        .with_dtype(DtypeChoice::F32)
        .with_device(std::env::var("ELGEN_TEST_DEVICE").ok())
        .with_batch_size(batch_size);
    Model::load(dir, &options).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
}

/// What the recorded states, which end before the last norm of a stack, become behind it.
fn normed(checkpoint: &Checkpoint, states: Vec<f64>, width: usize) -> Vec<f64> {
    let tensor = |names: &[&str]| Some(checkpoint.view(&checkpoint.find(names)?)?.to_f32().expect("a vector"));
    let rms = tensor(&["encoder.final_layer_norm.weight"]);
    let weight = rms.clone().or_else(|| tensor(&["model.encoder.layer_norm.weight", "encoder.layer_norm.weight"]));
    let bias = tensor(&["model.encoder.layer_norm.bias", "encoder.layer_norm.bias"]);
    let Some(weight) = weight else { return states };
    let mut out = Vec::with_capacity(states.len());
    for row in states.chunks(width) {
        let mean = if rms.is_some() { 0.0 } else { row.iter().sum::<f64>() / width as f64 };
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        let scale = 1.0 / (variance + if rms.is_some() { 1e-6 } else { 1e-5 }).sqrt();
        for (i, x) in row.iter().enumerate() {
            let shift = bias.as_ref().map_or(0.0, |bias| f64::from(bias[i]));
            out.push((x - mean) * scale * f64::from(weight[i]) + shift);
        }
    }
    out
}

/// Compares what a model gives for all its inputs, together and alone; returns how many inputs had recorded states.
fn check_model(dir: &Path, attention: AttentionChoice) -> usize {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let reference = Reference::of(dir);
    let file = StatesFile::of(dir);
    let recorded = file.tensors();
    let checkpoint = Checkpoint::open(dir).expect("a checkpoint");
    let model = open(dir, attention, 4);
    let inputs: Vec<Vec<u32>> = reference.inputs.iter().filter(|ids| !ids.is_empty()).cloned().collect();
    let together = model.encode(&inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
    for (ids, states) in inputs.iter().zip(&together) {
        assert_eq!((&states.token_ids, states.rows().len()), (ids, ids.len()), "{name}");
        // No bit depends on the batch.
        assert_eq!(&model.encode(std::slice::from_ref(ids)).unwrap()[0], states, "{name}");
    }
    for state in &reference.states {
        let ids = &reference.inputs[state.input];
        let states = &model.encode(std::slice::from_ref(ids)).unwrap()[0];
        let at = format!("{name} {attention:?} input {}", state.input);
        if state.decoder_input_ids.is_some() {
            let layers = model.model_config().summary().encoder_layers;
            let last = recorded.all(&format!("{}.encoder.{layers}", state.input));
            assert_close(&states.values, &normed(&checkpoint, last, states.hidden_size), &at);
        } else if recorded.has(&format!("{}.final", state.input)) {
            assert_close(&states.values, &recorded.all(&format!("{}.final", state.input)), &at);
        } else {
            // What the head makes of them.
            let table = ["lm_head.weight", "model.decoder.embed_tokens.weight", "decoder.embed_tokens.weight"];
            let head = checkpoint.find(&table).expect("a head");
            let head = checkpoint.view(&head).expect("a head").to_f32().expect("values");
            let product = |row: &[f32], column: &[f32]| -> f32 {
                row.iter().zip(column).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() as f32
            };
            let logits: Vec<f32> = states
                .rows()
                .flat_map(|row| head.chunks(states.hidden_size).map(|column| product(row, column)).collect::<Vec<_>>())
                .collect();
            assert_close(&logits, &recorded.all(&format!("{}.logits", state.input)), &at);
        }
    }
    reference.states.len()
}

fn check(prefixes: &[&str], least: usize) {
    let mut compared = 0;
    for dir in models_with_states(prefixes) {
        for attention in [AttentionChoice::MHA, AttentionChoice::EL] {
            compared += check_model(&dir, attention);
        }
    }
    assert!(compared >= least, "only {compared} inputs were compared");
}

#[test]
fn encoders_of_bart_and_marian() {
    check(&["bart-", "marian-"], 40);
}

#[test]
fn encoders_of_mbart_pegasus_and_t5() {
    check(&["mbart-", "pegasus-", "t5-"], 34);
}

#[test]
fn decoders_of_gpt2_and_opt() {
    check(&["gpt2-", "opt-"], 34);
}

#[test]
fn a_kind_that_recomputes_and_beams_aside_change_nothing() {
    let dir = repo_root().join("tests/fixtures/bart-base-like");
    let inputs = [vec![5_u32, 6, 7], vec![9]];
    let want = open(&dir, AttentionChoice::MHA, 4).encode(&inputs).unwrap();
    for attention in [AttentionChoice::MHA_REPLICATED, AttentionChoice::MHA_NOCACHE] {
        assert_eq!(open(&dir, attention, 4).encode(&inputs).unwrap(), want, "{attention:?}");
    }
}

#[test]
fn texts_are_encoded_and_bad_inputs_fail_alone() {
    let model = open(&Translations::model(), AttentionChoice::MHA, 2);
    let ids = model.tokenizer().unwrap().encode("It is late.").unwrap();
    let [text, same] = &model.encode(&[Input::from("It is late."), Input::from(ids.clone())]).unwrap()[..] else {
        panic!("two inputs")
    };
    assert_eq!((text, &text.token_ids), (same, &ids));
    let mean = text.mean();
    assert_eq!(mean.len(), text.hidden_size);
    let first: f32 = text.rows().map(|row| row[0]).sum::<f32>() / ids.len() as f32;
    assert!((mean[0] - first).abs() < 1e-5);
    let odd: Vec<Input> = vec![vec![].into(), vec![5_u32].into(), vec![1 << 30].into(), vec![5_u32; 5000].into()];
    let found = model.session().encode(&odd, &RunOptions::default()).unwrap();
    assert!(matches!(found[0], Err(EngineError::EmptyInput)), "{:?}", found[0]);
    assert!(found[1].is_ok());
    assert!(found[2].as_ref().unwrap_err().to_string().contains("1073741824"), "{:?}", found[2]);
    assert!(matches!(found[3], Err(EngineError::InputTooLong { tokens: 5000, .. })), "{:?}", found[3]);
    let run = RunOptions::default();
    run.cancel.cancel();
    assert!(matches!(model.session().encode(&odd, &run), Err(EngineError::Cancelled)));
    let none: [Vec<u32>; 0] = [];
    assert!(model.encode(&none).unwrap().is_empty());
}
