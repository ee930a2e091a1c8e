//! From the tokens of steps to the events of requests.

use std::collections::HashMap;

use elgen_models::{TextStream, Tokenizer};
use elgen_search::GenerationConfig;
use elgen_search::device::NewToken;

use crate::error::EngineError;
use crate::events::{Events, StreamedToken};
use crate::prepare::Prepared;

/// One streamed sequence of the running batch.
#[derive(Debug)]
struct Stream<'a> {
    text: Option<TextStream<'a>>,
    tokens: usize,
    ended: bool,
}

/// The streams of a batch.
#[derive(Debug)]
pub(crate) struct Streams<'a> {
    batch: &'a [Prepared],
    tokenizer: Option<&'a Tokenizer>,
    config: &'a GenerationConfig,
    /// By (sentence of the batch, sequence).
    open: HashMap<(usize, usize), Stream<'a>>,
}

impl<'a> Streams<'a> {
    pub(crate) fn new(batch: &'a [Prepared], tokenizer: Option<&'a Tokenizer>, config: &'a GenerationConfig) -> Self {
        Self { batch, tokenizer, config, open: HashMap::new() }
    }

    /// Tells the tokens of a step, and the ends of sequences that cannot go on. `told`: for each request the tokens of a
    /// sequence that an earlier attempt, which ran out of memory, has told.
    pub(crate) fn step(
        &mut self,
        tokens: &[NewToken],
        done: &[bool],
        told: &mut HashMap<(usize, usize), usize>,
        events: &mut dyn Events,
    ) -> Result<(), EngineError> {
        for token in tokens {
            let Some(prepared) = self.batch.get(token.sentence) else { continue };
            let at = (token.sentence, token.row);
            let new = || Stream { text: self.tokenizer.map(|t| t.stream(true)), tokens: 0, ended: false };
            let stream = self.open.entry(at).or_insert_with(new);
            let text = match &mut stream.text {
                Some(text) => text.push(token.token)?,
                None => String::new(),
            };
            stream.tokens += 1;
            let before = told.entry((prepared.request, token.row)).or_default();
            if stream.tokens > *before {
                *before = stream.tokens;
                events.token(&StreamedToken {
                    index: prepared.request,
                    sequence: token.row,
                    token_id: token.token,
                    logprob: token.logprob,
                    text,
                });
            }
            if self.config.is_eos(token.token) || stream.tokens >= prepared.max_new() {
                self.end(at, events)?;
            }
        }
        let ended: Vec<_> = self.open.iter().filter(|(at, s)| done[at.0] && !s.ended).map(|(at, _)| *at).collect();
        ended.into_iter().try_for_each(|at| self.end(at, events))
    }

    /// The run was cancelled: tells the ends of all open sequences.
    pub(crate) fn cut_short(&mut self, events: &mut dyn Events) -> Result<(), EngineError> {
        let mut open: Vec<_> = self.open.iter().filter(|(_, stream)| !stream.ended).map(|(at, _)| *at).collect();
        open.sort_unstable();
        open.into_iter().try_for_each(|at| self.end(at, events))
    }

    fn end(&mut self, at: (usize, usize), events: &mut dyn Events) -> Result<(), EngineError> {
        let Some(stream) = self.open.get_mut(&at).filter(|stream| !stream.ended) else { return Ok(()) };
        stream.ended = true;
        let rest = match &mut stream.text {
            Some(text) => text.flush()?,
            None => String::new(),
        };
        events.sequence_end(self.batch[at.0].request, at.1, &rest);
        Ok(())
    }
}
