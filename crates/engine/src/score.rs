//! Log-probabilities of given texts (teacher forcing).

use std::time::Instant;

use elgen_models::{LogitRows, ModelError, Runner, Sentence};
use elgen_search::{GenerationConfig, NotFinite};
use elgen_tensor::ops::{TokenScore, token_logprobs};
use elgen_tensor::{Arena, Buffer, Class, Device, Readback, Recorder, Table, product};

mod corpus;
mod divergence;
mod run_file;
mod windows;

use crate::backoff::{Batch, Item, Work, run_batches};
use crate::error::EngineError;
use crate::events::Notice;
use crate::options::{BatchSize, RunOptions};
use crate::prepare::{Side, begin, encode, truncate, with_start};
use crate::request::Input;
use crate::session::Session;
pub use corpus::{CorpusScore, CorpusSummary};
pub use divergence::{Divergence, RunComparison, kl_divergence};
pub use run_file::{RunFileError, RunHeader, RunReader, RunWriter, SavedRecord};
pub use windows::{TextWindows, WholeText};

/// Bytes of logits that are held at once.
const LOGITS_BUDGET: u64 = 32 << 20;

/// A text whose log-probability is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRequest {
    /// Encoder input, or the prompt of a decoder-only model.
    pub source: Input,
    /// What follows. Encoder-decoder models: behind the decoder start token, and a text is encoded with its special tokens, as
    /// labels are. Decoder-only models: behind the prompt, and a text is encoded without special tokens.
    pub target: Input,
}

/// Something to score.
#[derive(Clone, Debug, PartialEq)]
pub enum ScoreInput {
    /// A target behind a source.
    Target(ScoreRequest),
    /// A whole text, by a decoder-only model.
    Whole(Input, WholeText),
}

impl From<ScoreRequest> for ScoreInput {
    fn from(request: ScoreRequest) -> Self {
        Self::Target(request)
    }
}

/// How likely a model holds a target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetScore {
    /// The target's ids.
    pub token_ids: Vec<u32>,
    /// For each of them the natural log of its probability given all before it.
    pub token_logprobs: Vec<f32>,
    /// For each place the id that the model holds the most likely.
    pub top_ids: Vec<u32>,
    /// The natural logs of their probabilities.
    pub top_logprobs: Vec<f32>,
    /// Ids of the encoder input or the prompt.
    pub prompt_ids: Vec<u32>,
}

impl TargetScore {
    /// Room for the scores of all parts.
    fn of(parts: &[Target]) -> Self {
        let token_ids: Vec<u32> = parts.iter().flat_map(Target::ids).copied().collect();
        let count = token_ids.len();
        Self {
            token_ids,
            token_logprobs: vec![0.0; count],
            top_ids: vec![0; count],
            top_logprobs: vec![0.0; count],
            prompt_ids: parts.first().map_or_else(Vec::new, |part| part.prompt().to_vec()),
        }
    }

    /// Takes the scores of a part that begins at `place`.
    fn fill(&mut self, place: usize, scores: &[TokenScore]) {
        for (at, score) in (place..).zip(scores) {
            self.token_logprobs[at] = score.logprob;
            self.top_ids[at] = score.top_id;
            self.top_logprobs[at] = score.top_logprob;
        }
    }

    /// Log-probability of the whole target.
    pub fn sum(&self) -> f64 {
        self.token_logprobs.iter().map(|x| f64::from(*x)).sum()
    }

    /// Mean log-probability of a token; 0 without tokens.
    pub fn mean(&self) -> f64 {
        self.sum() / self.token_logprobs.len().max(1) as f64
    }

    /// `exp(-mean)` of the log-probabilities.
    pub fn perplexity(&self) -> f64 {
        (-self.mean()).exp()
    }
}

/// Sees one whole row of log-probabilities: (request, place in the target, `[vocab_size]` natural logs).
pub type SeeRow<'a> = &'a mut dyn FnMut(usize, usize, &[f32]);

/// A target, or the part of one that a window holds.
struct Target {
    request: usize,
    /// Where it begins in the request's target.
    place: usize,
    source: Vec<u32>,
    /// Decoder prompt and target.
    sequence: Vec<u32>,
    /// Where the target begins.
    from: usize,
}

impl Target {
    fn sentence(&self) -> Sentence<'_> {
        Sentence { source: &self.source, prompt: &self.sequence, max_new: 0 }
    }

    fn ids(&self) -> &[u32] {
        &self.sequence[self.from..]
    }

    /// What the caller gave before it: the encoder input, or the decoder prompt of a decoder-only model.
    fn prompt(&self) -> &[u32] {
        if self.source.is_empty() { &self.sequence[..self.from] } else { &self.source }
    }
}

impl Item for Target {
    /// As a batch that generates counts them: what the encoder reads, or the decoder where there is none.
    fn input_len(&self) -> usize {
        if self.source.is_empty() { self.sequence.len() } else { self.source.len() }
    }
}

/// A run of [`Session::score_with`].
struct Scoring<'a, 'r> {
    session: &'a mut Session,
    run: &'a RunOptions,
    rows: &'a mut Option<SeeRow<'r>>,
    results: &'a mut [Result<TargetScore, EngineError>],
    notice: &'a mut dyn FnMut(&Notice),
}

impl Work for Scoring<'_, '_> {
    type Item = Target;

    fn run(&mut self, batch: Batch<'_, Target>) -> Result<bool, EngineError> {
        if self.run.cancel.is_cancelled() {
            return Ok(false);
        }
        let device = self.session.model().device().clone();
        let scores = score_batch(&device, &mut self.session.context.runner, batch.items, self.rows)?;
        for (target, scores) in batch.items.iter().zip(scores) {
            let result = &mut self.results[target.request];
            let is_finite = |score: &TokenScore| score.logprob.is_finite() && score.top_logprob.is_finite();
            match result {
                Ok(score) if scores.iter().all(is_finite) => score.fill(target.place, &scores),
                Ok(_) => *result = Err(NotFinite.into()),
                Err(_) => {}
            }
        }
        Ok(true)
    }

    fn refuse(&mut self, item: &Target, error: EngineError) {
        self.results[item.request] = Err(error);
    }

    fn let_go(&mut self) {
        self.session.let_go();
    }

    fn proved(&mut self, capacity: usize) {
        self.session.context.proven_targets = Some(capacity);
    }

    fn notice(&mut self, notice: &Notice) {
        (self.notice)(notice);
    }
}

impl Session {
    /// Scores targets without generating. The results are in the order of `requests`; one that fails alone (too long, empty,
    /// no tokenizer, scores that are not finite) has its own error. Where memory runs out, the batch is halved until it fits. Of `config` only the decoder start token counts: no processor changes the scores.
    ///
    /// With `rows`, every row of log-probabilities is read back (4 bytes per id of the vocabulary and token) and shown, in
    /// the order in which they are computed; where memory ran out and a batch was halved, some are shown again.
    ///
    /// # Errors
    /// Options that do not fit the model ([`GenerationConfig::check`]); the device failed, or the run was cancelled.
    pub fn score(
        &mut self,
        requests: &[ScoreRequest],
        config: &GenerationConfig,
        run: &RunOptions,
        rows: Option<SeeRow<'_>>,
    ) -> Result<Vec<Result<TargetScore, EngineError>>, EngineError> {
        let inputs: Vec<ScoreInput> = requests.iter().cloned().map(ScoreInput::from).collect();
        self.score_inputs(&inputs, config, run, rows)
    }

    /// [`Session::score`] of targets and whole texts. The windows of a text are scored apart and give one result.
    ///
    /// # Errors
    /// As [`Session::score`].
    pub fn score_inputs(
        &mut self,
        inputs: &[ScoreInput],
        config: &GenerationConfig,
        run: &RunOptions,
        rows: Option<SeeRow<'_>>,
    ) -> Result<Vec<Result<TargetScore, EngineError>>, EngineError> {
        self.score_with(inputs, config, run, rows, &mut |_| {})
    }

    /// [`Session::score_inputs`] that tells what a user should know once, as [`Session::generate`] does.
    ///
    /// # Errors
    /// As [`Session::score`].
    pub fn score_with(
        &mut self,
        inputs: &[ScoreInput],
        config: &GenerationConfig,
        run: &RunOptions,
        mut rows: Option<SeeRow<'_>>,
        notice: &mut dyn FnMut(&Notice),
    ) -> Result<Vec<Result<TargetScore, EngineError>>, EngineError> {
        config.check(&self.limits())?;
        let mut results: Vec<Result<TargetScore, EngineError>> = Vec::with_capacity(inputs.len());
        let mut ready = Vec::new();
        for (index, input) in inputs.iter().enumerate() {
            results.push(self.targets(index, input, config, run).map(|parts| {
                let score = TargetScore::of(&parts);
                self.context.totals.prompt_tokens += score.prompt_ids.len() as u64;
                ready.extend(parts);
                score
            }));
        }
        ready.sort_by_key(|t| (std::cmp::Reverse(t.source.len() + t.sequence.len()), t.request, t.place));
        let most = match self.model().batch_size() {
            BatchSize::Sentences(n) => n.max(1),
            BatchSize::Auto => AUTO_TARGETS,
        };
        let most = self.context.proven_targets.map_or(most, |proven| most.min(proven));
        let max_tokens = self.model().max_batch_tokens();
        let started = Instant::now();
        let mut work = Scoring { session: self, run, rows: &mut rows, results: &mut results, notice };
        let (ended, result) = run_batches(&ready, most, max_tokens, &mut work);
        result?;
        if ended < ready.len() {
            return Err(EngineError::Cancelled);
        }
        self.context.totals.inputs += inputs.len() as u64;
        self.context.totals.batch.encode_seconds += started.elapsed().as_secs_f64();
        Ok(results)
    }

    /// What has to run for an input.
    fn targets(
        &self,
        request: usize,
        input: &ScoreInput,
        config: &GenerationConfig,
        run: &RunOptions,
    ) -> Result<Vec<Target>, EngineError> {
        let (text, how) = match input {
            ScoreInput::Target(asked) => return Ok(vec![self.target(request, asked, config, run)?]),
            ScoreInput::Whole(text, how) => (text, how),
        };
        let model = self.model().model_config();
        if model.family().is_encoder_decoder {
            return Err(EngineError::NoTarget);
        }
        let ids = how.with_start(self.ids_of(text, Side::Source)?, config.bos_token_id);
        let windows = how.windows(ids.len(), model.max_positions());
        if windows.is_empty() {
            return Err(EngineError::EmptyTarget);
        }
        let mut parts = Vec::with_capacity(windows.len());
        let mut place = 0;
        for window in windows {
            let source = Input::Ids(ids[window.begin..window.from].to_vec());
            let target = Input::Ids(ids[window.from..window.end].to_vec());
            let part = self.target(request, &ScoreRequest { source, target }, config, run)?;
            place += window.end - window.from;
            parts.push(Target { place: place - part.ids().len(), ..part });
        }
        Ok(parts)
    }

    /// The ids of an input; why there is no tokenizer is told where one is needed.
    pub(crate) fn ids_of(&self, input: &Input, side: Side) -> Result<Vec<u32>, EngineError> {
        encode(input, self.tokenizer(), side).map_err(|error| match error {
            EngineError::NoTokenizer => self.model().no_tokenizer(),
            other => other,
        })
    }

    fn target(
        &self,
        request: usize,
        asked: &ScoreRequest,
        config: &GenerationConfig,
        run: &RunOptions,
    ) -> Result<Target, EngineError> {
        let model = self.model().model_config();
        let encoder_decoder = model.family().is_encoder_decoder;
        let mut source = self.ids_of(&asked.source, Side::Source)?;
        let target = self.ids_of(&asked.target, if encoder_decoder { Side::Labels } else { Side::Prefix })?;
        if source.is_empty() && !encoder_decoder {
            source.extend(begin(config)?);
        }
        if source.is_empty() {
            return Err(EngineError::EmptyInput);
        }
        if target.is_empty() {
            return Err(EngineError::EmptyTarget);
        }
        model.check_token_ids(&source)?;
        model.check_target_ids(&target)?;
        let positions = model.max_positions().unwrap_or(usize::MAX);
        if encoder_decoder {
            let limit = run.max_source_length.unwrap_or(usize::MAX);
            let limit = limit.min(if run.truncate { positions } else { usize::MAX }).max(1);
            if source.len() > limit {
                let ends = source.last().is_some_and(|id| config.is_eos(*id));
                truncate(&mut source, limit, ends);
            }
            if source.len() > positions {
                return Err(EngineError::InputTooLong { tokens: source.len(), limit: positions });
            }
        }
        let (source, prompt) = match (encoder_decoder, config.decoder_start_token_id) {
            (true, Some(start)) => (source, with_start(start, Vec::new())),
            _ => (Vec::new(), source),
        };
        let from = prompt.len();
        let sequence = [prompt, target].concat();
        // The last id is scored but never fed.
        if sequence.len() - 1 > positions {
            return Err(EngineError::TargetTooLong { tokens: sequence.len(), limit: positions.saturating_add(1) });
        }
        Ok(Target { request, place: 0, source, sequence, from })
    }
}

/// Targets together where the batch size is `auto`: the packed rows run in micro-batches of a bounded size anyway, so a larger
/// batch only takes more cache.
const AUTO_TARGETS: usize = 64;

/// What goes to the device and comes back of `tokens` tokens at most.
struct ScoreBuffers {
    /// The ids whose scores are wanted.
    ids: Table<u32>,
    /// A [`TokenScore`] for each.
    scores: Buffer,
    readback: Readback,
}

impl ScoreBuffers {
    /// Allocates or counts them.
    fn build(arena: &Arena, tokens: usize) -> Result<Self, EngineError> {
        let scores = product(&[tokens, size_of::<TokenScore>()]);
        Ok(Self {
            ids: Table::new(arena, "ids to score", Class::Activations, tokens)?,
            scores: arena.buffer("token scores", Class::Activations, scores)?,
            readback: arena.readback("token scores", scores)?,
        })
    }
}

/// Scores of each target's tokens.
fn score_batch(
    device: &Device,
    runner: &mut Runner,
    batch: &[Target],
    see: &mut Option<SeeRow<'_>>,
) -> Result<Vec<Vec<TokenScore>>, EngineError> {
    let sentences: Vec<Sentence<'_>> = batch.iter().map(Target::sentence).collect();
    let from: Vec<usize> = batch.iter().map(|t| t.from).collect();
    let longest = batch.iter().map(|t| t.sequence.len()).sum();
    let size = size_of::<TokenScore>() as u64;
    let ScoreBuffers { mut ids, scores, readback } = ScoreBuffers::build(&device.into(), longest)?;
    let mut found: Vec<Vec<TokenScore>> = batch.iter().map(|t| Vec::with_capacity(t.sequence.len())).collect();
    let mut window = |rec: &mut Recorder, logits: LogitRows<'_>| -> Result<(), ModelError> {
        let count = logits.rows.len();
        let wanted: Vec<u32> = logits.rows.iter().map(|(s, position)| batch[*s].sequence[position + 1]).collect();
        ids.record(rec, &wanted)?;
        token_logprobs(rec, logits.logits, ids.view(), &scores, count)?;
        let bytes = count as u64 * size;
        let values: Vec<TokenScore> = rec.submit_and_see(&readback, &scores, bytes, bytemuck::pod_collect_to_vec)?;
        for ((s, _), value) in logits.rows.iter().zip(values) {
            found[*s].push(value);
        }
        if let Some(see) = see {
            let all = device.read_tensor(logits.logits)?;
            for ((s, position), row) in logits.rows.iter().zip(all.chunks(logits.logits.cols.max(1))) {
                let target = &batch[*s];
                see(target.request, target.place + position + 1 - target.from, &log_softmax(row));
            }
        }
        Ok(())
    };
    let budget = LOGITS_BUDGET.min(device.pool().limit() / 8);
    runner.score(&sentences, &from, budget, &mut window)?;
    Ok(found)
}

fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let peak = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|x| f64::from(x - peak).exp()).sum();
    let log_total = total.ln();
    logits.iter().map(|x| (f64::from(x - peak) - log_total) as f32).collect()
}
