//! Generating: from requests to batches of sentences, and from what these gave to results.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use elgen_search::device::BatchTraits;
use elgen_search::{GenerationConfig, Hooks, Hypothesis};

use crate::backoff::{Batch, Item, Work, largest_batch, run_batches};
use crate::batch::{BatchState, Control, Finished, OnStep, Ran};
use crate::capacity::{auto_sentences, longest, sentences_per_binding};
use crate::error::EngineError;
use crate::events::{Events, Notice, on_done};
use crate::max_time::MaxTime;
use crate::model::Model;
use crate::options::{BatchSize, RunOptions};
use crate::prepare::{Prepared, prepare};
use crate::request::{Generation, Input, Request, Sequence};
use crate::session::{Session, all_of};
use crate::stop_strings::StopStringCriterion;
use crate::stream::Streams;

impl Model {
    /// The generations of some texts (or lists of ids), in their order. Threads may call it at once; each call takes a
    /// context that no other uses, and leaves it for the next. For anything beyond this, see [`Session::generate`].
    ///
    /// # Errors
    /// [`EngineError::Input`] with the first input that failed; nothing else is returned then.
    pub fn generate<I: Into<Input> + Clone>(
        &self,
        inputs: &[I],
        config: &GenerationConfig,
    ) -> Result<Vec<Generation>, EngineError> {
        let requests: Vec<Request> = (0..).zip(inputs).map(|(n, input)| Request::new(n, input.clone())).collect();
        let mut session = self.idle_session();
        let mut results: Vec<Option<Result<Generation, EngineError>>> = Vec::new();
        results.resize_with(requests.len(), || None);
        let mut events = on_done(|index, result| {
            if let Some(slot) = results.get_mut(index) {
                *slot = Some(result);
            }
        });
        session.generate(&requests, config, &RunOptions::default(), &mut events)?;
        self.keep_idle(session.context);
        all_of(results.into_iter().map(|result| result.unwrap_or(Err(EngineError::Cancelled))))
    }
}

impl Session {
    /// Runs all requests; `events` hears of each as it ends, in any order. A request that fails alone gets its own error and
    /// the run goes on. Once `run.cancel` is thrown, the run stops after the current step: requests that had begun get what there is
    /// ([`crate::FinishReason::Cancelled`]), the others [`EngineError::Cancelled`]. A request may have options of its own
    /// ([`crate::RequestOptions`]), and may end alone in the same way; `config` and `run` hold for what it leaves open.
    ///
    /// Where memory runs out, the batch is halved until it fits and the run goes on; that is told once, and later runs with
    /// the same options begin with what went well.
    ///
    /// # Errors
    /// Options that cannot be together or do not fit the model ([`GenerationConfig::check`]; streaming beams, stop strings that no token can
    /// end, alignments of a layer that does not exist): nothing has run and no event was told. Or the device failed: no further request can be served, and those
    /// that had not ended were told so.
    pub fn generate(
        &mut self,
        requests: &[Request],
        config: &GenerationConfig,
        run: &RunOptions,
        events: &mut dyn Events,
    ) -> Result<(), EngineError> {
        let hooks = self.checked_hooks(config, &run.hooks, run)?;
        let alignment = run.alignment.map(|layer| self.model.model_config().alignment_layer(layer)).transpose()?;
        if let (Some(reason), false) = (self.device().cooperative_fault(), self.context.told_fault) {
            events.notice(&Notice::MatricesUnused { reason: reason.to_owned() });
            self.context.told_fault = true;
        }
        if let (Some(error), None, false) =
            (self.model.tokenizer_error(), self.tokenizer(), self.context.told_tokenizer)
        {
            events.notice(&Notice::TokenizerUnusable { reason: error.to_string() });
            self.context.told_tokenizer = true;
        }
        let started = Instant::now();
        let mut result: Result<(), EngineError> = Ok(());
        for group in groups(requests, config, &run.hooks) {
            if let Err(error) = &result {
                group.requests.iter().for_each(|(index, _)| events.done(*index, Err(error.for_others())));
                continue;
            }
            let checked = match group.is_of(config, &run.hooks) {
                true => Ok(hooks.clone()),
                false => self.checked_hooks(group.config, group.hooks, run),
            };
            match checked {
                Ok(hooks) => result = self.run_group(&group, &hooks, run, alignment, started, events),
                Err(_) => self.refuse(&group, run, events),
            }
        }
        result
    }

    /// Tells requests why their own options cannot be.
    fn refuse(&mut self, group: &Group<'_>, run: &RunOptions, events: &mut dyn Events) {
        self.context.totals.inputs += group.requests.len() as u64;
        for (index, _) in &group.requests {
            // An error for each.
            let why = self.checked_hooks(group.config, group.hooks, run).err();
            events.done(*index, Err(why.unwrap_or(EngineError::Cancelled)));
        }
    }

    /// Runs requests that can be in one batch.
    fn run_group(
        &mut self,
        group: &Group<'_>,
        hooks: &Hooks,
        run: &RunOptions,
        alignment: Option<usize>,
        started: Instant,
        events: &mut dyn Events,
    ) -> Result<(), EngineError> {
        let config = group.config;
        let ready = self.prepare(group.requests.iter().copied(), config, run, events);
        let most = self.most_sentences(config, &ready, run, hooks);
        let capacity = match &self.context.proven {
            Some((known, sentences)) if known == config => most.min(*sentences),
            _ => most,
        };
        let max_tokens = self.model.max_batch_tokens();
        let mut work =
            Generating { session: self, config, run, alignment, hooks, streamed: HashMap::new(), events, started };
        let (ended, result) = run_batches(&ready, capacity, max_tokens, &mut work);
        for prepared in &ready[ended..] {
            events.done(
                prepared.request,
                Err(match &result {
                    Ok(()) => EngineError::Cancelled,
                    Err(error) => error.for_others(),
                }),
            );
        }
        result
    }

    /// The caller's hooks and those of the engine's own options.
    ///
    /// # Errors
    /// Options that do not fit the model, or cannot be together.
    fn checked_hooks(&self, config: &GenerationConfig, hooks: &Hooks, run: &RunOptions) -> Result<Hooks, EngineError> {
        config.check(&self.limits())?;
        if run.stream && config.mode.has_beams() {
            return Err(EngineError::StreamsOneBeam { num_beams: config.num_beams });
        }
        let mut hooks = hooks.clone();
        if !config.stop_strings.is_empty() {
            let criterion = StopStringCriterion::new(&config.stop_strings, self.model.token_bytes()?)?;
            hooks.stop_criteria.push(Arc::new(criterion));
        }
        Ok(hooks)
    }

    /// The requests that can run, the longest first, so that buffers are allocated once and similar lengths end together.
    fn prepare<'r>(
        &mut self,
        requests: impl ExactSizeIterator<Item = (usize, &'r Request)>,
        config: &GenerationConfig,
        run: &RunOptions,
        events: &mut dyn Events,
    ) -> Vec<Prepared> {
        let tokenizer = self.tokenizer.as_ref().or(self.model.tokenizer());
        let context = &mut self.context;
        context.totals.inputs += requests.len() as u64;
        let mut ready: Vec<Prepared> = Vec::with_capacity(requests.len());
        for (index, request) in requests {
            match prepare(index, request, self.model.model_config(), tokenizer, config, run) {
                Ok(prepared) => {
                    if let (Some(tokens), false) = (prepared.cut_from, context.told_cut) {
                        context.told_cut = true;
                        events.notice(&Notice::SourceCut { tokens, kept: prepared.input_len() });
                    }
                    ready.push(prepared);
                }
                Err(EngineError::NoTokenizer) => events.done(index, Err(self.model.no_tokenizer())),
                Err(error) => events.done(index, Err(error)),
            }
        }
        ready.sort_by_key(|p| (std::cmp::Reverse(p.source.len().max(p.prompt.len())), p.request));
        ready
    }

    /// Sentences that are predicted to fit together, as with [`BatchSize::Auto`]; at most as many as there are requests.
    ///
    /// # Errors
    /// A request that cannot run.
    pub(crate) fn predicted_sentences(
        &mut self,
        requests: &[Request],
        config: &GenerationConfig,
    ) -> Result<usize, EngineError> {
        config.check(&self.limits())?;
        let ready = self.prepare_all(requests, config)?;
        let (device, runner) = (self.model.device(), &self.context.runner);
        let own = runner.held_bytes() + self.context.state.as_ref().map_or(0, BatchState::held_bytes);
        let predicted = auto_sentences(device, runner, config, &ready, false, BatchTraits::default(), own);
        Ok(predicted.min(sentences_per_binding(device, runner, config, &ready)))
    }

    /// The best hypotheses of all requests, in their order, run as one batch: where memory runs out, this is an error.
    ///
    /// # Errors
    /// A request that cannot run; out of memory; the device failed.
    pub(crate) fn run_as_one(
        &mut self,
        requests: &[Request],
        config: &GenerationConfig,
    ) -> Result<Vec<Hypothesis>, EngineError> {
        let started = Instant::now();
        config.check(&self.limits())?;
        let ready = self.prepare_all(requests, config)?;
        let run = RunOptions::default();
        let mut silent = on_done(|_, _| {});
        let mut streamed = HashMap::new();
        let batch = Batch { items: &ready, rest: &ready, capacity: ready.len() };
        let result = self.run_batch(&batch, config, &run, None, &run.hooks, &mut streamed, &mut silent);
        let ran = result.inspect_err(|_| self.let_go())?;
        self.first_token(started);
        let mut by_request: Vec<(usize, Hypothesis)> = Vec::with_capacity(ready.len());
        for (prepared, finished) in ready.iter().zip(ran.results) {
            by_request.extend(finished?.hypotheses.into_iter().next().map(|best| (prepared.request, best)));
        }
        by_request.sort_by_key(|(request, _)| *request);
        Ok(by_request.into_iter().map(|(_, best)| best).collect())
    }

    /// The requests, all of which must be able to run.
    fn prepare_all(&mut self, requests: &[Request], config: &GenerationConfig) -> Result<Vec<Prepared>, EngineError> {
        let mut failed = None;
        let mut events = on_done(|_, result| failed = failed.take().or(result.err()));
        let ready = self.prepare(requests.iter().enumerate(), config, &RunOptions::default(), &mut events);
        failed.map_or(Ok(ready), Err)
    }

    /// Sentences together at most.
    fn most_sentences(&self, config: &GenerationConfig, ready: &[Prepared], run: &RunOptions, hooks: &Hooks) -> usize {
        let (device, runner) = (self.model.device(), &self.context.runner);
        let most = match self.model.batch_size() {
            BatchSize::Sentences(n) => n,
            BatchSize::Auto => {
                let own = runner.held_bytes() + self.context.state.as_ref().map_or(0, BatchState::held_bytes);
                let traits = BatchTraits {
                    sees_tokens: run.stream || !hooks.stop_criteria.is_empty() || config.max_time.is_some(),
                    processors: !hooks.processors.is_empty(),
                    noise: hooks.noise.is_some(),
                    source_ids: 0,
                };
                auto_sentences(device, runner, config, ready, run.alignment.is_some(), traits, own)
            }
        };
        most.min(sentences_per_binding(device, runner, config, ready)).min(ready.len()).max(1)
    }

    #[expect(clippy::too_many_arguments, reason = "what a run has, handed to each of its batches")]
    fn run_batch(
        &mut self,
        batch: &Batch<'_, Prepared>,
        config: &GenerationConfig,
        run: &RunOptions,
        alignment: Option<usize>,
        hooks: &Hooks,
        streamed: &mut HashMap<(usize, usize), usize>,
        events: &mut dyn Events,
    ) -> Result<Ran, EngineError> {
        let Batch { items, rest, capacity } = *batch;
        let device = self.model.device();
        let context = &mut self.context;
        let fits = |state: &BatchState| {
            items.iter().all(|p| state.fits(config, items.len(), p.lengths.max_length, p.max_new()))
        };
        // The old one goes before a new one comes.
        context.state = context.state.take().filter(fits);
        let state = match &mut context.state {
            Some(state) => state,
            none => {
                // Sized for every request that is to come, so that it is made once.
                let (max_length, max_new) = longest(rest);
                let sentences = largest_batch(rest, capacity, self.model.max_batch_tokens());
                none.insert(BatchState::new(device, config, sentences, max_length, max_new)?)
            }
        };
        let mut hooks = hooks.clone();
        if let Some(seconds) = config.max_time {
            hooks.stop_criteria.push(Arc::new(MaxTime::starting_now(seconds)));
        }
        let mut streams = Streams::new(items, self.tokenizer.as_ref().or(self.model.tokenizer()), config);
        let mut on_step = |tokens: &[_], done: &[bool]| streams.step(tokens, done, streamed, events);
        let on_step: Option<OnStep<'_>> = if run.stream { Some(&mut on_step) } else { None };
        let control = Control { cancel: &run.cancel, hooks, alignment, on_step };
        let ran = state.run(device, &mut context.runner, items, control, &mut context.totals.batch)?;
        if run.stream && ran.cancelled {
            streams.cut_short(events)?;
        }
        Ok(ran)
    }

    fn first_token(&mut self, started: Instant) {
        let totals = &mut self.context.totals;
        let known = totals.batch.first_token.map(|at| (at - started).as_secs_f64() * 1e3);
        totals.first_token_ms = totals.first_token_ms.or(known);
    }

    fn generation(&mut self, prepared: &Prepared, finished: Finished) -> Result<Generation, EngineError> {
        let mut sequences = Vec::with_capacity(finished.hypotheses.len());
        let mut alignments = finished.alignments.into_iter().flatten();
        for hypothesis in finished.hypotheses {
            let text = match self.tokenizer() {
                Some(tokenizer) => Some(tokenizer.decode(&hypothesis.token_ids, true)?),
                None => None,
            };
            self.context.totals.generated_tokens += hypothesis.token_ids.len() as u64;
            sequences.push(Sequence {
                token_ids: hypothesis.token_ids,
                token_logprobs: hypothesis.token_logprobs,
                text,
                score: hypothesis.score,
                finish_reason: hypothesis.finish_reason,
                alignment: alignments.next(),
            });
        }
        let (prompt_tokens, truncated) = (prepared.input_len(), prepared.cut_from.is_some());
        self.context.totals.prompt_tokens += prompt_tokens as u64;
        self.context.totals.truncated += u64::from(truncated);
        Ok(Generation { sequences, prompt_tokens, truncated })
    }
}

/// Requests that can be in one batch.
struct Group<'a> {
    config: &'a GenerationConfig,
    hooks: &'a Hooks,
    /// With their numbers in the call.
    requests: Vec<(usize, &'a Request)>,
}

impl Group<'_> {
    /// Whether it has these options and hooks.
    fn is_of(&self, config: &GenerationConfig, hooks: &Hooks) -> bool {
        std::ptr::eq(self.hooks, hooks) && (std::ptr::eq(self.config, config) || self.config == config)
    }
}

/// The requests by options and hooks, in the order of the first of each.
fn groups<'a>(requests: &'a [Request], config: &'a GenerationConfig, hooks: &'a Hooks) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let own = &request.options;
        let (config, hooks) = (own.config.as_deref().unwrap_or(config), own.hooks.as_deref().unwrap_or(hooks));
        match groups.iter_mut().find(|group| group.is_of(config, hooks)) {
            Some(group) => group.requests.push((index, request)),
            None => groups.push(Group { config, hooks, requests: vec![(index, request)] }),
        }
    }
    groups
}

/// A run of [`Session::generate`].
struct Generating<'a> {
    session: &'a mut Session,
    config: &'a GenerationConfig,
    run: &'a RunOptions,
    alignment: Option<usize>,
    hooks: &'a Hooks,
    /// Tokens that were told of each sequence.
    streamed: HashMap<(usize, usize), usize>,
    events: &'a mut dyn Events,
    started: Instant,
}

impl Work for Generating<'_> {
    type Item = Prepared;

    fn run(&mut self, batch: Batch<'_, Prepared>) -> Result<bool, EngineError> {
        let Self { session, config, run, alignment, hooks, streamed, events, started } = self;
        if run.cancel.is_cancelled() {
            return Ok(false);
        }
        // What was to end before it began does not run.
        let (over, live): (Vec<&Prepared>, Vec<&Prepared>) = batch.items.iter().partition(|p| p.stop.is_due());
        let left: Vec<Prepared>;
        let items = if over.is_empty() {
            batch.items
        } else {
            left = live.into_iter().cloned().collect();
            &left
        };
        let results = if items.is_empty() {
            Vec::new()
        } else {
            let batch = Batch { items, ..batch };
            session.run_batch(&batch, config, run, *alignment, hooks, streamed, *events)?.results
        };
        for prepared in over {
            events.done(prepared.request, Err(EngineError::Cancelled));
        }
        session.first_token(*started);
        for (prepared, result) in items.iter().zip(results) {
            let result = result.and_then(|finished| session.generation(prepared, finished));
            events.done(prepared.request, result);
        }
        Ok(true)
    }

    fn refuse(&mut self, item: &Prepared, error: EngineError) {
        self.events.done(item.request, Err(error));
    }

    fn let_go(&mut self) {
        self.session.let_go();
    }

    fn proved(&mut self, capacity: usize) {
        self.session.context.proven = Some((self.config.clone(), capacity));
    }

    fn notice(&mut self, notice: &Notice) {
        self.events.notice(notice);
    }
}
