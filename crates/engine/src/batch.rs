//! Running one batch: admission, the decode loop, and the results.

use std::time::Instant;

use elgen_models::{Alignment, Continuation, Runner, Sentence};
use elgen_search::device::{BatchTraits, DecodeStep, DeviceSearch, NewToken, SearchBuffers, SentenceStart};
use elgen_search::{GenerationConfig, Hooks, Hypothesis};
use elgen_tensor::{Arena, Class, DType, Device, Mark, RecordStats, Recorder, Rows, Tensor, TensorError};

use crate::cancel::CancelToken;
use crate::error::EngineError;
use crate::prepare::Prepared;

/// The device state of batches of up to `capacity` sentences; kept between batches, so that a steady run allocates nothing.
#[derive(Debug)]
pub(crate) struct BatchState {
    config: GenerationConfig,
    pub(crate) capacity: usize,
    max_length: usize,
    max_new: usize,
    rows: Rows,
    logits: Tensor,
    search: DeviceSearch,
}

/// What goes with a batch but for its sentences.
pub(crate) struct Control<'a> {
    pub(crate) cancel: &'a CancelToken,
    pub(crate) hooks: Hooks,
    /// The decoder layer whose cross-attention weights are wanted.
    pub(crate) alignment: Option<usize>,
    /// Hears the tokens of each step and which sentences are done behind it, if they are to be streamed.
    pub(crate) on_step: Option<OnStep<'a>>,
}

/// What a sentence of a batch gave.
pub(crate) struct Finished {
    /// Those to return, best first.
    pub(crate) hypotheses: Vec<Hypothesis>,
    /// Theirs, if they were asked for.
    pub(crate) alignments: Option<Vec<Alignment>>,
}

/// How a batch ended.
pub(crate) struct Ran {
    /// In the order of the batch.
    pub(crate) results: Vec<Result<Finished, EngineError>>,
    /// Whether it was cancelled, or one of its requests: sentences that were not done have what there was by then.
    pub(crate) cancelled: bool,
}

/// See [`Control::on_step`].
pub(crate) type OnStep<'a> = &'a mut dyn FnMut(&[NewToken], &[bool]) -> Result<(), EngineError>;

/// What decoding a batch cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BatchStats {
    pub(crate) encode_seconds: f64,
    pub(crate) decode_seconds: f64,
    pub(crate) steps: u64,
    /// Rows over all steps.
    pub(crate) row_steps: u64,
    pub(crate) stats: RecordStats,
    pub(crate) allocations: u64,
    /// When the host first knew a token.
    pub(crate) first_token: Option<Instant>,
    pub(crate) layer_dispatches: u64,
}

/// What a [`BatchState`] consists of: allocated, or counted for a plan.
pub(crate) struct BatchBuffers {
    rows: Rows,
    logits: Tensor,
    search: SearchBuffers,
}

impl BatchBuffers {
    /// For up to `capacity` sentences of up to `max_length` ids, up to `max_new` of them new, in batches with these traits.
    pub(crate) fn build(
        arena: &Arena,
        config: &GenerationConfig,
        capacity: usize,
        max_length: usize,
        max_new: usize,
        traits: BatchTraits,
    ) -> Result<Self, EngineError> {
        let rows = capacity.saturating_mul(config.rows_per_sentence());
        Ok(Self {
            rows: Rows::build(arena, rows, max_length)?,
            logits: logits(arena, config, rows)?,
            search: SearchBuffers::build(arena, config, capacity, max_new, traits)?,
        })
    }
}

/// Allocates or counts the logits of `rows` rows.
pub(crate) fn logits(arena: &Arena, config: &GenerationConfig, rows: usize) -> Result<Tensor, TensorError> {
    arena.tensor("logits", Class::Activations, rows, config.vocab_size, DType::F32)
}

impl BatchState {
    /// On a device, for batches of these sizes.
    pub(crate) fn new(
        device: &Device,
        config: &GenerationConfig,
        capacity: usize,
        max_length: usize,
        max_new: usize,
    ) -> Result<Self, EngineError> {
        let traits = BatchTraits::default();
        let BatchBuffers { rows, logits, search } =
            BatchBuffers::build(&device.into(), config, capacity, max_length, max_new, traits)?;
        let search = DeviceSearch::over(search)?;
        Ok(Self { config: config.clone(), capacity, max_length, max_new, rows, logits, search })
    }

    /// Bytes that it holds, but for what its hooks took.
    pub(crate) fn held_bytes(&self) -> u64 {
        let (plan, traits) = (Arena::counting(u64::MAX), BatchTraits::default());
        let Self { config, capacity, max_length, max_new, .. } = self;
        // What is there can be counted.
        let counted = BatchBuffers::build(&plan, config, *capacity, *max_length, *max_new, traits);
        counted.map_or(u64::MAX, |_| plan.tally().usage().total)
    }

    /// True if it can run batches of these sizes.
    pub(crate) fn fits(&self, config: &GenerationConfig, capacity: usize, max_length: usize, max_new: usize) -> bool {
        self.config == *config && self.capacity >= capacity && self.max_length >= max_length && self.max_new >= max_new
    }

    /// Runs a batch to its end, or to the step in which it is cancelled. A sentence fails alone if its scores are not finite; one that was
    /// cancelled before its first token is [`EngineError::Cancelled`].
    pub(crate) fn run(
        &mut self,
        device: &Device,
        runner: &mut Runner,
        batch: &[Prepared],
        mut control: Control<'_>,
        stats: &mut BatchStats,
    ) -> Result<Ran, EngineError> {
        let width = self.config.rows_per_sentence();
        let sentences: Vec<Sentence<'_>> =
            batch.iter().map(|p| Sentence { source: &p.source, prompt: &p.prompt, max_new: p.max_new() }).collect();
        let starts: Vec<SentenceStart<'_>> = batch
            .iter()
            .map(|p| SentenceStart {
                ordinal: p.ordinal,
                lengths: p.lengths,
                prompt: &p.prompt,
                source: p.source_ids(),
            })
            .collect();
        let started = Instant::now();
        runner.begin(&mut self.rows, &sentences, width)?;
        self.search.set_hooks(control.hooks);
        self.search.report_tokens(control.on_step.is_some());
        self.search.begin(&starts)?;
        device.wait()?;
        let decoding = Instant::now();
        stats.encode_seconds += (decoding - started).as_secs_f64();

        let mut done = vec![false; batch.len()];
        let mut stopped = vec![false; batch.len()];
        let mut steps = 0;
        let mut rec = device.recorder();
        let longest = batch.iter().map(Prepared::max_new).max().unwrap_or(0);
        let cancelled = loop {
            if control.cancel.is_cancelled() {
                break true;
            }
            self.stop_requests(&mut rec, batch, &mut done, &mut stopped)?;
            if done.iter().all(|done| *done) {
                break false;
            }
            let allocations = device.pool().allocations();
            stats.row_steps += self.rows.count() as u64;
            runner.step(&mut rec, &self.rows, &self.logits)?;
            stats.layer_dispatches += layer_dispatches(rec.marks());
            let report = self.search.step(&mut rec, &mut self.rows, &self.logits)?;
            stats.stats += rec.take_stats();
            stats.steps += 1;
            stats.allocations += device.pool().allocations() - allocations;
            stats.first_token.get_or_insert_with(Instant::now);
            steps += 1;
            if let Some(on_step) = &mut control.on_step {
                on_step(report.tokens, report.done)?;
            }
            // The search ends every sentence at its length; the bound keeps a broken device from spinning forever.
            if report.done.iter().all(|done| *done) || steps >= longest {
                break false;
            }
            if report.done != done {
                done.copy_from_slice(report.done);
                let open = (0..batch.len()).filter(|s| !done[*s]);
                runner.keep(&mut rec, &mut self.rows, open, width)?;
            }
        };
        let sequences = self.config.num_return_sequences;
        let finished = self.search.finish()?.into_iter().zip(&stopped).map(|(found, stopped)| {
            let hypotheses: Vec<Hypothesis> = found?.into_iter().take(sequences).collect();
            if hypotheses.iter().all(|hypothesis| hypothesis.token_ids.is_empty()) && (cancelled || *stopped) {
                return Err(EngineError::Cancelled);
            }
            Ok(Finished { hypotheses, alignments: None })
        });
        let mut results: Vec<Result<Finished, EngineError>> = finished.collect();
        stats.decode_seconds += decoding.elapsed().as_secs_f64();
        if let Some(layer) = control.alignment {
            let started = Instant::now();
            align(runner, batch, &mut results, layer)?;
            stats.encode_seconds += started.elapsed().as_secs_f64();
        }
        runner.end();
        Ok(Ran { results, cancelled: cancelled || stopped.contains(&true) })
    }

    /// Ends the sentences whose own requests are to end; the others go on.
    fn stop_requests(
        &mut self,
        rec: &mut Recorder,
        batch: &[Prepared],
        done: &mut [bool],
        stopped: &mut [bool],
    ) -> Result<(), EngineError> {
        let due: Vec<usize> = (0..batch.len()).filter(|s| !done[*s] && batch[*s].stop.is_due()).collect();
        if due.is_empty() {
            return Ok(());
        }
        self.search.cancel(rec, &due, &mut self.rows)?;
        for sentence in due {
            (done[sentence], stopped[sentence]) = (true, true);
        }
        Ok(())
    }
}

/// Dispatches between the embedding and the end of the last layer of a step.
fn layer_dispatches(marks: &[Mark]) -> u64 {
    match (marks.first(), marks.last()) {
        (Some(first), Some(last)) => last.dispatches - first.dispatches,
        _ => 0,
    }
}

/// Aligns what a batch returns with its sources.
fn align(
    runner: &mut Runner,
    batch: &[Prepared],
    results: &mut [Result<Finished, EngineError>],
    layer: usize,
) -> Result<(), EngineError> {
    let returned = results.iter().zip(batch).enumerate().flat_map(|(sentence, (result, prepared))| {
        let own = result.iter().flat_map(|finished| &finished.hypotheses);
        own.map(move |h| Continuation { sentence, prompt: &prepared.prompt, token_ids: &h.token_ids })
    });
    let continuations: Vec<Continuation<'_>> = returned.collect();
    let mut alignments = runner.align(&continuations, layer)?.into_iter();
    for finished in results.iter_mut().flatten() {
        finished.alignments = Some(alignments.by_ref().take(finished.hypotheses.len()).collect());
    }
    Ok(())
}
