//! Whole models with f16 EL caches: cooperative matrices give the ids that the portable kernel gives.

use elgen_engine::{AttentionChoice, Cooperative, DtypeChoice, Generation, Request, Session, SessionOptions};
use elgen_search::GenerationOptions;
use elgen_tests::demo::{config, generate};
use elgen_tests::harness::coop_devices;
use elgen_tests::repo_root;

fn run(model: &str, cooperative: Cooperative) -> Vec<Generation> {
    let options = SessionOptions::default()
        .with_attention(AttentionChoice::EL)
        .with_dtype(DtypeChoice::F16)
        .with_device(std::env::var("ELGEN_TEST_DEVICE").ok())
        .with_batch_size(4)
        .with_cooperative(cooperative);
    let mut session = Session::load(&repo_root().join("tests/fixtures").join(model), &options).unwrap();
    let device = session.device().clone();
    assert_eq!(device.capabilities().cooperative.is_some(), cooperative != Cooperative::Off, "{model}");
    let asked =
        serde_json::json!({ "num_beams": 3, "num_return_sequences": 3, "max_new_tokens": 12, "min_new_tokens": 6 });
    let asked = GenerationOptions::from_json(asked.as_object().unwrap()).unwrap();
    let config = config(&session, asked);
    let ids = |n: u32, seed: u32| (0..n).map(|i| 3 + (i * 7 + seed * 13 + i * i) % 20).collect::<Vec<u32>>();
    let requests: Vec<Request> =
        [5, 1, 19, 12].into_iter().zip(0..).map(|(n, seed)| Request::new(u64::from(seed), ids(n, seed))).collect();
    let results = generate(&mut session, &requests, &config);
    assert_eq!(device.cooperative_fault(), None);
    results
}

fn same_ids(models: &[&str]) {
    for variant in coop_devices() {
        let edge = variant.device.capabilities().cooperative.map_or(Cooperative::Off, Cooperative::Edge);
        for model in models {
            let (want, got) = (run(model, Cooperative::Off), run(model, edge));
            let mut ids = 0;
            for (i, (w, g)) in want.iter().zip(&got).enumerate() {
                assert_eq!(w.sequences.len(), g.sequences.len());
                for (n, (a, b)) in w.sequences.iter().zip(&g.sequences).enumerate() {
                    let at = format!("{model}, {edge:?}, request {i}, sequence {n}");
                    assert_eq!(a.token_ids, b.token_ids, "{at}: scores {} and {}", a.score, b.score);
                    assert!((a.score - b.score).abs() <= 1e-3, "{at}: scores {} and {}", a.score, b.score);
                    ids += a.token_ids.len();
                }
            }
            assert!(ids >= 4 * 3 * 6, "{model}: {ids} ids");
        }
    }
}

/// Self- and cross-attention, and the bias of T5.
#[test]
fn coop_encoder_decoder_models_give_the_same_ids() {
    same_ids(&["bart-base-like", "t5-base-like"]);
}

#[test]
fn coop_decoder_only_models_give_the_same_ids() {
    same_ids(&["gpt2-base-like"]);
}
