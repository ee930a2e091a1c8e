//! Running a trial and counting what it cost.

use std::time::{Duration, Instant};

use elgen_attention::planner::LINEAR_FLOPS;
use elgen_attention::planner::cost::{self, StepLoad};
use elgen_attention::{CacheFormat, Formats};
use elgen_models::Outline;
use elgen_search::{GenerationConfig, GenerationOptions, Hypothesis, TokenIds};
use elgen_tensor::{Bytes, Class, Device};
use serde::{Deserialize, Serialize};

use crate::bench::sources::Sources;
use crate::bench::spread::Spread;
use crate::bisect::largest;
use crate::device_class::class_of;
use crate::error::{EngineError, ErrorKind};
use crate::metrics::PeakBytes;
use crate::model::Model;
use crate::options::Expected;
use crate::plan::{BatchWorkload, MemoryPlan, shape};
use crate::request::Request;
use crate::session::Session;

/// Sentences of a batch at most; those of the engine's own automatic choice.
const MOST_SENTENCES: usize = 4096;

/// How many sentences are decoded together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchRows {
    /// This many; fewer are never run instead.
    Sentences(usize),
    /// As many as fit: the predicted number, and fewer until a run goes through.
    Largest,
}

/// What to run, and how often.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Source lengths; of a decoder-only model, prompt lengths.
    pub sources: Sources,
    /// New ids of each sentence, exactly.
    pub new_tokens: usize,
    /// Beams of each sentence; 1 is greedy search.
    pub num_beams: usize,
    /// Sentences.
    pub batch: BatchRows,
    /// Further options: penalties and the like. Lengths and EOS are the trial's own.
    pub options: GenerationOptions,
    /// Measured runs, after a warm-up that is not.
    pub repetitions: usize,
    /// After this long, no further repetition begins; the first is always run.
    pub patience: Option<Duration>,
    /// Of the source ids.
    pub seed: u64,
}

impl Trial {
    /// One sentence at a time, three repetitions.
    pub fn new(sources: Sources, new_tokens: usize, num_beams: usize) -> Self {
        Self {
            sources,
            new_tokens,
            num_beams,
            batch: BatchRows::Sentences(1),
            options: GenerationOptions::default(),
            repetitions: 3,
            patience: None,
            seed: 0,
        }
    }

    /// What `auto` chooses the kinds for.
    pub fn expected(&self) -> Expected {
        Expected::default()
            .with_num_beams(self.num_beams)
            .with_source_length(self.sources.longest())
            .with_max_new_tokens(self.new_tokens)
    }

    /// Checked against the model: the trial's lengths, no end before them and none forced.
    fn config(&self, model: &Model) -> Result<GenerationConfig, EngineError> {
        let forced = GenerationOptions {
            num_beams: Some(self.num_beams),
            min_new_tokens: Some(self.new_tokens),
            max_new_tokens: Some(self.new_tokens),
            num_return_sequences: Some(1),
            forced_eos_token_id: Some(TokenIds(Vec::new())),
            ..GenerationOptions::default()
        };
        model.config(&forced.or(self.options.clone()))
    }
}

/// How a trial ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran.
    Measured(Box<RunCost>),
    /// It did not fit: what asked for memory, in words.
    OutOfMemory(String),
}

/// What running a trial cost. Times are means over the repetitions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunCost {
    /// Sentences of the batch.
    pub batch: usize,
    /// Measured repetitions.
    pub repetitions: usize,
    /// Kind of self-attention in use.
    pub self_attention: String,
    /// Kind of cross-attention; `None` for decoder-only models.
    pub cross_attention: Option<String>,
    /// Sentences per second: encoder, prefill, decoding and search; not loading.
    pub samples_per_second: Spread,
    /// New tokens of the returned sequences per second.
    pub tokens_per_second: Spread,
    /// Encoder and decoder prefill.
    pub encode_ms: f64,
    /// From the call to the first token known to the host.
    pub first_token_ms: f64,
    /// One decode step, search included.
    pub step_ms: f64,
    /// Decode steps of a repetition.
    pub steps: u64,
    /// Peak bytes of the pool by class, weights included.
    pub peak_bytes: PeakBytes,
    /// Compute dispatches of a decode step.
    pub dispatches_per_step: f64,
    /// Bytes that a decode step has to move, each once, by the cost formulas (docs/el-attention.md §1.7), over its time.
    pub gigabytes_per_second: f64,
    /// FLOPs of a decode step by the cost formulas, over its time.
    pub teraflops: f64,
    /// CRC-32 of all new ids in the order of the sentences: equal results have equal hashes.
    pub output_hash: String,
}

/// What a device can do, as the planner measures it once and keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Peaks {
    /// 10^9 bytes per second of reading memory.
    pub gigabytes_per_second: f64,
    /// 10^12 FLOP/s of f32 multiply-adds, of products with weights, or (f16) of cooperative matrices, whichever are faster.
    pub teraflops: f64,
}

/// The peaks of a device for weights and caches in these formats.
///
/// # Errors
/// The device could not be measured.
pub fn peaks(device: &Device, formats: Formats) -> Result<Peaks, EngineError> {
    let class = class_of(device, formats, false, |_| {})?.class;
    let matrices = class.matrix_flops.filter(|_| formats.cache == CacheFormat::F16).unwrap_or(0.0);
    let flops = class.alu_flops.max(class.linear.best_flops(LINEAR_FLOPS)).max(matrices);
    Ok(Peaks { gigabytes_per_second: class.bandwidth / 1e9, teraflops: flops / 1e12 })
}

/// Runs the trial once to warm up and then as often as it says. Memory that runs out is an outcome; with
/// [`BatchRows::Largest`] it makes the batch smaller, until one sentence alone does not fit.
///
/// # Errors
/// Options that do not fit the model; the device failed.
pub fn measure(model: &Model, trial: &Trial) -> Result<Outcome, EngineError> {
    let outcome = measure_batches(model, trial);
    model.device().trim()?;
    outcome
}

fn measure_batches(model: &Model, trial: &Trial) -> Result<Outcome, EngineError> {
    let config = trial.config(model)?;
    let most = most_source(model, trial);
    let requests = |count| trial.sources.requests(model, count, most, trial.seed);
    let asked = match trial.batch {
        BatchRows::Sentences(count) => count.max(1),
        BatchRows::Largest => 1,
    };
    // Before sources are made: numbers that cannot be must cost nothing.
    let device = model.device();
    let plan = MemoryPlan {
        model: model.model_config(),
        kinds: model.kinds(),
        formats: model.formats(),
        max_binding_bytes: device.capabilities().max_binding_bytes,
        memory_limit: device.pool().limit(),
    };
    let weights = device.pool().current().of(Class::Weights);
    if let Some(reason) = cannot_fit(&plan, weights, &trial.sources, &config, asked, most)? {
        return Ok(Outcome::OutOfMemory(reason));
    }
    let mut batch = match trial.batch {
        BatchRows::Sentences(_) => asked,
        BatchRows::Largest => {
            // An id that is cached takes more than the 4 bytes that it has on the host.
            let ids = model.device().pool().limit() / 4;
            let count = largest(MOST_SENTENCES, |count| trial.sources.total(count, most) <= ids).unwrap_or(1);
            model.session().predicted_sentences(&requests(count), &config)?
        }
    };
    loop {
        model.device().trim()?;
        model.device().pool().reset_peak();
        let mut session = model.session();
        match repeat(&mut session, &requests(batch), &config, trial) {
            Ok(cost) => return Ok(Outcome::Measured(Box::new(cost))),
            Err(error) if !error.kind().may_fit_smaller() => return Err(error),
            Err(_) if trial.batch == BatchRows::Largest && batch > 1 => batch -= (batch / 32).max(1),
            Err(error) => return Ok(Outcome::OutOfMemory(error.to_string())),
        }
    }
}

/// Why `count` sentences cannot run together, however little but `weights` bytes of weights is in memory; `None` if they may. The sources
/// that are not all of one length are at most `most` long.
///
/// # Errors
/// Sources of a length that the model cannot take.
fn cannot_fit(
    plan: &MemoryPlan<'_>,
    weights: u64,
    sources: &Sources,
    config: &GenerationConfig,
    count: usize,
    most: usize,
) -> Result<Option<String>, EngineError> {
    let limits = Outline::new(plan.model).limits;
    let encoder_decoder = limits.is_encoder_decoder;
    let shortest = sources.shortest(most);
    let positions = limits.max_position_embeddings.unwrap_or(usize::MAX);
    let limit = positions.saturating_sub(usize::from(!encoder_decoder));
    if shortest > limit {
        return Err(EngineError::InputTooLong { tokens: shortest, limit });
    }
    let (source, prompt) = if encoder_decoder { (shortest, 1) } else { (0, shortest) };
    let new = config.lengths(prompt)?.max_length - prompt;
    let bytes = match plan.predict(&BatchWorkload::new(config, source, prompt, new), count) {
        Ok(bytes) => bytes,
        Err(error) if error.kind().may_fit_smaller() => return Ok(Some(error.to_string())),
        Err(error) => return Err(error),
    };
    // A prediction may count more weights than a checkpoint holds.
    let run = bytes.total.saturating_sub(bytes.weights).saturating_add(weights);
    let layout = Outline::new(plan.model).cache_layout(plan.kinds, plan.formats.cache);
    let slot = if encoder_decoder { layout.cross_slot_bytes() } else { layout.self_slot_bytes() };
    let cached = slot.saturating_mul(sources.total(count, most)).saturating_add(weights);
    let (least, limit) = (run.max(cached), plan.memory_limit);
    let told = || format!("a batch of {count} takes at least {}, the memory limit is {}", Bytes(least), Bytes(limit));
    Ok((least > limit).then(told))
}

/// The longest source that leaves positions for the new ids.
fn most_source(model: &Model, trial: &Trial) -> usize {
    let taken = if model.limits().is_encoder_decoder { 0 } else { trial.new_tokens };
    model.model_config().max_positions().map_or(usize::MAX, |positions| positions.saturating_sub(taken).max(1))
}

fn repeat(
    session: &mut Session,
    requests: &[Request],
    config: &GenerationConfig,
    trial: &Trial,
) -> Result<RunCost, EngineError> {
    let begun = Instant::now();
    let warm_up = hash(&session.run_as_one(requests, config)?);
    session.reset_counters();
    let (mut samples, mut tokens, mut first_token_ms) = (Vec::new(), Vec::new(), 0.0);
    while samples.len() < trial.repetitions.max(1) {
        let started = Instant::now();
        let results = session.run_as_one(requests, config)?;
        let seconds = started.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let new: usize = results.iter().map(|hypothesis| hypothesis.token_ids.len()).sum();
        samples.push(requests.len() as f64 / seconds);
        tokens.push(new as f64 / seconds);
        first_token_ms += session.take_first_token_ms();
        if hash(&results) != warm_up {
            return Err(EngineError::Batch {
                kind: ErrorKind::Internal,
                message: "two runs of one trial gave different tokens".into(),
            });
        }
        if trial.patience.is_some_and(|patience| begun.elapsed() > patience) {
            break;
        }
    }
    let (metrics, runs) = (session.metrics(), samples.len() as f64);
    let steps = metrics.steps as f64 / runs;
    let step_seconds = metrics.seconds.decode / runs / steps.max(1.0);
    let load = step_load(session, requests, config, trial);
    let widths = shape(&Outline::new(session.model().model_config()));
    let step = cost::decode_step(&widths, session.model().kinds(), &load).total();
    Ok(RunCost {
        batch: requests.len(),
        repetitions: samples.len(),
        self_attention: metrics.attention.self_,
        cross_attention: metrics.attention.cross,
        samples_per_second: Spread::of(&samples),
        tokens_per_second: Spread::of(&tokens),
        encode_ms: metrics.seconds.encode / runs * 1e3,
        first_token_ms: first_token_ms / runs,
        step_ms: step_seconds * 1e3,
        steps: steps as u64,
        peak_bytes: metrics.peak_bytes,
        dispatches_per_step: metrics.per_step.dispatches,
        gigabytes_per_second: step.bytes() / step_seconds / 1e9,
        teraflops: step.flops() / step_seconds / 1e12,
        output_hash: warm_up,
    })
}

fn hash(results: &[Hypothesis]) -> String {
    let mut hasher = crc32fast::Hasher::new();
    for id in results.iter().flat_map(|hypothesis| &hypothesis.token_ids) {
        hasher.update(&id.to_le_bytes());
    }
    format!("{:08x}", hasher.finalize())
}

/// An average step: costs are linear in the number of keys.
fn step_load(session: &Session, requests: &[Request], config: &GenerationConfig, trial: &Trial) -> StepLoad {
    let most = most_source(session.model(), trial);
    let total: usize = (0..requests.len()).map(|s| trial.sources.length(s, most)).sum();
    let source = total as f64 / requests.len().max(1) as f64;
    let encoder_decoder = session.limits().is_encoder_decoder;
    let prompt = if encoder_decoder { 1.0 } else { source };
    StepLoad {
        sentences: requests.len(),
        beams: config.rows_per_sentence(),
        // Step t feeds position prompt - 1 + t.
        self_keys: prompt + (trial.new_tokens as f64 - 1.0) / 2.0,
        shared_keys: prompt,
        source_keys: if encoder_decoder { source } else { 0.0 },
        formats: session.model().formats(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use elgen_attention::{Kind, Kinds};
    use elgen_search::GenerationOptions;
    use elgen_tensor::DType;

    use super::*;
    use crate::bench::builtin_config;

    #[test]
    fn what_cannot_fit_is_known_before_a_source_is_made() {
        for name in ["t5-small", "bart-base", "gpt2"] {
            let found = builtin_config(name, 1).unwrap();
            let model = found.config();
            let plan = MemoryPlan {
                model,
                kinds: Kinds::both(Kind::MHA),
                formats: DType::F32.into(),
                max_binding_bytes: 2 << 30,
                memory_limit: 8 << 30,
            };
            let options = GenerationOptions {
                max_new_tokens: Some(8),
                decoder_start_token_id: Some(0),
                ..GenerationOptions::default()
            };
            let (config, _) = options.resolve(&Outline::new(model).limits).unwrap();
            let weights =
                model.tally_weights(plan.kinds, plan.formats.weights, plan.max_binding_bytes).unwrap().usage().total;
            let fits = |sources: &Sources, count: usize| {
                cannot_fit(&plan, weights, sources, &config, count, 1000).map(|reason| reason.is_none())
            };
            assert!(fits(&Sources::Fixed(16), 4).unwrap(), "{name}");
            for count in [1 << 31, 1 << 32, 1 << 53, 1 << 63, usize::MAX] {
                assert!(!fits(&Sources::Fixed(16), count).unwrap(), "{name} {count}");
                assert!(!fits(&Sources::Lengths(Arc::new(vec![1, 900])), count).unwrap(), "{name} {count}");
                // Too long for the positions, or for a binding.
                assert!(!fits(&Sources::Fixed(count), 1).unwrap_or(false), "{name} {count}");
            }
        }
    }
}
