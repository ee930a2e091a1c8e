//! Arguments of `elgen tokenize`.

use std::path::PathBuf;

use clap::Args;

use super::{HubFlags, LanguageFlags, TextFlags};
use crate::input::RecordFormat;

const HELP: &str = "\
Input: one UTF-8 text per line, or with --decode one sequence of token ids per
line, separated by spaces or commas. JSONL: one object per line, blank lines
skipped: {\"id\": any?, \"text\": \"…\"} or {\"id\": any?, \"input_ids\": [0, 42, 2]};
either is turned into the other.

Text output: one line per input, in input order: the ids separated by spaces;
with --tokens the tokens as the vocabulary writes them; with --count their
number; with --decode the text, in which newlines, carriage returns and
backslashes are written \\n, \\r, \\\\. A line that fails is an empty line and an
error on stderr that names the input's file and line.

JSONL output: {\"id\": …, \"ids\": […], \"tokens\": […]}, for ids given also \"text\";
with --count {\"id\": …, \"count\": n}; for a failed line {\"id\": …, \"error\": \"…\"}

Exit codes: 0 all done; 1 something failed, one line at least; 2 wrong usage.
A closed output pipe ends the run quietly. Weights and GPU are not needed.";

/// Arguments of `elgen tokenize`.
#[derive(Debug, Args)]
#[command(after_long_help = HELP, after_help = "More, with the formats: elgen tokenize --help")]
pub(crate) struct TokenizeArgs {
    /// Model directory, any directory with a tokenizer's files, or the name of a model on the hub: OWNER/NAME
    #[arg(short, long, value_name = "DIR|NAME")]
    pub(crate) model: PathBuf,

    /// Texts (with --decode: token ids), instead of --input
    #[arg(value_name = "TEXT")]
    pub(crate) texts: Vec<String>,

    /// File of texts, ids or records; `-` is stdin, the default
    #[arg(short, long, value_name = "FILE", conflicts_with = "texts")]
    pub(crate) input: Option<PathBuf>,

    /// Format of the input [default: jsonl for a file ending in .jsonl, else text]
    #[arg(long, value_name = "FORMAT", conflicts_with = "texts")]
    pub(crate) input_format: Option<RecordFormat>,

    /// Format of the output
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = RecordFormat::Text)]
    pub(crate) format: RecordFormat,

    /// Lines of input are token ids; print their texts
    #[arg(long, conflicts_with_all = ["tokens", "count"])]
    pub(crate) decode: bool,

    /// No special tokens: none around a text, none in a decoded one
    #[arg(long)]
    pub(crate) no_special_tokens: bool,

    /// Print tokens instead of ids; whitespace and backslashes in them are escaped
    #[arg(long)]
    pub(crate) tokens: bool,

    /// Print the number of tokens
    #[arg(long, conflicts_with = "tokens")]
    pub(crate) count: bool,

    #[command(flatten)]
    pub(crate) text: TextFlags,

    #[command(flatten)]
    pub(crate) hub: HubFlags,

    #[command(flatten)]
    pub(crate) languages: LanguageFlags,
}
