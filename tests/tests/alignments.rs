//! Alignments of returned hypotheses against the cross-attention weights that Hugging Face transformers recorded while it generated
//! (tools/make_alignment_fixtures.py): every attention kind, greedy search and beams, with and without a prefix.

use std::sync::Arc;

use elgen_attention::{Caches, Extras, Kind, Step};
use elgen_engine::{
    AttentionChoice, DtypeChoice, EngineError, Generation, Request, RunOptions, Sequence, Session, SessionOptions,
    on_done,
};
use elgen_models::{
    Checkpoint, Continuation, DEFAULT_PREFILL_BUDGET, Kinds, ModelConfig, PassCx, Runner, Sentence, Space, load,
};
use elgen_search::{GenerationConfig, GenerationOptions};
use elgen_tensor::{Arena, Class, DType, Device, DeviceOptions, Rows};
use elgen_tests::repo_root;
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    cases: Vec<Case>,
}

#[derive(Clone, Deserialize)]
struct Case {
    model: String,
    layer: i32,
    input: Vec<u32>,
    prefix: Option<Vec<u32>>,
    generation: serde_json::Map<String, serde_json::Value>,
    outputs: Vec<Output>,
}

#[derive(Clone, Deserialize)]
struct Output {
    token_ids: Vec<u32>,
    alignment: Vec<Vec<f32>>,
}

impl Case {
    /// Cases of one model, layer and option set run as one batch.
    fn runs_with(&self, other: &Self) -> bool {
        (&self.model, self.layer, &self.generation) == (&other.model, other.layer, &other.generation)
    }

    fn request(&self, ordinal: u64) -> Request {
        let request = Request::new(ordinal, self.input.clone());
        match &self.prefix {
            Some(prefix) => request.with_prefix(prefix.clone()),
            None => request,
        }
    }

    fn config(&self, session: &Session) -> GenerationConfig {
        let asked = GenerationOptions::from_json(&self.generation).unwrap();
        asked.or(session.checkpoint_options().clone()).resolve(&session.limits()).unwrap().0
    }
}

fn recorded() -> Vec<Case> {
    let text = std::fs::read_to_string(repo_root().join("tests/fixtures/alignments.json")).unwrap();
    serde_json::from_str::<Recorded>(&text).unwrap().cases
}

fn session(model: &str, attention: AttentionChoice, dtype: DtypeChoice) -> Session {
    let device = std::env::var("ELGEN_TEST_DEVICE").ok();
    let options = SessionOptions::default().with_attention(attention).with_dtype(dtype).with_device(device);
    Session::load(&repo_root().join("tests/fixtures").join(model), &options).unwrap()
}

fn generate(session: &mut Session, requests: &[Request], config: &GenerationConfig, layer: i32) -> Vec<Generation> {
    let run = RunOptions::default().with_alignment(layer);
    let mut results: Vec<Option<Generation>> = vec![None; requests.len()];
    let mut events = on_done(|i: usize, result: Result<Generation, EngineError>| results[i] = Some(result.unwrap()));
    session.generate(requests, config, &run, &mut events).unwrap();
    results.into_iter().map(Option::unwrap).collect()
}

const KINDS: [AttentionChoice; 4] =
    [AttentionChoice::MHA, AttentionChoice::MHA_REPLICATED, AttentionChoice::MHA_NOCACHE, AttentionChoice::EL];

/// How far weights are from the recorded ones, over all hypotheses with the recorded ids.
#[derive(Debug, Default)]
struct Differences {
    largest: f32,
    sum: f64,
    weights: usize,
    hypotheses: usize,
}

impl Differences {
    fn mean(&self) -> f64 {
        self.sum / self.weights.max(1) as f64
    }
}

/// Adds up the differences of weights; gives the largest. Panics where shapes differ or a row does not sum to 1.
fn difference(at: &str, got: &Sequence, want: &Output, all: &mut Differences) -> f32 {
    let alignment = got.alignment.as_ref().unwrap_or_else(|| panic!("{at}: no alignment"));
    assert_eq!(alignment.len(), got.token_ids.len(), "{at}: a row for each new id");
    let mut largest = 0.0f32;
    for (t, (row, wanted)) in alignment.iter().zip(&want.alignment).enumerate() {
        assert_eq!(row.len(), wanted.len(), "{at}, id {t}: a weight for each source id");
        let sum: f32 = row.iter().sum();
        assert!((sum - 1.0).abs() < 1e-5, "{at}, id {t}: weights sum to {sum}");
        for (g, w) in row.iter().zip(wanted) {
            let found = (g - w).abs();
            assert!(found.is_finite(), "{at}, id {t}: {row:?}");
            largest = largest.max(found);
            all.sum += f64::from(found);
            all.weights += 1;
        }
    }
    all.largest = all.largest.max(largest);
    all.hypotheses += 1;
    largest
}

/// Every recorded case, the inputs of an option set as one ragged batch. In f16 ids may differ; such hypotheses are not compared.
fn compare(attention: AttentionChoice, dtype: DtypeChoice) -> Differences {
    let cases = recorded();
    let mut all = Differences::default();
    for of_model in cases.chunk_by(|a, b| a.model == b.model) {
        let mut session = session(&of_model[0].model, attention, dtype);
        for batch in of_model.chunk_by(Case::runs_with) {
            let requests: Vec<Request> = (0..).zip(batch).map(|(n, case)| case.request(n)).collect();
            let config = batch[0].config(&session);
            let generations = generate(&mut session, &requests, &config, batch[0].layer);
            for (case, generation) in batch.iter().zip(generations) {
                assert_eq!(generation.sequences.len(), case.outputs.len());
                for (rank, (got, want)) in generation.sequences.iter().zip(&case.outputs).enumerate() {
                    let (model, layer, exact) = (&case.model, case.layer, dtype == DtypeChoice::F32);
                    let at = format!("{attention:?} {dtype:?}, {model} layer {layer}, {:?}, rank {rank}", case.input);
                    if got.token_ids != want.token_ids && !exact {
                        continue;
                    }
                    assert_eq!(got.token_ids, want.token_ids, "{at}");
                    let found = difference(&at, got, want, &mut all);
                    assert!(found <= 1e-4 || !exact, "{at}: {found}, {:?} is not {:?}", got.alignment, want.alignment);
                }
            }
        }
    }
    let (largest, mean) = (all.largest, all.mean());
    println!("{attention:?} {dtype:?}: {} hypotheses, largest {largest:.1e}, mean {mean:.1e}", all.hypotheses);
    all
}

#[test]
fn alignments_are_those_of_transformers() {
    for attention in KINDS {
        let found = compare(attention, DtypeChoice::F32);
        assert!(found.largest <= 1e-4 && found.hypotheses >= 80, "{attention:?}: {found:?}");
    }
}

/// Half-precision weights and caches. These models have weights of up to ten times the usual size, so that their softmaxes are steep: a
/// rounding moves a weight by far more than it would in a trained model. What differs in its ids is left out.
#[test]
fn half_precision_alignments_are_close() {
    for attention in [AttentionChoice::MHA, AttentionChoice::EL] {
        let found = compare(attention, DtypeChoice::F16);
        assert!(found.largest <= 0.1 && found.mean() <= 1e-3 && found.hypotheses >= 60, "{attention:?}: {found:?}");
    }
}

#[test]
fn an_alignment_does_not_depend_on_its_batch() {
    let cases: Vec<Case> = recorded().into_iter().filter(|c| c.generation["num_beams"] == 4).collect();
    for model in ["marian-separate", "t5-gated-untied"] {
        let cases: Vec<&Case> = cases.iter().filter(|c| c.model == model).collect();
        for attention in KINDS {
            let mut session = session(model, attention, DtypeChoice::F32);
            let config = cases[0].config(&session);
            let requests: Vec<Request> = (0..).zip(&cases).map(|(n, case)| case.request(n)).collect();
            let together = generate(&mut session, &requests, &config, 0);
            for (n, request) in requests.iter().enumerate() {
                let alone = generate(&mut session, std::slice::from_ref(request), &config, 0);
                assert_eq!(alone[0], together[n], "{model}, {attention:?}, input {n}: to the last bit");
            }
        }
    }
}

#[test]
fn layers_that_do_not_exist_are_refused() {
    for (model, layer, wanted) in [
        ("bart-enc1-dec3-untied", 3, "no layer 3 to align with: layers are 0 to 2, or -1 (the last) to -3"),
        ("bart-enc1-dec3-untied", -4, "no layer -4"),
        ("gpt2-one-head", -1, "cross-attention"),
    ] {
        let mut session = session(model, AttentionChoice::Auto, DtypeChoice::F32);
        let config = session.model().config(&GenerationOptions::default()).unwrap();
        let run = RunOptions::default().with_alignment(layer);
        let mut told = 0;
        let request = Request::new(0, vec![5, 6, 7]);
        let error = session.generate(&[request], &config, &run, &mut on_done(|_, _| told += 1)).unwrap_err();
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!(told, 0, "nothing has run");
    }
}

#[test]
fn without_being_asked_for_there_is_none() {
    let mut session = session("t5-one-head-f16", AttentionChoice::EL, DtypeChoice::F32);
    let config = session.model().config(&GenerationOptions::default()).unwrap();
    let mut found = Vec::new();
    let mut events = on_done(|_, result: Result<Generation, EngineError>| found = result.unwrap().sequences);
    session.generate(&[Request::new(0, vec![5, 6, 1])], &config, &RunOptions::default(), &mut events).unwrap();
    assert!(!found.is_empty() && found.iter().all(|s| s.alignment.is_none()));
}

/// A Marian model, sentences with prompts of their own, and continuations of them in any order and number.
struct ByHand {
    config: ModelConfig,
    checkpoint: Checkpoint,
}

const SOURCES: [&[u32]; 4] = [&[9, 4, 30, 7, 22, 5], &[8], &[40, 41, 12], &[3, 3, 9, 27, 50, 6, 61, 11, 35]];
const PROMPTS: [&[u32]; 4] = [&[62], &[62, 20], &[62], &[62, 14, 9, 4]];
const CONTINUATIONS: [(usize, &[u32]); 6] =
    [(3, &[4, 5, 6]), (0, &[20]), (0, &[7, 7, 7, 8, 9, 10, 11]), (1, &[1, 2]), (2, &[]), (3, &[50, 51, 52, 53, 54])];

fn continuations() -> Vec<Continuation<'static>> {
    let of = |(sentence, token_ids)| Continuation { sentence, prompt: PROMPTS[sentence], token_ids };
    CONTINUATIONS.into_iter().map(of).collect()
}

impl ByHand {
    fn new() -> Self {
        let dir = repo_root().join("tests/fixtures/marian-separate");
        Self { config: ModelConfig::load(&dir).unwrap(), checkpoint: Checkpoint::open(&dir).unwrap() }
    }

    /// The sentences, admitted with two beams each.
    fn begin(&self, device: &Device, kind: Kind, budget: u64) -> Runner {
        let model = load(device, &self.config, &self.checkpoint, Kinds::both(kind), DType::F32).unwrap();
        let mut runner = Runner::new(device, Arc::from(model), budget);
        let sentence = |s: usize| Sentence { source: SOURCES[s], prompt: PROMPTS[s], max_new: 9 };
        let mut rows = Rows::new(device, 8, 16).unwrap();
        runner.begin(&mut rows, &[0, 1, 2, 3].map(sentence), 2).unwrap();
        runner
    }
}

fn device(binding_limit: Option<u64>, memory_limit: Option<u64>) -> Device {
    let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
    let options = DeviceOptions { selector, checked: true, binding_limit, memory_limit, ..DeviceOptions::default() };
    Device::open(&options).unwrap()
}

/// Nothing stands in for the ranges of sources: a kernel would take other numbers for them.
#[test]
fn a_step_without_ranges_of_sources_is_refused() {
    let (by_hand, device) = (ByHand::new(), device(None, None));
    let model = load(&device, &by_hand.config, &by_hand.checkpoint, Kinds::both(Kind::MHA), DType::F32).unwrap();
    let (rows, caches) = (Rows::new(&device, 2, 16).unwrap(), Caches::new(&device, model.cache_layout()));
    let space = Space::new(&device, model.decoder_shape(), 2, Extras::default()).unwrap();
    let logits = device.tensor("logits", Class::Activations, 2, model.limits().vocab_size, DType::F32).unwrap();
    let step = Step { rows: &rows, cross_ranges: None };
    let mut rec = device.recorder();
    let error = model.step(&mut PassCx::new(&mut rec, &caches, &space), step, &logits).unwrap_err();
    assert!(error.to_string().contains("no ranges of sources"), "{error}");
}

#[test]
fn a_budget_changes_nothing() {
    // Several slabs too.
    let (by_hand, device, wanted) = (ByHand::new(), device(Some(48 << 10), None), continuations());
    for kind in Kind::BUILT_IN {
        let found = [DEFAULT_PREFILL_BUDGET, 1].map(|budget| {
            let mut runner = by_hand.begin(&device, kind, budget);
            let all = runner.align(&wanted, 1).unwrap();
            for (c, alignment) in wanted.iter().zip(&all) {
                assert_eq!(alignment.len(), c.token_ids.len(), "{kind}");
                assert!(alignment.iter().all(|row| row.len() == SOURCES[c.sentence].len()), "{kind}");
            }
            // Taken again, they are the same: nothing that the batch has cached was touched.
            assert_eq!(runner.align(&wanted[2..3], 1).unwrap()[0], all[2], "{kind}");
            let error = runner.align(&[Continuation { sentence: 4, ..wanted[0] }], 1).unwrap_err();
            assert!(error.to_string().contains("sentence 4 of 4"), "{kind}: {error}");
            assert!(runner.align(&wanted, 2).unwrap_err().to_string().contains("no layer 2"), "{kind}");
            all
        });
        assert_eq!(found[0], found[1], "{kind}: to the last bit");
    }
}

/// What a long search has found is not lost because little memory is left.
#[test]
fn little_free_memory_makes_smaller_stretches() {
    const LEFT: u64 = 400 << 10;
    let (by_hand, device, wanted) = (ByHand::new(), device(None, Some(24 << 20)), continuations().repeat(30));
    let mut runner = by_hand.begin(&device, Kind::EL, DEFAULT_PREFILL_BUDGET);
    let pool = device.pool();
    let fed: usize = wanted.iter().map(|c| c.prompt.len() + c.token_ids.len() - 1).sum();
    let plan = Arena::counting(device.capabilities().max_binding_bytes);
    runner.count_align(&plan, fed, 9, 9).unwrap();
    let wants = plan.tally().usage().total;
    assert!(wants > 2 * LEFT, "{wants} bytes would do");
    let few = runner.align(&wanted[..6], 0).unwrap();
    let filler = pool.limit() - pool.current().total - LEFT;
    let _filler = device.alloc("filler", Class::Activations, filler).unwrap();
    let all = runner.align(&wanted, 0).unwrap();
    assert!(all.chunks(6).all(|part| part == few), "the same continuations again");
}
