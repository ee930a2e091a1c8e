//! Where results go, and how an output ends.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use elgen_engine::Metrics;

use super::{
    agreement::add_loaded,
    plan::{Destination, Echo, Input},
};
use crate::{
    console::Console,
    error::CliError,
    files,
    input::{Changed, RecordId, RecordReader, Survey},
    output::{Layout, OrderedWriter, Outcome},
    resume::{self, Found, Output},
    stream::StreamWriter,
};

/// An open output and its state.
pub(super) struct Target {
    pub(super) writer: Writer,
    /// The output, if it is a file.
    pub(super) file: Option<Output>,
    /// Its name in messages.
    pub(super) name: PathBuf,
}

/// What writes results as they end.
pub(super) enum Writer {
    /// In input order.
    Ordered(OrderedWriter),
    /// While they grow.
    Stream(StreamWriter),
}

impl Writer {
    /// A writer whose first record has the number `next`.
    fn new(sink: Box<dyn Write>, layout: Layout, stream: Option<Echo>, next: u64) -> Self {
        match stream {
            Some(Echo(echo)) => Writer::Stream(StreamWriter::new(sink, layout, echo)),
            None => Writer::Ordered(OrderedWriter::new(sink, layout, next)),
        }
    }

    /// Takes what became of a record.
    pub(super) fn put(&mut self, index: u64, id: &RecordId, outcome: &Outcome) -> io::Result<()> {
        match self {
            Writer::Ordered(writer) => writer.put(index, id, outcome),
            Writer::Stream(writer) => writer.put(index, id, outcome),
        }
    }
}

impl Target {
    /// Opens the output of a run, or continues what was found of it with the first record of `reader` that is not in it.
    ///
    /// # Errors
    /// The output cannot be written, or not be continued.
    pub(super) fn open(
        destination: Destination,
        input: &mut Input,
        loaded: &Metrics,
        console: &Console,
    ) -> Result<Target, CliError> {
        let Destination { path, layout, stream, mut setup, found } = destination;
        let Some(path) = path else {
            let writer = Writer::new(files::results(), layout, stream, 0);
            return Ok(Target { writer, file: None, name: "<stdout>".into() });
        };
        if let Some(setup) = &mut setup {
            add_loaded(setup, loaded);
        }
        let output = match (found, &setup) {
            (Found::Part(part), Some(setup)) => part.go_on(setup, layout.lines_per_record())?,
            (_, setup) => {
                let (output, warning) = resume::start(&path, setup.as_ref(), layout.lines_per_record())?;
                if let Some(warning) = warning {
                    console.warning(&warning);
                }
                output
            }
        };
        let records = output.records();
        skip_done(&mut input.reader, records, &path)?;
        if records > 0 {
            let of = input.total.map_or_else(String::new, |total| format!(" of {total}"));
            console.note(&format!("resuming {} at record {}{of}", path.display(), records + 1));
        }
        let writer = Writer::new(Box::new(output.clone()), layout, stream, records);
        Ok(Target { writer, file: Some(output), name: path })
    }

    /// Records that stand in the output, and those of them that failed.
    pub(super) fn so_far(&self) -> (u64, u64) {
        self.file.as_ref().map_or((0, 0), |file| (file.records(), file.failures()))
    }
}

/// Passes over the inputs whose results stand in the output.
fn skip_done(reader: &mut RecordReader, records: u64, output: &Path) -> Result<(), CliError> {
    let skipped =
        reader.skip(records).map_err(|source| CliError::File { action: "read", path: reader.name().into(), source })?;
    if skipped < records {
        return Err(CliError::Failed(format!(
            "--resume: {} holds {records} records, {} only {skipped}; run without --resume to start anew",
            output.display(),
            reader.name()
        )));
    }
    Ok(())
}

/// Ends a run that has written all of its records: brings an output to the disk, unless the input is not what the run began with.
///
/// # Errors
/// The input was changed, or the output removed, while the run went on; the system refuses.
pub(super) fn complete(
    output: &Output,
    input: Option<&(PathBuf, Survey)>,
    reader: &RecordReader,
    console: &Console,
) -> Result<(), CliError> {
    match input.and_then(|(path, survey)| reader.changed_since(survey, path)) {
        Some(Changed::Content(how)) => {
            output.interrupted()?;
            return Err(CliError::Failed(format!("{} {how}; the output is not complete", reader.name())));
        }
        Some(Changed::Name(how)) => console.warning(&format!("{}: {how}; all of it was read", reader.name())),
        None => {}
    }
    if let Some(warning) = output.complete()? {
        console.warning(&warning);
    }
    Ok(())
}
