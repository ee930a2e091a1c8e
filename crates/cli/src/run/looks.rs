//! How results are to look, and what of that cannot be.

use elgen_engine::ModelDescription;
use elgen_search::GenerationConfig;

use super::named::output_path;
use crate::{
    error::CliError,
    flags::{EngineFlags, FileFlags, Names, name_flags},
    output::{Layout, OutputFormat},
    terminal::{self, Look, Terminal},
};

/// How results are to be written.
pub(super) fn layout(files: &FileFlags, config: &GenerationConfig) -> Layout {
    Layout {
        format: output_format(files),
        with_scores: files.with_scores == Some(true),
        sequences: config.num_return_sequences,
        token_logprobs: files.token_logprobs == Some(true),
        raw: false,
    }
}

fn output_format(files: &FileFlags) -> OutputFormat {
    let by_name = || output_path(files).map_or(OutputFormat::Text, OutputFormat::of_path);
    files.format.unwrap_or_else(by_name)
}

/// How texts are shown, and whether that is possible.
pub(super) fn look(files: &FileFlags, model: &ModelDescription) -> Result<Look, CliError> {
    let stream = files.stream == Some(true);
    let refuse = |reason: String| Err(CliError::Usage(format!("--echo: {reason}")));
    match files.echo {
        Some(true) if !stream => return refuse("needs --stream".to_owned()),
        Some(true) if model.limits.is_encoder_decoder => {
            return refuse(format!("is for decoder-only models; {} has an encoder", model.dir().display()));
        }
        Some(true) if output_format(files) != OutputFormat::Text => {
            return refuse("needs --format text".to_owned());
        }
        _ => {}
    }
    let asked = terminal::Asked { raw: files.raw, echo: files.echo };
    // What goes to a file is not seen.
    let seen = if output_path(files).is_none() { Terminal::of_process() } else { Terminal::default() };
    Ok(seen.look(output_format(files), stream, !model.limits.is_encoder_decoder, asked))
}

/// Refuses texts with real line ends where a record must be a line.
pub(super) fn check_raw(files: &FileFlags) -> Result<(), CliError> {
    if files.raw != Some(true) {
        return Ok(());
    }
    let reason = if output_path(files).is_some() {
        "writes to stdout; a file has a line for each text"
    } else if output_format(files) != OutputFormat::Text {
        "needs --format text"
    } else {
        return Ok(());
    };
    Err(CliError::Usage(format!("--raw: {reason}")))
}

/// Refuses to stream what is not one growing text on stdout.
pub(super) fn check_stream(files: &FileFlags, config: &GenerationConfig, typed: &Names) -> Result<(), CliError> {
    let refuse = |reason: String| Err(CliError::Usage(format!("--stream: {}", name_flags(&reason, typed).0)));
    if output_path(files).is_some() {
        return refuse("writes to stdout; not with --output FILE".to_owned());
    }
    if config.num_beams > 1 {
        return refuse(format!(
            "not with beam search, which decides late about early tokens (num_beams is {}); give --num-beams 1",
            config.num_beams
        ));
    }
    if config.num_return_sequences > 1 {
        let sequences = config.num_return_sequences;
        return refuse(format!("writes one text for each input (num_return_sequences is {sequences})"));
    }
    let format = layout(files, config).format;
    if files.with_scores == Some(true) && format == OutputFormat::Text {
        return refuse("not with --with-scores, a score is known at the end; use --format jsonl".to_owned());
    }
    if format == OutputFormat::Moses {
        return refuse("not with --format moses, a score is known at the end; use --format jsonl".to_owned());
    }
    Ok(())
}

/// Refuses alignments that the output has no place for or the model cannot give.
pub(crate) fn check_alignment(files: &FileFlags, model: &ModelDescription) -> Result<(), CliError> {
    let Some(layer) = files.alignment else { return Ok(()) };
    if output_format(files) != OutputFormat::Jsonl {
        return Err(CliError::Usage("--alignment: text output has no place for it; use --format jsonl".to_owned()));
    }
    match model.config.alignment_layer(layer) {
        Ok(_) => Ok(()),
        Err(error) => Err(CliError::Usage(format!("--alignment: {error}"))),
    }
}

/// What was typed and has no effect.
pub(super) fn idle_flags(files: &FileFlags, engine: &EngineFlags, layout: Layout) -> Vec<&'static str> {
    let mut idle = Vec::new();
    match layout.format {
        OutputFormat::Jsonl if layout.with_scores => {
            idle.push("--with-scores: has no effect with JSONL output, which always has scores");
        }
        OutputFormat::Moses if layout.with_scores => {
            idle.push("--with-scores: has no effect with --format moses, which always has scores");
        }
        OutputFormat::Text | OutputFormat::Moses if layout.token_logprobs => {
            idle.push("--token-logprobs: has no effect with text output; use --format jsonl");
        }
        _ => {}
    }
    if files.stream == Some(true) && engine.names_batch_size() {
        idle.push("--batch-size: has no effect with --stream, which runs one input at a time");
    }
    if files.truncate == Some(false) && files.max_source_length.is_some() {
        idle.push("--truncate=false: has no effect with --max-source-length, which cuts");
    }
    idle
}
