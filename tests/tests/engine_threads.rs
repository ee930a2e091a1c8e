//! One model used by several threads: results as from one, weights in memory once.

use std::thread;

use elgen_engine::{AttentionChoice, Generation, Model, Request, Session};
use elgen_search::{GenerationConfig, GenerationOptions};
use elgen_tensor::ops::{Norm, layer_norm};
use elgen_tensor::{Class, DType, Device};
use elgen_tests::demo::{Translations, assert_same, generate, session_options};
use elgen_tests::harness::{assert_same_bits, devices, upload, values};

const fn is_send_and_sync<T: Send + Sync>() {}
const fn is_send<T: Send>() {}
const _: () = is_send_and_sync::<Model>();
const _: () = is_send_and_sync::<Device>();
const _: () = is_send::<Session>();

/// Greedy, beams and samples, so that the threads run different kernels.
fn works(model: &Model) -> Vec<(Vec<Request>, GenerationConfig)> {
    let data = Translations::load();
    let options = |num_beams: usize, new: usize| GenerationOptions {
        num_beams: Some(num_beams),
        max_new_tokens: Some(new),
        ..GenerationOptions::default()
    };
    let sampled = GenerationOptions { do_sample: Some(true), num_return_sequences: Some(3), ..options(1, 14) };
    [(5, options(4, 16)), (12, options(1, 24)), (7, sampled)]
        .into_iter()
        .map(|(n, asked)| (data.spread(n).requests(), model.config(&asked).unwrap()))
        .collect()
}

#[test]
fn three_threads_give_what_one_gives() {
    for kind in [AttentionChoice::MHA, AttentionChoice::EL] {
        let model = Model::load(Translations::model(), &session_options(kind, 4)).unwrap();
        let weights = model.device().pool().current().of(Class::Weights);
        assert!(weights > 0);
        let works = works(&model);
        let alone: Vec<Vec<Generation>> =
            works.iter().map(|(requests, config)| generate(&mut model.session(), requests, config)).collect();
        thread::scope(|scope| {
            let threads: Vec<_> = works
                .iter()
                .map(|(requests, config)| {
                    let model = model.clone();
                    scope.spawn(move || {
                        let mut session = model.session();
                        (0..3).map(|_| generate(&mut session, requests, config)).collect::<Vec<_>>()
                    })
                })
                .collect();
            for (thread, want) in threads.into_iter().zip(&alone) {
                for got in thread.join().unwrap() {
                    assert_same(&got, want, &format!("{kind:?}"));
                }
            }
        });
        let pool = model.device().pool();
        assert_eq!((pool.current().of(Class::Weights), pool.peak().of(Class::Weights)), (weights, weights), "{kind:?}");
        // The sessions are gone, and what they held with them.
        assert_eq!(pool.current().of(Class::Cache), 0, "{kind:?}");
    }
}

#[test]
fn generate_of_a_model_is_called_from_threads_and_names_the_input_that_fails() {
    let model = Model::load(Translations::model(), &session_options(AttentionChoice::MHA, 4)).unwrap();
    let data = Translations::load().spread(4);
    let config = model.config(&GenerationOptions::default()).unwrap();
    let texts: Vec<&str> = data.sources.iter().map(String::as_str).collect();
    thread::scope(|scope| {
        let run = || model.generate(&texts, &config).unwrap();
        for thread in [scope.spawn(run), scope.spawn(run), scope.spawn(run)] {
            for (got, want) in thread.join().unwrap().iter().zip(&data.hypotheses) {
                assert_eq!(got.sequences[0].text.as_ref(), Some(want));
            }
        }
    });
    let error = model.generate(&["fine", &"much too long ".repeat(400)], &config).unwrap_err().to_string();
    assert!(error.starts_with("input 1: ") && !error.contains('\n'), "{error}");
    assert_eq!(model.generate(&[] as &[&str], &config).unwrap(), []);
}

/// Uploads, constants and read-backs of one device, crossed: with immediates and with the uniform buffer in their place.
#[test]
fn recordings_of_several_threads_do_not_mix() {
    const COLS: usize = 70;
    for variant in devices() {
        let device = &variant.device;
        let run = |seed: u64, rows: usize| -> Vec<f32> {
            let ones = [1.0; COLS];
            let norm = Norm::layer_norm(&device.into(), "norm", &ones, &values(seed, COLS), seed as f32 * 0.1).unwrap();
            let x = upload(device, rows, COLS, &values(seed + 7, rows * COLS));
            let out = device.tensor("out", Class::Activations, rows, COLS, DType::F32).unwrap();
            let mut rec = device.recorder();
            // Twice, so that a recording has several windows of constants.
            layer_norm(&mut rec, &x, &norm, &out, 1).unwrap();
            layer_norm(&mut rec, &x, &norm, &out, rows).unwrap();
            rec.submit().unwrap();
            device.read_tensor(&out).unwrap()
        };
        let want: Vec<Vec<f32>> = (0..4).map(|t| run(t, 3 + t as usize)).collect();
        thread::scope(|scope| {
            for (t, want) in (0..4).zip(&want) {
                let (run, name) = (&run, &variant.name);
                scope.spawn(move || {
                    for _ in 0..40 {
                        assert_same_bits(&run(t, 3 + t as usize), want, &format!("{name}, thread {t}"));
                    }
                });
            }
        });
    }
}
