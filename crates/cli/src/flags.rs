//! The command line as clap sees it.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use elgen_engine::Registry;

use crate::{color::ColorMode, console::ProgressMode, input::RecordFormat, output::OutputFormat};

mod attention;
mod bench;
mod engine;
mod eval;
mod formats;
mod generation;
mod hub;
mod language;
mod plan;
mod pull;
mod score;
mod tokenize;
mod values;

pub(crate) use attention::AttentionFlag;
use attention::AttentionParser;
pub(crate) use bench::{BenchArgs, BenchFormat};
pub(crate) use engine::{DtypeFlag, EngineFlags, TextFlags};
pub(crate) use eval::{EvalArgs, MetricFlag};
pub(crate) use formats::{FormatFlags, StorageFlag};
pub(crate) use generation::{GenerationFlags, Names, flag, name_flags, set_names};
pub(crate) use hub::HubFlags;
pub(crate) use language::LanguageFlags;
pub(crate) use plan::{PlanArgs, PlanFormat};
pub(crate) use pull::PullArgs;
pub(crate) use score::{ScoreArgs, WholeFlags};
pub(crate) use tokenize::TokenizeArgs;

const EXIT_CODES: &str = "\
Exit codes: 0 all done; 1 something failed, one record at least; 2 wrong usage.";

const COMPLETIONS_HELP: &str = "\
Where shells look for them:
  elgen completions bash > ~/.local/share/bash-completion/completions/elgen
  elgen completions zsh > \"${fpath[1]}/_elgen\"
  elgen completions fish > ~/.config/fish/completions/elgen.fish";

const MAN_HELP: &str = "\
Where `man` looks for it:
  elgen man > ~/.local/share/man/man1/elgen.1
  elgen man generate > ~/.local/share/man/man1/elgen-generate.1";

const GENERATE_HELP: &str = "\
Text input: one UTF-8 text per line. An empty line gives an empty output line
without running the model. With --whole-file each file is one text; its last line
end is not part of it. Several files (--input A --input B) are read one behind the
other, records numbered through; --resume goes on with one file of lines only.
On a terminal each line is answered before the next is read.

JSONL input: one object per line, blank lines skipped; other fields are ignored,
and named once:
  {\"id\": any?, \"text\": \"…\"}  or  {\"id\": any?, \"input_ids\": [0, 42, 2]}
A \"prefix\" (text, or token ids) is what the output must begin with. It follows the
decoder start token or the input, is not in the results, and counts for
--max-length.
An empty \"text\" runs through the model like any other.
A line, or a whole file, of more than 16 MiB is a failed record.
--source-prefix stands before each \"text\", on the encoder's side where there is one:
  --source-prefix \"translate English to German: \"

Text output: one line per input, in input order; with --num-return-sequences N,
N lines per input, best first (samples: in the order drawn).
Newlines, carriage returns and backslashes inside a text are written \\n, \\r, \\\\.
A failed record is an empty line (N lines), and a line on stderr that names the
input's file and line.

Moses output (--format moses): number ||| text ||| score, with N lines per input;
number is the input's, from 0. An empty input has N empty texts of score 0, a failed
record N empty lines.

JSONL output: one object per input, in input order:
  {\"id\": …, \"sequences\": [{\"text\": \"…\", \"token_ids\": […],
   \"score\": -0.53, \"finish_reason\": \"eos|length|stop\"}], \"prompt_tokens\": n}
  (with --token-logprobs, \"token_logprobs\": […] behind \"finish_reason\"; with
   --alignment, \"alignment\": [[…], …]: for each new token a list with a number
   for each source token, the cross-attention weights of the decoder step that
   chose it, averaged over heads)
  or, for a failed record, {\"id\": …, \"error\": \"…\"}
Without an id in the input, id is the record's number, the first being 0.
token_ids are the new ids, up to and including the end-of-sequence id.
text is null for a model without a tokenizer.

Score: with beams, the sum of the natural-log probabilities of the new tokens,
divided by their number to the power of --length-penalty (Hugging Face's
sequences_scores); without beams, the sum itself. Where so few tokens may follow that
not all beams find an end (--max-new-tokens 1 with a forced id, say), the rest of an
n-best list are unfilled slots: score -1e9 and no token_ids, where Hugging Face has
padding or the forced id.

Generation options, the first that says something wins: the option's flag,
--set, the file of --generation-config, generation_config.json of the model (or,
where there is none, its config.json), Hugging Face's default. --print-config
shows what came of it.

Streaming (--stream): for greedy search and sampling, one sequence per input. Text
is written as it becomes certain and ends up as without --stream. JSONL output has,
before each record's object, a line for each of its tokens:
  {\"id\": …, \"token_id\": 42, \"logprob\": -0.1, \"text\": \"…\"}
On a terminal a stream of texts is made for people: line ends are line ends, and a
decoder-only model's text stands behind its input. --raw=false and --echo=false turn
that off, --raw and --echo ask for it elsewhere. With --raw, control characters other
than line ends and tabs are written as escapes, as \\u{1b}.

Resuming: while a file is written from a file, OUT.elgen-resume lies beside it. If
the run is killed or interrupted, the same command with --resume cuts off a record
that was half written, passes over the inputs that are done and appends the rest:
the file is then what an uninterrupted run would have written, byte for byte. The
input, the model, the device and all options that have a part in results must be
the same, and the output what the run left: hashes prove it, and what differs is
named. With no output yet, --resume starts from the beginning; of a complete one
it says so and ends, by .OUT.elgen-done, a hidden file of a few kilobytes that a
complete output keeps beside it and that may be removed at any time. Records that
failed are done; the exit code counts them.

No file that the command reads is written, whatever its names, nor any file of the
model.

Exit codes: 0 all done; 1 something failed, one record at least, or interrupted;
2 wrong usage. A closed output pipe ends the run quietly. An interrupt (Ctrl-C)
leaves whole lines behind; a second one ends the program at once.";

/// Text generation with encoder-decoder and decoder-only transformers on any GPU that wgpu reaches.
#[derive(Debug, Parser)]
#[command(name = "elgen", version, after_help = EXIT_CODES, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Colours of messages and help
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = ColorMode::Auto)]
    pub(crate) color: ColorMode,
}

/// The command line of a program that knows the attention kinds of `registry`.
pub(crate) fn command(registry: &Registry) -> clap::Command {
    let parser = AttentionParser::new(registry);
    let known = |argument: clap::Arg| match argument.get_id() == "attention" {
        true => argument.value_parser(parser.clone()),
        false => argument,
    };
    Cli::command().mut_subcommands(|command| command.mut_args(known))
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Generate text from texts or token ids
    Generate(Box<GenerateArgs>),
    /// Log-probabilities and perplexity of given texts
    Score(Box<ScoreArgs>),
    /// Score texts against references: BLEU, chrF, TER, ROUGE
    Eval(EvalArgs),
    /// Measure speed and memory by attention kind, beams, batch and lengths
    Bench(Box<BenchArgs>),
    /// List the adapters that models can run on
    Devices(DevicesArgs),
    /// Show what a model directory holds and what it costs
    Inspect(InspectArgs),
    /// Tell memory and largest batches of a model by attention kind, from its config alone
    Plan(PlanArgs),
    /// Download models from the hub into the cache
    Pull(PullArgs),
    /// Turn texts into token ids, or token ids into texts
    Tokenize(TokenizeArgs),
    /// Print a shell's completions of commands and flags
    Completions(CompletionsArgs),
    /// Print the manual page of elgen, or of one of its commands
    Man(ManArgs),
}

/// Arguments of `elgen generate`.
#[derive(Debug, Args)]
#[command(after_long_help = GENERATE_HELP, after_help = "More, with the formats and what a score is: elgen generate --help")]
pub(crate) struct GenerateArgs {
    /// Model: a directory as Hugging Face writes it (config.json, model.safetensors, tokenizer.json, …), or OWNER/NAME on its hub
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: PathBuf,

    /// Texts to run, instead of --input
    #[arg(value_name = "TEXT")]
    pub(crate) texts: Vec<String>,

    #[command(flatten)]
    pub(crate) files: FileFlags,

    #[command(flatten)]
    pub(crate) languages: LanguageFlags,

    #[command(flatten)]
    pub(crate) generation: GenerationFlags,

    #[command(flatten)]
    pub(crate) engine: EngineFlags,

    #[command(flatten)]
    pub(crate) hub: HubFlags,

    #[command(flatten)]
    pub(crate) report: ReportFlags,
}

/// Where records come from and where results go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Input and output")]
pub(crate) struct FileFlags {
    /// File of texts or records; `-` is stdin, the default. Repeat it for several files, which are read one behind the other
    #[arg(short, long, value_name = "FILE", conflicts_with = "texts")]
    pub(crate) input: Vec<PathBuf>,

    /// Format of the input [default: jsonl for a file ending in .jsonl, else text]
    #[arg(long, value_name = "FORMAT", conflicts_with = "texts")]
    pub(crate) input_format: Option<RecordFormat>,

    /// Take each input file as one text, its inner line ends included: a document for each --input
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, conflicts_with = "texts")]
    pub(crate) whole_file: Option<bool>,

    /// Text that is put before each source text, as T5 is told its task: "summarize: ". Empty lines stay empty, and token
    /// ids are not touched
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) source_prefix: Option<String>,

    /// File for the results; `-` is stdout, the default
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Format of the output; moses is for n-best lists: `number ||| text ||| score`
    /// [default: jsonl for a file ending in .jsonl, else text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<OutputFormat>,

    /// Text output as `score ||| text`
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) with_scores: Option<bool>,

    /// JSONL output with the log-probability of each new token, as token_logprobs
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) token_logprobs: Option<bool>,

    /// JSONL output with the cross-attention weights of each new token over the source tokens, averaged over the heads of
    /// decoder layer LAYER, as alignment: 0 is the first layer, -1 the last [without LAYER: -1]
    #[arg(long, value_name = "LAYER", num_args = 0..=1, require_equals = true, default_missing_value = "-1", value_parser = values::layer)]
    pub(crate) alignment: Option<i32>,

    /// Write texts to stdout while they grow, one input after another (no beam search)
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) stream: Option<bool>,

    /// Text to stdout with real line ends instead of \\n, \\r and \\\\ [default: with --stream on a terminal]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) raw: Option<bool>,

    /// With --stream: write the input before its continuation (decoder-only models) [default: on a terminal]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) echo: Option<bool>,

    /// Text that outputs must begin with, on the decoder's side, where a JSONL record gives no `prefix` of its own; it is
    /// not in the results. For what stands before each source, as T5's tasks do, there is --source-prefix
    #[arg(long, value_name = "TEXT")]
    pub(crate) prefix: Option<String>,

    /// Continue an interrupted run where its output file ends
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) resume: Option<bool>,

    /// Cut sources to N ids, special tokens included
    #[arg(long, visible_alias = "max-input-length", value_name = "N", value_parser = values::positive, allow_negative_numbers = true)]
    pub(crate) max_source_length: Option<usize>,

    /// Cut sources that are longer than the model's position table, instead of failing their records
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) truncate: Option<bool>,
}

/// What is told besides the results.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reports")]
pub(crate) struct ReportFlags {
    /// Print time, memory and counts to stderr at the end
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) stats: Option<bool>,

    /// Write them to a file as one JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) stats_json: Option<PathBuf>,

    /// Progress on stderr: finished records, records per second, time left
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ProgressMode::Auto)]
    pub(crate) progress: ProgressMode,

    /// Print the generation options of the run and where each comes from, as a table or with --format jsonl as JSON
    /// lines, and load no weights
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) print_config: Option<bool>,

    /// No progress (but for --progress always) and no warnings on stderr; errors remain
    #[arg(short, long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) quiet: Option<bool>,
}

/// Format of `devices`, `eval` and `inspect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people.
    Text,
    /// One JSON value.
    Json,
}

/// Arguments of `elgen devices`.
#[derive(Debug, Args)]
pub(crate) struct DevicesArgs {
    /// Format of the list
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,

    /// Measure the adapters anew, which `--attention auto` relies on, and show what was measured; takes seconds for each
    #[arg(long)]
    pub(crate) measure: bool,

    /// With --measure: only this adapter; part of its name, or its number
    #[arg(long, value_name = "DEVICE", requires = "measure", allow_negative_numbers = true)]
    pub(crate) device: Option<String>,
}

/// Arguments of `elgen completions`.
#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to complete
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: Shell,
}

/// Arguments of `elgen man`.
#[derive(Debug, Args)]
#[command(after_help = MAN_HELP)]
pub(crate) struct ManArgs {
    /// A command, for its own page
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Option<String>,
}

/// Arguments of `elgen inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Model: a directory, or OWNER/NAME on the hub
    #[arg(value_name = "MODEL")]
    pub(crate) model: PathBuf,

    #[command(flatten)]
    pub(crate) hub: HubFlags,

    /// Format of the report
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
}

#[cfg(test)]
#[path = "flags_tests.rs"]
mod tests;
