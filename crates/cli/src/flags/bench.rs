//! Flags of `elgen bench`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, builder::PossibleValuesParser};
use elgen_engine::bench::{BatchRows, PRESETS};

use super::{
    attention::{AttentionFlag, AttentionParser},
    engine::DtypeFlag,
    formats::FormatFlags,
    values,
};

const HELP: &str = "\
A row is measured for each model, kind, dtype, source length, number of new tokens,
number of beams and batch size: one run to warm up, then --repetitions. Outputs are
forced to their length, so that every row of a column does the same work.

Built-in configs: bart-large, bart-base, transformer-270m, gpt2, gpt2-medium,
gpt2-large, gpt2-xl, t5-small, t5-base. Presets have the lengths, beams and penalties
of the EL-attention paper; columns that are not the paper's are named in `ours`.

What does not fit into memory is a row that says OOM, what fails one that says why;
the others are measured all the same.

With --output, the file is written anew after each row, and the same command goes on
where the file ends. For formats other than json, the rows so far lie beside the file
as FILE.elgen-bench until all are there. A file that is complete is not measured
again: remove it first.

Columns and how to read them: docs/bench.md.

Exit codes: 0 measured (OOM included), or the time budget is spent; 1 a row failed;
2 wrong usage.";

/// Arguments of `elgen bench`.
#[derive(Debug, Args)]
#[command(after_long_help = HELP, after_help = "More, with the rows and files: elgen bench --help")]
pub(crate) struct BenchArgs {
    /// Model directory; repeat it for several
    #[arg(short, long, value_name = "DIR")]
    pub(crate) model: Vec<PathBuf>,

    /// Model of random weights, made on the device: a config.json, or the name of a built-in config; repeat it for several
    #[arg(short, long, value_name = "FILE|NAME")]
    pub(crate) config: Vec<String>,

    /// The weights of --config are random; they always are, a config has none
    #[arg(long, requires = "config")]
    pub(crate) random_weights: bool,

    /// Divide the widths and the vocabulary of configs by N, for adapters that are too slow for the full size
    #[arg(long, value_name = "N", value_parser = values::positive, default_value = "1", allow_negative_numbers = true)]
    pub(crate) scale: usize,

    /// A task of the EL-attention paper; repeat it for several. Flags below replace its values
    #[arg(short, long, value_name = "NAME", value_parser = PossibleValuesParser::new(PRESETS.map(|preset| preset.name)))]
    pub(crate) preset: Vec<String>,

    /// Write the rows of a JSON report again, in --format and as --plot, and measure nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "config", "preset"])]
    pub(crate) from: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) rows: RowFlags,

    #[command(flatten)]
    pub(crate) runs: RunFlags,

    #[command(flatten)]
    pub(crate) report: BenchReportFlags,
}

/// What the rows of the table are.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rows")]
pub(crate) struct RowFlags {
    /// Attention kinds [default: all that the model can have]
    #[arg(long, value_name = "LIST", value_parser = AttentionParser::default(), value_delimiter = ',')]
    pub(crate) attention: Vec<AttentionFlag>,

    /// Numbers of beams [default: 1,4]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::positive, allow_negative_numbers = true)]
    pub(crate) num_beams: Vec<usize>,

    /// Sentences together; max: as many as the memory limit allows [default: 1,8,32,max; presets: 32,max]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = batch_rows, allow_negative_numbers = true)]
    pub(crate) batch_size: Vec<BatchRows>,

    /// Lengths of the sources; prompt lengths of decoder-only models [default: 128]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::positive, allow_negative_numbers = true)]
    pub(crate) source_length: Vec<usize>,

    /// Take source lengths from the records of a JSONL file: of "input_ids", or of "text" in the model's tokens (in words where
    /// there is no tokenizer); cut to the positions, and to --source-length
    #[arg(long, value_name = "FILE")]
    pub(crate) lengths_from: Option<PathBuf>,

    /// Numbers of new tokens [default: 32]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = values::positive, allow_negative_numbers = true)]
    pub(crate) max_new_tokens: Vec<usize>,

    /// Storage of weights and caches [default: f32 on software adapters, else f16]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub(crate) dtype: Vec<DtypeFlag>,

    #[command(flatten)]
    pub(crate) formats: FormatFlags,
}

/// Where and how often.
#[derive(Debug, Args)]
#[command(next_help_heading = "Runs")]
pub(crate) struct RunFlags {
    /// Adapter: part of its name, or its number in `elgen devices` [default: the best one]
    #[arg(long, value_name = "DEVICE", allow_negative_numbers = true)]
    pub(crate) device: Option<String>,

    /// Memory that weights, caches and activations may take together, e.g. 16GiB [default: 90 % of what is free]
    #[arg(long, value_name = "SIZE", value_parser = values::bytes, allow_negative_numbers = true)]
    pub(crate) memory_limit: Option<u64>,

    /// Measured runs of a row
    #[arg(long, value_name = "N", value_parser = values::positive, default_value = "3", allow_negative_numbers = true)]
    pub(crate) repetitions: usize,

    /// No further repetition of a row begins after this long
    #[arg(long, value_name = "SECONDS", value_parser = values::finite, allow_negative_numbers = true)]
    pub(crate) row_seconds: Option<f64>,

    /// No further row begins after this long; the same command goes on later
    #[arg(long, value_name = "SECONDS", value_parser = values::finite, allow_negative_numbers = true)]
    pub(crate) time_budget: Option<f64>,

    /// Of random weights and source ids
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    pub(crate) seed: u64,
}

/// What becomes of the rows.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reports")]
pub(crate) struct BenchReportFlags {
    /// Format of the rows
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = BenchFormat::Table)]
    pub(crate) format: BenchFormat,

    /// File for the rows; `-` is stdout, the default
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// File for a plot of samples per second by kind and batch (SVG)
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,

    /// No progress and no warnings on stderr; errors remain
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchFormat {
    /// For people.
    Table,
    /// One JSON object with all there is to know.
    Json,
    /// Comma-separated values with a line of names.
    Csv,
    /// A table in Markdown.
    Md,
}

/// An integer of at least 1, or `max`.
fn batch_rows(text: &str) -> Result<BatchRows, String> {
    match values::positive(text) {
        _ if text == "max" => Ok(BatchRows::Largest),
        Ok(sentences) => Ok(BatchRows::Sentences(sentences)),
        Err(_) => Err("expected an integer of at least 1, or max".to_owned()),
    }
}
