//! Arguments of `elgen plan`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};

use super::{FormatFlags, HubFlags, StorageFlag, values};

const HELP: &str = "\
Nothing is loaded and, with --memory-limit, no device is needed: all sums follow
from the model's config.json. They are those that `generate --batch-size auto`
goes by, and the memory pool reaches them to the byte.

Defaults: --source-length is the model's position table (1024 where there is
none); for a decoder-only model, whose prompt it is, what --max-new-tokens leaves
of the table. --num-beams and --max-new-tokens are the checkpoint's, if its
generation_config.json or config.json name them, else 1 and 20. --dtype is what
`generate` takes on the device: f32 on a software adapter, else f16 for a
checkpoint in f16 and f32 for others. --memory-limit is 90 % of what the device
has free. Without a device, bindings are taken to hold 2 GiB.

A sentence is one input with all its beams. The columns: what lies in device
memory with --batch-size sentences (1) decoded together, at its peak; what each
further sentence adds to a large batch; the most sentences within the limit,
with a * where the device's bindings are the limit and not its memory.
self and cross are attention caches, tables say where cached vectors lie,
staging is for uploads and read-backs.
auto is what `generate --attention auto` would pick on the device: the kinds that
are predicted to be fastest at their largest batches. The device is measured for
that once, for a few seconds, and kept in the user's cache folder. Without a
device auto is the kinds with the largest batch.

JSON output: one object: {\"model\": \"bart\", \"source_length\": n,
 \"prompt_length\": n, \"max_new_tokens\": n, \"rows_per_sentence\": n,
 \"dtype\": \"f16|f32\"|null, \"weights\": \"f16|f32\", \"cache\": \"f16|f32\",
 \"memory_limit\": bytes, \"max_binding_bytes\": bytes, \"device\": name|null,
 \"batch_size\": n, \"kinds\": [{\"attention\":
 \"mha-replicated|mha|el|auto\", \"self\": kind, \"cross\": kind|null, \"bytes\":
 {\"weights\", \"self_cache\", \"cross_cache\", \"tables\", \"activations\",
 \"staging\", \"total\"}|null, \"error\": text|null, \"bytes_per_sentence\":
 n|null, \"largest_batch\": n|null, \"limited_by\": \"memory|binding\", \"reason\":
 text|null, \"plan\": object|null}]}. plan is attention.plan of --stats-json.

Exit codes: 0 all done; 1 something failed; 2 wrong usage.";

/// Arguments of `elgen plan`.
#[derive(Debug, Args)]
#[command(after_long_help = HELP, after_help = "More, with the defaults and the JSON: elgen plan --help")]
#[command(group(ArgGroup::new("described by").required(true).args(["model", "config"])))]
pub(crate) struct PlanArgs {
    /// Model: a directory, of which config.json is read, or OWNER/NAME on the hub
    #[arg(short, long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,

    /// A config.json alone, or the name of a built-in config: bart-large, bart-base, transformer-270m, gpt2, gpt2-medium,
    /// gpt2-large, gpt2-xl, t5-small, t5-base
    #[arg(long, value_name = "FILE|NAME")]
    pub(crate) config: Option<String>,

    /// Tokens of each source, or of the prompt of a decoder-only model [default: see --help]
    #[arg(long, value_name = "N", value_parser = values::positive, allow_negative_numbers = true)]
    pub(crate) source_length: Option<usize>,

    /// Most new tokens [default: the checkpoint's]
    #[arg(long, value_name = "N", value_parser = values::positive, allow_negative_numbers = true)]
    pub(crate) max_new_tokens: Option<usize>,

    /// Hypotheses kept per input [default: the checkpoint's]
    #[arg(long, visible_alias = "beam-size", value_name = "N", value_parser = values::positive, allow_negative_numbers = true)]
    pub(crate) num_beams: Option<usize>,

    /// Storage of weights and caches [default: as `generate`: f32 on a software adapter, else f16 for
    /// a checkpoint in f16]
    #[arg(long, value_name = "DTYPE", value_enum)]
    pub(crate) dtype: Option<StorageFlag>,

    #[command(flatten)]
    pub(crate) formats: FormatFlags,

    /// Memory that all may take together, e.g. 16GiB [default: 90 % of what the device has free]
    #[arg(long, value_name = "SIZE", value_parser = values::bytes, allow_negative_numbers = true)]
    pub(crate) memory_limit: Option<u64>,

    /// Adapter that tells the limits: part of its name, or its number in `elgen devices` [default: with
    /// --memory-limit none, else the best one]
    #[arg(long, value_name = "DEVICE", allow_negative_numbers = true)]
    pub(crate) device: Option<String>,

    /// Sentences that the bytes are told for
    #[arg(long, value_name = "N", default_value = "1", value_parser = values::positive, allow_negative_numbers = true)]
    pub(crate) batch_size: usize,

    /// Format of the plan
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = PlanFormat::Table)]
    pub(crate) format: PlanFormat,

    /// Draw memory against batch, with the limit, into this SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) hub: HubFlags,
}

/// Format of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// For people.
    Table,
    /// One JSON object.
    Json,
}
