//! A model of an architecture from outside: built by the caller, run by the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use elgen_attention::{CacheLayout, Kind, Kinds, Packed, Probabilities, Step};
use elgen_engine::{
    AttentionChoice, Generation, Model, ModelParts, Request, RunOptions, Session, SessionOptions, on_done,
};
use elgen_models::{
    Architecture, Checkpoint, GenerationDefaults, InputEmbeddings, ModelConfig, ModelError, PassCx, Space, StackShape,
    load,
};
use elgen_search::{GenerationOptions, ModelLimits};
use elgen_tensor::{DType, Recorder, TableRef, Tensor, TokenAt};
use elgen_tests::demo::{config, session_options};
use elgen_tests::repo_root;

/// A graph that hands everything on, and counts its passes.
#[derive(Debug)]
struct Counting {
    inner: Box<dyn Architecture>,
    passes: Arc<AtomicUsize>,
}

impl Architecture for Counting {
    fn limits(&self) -> ModelLimits {
        self.inner.limits()
    }
    fn source_vocab_size(&self) -> usize {
        self.inner.source_vocab_size()
    }
    fn cache_layout(&self) -> CacheLayout {
        self.inner.cache_layout()
    }
    fn encoder_shape(&self) -> Option<StackShape> {
        self.inner.encoder_shape()
    }
    fn decoder_shape(&self) -> StackShape {
        self.inner.decoder_shape()
    }
    fn hidden_size(&self) -> usize {
        self.inner.hidden_size()
    }
    fn encode<'s>(
        &'s self,
        cx: &mut PassCx<'_, 's>,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
    ) -> Result<&'s Tensor, ModelError> {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.inner.encode(cx, ids, batch)
    }
    fn prefill<'s>(
        &'s self,
        cx: &mut PassCx<'_, 's>,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
    ) -> Result<&'s Tensor, ModelError> {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.inner.prefill(cx, ids, batch)
    }
    fn step<'s>(&'s self, cx: &mut PassCx<'_, 's>, step: Step<'_>, logits: &Tensor) -> Result<(), ModelError> {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.inner.step(cx, step, logits)
    }
    fn align<'s>(
        &'s self,
        cx: &mut PassCx<'_, 's>,
        ids: TableRef<'_, TokenAt>,
        batch: &Packed,
        layer: usize,
        out: &Probabilities<'_>,
    ) -> Result<(), ModelError> {
        self.inner.align(cx, ids, batch, layer, out)
    }
    fn head(&self, rec: &mut Recorder, hidden: &Tensor, logits: &Tensor, rows: usize) -> Result<(), ModelError> {
        self.inner.head(rec, hidden, logits, rows)
    }
}

fn generate(session: &mut Session) -> Vec<Generation> {
    let asked = GenerationOptions { num_beams: Some(3), max_new_tokens: Some(9), ..GenerationOptions::default() };
    let config = config(session, asked);
    let ids = |n: u32| (0..4 + n).map(|i| 3 + (i * 7 + n) % 60).collect::<Vec<u32>>();
    let requests: Vec<Request> = (0..5).map(|n| Request::new(u64::from(n), ids(n))).collect();
    let mut found = vec![None; requests.len()];
    let keep = |i: usize, result: Result<Generation, elgen_engine::EngineError>| found[i] = Some(result.unwrap());
    session.generate(&requests, &config, &RunOptions::default(), &mut on_done(keep)).unwrap();
    found.into_iter().flatten().collect()
}

#[test]
fn an_architecture_of_ones_own_runs_like_a_loaded_one() {
    for (name, kind) in [("gpt2-base-like", Kind::MHA), ("bart-base-like", Kind::EL)] {
        let dir = repo_root().join("tests/fixtures").join(name);
        let options = session_options(AttentionChoice::from(kind), 4);
        let loaded = Model::load(&dir, &options).unwrap();
        let model_config = ModelConfig::load(&dir).unwrap();
        let defaults = GenerationDefaults::load(&dir, &model_config).unwrap();
        let generation = GenerationOptions::from_json(&defaults.options).unwrap();
        let checkpoint = Checkpoint::open(&dir).unwrap();
        let inner = load(loaded.device(), &model_config, &checkpoint, Kinds::both(kind), DType::F32).unwrap();
        let passes = Arc::new(AtomicUsize::new(0));
        let architecture = Box::new(Counting { inner, passes: Arc::clone(&passes) });
        let parts = ModelParts::new(model_config, architecture).with_generation_options(generation);
        let own = Model::from_architecture(loaded.device(), parts, &options);
        assert_eq!((own.kinds(), own.limits()), (loaded.kinds(), loaded.limits()));
        assert_eq!(generate(&mut own.session()), generate(&mut loaded.session()), "{name}");
        // Nine steps at least, and what comes before them.
        assert!(passes.load(Ordering::Relaxed) > 9, "{name}");
    }
}

/// Kinds that are handed over instead of named.
#[test]
fn a_model_is_loaded_with_kinds_from_anywhere() {
    let dir = repo_root().join("tests/fixtures/bart-base-like");
    let options = session_options(AttentionChoice::MHA, 4);
    let mixed = Kinds::new(Kind::EL, Kind::MHA);
    let model = Model::load_with(&dir, mixed, &options).unwrap();
    assert_eq!(model.kinds(), mixed);
    assert_eq!(Model::load_with(&dir, Kind::EL, &SessionOptions::default()).unwrap().kinds(), Kinds::both(Kind::EL));
}

/// Embeddings are an argument of every pass; those that are not there yet are refused by name.
#[test]
fn vectors_of_the_caller_are_refused_by_name() {
    use elgen_attention::{Caches, Extras, Pass};
    use elgen_tensor::{Class, RowStart, RowState, Rows};

    let dir = repo_root().join("tests/fixtures/gpt2-base-like");
    let model_config = ModelConfig::load(&dir).unwrap();
    let device = elgen_tests::kinds::device();
    let kinds = Kinds::both(Kind::MHA);
    let model = load(&device, &model_config, &Checkpoint::open(&dir).unwrap(), kinds, DType::F32).unwrap();
    let caches = Caches::new(&device, model.cache_layout());
    let extras = Extras { kinds, pass: Pass::Step, ..Extras::default() };
    let space = Space::new(&device, model.decoder_shape(), 1, extras).unwrap();
    let logits = device.tensor("logits", Class::Activations, 1, model.limits().vocab_size, DType::F32).unwrap();
    let vectors = device.tensor("vectors", Class::Activations, 5, 48, DType::F32).unwrap();
    let mut rows = Rows::new(&device, 1, 4).unwrap();
    let state = RowState { width: 1, prompt_len: 1, ..RowState::default() }.with_length(1);
    rows.begin(&device, &[RowStart { state, prompt: &[7], slab: 0, max_length: 4 }]).unwrap();
    let mut rec = device.recorder();
    let mut cx = PassCx::new(&mut rec, &caches, &space).with_embeddings(InputEmbeddings::Vectors(&vectors));
    let error = model.step(&mut cx, Step { rows: &rows, cross_ranges: None }, &logits).unwrap_err();
    assert_eq!(error.to_string(), "embed: vectors of the caller [5, 48] f32 are not supported yet");
}
