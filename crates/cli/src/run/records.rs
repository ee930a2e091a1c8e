//! The loop over windows of records.

use std::{
    io,
    mem::{self, Discriminant},
    path::PathBuf,
    sync::Arc,
};

use elgen_engine::{
    EngineError, Events, FinishReason, Generation, Input, Notice, Request, RunOptions, Session, StreamedToken,
};
use elgen_search::GenerationConfig;

use super::needs;
use crate::{
    console::Console,
    error::{CliError, one_line},
    flags::{Names, TextFlags, name_flags},
    input::{Content, Place, Record, RecordId, RecordReader},
    interrupt::Interrupt,
    output::{OrderedWriter, Outcome},
    resume::Output,
    stream::{StreamWriter, Token},
};

/// Records in a window, in the long run: enough for the engine to sort by length.
const WINDOW_RECORDS: usize = 1024;
/// Batches in a window, in the long run.
const WINDOW_BATCHES: usize = 64;

/// Whether a run was cancelled while the record ran.
fn is_cut_short(generation: &Generation) -> bool {
    generation.sequences.iter().any(|sequence| sequence.finish_reason == FinishReason::Cancelled)
}

/// How a run ended that did not fail as a whole.
pub(super) enum End {
    Done,
    Interrupted,
    PipeClosed,
}

/// Where results go.
pub(super) enum Writer {
    /// In input order, as they end.
    Ordered(OrderedWriter),
    /// While they grow.
    Stream(StreamWriter),
}

impl Writer {
    fn put(&mut self, origin: &Origin, outcome: &Outcome) -> io::Result<()> {
        match self {
            Writer::Ordered(writer) => writer.put(origin.index, &origin.id, outcome),
            Writer::Stream(writer) => writer.put(origin.index, &origin.id, outcome),
        }
    }
}

/// Where a record that the model runs came from.
struct Origin {
    index: u64,
    line: Place,
    id: RecordId,
    /// What its output continues, to be shown before it.
    continued: String,
}

/// Everything between the reader and the writer.
pub(super) struct Run {
    pub(super) console: Console,
    pub(super) reader: RecordReader,
    pub(super) writer: Writer,
    /// The output, if it is a file.
    pub(super) file: Option<Output>,
    /// The output's name in messages.
    pub(super) output: PathBuf,
    pub(super) interrupt: Arc<Interrupt>,
    /// Names of the options that were typed.
    pub(super) typed: Names,
    /// Records that failed, those of the interrupted run included.
    pub(super) failed: u64,
    pub(super) write_error: Option<io::Error>,
    /// What outputs must begin with, where a record says nothing else.
    pub(super) prefix: Option<String>,
    /// What stands before each source text.
    pub(super) source_prefix: Option<String>,
    /// Kinds of notices that were told.
    pub(super) told: Vec<Discriminant<Notice>>,
    /// Records failed because memory was short.
    pub(super) short: bool,
}

/// What the engine tells of one window.
struct WindowEvents<'a> {
    run: &'a mut Run,
    origins: &'a [Origin],
}

impl Events for WindowEvents<'_> {
    fn done(&mut self, index: usize, result: Result<Generation, EngineError>) {
        if let Some(origin) = self.origins.get(index) {
            self.run.take(origin, result);
        }
    }

    fn token(&mut self, token: &StreamedToken) {
        if let Some(origin) = self.origins.get(token.index) {
            self.run.token(origin, Token { id: token.token_id, logprob: token.logprob, text: &token.text });
        }
    }

    fn notice(&mut self, notice: &Notice) {
        let kind = mem::discriminant(notice);
        if !self.run.told.contains(&kind) {
            self.run.told.push(kind);
            self.run.console.warning(&notice.to_string());
        }
    }
}

impl Run {
    /// Runs all records that the reader still gives.
    pub(super) fn all(
        &mut self,
        session: &mut Session,
        config: &GenerationConfig,
        options: &RunOptions,
        batch_size: usize,
    ) -> Result<End, CliError> {
        // A window's first result may be its last to come: small windows at first show results early, and streaming takes
        // one input after another.
        let (mut window, largest) = match self.writer {
            // Who types waits for an answer.
            _ if self.reader.waits_for_terminal() => (1, 1),
            Writer::Ordered(_) => (batch_size, batch_size.saturating_mul(WINDOW_BATCHES).max(WINDOW_RECORDS)),
            Writer::Stream(_) => (1, 1),
        };
        loop {
            let records = self.reader.window(window).map_err(|source| CliError::File {
                action: "read",
                path: self.reader.name().into(),
                source,
            })?;
            for warning in self.reader.take_warnings() {
                self.console.warning(&warning);
            }
            if let Some(total) = self.reader.total() {
                self.console.set_total(total);
            }
            let interrupt = Arc::clone(&self.interrupt);
            let result = interrupt.guard(|| self.window(records, session, config, options));
            if let Some(source) = self.write_error.take() {
                if source.kind() == io::ErrorKind::BrokenPipe {
                    return Ok(End::PipeClosed);
                }
                return Err(CliError::File { action: "write", path: self.output.clone(), source });
            }
            if self.interrupt.was_asked() {
                return Ok(End::Interrupted);
            }
            result?;
            if self.reader.total().is_some() {
                return Ok(End::Done);
            }
            window = window.saturating_mul(2).min(largest);
        }
    }

    fn window(
        &mut self,
        records: Vec<Record>,
        session: &mut Session,
        config: &GenerationConfig,
        options: &RunOptions,
    ) -> Result<(), EngineError> {
        let mut requests = Vec::with_capacity(records.len());
        let mut origins = Vec::with_capacity(records.len());
        for Record { index, line, id, content } in records {
            let mut origin = Origin { index, line, id, continued: String::new() };
            match content.map(|content| content.behind(self.source_prefix.as_deref())) {
                Ok(Content::Run { input, prefix, .. }) => {
                    let prefix = prefix.or_else(|| self.prefix.clone().map(Input::Text));
                    if let Writer::Stream(writer) = &self.writer
                        && writer.echoes()
                    {
                        origin.continued = [Some(&input), prefix.as_ref()].into_iter().flatten().map(text_of).collect();
                    }
                    requests.push(Request { ordinal: index, input, prefix });
                    origins.push(origin);
                }
                Ok(Content::Empty) => self.finish(&origin, &Outcome::Empty),
                Err(message) => self.finish(&origin, &Outcome::Failed(message)),
            }
        }
        if requests.is_empty() || self.interrupt.is_cancelled() {
            return Ok(());
        }
        session.generate(&requests, config, options, &mut WindowEvents { run: self, origins: &origins })
    }

    fn take(&mut self, origin: &Origin, result: Result<Generation, EngineError>) {
        match result {
            // What there was at an interrupt is no complete record: a run that is resumed makes it anew.
            Ok(generation) if is_cut_short(&generation) => {}
            Ok(generation) => self.finish(origin, &Outcome::Done(generation)),
            // Not reached; why is told once, at the end of the run.
            Err(EngineError::Cancelled | EngineError::Batch(_)) => {}
            Err(error) => {
                self.short |= needs::is_short(&error);
                let message = name_flags(&TextFlags::name(&one_line(&error)), &self.typed).0;
                self.finish(origin, &Outcome::Failed(message));
            }
        }
    }

    fn token(&mut self, origin: &Origin, token: Token<'_>) {
        if let Writer::Stream(writer) = &mut self.writer
            && self.write_error.is_none()
            && let Err(error) = writer.token(&origin.id, &origin.continued, token)
        {
            self.write_error = Some(error);
            self.interrupt.cancel();
        }
    }

    fn finish(&mut self, origin: &Origin, outcome: &Outcome) {
        if self.write_error.is_some() {
            return;
        }
        if let Outcome::Failed(message) = outcome {
            self.failed += 1;
            self.console.error(&format!("{}: {message}", self.reader.place(origin.line)));
            if let Some(file) = &self.file {
                file.failed(origin.index);
            }
        }
        self.console.finished_one();
        if let Err(error) = self.writer.put(origin, outcome) {
            self.write_error = Some(error);
            self.interrupt.cancel();
        }
    }
}

/// The text of an input that has one.
fn text_of(input: &Input) -> &str {
    match input {
        Input::Text(text) => text,
        Input::Ids(_) => "",
    }
}
