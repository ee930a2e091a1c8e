//! What a sentence's search needs at every step: its options, its source and the user's hooks.

use super::processors;
use super::random::{self, Stream};
use crate::config::{GenerationConfig, Lengths};
use crate::hooks::{HookError, Hooks, SequenceView, Stage};
use crate::hypothesis::FinishReason;

/// A sentence to be searched.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) config: &'a GenerationConfig,
    pub(crate) lengths: Lengths,
    pub(crate) ordinal: u64,
    pub(crate) source: &'a [u32],
    pub(crate) prompt_len: usize,
    pub(crate) hooks: &'a Hooks,
}

impl Task<'_> {
    fn view<'s>(&'s self, row: usize, token_ids: &'s [u32]) -> SequenceView<'s> {
        let Self { ordinal, source, prompt_len, .. } = *self;
        SequenceView { ordinal, row, source, prompt_len, token_ids }
    }

    /// Why a sequence ends behind its last token, if it does.
    pub(crate) fn end(&self, row: usize, tokens: &[u32]) -> Option<FinishReason> {
        if tokens.last().is_some_and(|token| self.config.is_eos(*token)) {
            Some(FinishReason::Eos)
        } else if self.stops(row, tokens) {
            Some(FinishReason::Stop)
        } else {
            (tokens.len() >= self.lengths.max_length).then_some(FinishReason::Length)
        }
    }

    /// Whether a stop criterion ends a sequence.
    pub(crate) fn stops(&self, row: usize, tokens: &[u32]) -> bool {
        self.hooks.stop_criteria.iter().any(|criterion| criterion.should_stop(&self.view(row, tokens)))
    }

    /// Rows 2 to 16 of §4 on the `scores` `[sequences, V]` of sequences that compete; the first is row `first` of the
    /// sentence.
    pub(crate) fn process(&self, first: usize, sequences: &[&[u32]], scores: &mut [f32]) -> Result<(), HookError> {
        let Self { config, lengths, .. } = *self;
        let views = (first..).zip(sequences).map(|(row, tokens)| self.view(row, tokens));
        for (view, row) in views.clone().zip(scores.chunks_mut(config.vocab_size)) {
            processors::process_first(config, lengths, &view, row);
        }
        self.run_hooks(Stage::Constrain, first, sequences, scores)?;
        for (view, row) in views.zip(scores.chunks_mut(config.vocab_size)) {
            processors::process_last(config, lengths, &view, row);
        }
        self.run_hooks(Stage::Last, first, sequences, scores)
    }

    fn run_hooks(&self, stage: Stage, first: usize, rows: &[&[u32]], scores: &mut [f32]) -> Result<(), HookError> {
        if self.hooks.processors.is_empty() {
            return Ok(());
        }
        let views: Vec<SequenceView<'_>> =
            rows.iter().enumerate().map(|(row, tokens)| self.view(first + row, tokens)).collect();
        let processors = self.hooks.processors.iter().filter(|processor| processor.stage() == stage);
        processors.into_iter().try_for_each(|processor| processor.process_all(&views, scores))
    }

    /// Rows 17 to 26 of §4 on one row.
    pub(crate) fn warp(&self, scores: &mut [f32]) {
        if self.config.mode.samples() {
            processors::warp(self.config, self.config.min_tokens_to_keep(), scores);
        }
        processors::renormalize(self.config, scores);
    }

    /// The exponential noise of new token number `step` of a row.
    pub(crate) fn noise(&self, row: usize, step: usize, out: &mut [f32]) {
        match &self.hooks.noise {
            Some(source) => source.exponential(self.ordinal, row, step, out),
            None => {
                let stream = Stream { seed: self.config.seed, ordinal: self.ordinal, sequence: row as u32 };
                random::fill(stream, step as u32, out);
            }
        }
    }
}
