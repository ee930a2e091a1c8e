use elgen_tensor::DType;

use super::*;
use crate::planner::cost::Stack;
use crate::planner::device_class::{ATTEND_FLOPS, Curve, LINEAR_FLOPS};
use crate::shape::Shape;

const GIB: f64 = 1073741824.0;

/// Among the kinds of this crate.
fn choose(
    class: &DeviceClass,
    model: &ModelShape,
    workload: &Workload,
    dtype: DType,
    fits: impl Fn(Kinds) -> Option<usize>,
) -> Plan {
    super::choose(class, model, workload, dtype.into(), &Kind::BUILT_IN, fits)
}

fn combinations(has_encoder: bool) -> Vec<Kinds> {
    super::combinations(&Kind::BUILT_IN, has_encoder)
}

fn bart_large() -> ModelShape {
    let attention = Shape::new(1024, 16, 64, 0.125);
    let stack = Stack { layers: 12, attention, ffn: 4096, gated: false };
    ModelShape { decoder: stack, encoder: Some(stack), vocab_size: 50264 }
}

fn gpt2(heads: usize) -> ModelShape {
    let attention = Shape::new(heads * 64, heads, 64, 0.125);
    let stack = Stack { layers: heads, attention, ffn: heads * 256, gated: false };
    ModelShape { decoder: stack, encoder: None, vocab_size: 50257 }
}

/// An ideal device: kernels are limited by `bandwidth` or by `peak` FLOP/s, EL's by `el_peak`.
fn device(bandwidth: f64, peak: f64, el_peak: f64, dtype: DType) -> DeviceClass {
    let size = dtype.bytes() as f64;
    let curve = |bytes: f64, flops: f64, peak: f64, rows: &[f64]| {
        Curve::new(rows.iter().map(|r| (*r, (bytes / bandwidth).max(flops * r / peak))).collect())
    };
    // Points where the tests look: between them, a curve cuts the corner of an ideal device.
    let rows = [1.0, 4.0, 12.0, 16.0, 20.0, 25.0, 64.0, 128.0, 1024.0];
    let keys = |rows: &[f64]| curve(2.0 * size, ATTEND_FLOPS, peak, rows);
    let states = || curve(size, ATTEND_FLOPS, el_peak, &rows);
    DeviceClass {
        bandwidth,
        alu_flops: peak,
        matrix_flops: None,
        dispatch_seconds: 3e-6,
        submission_seconds: 30e-6,
        linear: curve(size, LINEAR_FLOPS, peak, &rows),
        mha_self: keys(&[1.0]),
        mha_cross: keys(&rows),
        el_self: states(),
        el_cross: states(),
        scatter: 0.0,
    }
}

/// The tensor cores of a V100 for every kernel.
fn v100() -> DeviceClass {
    device(0.9e12, 112e12, 112e12, DType::F16)
}

/// An H100 without its matrix units.
fn h100_plain() -> DeviceClass {
    device(3.35e12, 67e12, 67e12, DType::F16)
}

fn cnndm(batch_limit: usize) -> Workload {
    Workload { beams: 4, source_length: 1024, prompt_length: 1, max_new_tokens: 140, batch_limit }
}

/// Sentences of BART-large that fit into `gib` beside weights: what §1.5 of the sheet says a sentence takes.
fn by_cache(gib: f64) -> impl Fn(Kinds) -> Option<usize> {
    move |kinds| {
        let mib = 1048576.0;
        let own = if kinds.self_ == Kind::EL { 13.125 } else { 26.25 };
        let of_cross = [(Kind::EL, 2.0), (Kind::MHA, 48.0), (Kind::MHA_REPLICATED, 192.0), (Kind::MHA_NOCACHE, 4.0)];
        let (_, cross) = of_cross.into_iter().find(|(kind, _)| *kind == kinds.cross)?;
        Some((gib * GIB / ((own + cross) * mib)) as usize)
    }
}

#[test]
fn matrix_units_make_el_win_at_equal_batch() {
    let plan = choose(&v100(), &bart_large(), &cnndm(32), DType::F16, |_| Some(32));
    // Outputs are short: expanded queries and contexts, 256 KiB per row and layer in f32, outweigh some seventy keys.
    assert_eq!(plan.pick, Kinds::new(Kind::MHA, Kind::EL), "{plan:#?}");
    let long = Workload { max_new_tokens: 1000, ..cnndm(32) };
    let long = choose(&v100(), &bart_large(), &long, DType::F16, |_| Some(32));
    assert_eq!(long.pick, Kinds::both(Kind::EL), "{long:#?}");
    let [mha, el] = [Kind::MHA, Kind::EL].map(|kind| *long.of(Kinds::both(kind)).unwrap());
    // §1.8: 1.8 times in cross-attention without intermediates.
    let gain = mha.cross_seconds / el.cross_seconds;
    assert!((1.1..1.8).contains(&gain), "{gain}");
    assert!(el.self_seconds < mha.self_seconds);
    let reason = plan.cross_reason.unwrap();
    assert!(
        reason.starts_with("el reads 0.50 of mha's bytes") && reason.contains("the break-even of 58 TFLOP/s"),
        "{reason}"
    );
}

#[test]
fn plain_arithmetic_makes_el_lose_cross_until_memory_is_short() {
    let (model, class) = (bart_large(), h100_plain());
    let ample = choose(&class, &model, &cnndm(32), DType::F16, |_| Some(32));
    assert_eq!(ample.pick.cross, Kind::MHA, "{ample:#?}");
    let reason = ample.cross_reason.as_ref().unwrap();
    assert!(reason.contains("67 TFLOP/s, below the break-even of 214 TFLOP/s"), "{reason}");
    // §1.8: a third of the speed over the whole block.
    let [mha, el] = [Kind::MHA, Kind::EL].map(|cross| *ample.of(Kinds { cross, ..ample.pick }).unwrap());
    assert!((0.25..0.4).contains(&(mha.cross_seconds / el.cross_seconds)), "{ample:#?}");

    // A device of 67 TFLOP/s spends so little on a batch of two that only the batch counts.
    let tight = choose(&class, &model, &cnndm(512), DType::F16, by_cache(0.15));
    assert_eq!(tight.pick.cross, Kind::EL, "{tight:#?}");
    assert_eq!(tight.of(Kinds::both(Kind::MHA)).unwrap().batch, 2);
    assert!(tight.prediction().unwrap().batch >= 5);
    assert!(tight.cross_reason.unwrap().contains("instead of"));
}

#[test]
fn what_does_not_fit_is_not_picked() {
    let only = |wanted: Kinds| move |kinds: Kinds| (kinds == wanted).then_some(3);
    for wanted in [Kinds::new(Kind::MHA, Kind::EL), Kinds::both(Kind::MHA_NOCACHE)] {
        let plan = choose(&h100_plain(), &bart_large(), &cnndm(8), DType::F16, only(wanted));
        assert_eq!(plan.pick, wanted);
        assert!(plan.candidates.iter().all(|c| (c.kinds == wanted) == c.prediction.is_some()));
    }
    let none = choose(&h100_plain(), &bart_large(), &cnndm(8), DType::F16, |_| None);
    assert_eq!(none.pick, Kinds::both(Kind::MHA));
    assert_eq!(none.self_reason, "not one sentence fits into memory, whatever the kind");
    // No sentence is not a batch.
    assert_eq!(choose(&h100_plain(), &bart_large(), &cnndm(8), DType::F16, |_| Some(0)), none);
}

/// A device on which everything but the named kinds is far slower or smaller.
fn favouring(wanted: Kinds) -> impl Fn(Kinds) -> Option<usize> {
    move |kinds| Some(if kinds == wanted { 64 } else { 1 })
}

#[test]
fn baselines_are_never_picked_and_nocache_only_where_nothing_else_fits() {
    for model in [bart_large(), gpt2(12)] {
        for class in [v100(), h100_plain()] {
            // Even where sixty-four times the sentences fit.
            let replicated = Kinds::both(Kind::MHA_REPLICATED);
            let plan = choose(&class, &model, &cnndm(64), DType::F16, favouring(replicated));
            let rate = |kinds| plan.of(kinds).unwrap().sentences_per_second();
            assert!(rate(replicated) > 2.0 * rate(plan.pick), "{plan:#?}");
            assert_ne!(plan.pick, replicated);
            // And where nothing else does.
            let alone = choose(&class, &model, &cnndm(64), DType::F16, |kinds| (kinds == replicated).then_some(4));
            assert_eq!(alone.pick, Kinds::both(Kind::MHA));
            assert!(alone.self_reason.contains("not one sentence fits into memory with mha"), "{}", alone.self_reason);
        }
    }
    let nocache = Kinds::both(Kind::MHA_NOCACHE);
    let plan = choose(&v100(), &bart_large(), &cnndm(64), DType::F16, favouring(nocache));
    assert!(plan.of(nocache).unwrap().sentences_per_second() > plan.prediction().unwrap().sentences_per_second());
    assert!([Kind::MHA, Kind::EL].contains(&plan.pick.cross), "{plan:#?}");
    let forced = choose(&v100(), &bart_large(), &cnndm(64), DType::F16, |kinds| (kinds == nocache).then_some(2));
    assert_eq!(forced.pick, nocache);
    for reason in [Some(&forced.self_reason), forced.cross_reason.as_ref()] {
        assert!(reason.unwrap().starts_with("not one sentence fits into memory with caches of keys"), "{reason:?}");
    }
}

#[test]
fn a_tie_within_the_scatter_goes_to_the_simpler_kind() {
    let long = Workload { max_new_tokens: 1000, ..cnndm(32) };
    let steady = choose(&v100(), &bart_large(), &long, DType::F16, |_| Some(32));
    assert_eq!((steady.pick, steady.margin), (Kinds::both(Kind::EL), TIE));
    let rate = |kinds| steady.of(kinds).unwrap().sentences_per_second();
    let gain = |kinds: Kinds| 1.0 - rate(kinds) / rate(steady.pick);
    // As the scatter grows, the pick becomes simpler, and simplest where nothing is known.
    for kinds in combinations(true).into_iter().take(3) {
        let scatter = gain(kinds) + 1e-6;
        let noisy = choose(&DeviceClass { scatter, ..v100() }, &bart_large(), &long, DType::F16, |_| Some(32));
        let first = combinations(true).into_iter().find(|kinds| gain(*kinds) < scatter).unwrap();
        assert_eq!((noisy.pick, noisy.margin), (first, scatter));
        let told = [Some(&noisy.self_reason), noisy.cross_reason.as_ref()];
        assert!(told.iter().flatten().any(|reason| reason.contains("the simpler kind is taken")), "{told:?}");
    }
    let unknown = choose(&DeviceClass { scatter: 1.0, ..v100() }, &bart_large(), &long, DType::F16, |_| Some(32));
    assert_eq!(unknown.pick, Kinds::both(Kind::MHA));
}

#[test]
fn ties_are_mha() {
    // One head, one beam, one key: nothing to gain.
    let attention = Shape::new(64, 1, 64, 0.125);
    let stack = Stack { layers: 1, attention, ffn: 64, gated: false };
    let model = ModelShape { decoder: stack, encoder: None, vocab_size: 10_000_000 };
    let workload = Workload { beams: 1, source_length: 0, prompt_length: 1, max_new_tokens: 1, batch_limit: 1 };
    let plan = choose(&v100(), &model, &workload, DType::F16, |_| Some(1));
    assert_eq!(plan.pick, Kinds::both(Kind::MHA));
    assert_eq!(plan.cross_reason, None);
    assert_eq!(plan.candidates.len(), 3);
}

/// The table of §1.8: what EL gains in self-attention falls with the number of heads on plain arithmetic, and does not with matrix units.
#[test]
fn self_attention_of_gpt2_as_in_the_sheet() {
    // Per key, row and hidden column: MHA reads two elements, EL reads one and computes every head with it.
    let gain = |class: &DeviceClass, heads: usize| class.mha_self.at(1.0) / class.el_self.at(heads as f64);
    let near = |value: f64, expected: f64| assert!((value - expected).abs() < 0.06, "{value}, {expected}");
    for heads in [12, 16, 20, 25] {
        near(gain(&v100(), heads), 2.0);
    }
    for (heads, expected) in [(12, 1.7), (16, 1.25), (20, 1.0), (25, 0.8)] {
        near(gain(&h100_plain(), heads), expected);
    }
}

#[test]
fn time_grows_with_what_is_done() {
    let (model, class) = (bart_large(), v100());
    let of =
        |workload: &Workload, kinds, batch| predict(&class, &model, kinds, workload, DType::F16.into(), batch).unwrap();
    let base = cnndm(64);
    for kinds in combinations(true) {
        let seconds = of(&base, kinds, 32).seconds();
        assert!(of(&base, kinds, 64).seconds() > seconds);
        assert!(of(&Workload { max_new_tokens: 280, ..base }, kinds, 32).seconds() > 2.0 * seconds * 0.9);
        assert!(of(&Workload { beams: 5, ..base }, kinds, 32).seconds() > seconds);
        assert!(of(&Workload { source_length: 2048, ..base }, kinds, 32).seconds() > seconds);
    }
    // The mean step: 140 tokens behind a start token see 1 to 140 keys, 70.5 on average.
    let p = of(&base, Kinds::both(Kind::EL), 1);
    assert_eq!(p.self_bytes, 12.0 * (1.0 + 4.0 * 69.5) * 2048.0);
    assert_eq!(p.steps, 140);
    assert!((p.seconds() - p.prefill_seconds - 140.0 * p.step_seconds).abs() < 1e-12);
}

#[test]
fn the_same_question_has_the_same_answer() {
    let ask = || choose(&h100_plain(), &bart_large(), &cnndm(512), DType::F16, by_cache(8.0));
    assert_eq!(ask(), ask());
}
