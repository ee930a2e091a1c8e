//! Flags of `elgen score`.

use std::path::PathBuf;

use clap::Args;

use super::{EngineFlags, HubFlags, LanguageFlags, values};
use crate::{console::ProgressMode, input::RecordFormat};

const HELP: &str = "\
The log-probabilities that a model gives to texts that are there already (teacher
forcing): nothing is generated, and no option of generation has a part in it.

Input for encoder-decoder models: two text files with a source and its target in
the same line (--input, --targets), or JSONL, one object per line:
  {\"id\": any?, \"text\" or \"input_ids\": source, \"target\" or \"target_ids\": …}
A target text is encoded as labels are in training, special tokens included.

Input for decoder-only models: one text per line, or JSONL with
  {\"id\": any?, \"text\" or \"input_ids\": …}        the whole text is scored
  {\"id\": any?, \"text\" or \"input_ids\": prompt?, \"target\" or \"target_ids\": …}
The first token of a whole text follows the model's begin-of-sequence token; with
--no-bos, or without such a token, it is given and not scored.
A text longer than the model's positions fails, unless windows are asked for
(--max-length, --stride): each holds N tokens and scores those that the one before
did not, as in Hugging Face's recipe for the perplexity of fixed-length models.
--whole-file takes the input as one text, in windows.

Text output, one line per record in input order, separated by tabs:
  sum of the tokens' natural log-probabilities, their number, perplexity
(on a terminal, or with --header, below a line with these names);
with --token-scores the mean, the tokens and each one's log-probability, as
CTranslate2 writes it:
  -0.53 ||| <s> Je Ġsuis </s> ||| -0.1 -1.2 -0.8 -0.02
An empty line (of both files) gives an empty line without running the model. A
failed record is an empty line, and a line on stderr that names file and line.

JSONL output:
  {\"id\": …, \"tokens\": n, \"sum_logprob\": …, \"mean_logprob\": …, \"perplexity\": …,
   \"token_ids\": […], \"token_logprobs\": […]}
  (with --top-ids also \"top_ids\" and \"top_logprobs\": what the model holds the most
  likely in each place), or, for a failed record, {\"id\": …, \"error\": \"…\"}

At the end stderr tells the corpus: tokens, mean log-probability, PPL = x +/- the
standard error; --stats-json has them under \"score\".

Comparing runs: --save-run FILE writes the whole row of log-probabilities of every
scored token, 4 bytes x vocabulary x tokens: 2,000 tokens of a vocabulary of 50,000
are 400 MB. --compare-run FILE scores the same records again, with another
--attention, --dtype or device, and tells how far the rows are from those: the mean,
99th percentile and maximum of KL(saved || this) in nats, how often the most likely
token is the same, how much the targets' log-probabilities differ, both
perplexities; --stats-json has them under \"comparison\".

Examples:
  elgen score --model M --input src.txt --targets ref.txt
  elgen score --model gpt2 --input corpus.txt --whole-file --stride 512
  elgen score --model M --input pairs.jsonl --format jsonl --top-ids
  elgen score --model M --input pairs.jsonl --dtype f32 --save-run f32.run
  elgen score --model M --input pairs.jsonl --dtype f16 --compare-run f32.run

Exit codes: 0 all done; 1 something failed, one record at least, or interrupted;
2 wrong usage.";

/// Arguments of `elgen score`.
#[derive(Debug, Args)]
#[command(after_long_help = HELP, after_help = "More, with the formats and examples: elgen score --help")]
pub(crate) struct ScoreArgs {
    /// Model: a directory as Hugging Face writes it, or OWNER/NAME on its hub
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: PathBuf,

    #[command(flatten)]
    pub(crate) files: ScoreFiles,

    #[command(flatten)]
    pub(crate) whole: WholeFlags,

    #[command(flatten)]
    pub(crate) runs: RunFlags,

    #[command(flatten)]
    pub(crate) languages: LanguageFlags,

    #[command(flatten)]
    pub(crate) engine: EngineFlags,

    #[command(flatten)]
    pub(crate) hub: HubFlags,

    #[command(flatten)]
    pub(crate) report: ScoreReports,
}

/// Where records come from and where results go.
#[derive(Debug, Args)]
#[command(next_help_heading = "Input and output")]
pub(crate) struct ScoreFiles {
    /// File of texts or records; `-` is stdin, the default
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,

    /// Format of the input [default: jsonl for a file ending in .jsonl, else text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) input_format: Option<RecordFormat>,

    /// Text that is put before each source text, as T5 is told its task: "summarize: ". Token ids, and whole texts of
    /// decoder-only models, are not touched
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) source_prefix: Option<String>,

    /// Text file of targets, line N for line N of a text input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) targets: Option<PathBuf>,

    /// File for the results; `-` is stdout, the default
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Format of the output [default: jsonl for a file ending in .jsonl, else text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<RecordFormat>,

    /// Text output as `mean ||| tokens ||| log-probabilities`
    #[arg(long)]
    pub(crate) token_scores: bool,

    /// Text output begins with a line that names the columns [default: on a terminal]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) header: Option<bool>,

    /// JSONL output with the most likely id in each place
    #[arg(long)]
    pub(crate) top_ids: bool,

    /// Cut sources to N ids, special tokens included (encoder-decoder models)
    #[arg(long, visible_alias = "max-input-length", value_name = "N", value_parser = values::positive, allow_negative_numbers = true)]
    pub(crate) max_source_length: Option<usize>,

    /// Cut sources that are longer than the position table, instead of failing their records (encoder-decoder models)
    #[arg(long)]
    pub(crate) truncate: bool,
}

/// How decoder-only models score whole texts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Whole texts (decoder-only models)")]
pub(crate) struct WholeFlags {
    /// The first token of a text is given and not scored, even where the model has a begin-of-sequence token
    #[arg(long)]
    pub(crate) no_bos: bool,

    /// Take the input as one text, its line ends included
    #[arg(long, conflicts_with = "targets")]
    pub(crate) whole_file: bool,

    /// Tokens of a window [default: the model's positions]
    #[arg(long, value_name = "N", value_parser = values::positive, allow_negative_numbers = true)]
    pub(crate) max_length: Option<usize>,

    /// Tokens from one window to the next [default: half a window]
    #[arg(long, value_name = "N", value_parser = values::positive, allow_negative_numbers = true)]
    pub(crate) stride: Option<usize>,
}

/// Runs that are saved and compared.
#[derive(Debug, Args)]
#[command(next_help_heading = "Comparing runs")]
pub(crate) struct RunFlags {
    /// Write every scored token's row of log-probabilities: 4 bytes x vocabulary x tokens
    #[arg(long, value_name = "FILE", conflicts_with = "compare_run")]
    pub(crate) save_run: Option<PathBuf>,

    /// Tell how far this run is from a saved one of the same records
    #[arg(long, value_name = "FILE")]
    pub(crate) compare_run: Option<PathBuf>,

    /// Compare with a run of another checkpoint of the same vocabulary
    #[arg(long, requires = "compare_run")]
    pub(crate) other_model: bool,
}

/// What is told besides the results.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reports")]
pub(crate) struct ScoreReports {
    /// Print time, memory and counts to stderr at the end
    #[arg(long)]
    pub(crate) stats: bool,

    /// Write them, the corpus's score and the comparison to a file as one JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) stats_json: Option<PathBuf>,

    /// Progress on stderr: finished records, records per second, time left
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = ProgressMode::Auto)]
    pub(crate) progress: ProgressMode,

    /// No summary, no progress (but for --progress always) and no warnings on stderr; errors remain
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
