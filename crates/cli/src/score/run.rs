//! The loop over windows of records.

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use elgen_engine::{
    CorpusScore, EngineError, Notice, RunComparison, RunFileError, RunOptions, RunWriter, ScoreInput, ScoreRequest,
    Session, TargetScore, WholeText,
};
use elgen_search::GenerationConfig;

use super::{
    lines::{Layout, Outcome},
    pairs::Pairs,
};
use crate::{
    console::Console,
    error::{CliError, one_line},
    flags::TextFlags,
    input::{Content, Record, RecordId},
    interrupt::Interrupt,
};

/// Records in a window, in the long run: enough for the engine to sort by length.
const WINDOW_RECORDS: usize = 1024;
/// Batches in a window, in the long run.
const WINDOW_BATCHES: usize = 64;

/// What becomes of the rows of log-probabilities.
pub(super) enum Rows {
    None,
    Save(RunWriter),
    Compare(Box<RunComparison>),
}

impl Rows {
    fn row(&mut self, record: usize, place: usize, row: &[f32]) -> Result<(), RunFileError> {
        match self {
            Rows::None => Ok(()),
            Rows::Save(run) => run.row(record, place, row),
            Rows::Compare(comparison) => comparison.row(record, place, row),
        }
    }

    fn end_record(&mut self, id: &RecordId, score: Option<&TargetScore>) -> Result<(), CliError> {
        let id = serde_json::to_string(id).map_err(|error| CliError::Failed(error.to_string()))?;
        let ended = match self {
            Rows::None => Ok(()),
            Rows::Save(run) => run.end_record(&id, score),
            Rows::Compare(comparison) => comparison.end_record(&id, score),
        };
        ended.map_err(failed)
    }
}

/// A run file's error as the command's.
pub(super) fn failed(error: RunFileError) -> CliError {
    CliError::Failed(one_line(&error))
}

/// How a run ended that did not fail as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Interrupted,
    PipeClosed,
}

/// Everything between the reader and the writer.
pub(super) struct Run {
    pub(super) console: Console,
    pub(super) pairs: Pairs,
    /// How decoder-only models score a text; `None` for encoder-decoder models.
    pub(super) whole: Option<WholeText>,
    pub(super) sink: Box<dyn Write>,
    /// The output's name in messages.
    pub(super) output: PathBuf,
    /// What stands before each source text.
    pub(super) source_prefix: Option<String>,
    pub(super) layout: Layout,
    /// The columns' names, if they are still to be written.
    pub(super) header: Option<&'static str>,
    pub(super) rows: Rows,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) corpus: CorpusScore,
    pub(super) failed: u64,
    /// Whether it was told that memory ran out.
    pub(super) told_memory: bool,
}

impl Run {
    /// Scores all records that the reader still gives.
    pub(super) fn all(
        &mut self,
        session: &mut Session,
        config: &GenerationConfig,
        options: &RunOptions,
        batch_size: usize,
    ) -> Result<End, CliError> {
        // Who types waits for an answer.
        let typed = self.pairs.waits_for_terminal();
        let largest = if typed { 1 } else { batch_size.saturating_mul(WINDOW_BATCHES).max(WINDOW_RECORDS) };
        let mut window = batch_size.min(largest);
        while self.pairs.total().is_none() {
            let records = self.pairs.window(window)?;
            for warning in self.pairs.take_warnings() {
                self.console.warning(&warning);
            }
            if let Some(total) = self.pairs.total() {
                self.console.set_total(total);
            }
            let interrupt = Arc::clone(&self.interrupt);
            let result = interrupt.guard(|| self.window(records, session, config, options));
            match result {
                Err(CliError::File { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
                    if matches!(self.rows, Rows::None) {
                        return Ok(End::PipeClosed);
                    }
                    // The run that is saved or compared is wanted still.
                    self.sink = Box::new(io::sink());
                }
                _ if self.interrupt.was_asked() => return Ok(End::Interrupted),
                other => other?,
            }
            window = window.saturating_mul(2).min(largest);
        }
        Ok(End::Done)
    }

    fn window(
        &mut self,
        records: Vec<Record>,
        session: &mut Session,
        config: &GenerationConfig,
        options: &RunOptions,
    ) -> Result<(), CliError> {
        let mut inputs = Vec::with_capacity(records.len());
        // Of each input the record's number.
        let mut numbers = Vec::with_capacity(records.len());
        let mut origins = Vec::with_capacity(records.len());
        for Record { index, line, id, content } in records {
            // A text without a target is no source.
            let prefix =
                self.source_prefix.as_deref().filter(|_| matches!(&content, Ok(Content::Run { target: Some(_), .. })));
            let outcome = match content.map(|content| content.behind(prefix)) {
                Ok(Content::Run { input, target, .. }) => {
                    inputs.push(match (target, &self.whole) {
                        (Some(target), _) => ScoreRequest { source: input, target }.into(),
                        (None, whole) => ScoreInput::Whole(input, whole.clone().unwrap_or_default()),
                    });
                    numbers.push(index as usize);
                    None
                }
                Ok(Content::Empty) => Some(Outcome::Empty),
                Err(message) => Some(Outcome::Failed(message)),
            };
            origins.push((line, id, outcome));
        }
        let mut scores = self.scores(&inputs, &numbers, session, config, options)?.into_iter();
        let mut lines = self.header.take().map_or_else(Vec::new, |header| header.as_bytes().to_vec());
        for (line, id, outcome) in origins {
            let outcome = outcome.unwrap_or_else(|| match scores.next() {
                Some(Ok(score)) => Outcome::Scored(score),
                Some(Err(error)) => Outcome::Failed(TextFlags::name(&one_line(&error))),
                None => Outcome::Failed(EngineError::Cancelled.to_string()),
            });
            match &outcome {
                Outcome::Scored(score) => self.corpus.add(score),
                Outcome::Empty => {}
                Outcome::Failed(message) => {
                    self.failed += 1;
                    self.console.error(&format!("{}: {message}", self.pairs.place(line)));
                }
            }
            let score = if let Outcome::Scored(score) = &outcome { Some(score) } else { None };
            self.rows.end_record(&id, score)?;
            let rendered = self.layout.render(&id, &outcome, session.tokenizer());
            lines.extend(rendered.map_err(|source| self.write_error(source))?);
            self.console.finished_one();
        }
        let written = self.sink.write_all(&lines).and_then(|()| self.sink.flush());
        written.map_err(|source| self.write_error(source))
    }

    fn write_error(&self, source: io::Error) -> CliError {
        CliError::File { action: "write", path: self.output.clone(), source }
    }

    fn scores(
        &mut self,
        inputs: &[ScoreInput],
        numbers: &[usize],
        session: &mut Session,
        config: &GenerationConfig,
        options: &RunOptions,
    ) -> Result<Vec<Result<TargetScore, EngineError>>, CliError> {
        let told = &mut self.told_memory;
        let console = &self.console;
        let mut notice = |notice: &Notice| {
            if !std::mem::replace(told, true) {
                console.warning(&notice.to_string());
            }
        };
        if let Rows::None = self.rows {
            return Ok(session.score_with(inputs, config, options, None, &mut notice)?);
        }
        let mut refused = None;
        let mut see = |input: usize, place: usize, row: &[f32]| {
            if refused.is_none()
                && let Err(error) = self.rows.row(numbers[input], place, row)
            {
                refused = Some(error);
                self.interrupt.cancel();
            }
        };
        let scores = session.score_with(inputs, config, options, Some(&mut see), &mut notice);
        match refused {
            Some(error) => Err(failed(error)),
            None => Ok(scores?),
        }
    }
}
