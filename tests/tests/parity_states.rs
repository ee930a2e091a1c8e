//! Hidden states after every layer, and logits, against Hugging Face's, for every small model with MHA and EL.
//!
//! The decoder is run teacher-forced: for each length of the reference's prefix, a batch is admitted with that prompt (its prefill makes the
//! caches) and one step is taken, so prefill and step are both covered at every position.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use elgen_attention::Kind;
use elgen_models::{Checkpoint, DEFAULT_PREFILL_BUDGET, Kinds, ModelConfig, ModelError, Probe, Runner, Sentence, load};
use elgen_tensor::{Class, DType, Device, DeviceOptions, Recorder, Rows, Tensor};
use elgen_tests::harness::assert_close;
use elgen_tests::states::{Reference, StatesFile, models_with_states};

/// Copies of the hidden states that a probe saw: (stack, index) -> rows.
#[derive(Default)]
struct Seen(HashMap<(&'static str, usize), Tensor>);

impl Seen {
    fn keep(
        &mut self,
        rec: &mut Recorder,
        stack: &'static str,
        index: usize,
        x: &Tensor,
        rows: usize,
    ) -> Result<(), ModelError> {
        let copy = rec.device().tensor("seen", Class::Activations, rows, x.cols, DType::F32)?;
        rec.copy(&x.buffer, 0, &copy.buffer, 0, (rows * x.ld() * 4) as u64)?;
        self.0.insert((stack, index), copy);
        Ok(())
    }
}

fn check_model(dir: &Path, kind: Kind) -> usize {
    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let config = ModelConfig::load(dir).expect("config");
    let checkpoint = Checkpoint::open(dir).expect("checkpoint");
    let options = DeviceOptions { selector: std::env::var("ELGEN_TEST_DEVICE").ok(), ..DeviceOptions::default() };
    let device = Device::open(&options).expect("a Vulkan adapter");
    let model = load(&device, &config, &checkpoint, Kinds::both(kind), DType::F32).expect("model");
    let (limits, layout) = (model.limits(), model.cache_layout());
    let encoder_layers = config.summary().encoder_layers;
    let mut runner = Runner::new(&device, Arc::from(model), DEFAULT_PREFILL_BUDGET);
    let reference = Reference::of(dir);
    let file = StatesFile::of(dir);
    let recorded = file.tensors();
    let logits = device.tensor("logits", Class::Activations, 1, limits.vocab_size, DType::F32).expect("logits");
    let mut compared = 0;

    for state in &reference.states {
        let input = &reference.inputs[state.input];
        let forced = state.decoder_input_ids.as_ref().unwrap_or(input);
        let source: &[u32] = if limits.is_encoder_decoder { input } else { &[] };
        let mut rows = Rows::new(&device, 1, forced.len() + 1).expect("rows");
        for length in 1..=forced.len() {
            let sentences = [Sentence { source, prompt: &forced[..length], max_new: 1 }];
            runner.begin(&mut rows, &sentences, 1).expect("admission");
            if length == 1 && limits.is_encoder_decoder {
                let mut seen = Seen::default();
                runner
                    .encode_with_probe(
                        &sentences,
                        Probe::new(&mut |rec, stack, index, x, n| seen.keep(rec, stack, index, x, n)),
                    )
                    .expect("encoder");
                for l in 0..=encoder_layers {
                    let got = device.read_tensor(&seen.0[&("encoder", l)]).expect("states");
                    let expected = recorded.all(&format!("{}.encoder.{l}", state.input));
                    assert_close(&got, &expected, &format!("{name} {kind} encoder layer {l}"));
                    compared += 1;
                }
            }
            let mut seen = Seen::default();
            let mut rec = device.recorder();
            runner
                .step_with_probe(
                    &mut rec,
                    &rows,
                    &logits,
                    Probe::new(&mut |rec, stack, index, x, n| seen.keep(rec, stack, index, x, n)),
                )
                .expect("step");
            rec.submit().expect("submission");
            for l in 0..=layout.layers {
                let got = device.read_tensor(&seen.0[&("decoder", l)]).expect("states");
                let expected = recorded.row(&format!("{}.decoder.{l}", state.input), length - 1);
                assert_close(&got, &expected, &format!("{name} {kind} decoder layer {l}, position {}", length - 1));
                compared += 1;
            }
            let got = device.read_tensor(&logits).expect("logits");
            let expected = recorded.row(&format!("{}.logits", state.input), length - 1);
            assert_close(&got, &expected, &format!("{name} {kind} logits, position {}", length - 1));
            compared += 1;
        }
    }
    compared
}

fn check(family: &str, kind: Kind, least: usize) {
    let dirs = models_with_states(&[family]);
    let compared: usize = dirs.iter().map(|dir| check_model(dir, kind)).sum();
    println!("{family} {kind}: {compared} hidden states and logits of {} models", dirs.len());
    assert!(dirs.len() >= least && compared >= 20 * least, "only {compared} states of {} models", dirs.len());
}

#[test]
fn bart_states_mha() {
    check("bart-", Kind::MHA, 8);
}

#[test]
fn bart_states_el() {
    check("bart-", Kind::EL, 8);
}

#[test]
fn gpt2_states_mha() {
    check("gpt2-", Kind::MHA, 6);
}

#[test]
fn gpt2_states_el() {
    check("gpt2-", Kind::EL, 6);
}

#[test]
fn marian_states_mha() {
    check("marian-", Kind::MHA, 3);
}

#[test]
fn marian_states_el() {
    check("marian-", Kind::EL, 3);
}

#[test]
fn mbart_states_mha() {
    check("mbart-", Kind::MHA, 2);
}

#[test]
fn mbart_states_el() {
    check("mbart-", Kind::EL, 2);
}

#[test]
fn pegasus_states_mha() {
    check("pegasus-", Kind::MHA, 2);
}

#[test]
fn pegasus_states_el() {
    check("pegasus-", Kind::EL, 2);
}

#[test]
fn opt_states_mha() {
    check("opt-", Kind::MHA, 3);
}

#[test]
fn opt_states_el() {
    check("opt-", Kind::EL, 3);
}

#[test]
fn t5_states_mha() {
    check("t5-", Kind::MHA, 5);
}

#[test]
fn t5_states_el() {
    check("t5-", Kind::EL, 5);
}
