//! Predicted bytes against those of the pool, and the pool's against the driver's allocator.

use std::path::{Path, PathBuf};

use elgen_attention::Kind;
use elgen_engine::{
    AttentionChoice, BatchSize, DtypeChoice, MemoryPlan, Notice, PlannedBytes, Request, RunOptions, Session,
    SessionOptions, Workload, on_done,
};
use elgen_models::{Kinds, ModelConfig, Outline};
use elgen_search::{GenerationConfig, GenerationOptions};
use elgen_tensor::{Class, DType, tensor_bytes};
use elgen_tests::demo::{KINDS, Translations, config, generate, session_options};
use elgen_tests::repo_root;

const MIB: u64 = 1 << 20;

fn model(name: &str) -> PathBuf {
    let root = repo_root();
    let folder = if name.contains("-eng-") || name.contains("-stories") { "demo" } else { "tests/fixtures" };
    root.join(folder).join(name)
}

fn kind(choice: AttentionChoice) -> Kind {
    match choice {
        AttentionChoice::MhaReplicated => Kind::MhaReplicated,
        AttentionChoice::MhaNocache => Kind::MhaNocache,
        AttentionChoice::El => Kind::El,
        _ => Kind::Mha,
    }
}

/// One prediction and what it is about.
struct Case<'a> {
    dir: &'a Path,
    attention: AttentionChoice,
    dtype: DType,
    /// Ids of each input.
    input: usize,
    max_new: usize,
    beams: usize,
    batch: usize,
    memory_limit: Option<u64>,
    /// End every sentence behind its first token.
    short: bool,
}

impl Case<'_> {
    fn session(&self, batch_size: BatchSize) -> Session {
        let dtype = if self.dtype == DType::F16 { DtypeChoice::F16 } else { DtypeChoice::F32 };
        let options =
            SessionOptions { dtype, batch_size, memory_limit: self.memory_limit, ..session_options(self.attention, 1) };
        Session::load(self.dir, &options).unwrap()
    }

    fn config(&self, session: &Session) -> GenerationConfig {
        let options = GenerationOptions {
            num_beams: Some(self.beams),
            max_new_tokens: Some(self.max_new),
            max_time: self.short.then_some(0.0),
            ..GenerationOptions::default()
        };
        config(session, options)
    }

    fn requests(&self, count: usize) -> Vec<Request> {
        // No two alike, all within the smallest vocabulary.
        (0..count as u64)
            .map(|n| Request::new(n, (0..self.input as u32).map(|i| 5 + (i + n as u32) % 30).collect::<Vec<u32>>()))
            .collect()
    }

    fn with_plan<R>(
        &self,
        session: &Session,
        config: &GenerationConfig,
        see: impl FnOnce(MemoryPlan<'_>, &Workload<'_>) -> R,
    ) -> R {
        let outline = Outline::new(&ModelConfig::load(self.dir).unwrap());
        let plan = MemoryPlan {
            outline: &outline,
            kinds: Kinds::both(kind(self.attention)),
            dtype: self.dtype,
            max_binding_bytes: session.device().capabilities().max_binding_bytes,
            memory_limit: session.device().pool().limit(),
        };
        let (source, prompt) = if outline.encoder.is_some() { (self.input, 1) } else { (0, self.input) };
        see(plan, &Workload::new(config, source, prompt, self.max_new))
    }

    /// Runs a batch in a fresh session: what was predicted, and the session behind it.
    fn run(&self) -> (PlannedBytes, Session) {
        let mut session = self.session(self.batch.into());
        let config = self.config(&session);
        let planned = self.with_plan(&session, &config, |plan, workload| plan.predict(workload, self.batch).unwrap());
        generate(&mut session, &self.requests(self.batch), &config);
        (planned, session)
    }
}

/// Runs the case; the peak of every class is what was predicted, to the byte.
fn exact(case: &Case<'_>) {
    let (mut planned, session) = case.run();
    let peak = session.device().pool().peak();
    // A bias of zeros on the logits is counted, but not loaded.
    let bias = tensor_bytes(1, session.limits().vocab_size, DType::F32);
    if session.limits().is_encoder_decoder && planned.weights == peak.of(Class::Weights) + bias {
        planned.weights -= bias;
        planned.total -= bias;
    }
    let cache = planned.self_cache + planned.cross_cache + planned.tables;
    let predicted = [planned.weights, cache, planned.activations, planned.staging, planned.total];
    let [weights, caches, activations, staging] = Class::ALL.map(|class| peak.of(class));
    let measured = [weights, caches, activations, staging, peak.total];
    let what = format!(
        "{}, {:?}, {}, {} beams, {} of {} and {} ids",
        case.dir.file_name().unwrap().display(),
        case.attention,
        case.dtype.name(),
        case.beams,
        case.batch,
        case.input,
        case.max_new
    );
    assert_eq!(predicted, measured, "{what}: weights, cache, activations, staging and total");
}

#[test]
fn what_is_predicted_is_what_the_pool_counts() {
    // Odd widths, replicated prompts, ties, and search modes of each family; 16-bit storage for some.
    let models = [
        ("bart-head10-f16", DType::F32),
        ("t5-gated-untied", DType::F32),
        ("gpt2-head12-untied", DType::F32),
        ("opt-postnorm-projected", DType::F16),
    ];
    for (name, dtype) in models {
        let dir = model(name);
        for (attention, _) in KINDS {
            let decoder_only = name.starts_with("gpt2") || name.starts_with("opt");
            if decoder_only && attention == AttentionChoice::MhaNocache {
                continue;
            }
            for (beams, batch, input, max_new) in [(1, 1, 1, 1), (4, 3, 11, 9), (4, 40, 7, 5)] {
                exact(&Case {
                    dir: &dir,
                    attention,
                    dtype,
                    input,
                    max_new,
                    beams,
                    batch,
                    memory_limit: None,
                    short: false,
                });
            }
        }
    }
}
