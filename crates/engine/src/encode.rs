//! Hidden states of given inputs, for what is not generation: embeddings, probes, classifiers.

use std::time::Instant;

use crate::backoff::{Batch, Item, Work, run_batches};
use crate::error::EngineError;
use crate::events::Notice;
use crate::model::Model;
use crate::options::{BatchSize, RunOptions};
use crate::prepare::Side;
use crate::request::Input;
use crate::session::{Session, all_of};

/// The final hidden states of one input.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct HiddenStates {
    /// The ids that were run; of a text those of its tokens, special ones included.
    pub token_ids: Vec<u32>,
    /// Width of a state: `d_model`, or that of the table where a model projects to it behind its last layer.
    pub hidden_size: usize,
    /// `[ids, hidden_size]`, row-major.
    pub values: Vec<f32>,
}

impl HiddenStates {
    /// The states, one per id.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.hidden_size.max(1))
    }

    /// Their mean over the ids; empty without ids.
    pub fn mean(&self) -> Vec<f32> {
        let mut sums = vec![0.0_f64; if self.values.is_empty() { 0 } else { self.hidden_size }];
        for row in self.rows() {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        sums.iter().map(|sum| (sum / self.rows().len() as f64) as f32).collect()
    }
}

/// An input that can run.
struct Ready {
    index: usize,
    ids: Vec<u32>,
}

impl Item for Ready {
    fn input_len(&self) -> usize {
        self.ids.len()
    }
}

/// Inputs together where the batch size is `auto`: their rows are packed and run in pieces of a bounded size anyway.
const AUTO_INPUTS: usize = 64;

impl Model {
    /// The final hidden states of some lists of ids (or texts), in their order: of the encoder, or of the decoder of a model without one.
    /// For anything beyond this, see [`Session::encode`].
    ///
    /// # Errors
    /// [`EngineError::Input`] with the first input that failed; nothing else is returned then.
    pub fn encode<I: Into<Input> + Clone>(&self, inputs: &[I]) -> Result<Vec<HiddenStates>, EngineError> {
        let inputs: Vec<Input> = inputs.iter().cloned().map(Into::into).collect();
        let mut session = self.idle_session();
        let results = session.encode(&inputs, &RunOptions::default())?;
        self.keep_idle(session.context);
        all_of(results.into_iter())
    }
}

impl Session {
    /// The final hidden states of each input, in their order: what the encoder of an encoder-decoder model gives to its decoder; of a
    /// decoder-only model what its head reads, each token having seen those before it. In f32, behind the last norm where the model has
    /// one: Hugging Face's `last_hidden_state`. An input that fails alone (empty, too long, no tokenizer) has its own error. Where memory
    /// runs out, the batch is halved until it fits. No result depends on its batch. Of `run` only `cancel` counts.
    ///
    /// # Errors
    /// The device failed, or the run was cancelled.
    pub fn encode(
        &mut self,
        inputs: &[Input],
        run: &RunOptions,
    ) -> Result<Vec<Result<HiddenStates, EngineError>>, EngineError> {
        let mut results: Vec<Result<HiddenStates, EngineError>> = Vec::with_capacity(inputs.len());
        let mut ready = Vec::new();
        for (index, input) in inputs.iter().enumerate() {
            results.push(self.check_encoding(input).map(|ids| {
                ready.push(Ready { index, ids });
                HiddenStates::default()
            }));
        }
        ready.sort_by_key(|input| (std::cmp::Reverse(input.ids.len()), input.index));
        let most = match self.model().batch_size() {
            BatchSize::Sentences(n) => n.max(1),
            BatchSize::Auto => AUTO_INPUTS,
        };
        let most = self.context.proven_inputs.map_or(most, |proven| most.min(proven));
        let max_tokens = self.model().max_batch_tokens();
        let started = Instant::now();
        let mut work = Encoding { session: self, run, results: &mut results };
        let (ended, result) = run_batches(&ready, most, max_tokens, &mut work);
        result?;
        if ended < ready.len() {
            return Err(EngineError::Cancelled);
        }
        let totals = &mut self.context.totals;
        totals.inputs += inputs.len() as u64;
        totals.prompt_tokens += ready.iter().map(|input| input.ids.len() as u64).sum::<u64>();
        totals.batch.encode_seconds += started.elapsed().as_secs_f64();
        Ok(results)
    }

    /// The ids of an input that can run.
    fn check_encoding(&self, input: &Input) -> Result<Vec<u32>, EngineError> {
        let ids = self.ids_of(input, Side::Source)?;
        if ids.is_empty() {
            return Err(EngineError::EmptyInput);
        }
        let model = self.model().model_config();
        model.check_token_ids(&ids)?;
        match model.max_positions() {
            Some(limit) if ids.len() > limit => Err(EngineError::InputTooLong { tokens: ids.len(), limit }),
            _ => Ok(ids),
        }
    }
}

/// A run of [`Session::encode`].
struct Encoding<'a> {
    session: &'a mut Session,
    run: &'a RunOptions,
    results: &'a mut [Result<HiddenStates, EngineError>],
}

impl Work for Encoding<'_> {
    type Item = Ready;

    fn run(&mut self, batch: Batch<'_, Ready>) -> Result<bool, EngineError> {
        if self.run.cancel.is_cancelled() {
            return Ok(false);
        }
        let ids: Vec<&[u32]> = batch.items.iter().map(|input| input.ids.as_slice()).collect();
        let states = self.session.context.runner.hidden_states(&ids)?;
        for (input, values) in batch.items.iter().zip(states) {
            let hidden_size = values.len() / input.ids.len().max(1);
            self.results[input.index] = match values.iter().all(|value| value.is_finite()) {
                true => Ok(HiddenStates { token_ids: input.ids.clone(), hidden_size, values }),
                false => Err(EngineError::StatesNotFinite),
            };
        }
        Ok(true)
    }

    fn refuse(&mut self, item: &Ready, error: EngineError) {
        self.results[item.index] = Err(error);
    }

    fn let_go(&mut self) {
        self.session.let_go();
    }

    fn proved(&mut self, capacity: usize) {
        self.session.context.proven_inputs = Some(capacity);
    }

    /// There is nobody to tell.
    fn notice(&mut self, _: &Notice) {}
}
