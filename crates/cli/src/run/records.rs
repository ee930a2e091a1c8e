//! The loop over windows of records.

use std::{
    io,
    mem::{self, Discriminant},
    time::Instant,
};

use elgen_engine::{
    EngineError, Events, FinishReason, Generation, Input as Source, Notice, Request, Session, StreamedToken,
};

use super::{
    needs,
    plan::{Input, Reports, Work},
    target::{self, Target, Writer},
};
use crate::{
    console::Console,
    error::{CliError, one_line},
    files::write_whole,
    flags::{TextFlags, name_flags},
    input::{Content, Place, Record, RecordId},
    output::Outcome,
    progress::Progress,
    report,
    stream::Token,
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

/// Where a record that the model runs came from.
struct Origin {
    index: u64,
    line: Place,
    id: RecordId,
    /// What its output continues, to be shown before it.
    continued: String,
}

/// Everything between the reader and the writer.
pub(super) struct Run<'a> {
    work: &'a Work,
    input: Input,
    target: Target,
    reports: Reports,
    console: Console,
    /// Records that failed, those of the interrupted run included.
    failed: u64,
    write_error: Option<io::Error>,
    /// Kinds of notices that were told.
    told: Vec<Discriminant<Notice>>,
    /// Records failed because memory was short.
    short: bool,
}

/// What the engine tells of one window.
struct WindowEvents<'a, 'w> {
    run: &'a mut Run<'w>,
    origins: &'a [Origin],
}

impl Events for WindowEvents<'_, '_> {
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

impl<'a> Run<'a> {
    pub(super) fn new(work: &'a Work, input: Input, target: Target, reports: Reports, mut console: Console) -> Self {
        let (records, failed) = target.so_far();
        if reports.progress {
            console.start_progress(Progress::new(Instant::now(), records, input.total));
        }
        Run { work, input, target, reports, console, failed, write_error: None, told: Vec::new(), short: false }
    }

    /// Runs all records that the reader still gives, and reports; returns the exit code.
    pub(super) fn all(mut self, session: &mut Session) -> Result<u8, CliError> {
        let end = self.windows(session).map_err(|error| self.work.name_need(error));
        self.console.end_progress();
        let metrics = session.metrics();
        if self.reports.stats {
            self.console.line(report::table(&metrics, self.failed).trim_end());
        }
        if self.short
            && let Some(least) = self.work.least_memory()
        {
            let needed = format!("this run needs at least {least} (elgen plan has the sums)");
            self.console.warning(&format!("memory was short: {needed}"));
        }
        let written = match &self.reports.stats_json {
            Some(path) => write_whole(path, &report::json(&metrics)?),
            None => Ok(()),
        };
        let end = end?;
        written?;
        match end {
            End::Interrupted => {
                self.console.line("interrupted");
                if let Some(file) = &self.target.file {
                    file.interrupted()?;
                    if file.is_resumable() {
                        self.console.note("the same command with --resume continues");
                    }
                }
                return Ok(1);
            }
            End::Done => {
                if let Some(file) = &self.target.file {
                    target::complete(file, self.input.surveyed.as_ref(), &self.input.reader, &self.console)?;
                }
            }
            End::PipeClosed => {}
        }
        Ok(u8::from(self.failed > 0))
    }

    fn windows(&mut self, session: &mut Session) -> Result<End, CliError> {
        let (work, batch_size) = (self.work, self.work.first_window);
        // A window's first result may be its last to come: small windows at first show results early, and streaming takes
        // one input after another.
        let (mut window, largest) = match self.target.writer {
            // Who types waits for an answer.
            _ if self.input.reader.waits_for_terminal() => (1, 1),
            Writer::Ordered(_) => (batch_size, batch_size.saturating_mul(WINDOW_BATCHES).max(WINDOW_RECORDS)),
            Writer::Stream(_) => (1, 1),
        };
        loop {
            let records = self.input.reader.window(window).map_err(|source| CliError::File {
                action: "read",
                path: self.input.reader.name().into(),
                source,
            })?;
            for warning in self.input.reader.take_warnings() {
                self.console.warning(&warning);
            }
            if let Some(total) = self.input.reader.total() {
                self.console.set_total(total);
            }
            let result = work.interrupt.guard(|| self.window(records, session));
            if let Some(source) = self.write_error.take() {
                if source.kind() == io::ErrorKind::BrokenPipe {
                    return Ok(End::PipeClosed);
                }
                return Err(CliError::File { action: "write", path: self.target.name.clone(), source });
            }
            if self.work.interrupt.was_asked() {
                return Ok(End::Interrupted);
            }
            result?;
            if self.input.reader.total().is_some() {
                return Ok(End::Done);
            }
            window = window.saturating_mul(2).min(largest);
        }
    }

    fn window(&mut self, records: Vec<Record>, session: &mut Session) -> Result<(), EngineError> {
        let mut requests = Vec::with_capacity(records.len());
        let mut origins = Vec::with_capacity(records.len());
        for Record { index, line, id, content } in records {
            let mut origin = Origin { index, line, id, continued: String::new() };
            match content.map(|content| content.behind(self.input.source_prefix.as_deref())) {
                Ok(Content::Run { input, prefix, .. }) => {
                    let prefix = prefix.or_else(|| self.input.prefix.clone().map(Source::Text));
                    if let Writer::Stream(writer) = &self.target.writer
                        && writer.echoes()
                    {
                        origin.continued = [Some(&input), prefix.as_ref()].into_iter().flatten().map(text_of).collect();
                    }
                    let request = Request::new(index, input);
                    requests.push(match prefix {
                        Some(prefix) => request.with_prefix(prefix),
                        None => request,
                    });
                    origins.push(origin);
                }
                Ok(Content::Empty) => self.finish(&origin, &Outcome::Empty),
                Err(message) => self.finish(&origin, &Outcome::Failed(message)),
            }
        }
        if requests.is_empty() || self.work.interrupt.is_cancelled() {
            return Ok(());
        }
        let work = self.work;
        session.generate(&requests, &work.config, &work.options, &mut WindowEvents { run: self, origins: &origins })
    }

    fn take(&mut self, origin: &Origin, result: Result<Generation, EngineError>) {
        match result {
            // What there was at an interrupt is no complete record: a run that is resumed makes it anew.
            Ok(generation) if is_cut_short(&generation) => {}
            Ok(generation) => self.finish(origin, &Outcome::Done(generation)),
            // Not reached; why is told once, at the end of the run.
            Err(EngineError::Cancelled | EngineError::Batch { .. }) => {}
            Err(error) => {
                self.short |= needs::is_short(&error);
                let message = name_flags(&TextFlags::name(&one_line(&error)), &self.work.typed).0;
                self.finish(origin, &Outcome::Failed(message));
            }
        }
    }

    fn token(&mut self, origin: &Origin, token: Token<'_>) {
        if let Writer::Stream(writer) = &mut self.target.writer
            && self.write_error.is_none()
            && let Err(error) = writer.token(&origin.id, &origin.continued, token)
        {
            self.write_error = Some(error);
            self.work.interrupt.cancel();
        }
    }

    fn finish(&mut self, origin: &Origin, outcome: &Outcome) {
        if self.write_error.is_some() {
            return;
        }
        if let Outcome::Failed(message) = outcome {
            self.failed += 1;
            self.console.error(&format!("{}: {message}", self.input.reader.place(origin.line)));
            if let Some(file) = &self.target.file {
                file.failed(origin.index);
            }
        }
        self.console.finished_one();
        if let Err(error) = self.target.writer.put(origin.index, &origin.id, outcome) {
            self.write_error = Some(error);
            self.work.interrupt.cancel();
        }
    }
}

/// The text of an input that has one.
fn text_of(input: &Source) -> &str {
    match input {
        Source::Text(text) => text,
        _ => "",
    }
}
