//! How far logits of each attention kind are from those of multi-head attention in f32, by KL divergence over given targets: each token is one decode step, so
//! that caches are written and read as in a search. Kinds of self- and cross-attention are mixed.
//!
//! 40 of the demo's 1,000 pairs, 200 with `ELGEN_FULL=1`; `--nocapture` prints the table of docs/perf.

use elgen_attention::Kind;
use elgen_models::Kinds;
use elgen_search::GenerationOptions;
use elgen_tensor::{DType, Device};
use elgen_tests::demo::Translations;
use elgen_tests::kinds::{Files, Start, device, fixtures};
use elgen_tests::{full, harness};

/// What a run's distributions are like, beside those of the baseline.
#[derive(Debug, Default)]
struct Gap {
    tokens: usize,
    mean_kl: f64,
    max_kl: f64,
    /// Of any log-probability above 1e-6.
    max_logprob: f64,
    /// Rows whose most likely id is another one.
    other_best: usize,
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let top: f64 = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max).into();
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - top).exp()).sum();
    logits.iter().map(|x| f64::from(*x) - top - sum.ln()).collect()
}

fn best(row: &[f64]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

type Logits = Vec<Vec<Vec<f32>>>;

/// In nats, the divergence of `got` from `want`.
fn gap(want: &Logits, got: &Logits) -> Gap {
    let mut gap = Gap::default();
    for (want, got) in want.iter().flatten().zip(got.iter().flatten()) {
        let (want, got) = (log_softmax(want), log_softmax(got));
        assert!(got.iter().all(|x| !x.is_nan()));
        let kl: f64 = want.iter().zip(&got).filter(|(p, _)| p.is_finite()).map(|(p, q)| p.exp() * (p - q)).sum();
        let likely = want.iter().zip(&got).filter(|(p, _)| p.exp() > 1e-6);
        gap.tokens += 1;
        gap.mean_kl += kl;
        gap.max_kl = gap.max_kl.max(kl);
        gap.max_logprob = likely.map(|(p, q)| (p - q).abs()).fold(gap.max_logprob, f64::max);
        gap.other_best += usize::from(best(&want) != best(&got));
    }
    gap.mean_kl /= gap.tokens as f64;
    gap
}

const KINDS: [Kinds; 4] = [
    Kinds::new(Kind::MHA, Kind::MHA),
    Kinds::new(Kind::EL, Kind::MHA),
    Kinds::new(Kind::MHA, Kind::EL),
    Kinds::new(Kind::EL, Kind::EL),
];

/// The gaps of f32 and of f16 from `mha` in f32, for these kinds.
fn gaps(device: &Device, files: &Files, kinds: &[Kinds], starts: &[Start], targets: &[Vec<u32>]) -> [Vec<Gap>; 2] {
    let run = |kinds: Kinds, dtype: DType| files.load(device, kinds, dtype).forced_logits(starts, targets);
    let want = run(KINDS[0], DType::F32);
    [DType::F32, DType::F16].map(|dtype| {
        let gap = |kinds: &Kinds| {
            let gap = gap(&want, &run(*kinds, dtype));
            println!(
                "| {} | {} | {dtype:?} | {:.1e} | {:.1e} | {:.1e} | {} of {} |",
                kinds.self_, kinds.cross, gap.mean_kl, gap.max_kl, gap.max_logprob, gap.other_best, gap.tokens
            );
            gap
        };
        kinds.iter().map(gap).collect()
    })
}

const HEAD: &str = "| self | cross | storage | mean KL, nats | at most | log-probability, at most | another best token |\n|---|---|---|---|---|---|---|";

#[test]
fn the_demo_by_kinds_of_self_and_cross_attention() {
    let (device, files) = (device(), Files::open(&Translations::model()));
    let tokenizer = files.tokenizer(&Translations::model());
    let data = Translations::load();
    let n = if full() { 200 } else { 40 };
    let config = files.config(GenerationOptions::default(), files.load(&device, KINDS[0], DType::F32).limits());
    let first = config.decoder_start_token_id.unwrap();
    let start = |text: &String| Start { source: tokenizer.encode(text).unwrap(), prompt: vec![first] };
    let starts: Vec<Start> = data.sources[..n].iter().map(start).collect();
    let label = |all: &Vec<String>| tokenizer.encode_labels(&all[0]).unwrap();
    let targets: Vec<Vec<u32>> = data.references[..n].iter().map(label).collect();
    println!("the first {n} pairs of the demo\n{HEAD}");
    let [single, half] = gaps(&device, &files, &KINDS, &starts, &targets);
    assert_eq!((single[0].max_kl, single[0].max_logprob), (0.0, 0.0), "a repetition gives the same bits");
    for (kinds, gap) in KINDS.iter().zip(&single) {
        assert!(gap.max_kl < 1e-9 && gap.other_best == 0, "{kinds:?} in f32: {gap:?}");
    }
    for (kinds, gap) in KINDS.iter().zip(&half) {
        assert!(gap.mean_kl > 100.0 * single[3].mean_kl, "{kinds:?}: f16 rounds: {gap:?}");
        assert!(gap.mean_kl <= 2.0 * half[0].mean_kl, "{kinds:?} in f16: {gap:?}, mha {:?}", half[0]);
        assert!(gap.mean_kl < 1e-7 && gap.other_best == 0, "{kinds:?} in f16: {gap:?}");
    }
}

#[test]
fn small_models_by_kinds_of_attention() {
    let device = device();
    for name in ["bart-base-like", "gpt2-base-like", "t5-base-like", "marian-shared", "opt-prenorm"] {
        let files = Files::open(&fixtures(name)[0]);
        let limits = *files.load(&device, KINDS[0], DType::F32).limits();
        let ids = |n: usize, seed: u64| -> Vec<u32> {
            harness::values(seed, n).iter().map(|x| 3 + ((x + 1.0) * 30.0) as u32).collect()
        };
        let start = |(i, n): (u64, usize)| match limits.is_encoder_decoder {
            true => Start { source: ids(n, i), prompt: ids(1 + i as usize % 3, i + 50) },
            false => Start { source: Vec::new(), prompt: ids(n, i) },
        };
        let starts: Vec<Start> = (0..).zip([5, 1, 9, 17]).map(start).collect();
        let targets: Vec<Vec<u32>> = (100..).zip([12, 3, 1, 9]).map(|(seed, n)| ids(n, seed)).collect();
        let kinds = if limits.is_encoder_decoder { &KINDS[..] } else { &[KINDS[0], KINDS[3]] };
        println!("{name}\n{HEAD}");
        let [single, half] = gaps(&device, &files, kinds, &starts, &targets);
        let last = kinds.len() - 1;
        for gap in &single {
            assert!(gap.max_kl < 1e-9 && gap.other_best == 0, "{name} in f32: {gap:?}");
        }
        for gap in &half {
            assert!(gap.mean_kl > single[last].mean_kl, "{name}: f16 rounds: {gap:?}");
            assert!(gap.mean_kl <= 3.0 * half[0].mean_kl, "{name} in f16: {gap:?}, mha {:?}", half[0]);
        }
    }
}
