//! Arguments of `elgen pull`.

use clap::Args;

use super::HubFlags;

const HELP: &str = "\
Each model's config, tokenizer and safetensors are brought into the cache that
Python uses (HF_HOME, HF_HUB_CACHE; HF_TOKEN and HF_ENDPOINT count), where all
commands find them by name. The hub is asked where the branch stands now; what
is in the cache already is not downloaded again, and a download that ended
early goes on where it ended.

Output: one line per model that is whole: its directory.

Exit codes: 0 all done; 1 something failed, one model at least; 2 wrong usage.";

/// Arguments of `elgen pull`.
#[derive(Debug, Args)]
#[command(after_long_help = HELP, after_help = "More: elgen pull --help")]
// It is told why it is refused; nobody needs to read about it.
#[command(mut_arg("offline", |flag| flag.hide(true)))]
pub(crate) struct PullArgs {
    /// Models on the hub: OWNER/NAME, or OWNER/NAME@REV
    #[arg(value_name = "OWNER/NAME", required = true)]
    pub(crate) models: Vec<String>,

    /// Nothing but errors on stderr
    #[arg(short, long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub(crate) quiet: Option<bool>,

    #[command(flatten)]
    pub(crate) hub: HubFlags,
}
