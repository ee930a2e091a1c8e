//! Flags of `elgen eval`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use elgen_metrics::DEFAULT_WORD_PAIRS;

use super::ReportFormat;
use crate::input::RecordFormat;

const EVAL_HELP: &str = "\
Hypotheses: a text per line, or the JSONL of `elgen generate` (the first
sequence's text), or JSONL objects {\"text\": \"…\"}. The escapes \\n, \\r and \\\\ that
`elgen generate` writes in text lines are undone unless --raw is given. An empty
line, and a failed record, are an empty hypothesis.

References: a text per line, taken as it is, or JSONL objects {\"text\": \"…\"},
{\"reference\": \"…\"} or {\"references\": [\"…\", \"…\"]}. With several files, line N of
each holds a reference for hypothesis N.

Files ending in .jsonl are JSONL, others are text.

BLEU (13a tokens, exponential smoothing) and chrF are sacreBLEU's, 0 to 100, and
come with its signature. So does TER (its tercom tokens, case ignored), edits for
100 words: 0 is best. ROUGE is that of the package rouge-score, 0 to 1: the
mean F1 over all texts, with mean precision and recall; rougeLsum splits texts at
newlines.";

/// Arguments of `elgen eval`.
#[derive(Debug, Args)]
#[command(after_long_help = EVAL_HELP, after_help = "More, with the formats: elgen eval --help")]
pub(crate) struct EvalArgs {
    /// File of hypotheses; `-` is stdin
    #[arg(value_name = "HYPOTHESES")]
    pub(crate) hypotheses: PathBuf,

    /// File of references; repeat it for several references per text
    #[arg(short, long, value_name = "FILE", required = true)]
    pub(crate) references: Vec<PathBuf>,

    /// Format of the hypotheses [default: jsonl for a file ending in .jsonl, else text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) hypotheses_format: Option<RecordFormat>,

    /// What to compute
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values_t = [MetricFlag::Bleu, MetricFlag::Chrf])]
    pub(crate) metric: Vec<MetricFlag>,

    /// Ignore case in BLEU and chrF; ROUGE and TER always do
    #[arg(long)]
    pub(crate) lowercase: bool,

    /// Compare word stems in ROUGE (Porter's, as NLTK has them)
    #[arg(long)]
    pub(crate) stemmer: bool,

    /// Refuse texts for which ROUGE-L would compare more pairs of words than this: the words of a
    /// reference times those of the hypothesis. A thousand million take about a tenth of a second
    #[arg(long, value_name = "N", default_value_t = DEFAULT_WORD_PAIRS, allow_negative_numbers = true)]
    pub(crate) max_word_pairs: u64,

    /// Take backslashes in text hypotheses as they are
    #[arg(long)]
    pub(crate) raw: bool,

    /// Format of the report
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MetricFlag {
    /// Corpus BLEU
    Bleu,
    /// chrF2: character n-grams
    Chrf,
    /// chrF2++: character n-grams, words and word pairs
    #[value(name = "chrf++")]
    ChrfPlusPlus,
    /// Translation edit rate: words inserted, deleted, replaced and moved
    Ter,
    /// ROUGE-1, -2, -L and -Lsum
    Rouge,
}
