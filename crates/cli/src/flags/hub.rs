//! Flags about models on the Hugging Face hub.

use clap::Args;

/// How a model's name on the hub is used.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hub")]
pub(crate) struct HubFlags {
    /// Branch, tag or commit of a model on the hub; OWNER/NAME@REV is the same [default: main]
    #[arg(long, value_name = "REV")]
    pub(crate) revision: Option<String>,

    /// Never download: use models that are there. HF_HUB_OFFLINE=1 is the same
    #[arg(long)]
    pub(crate) offline: bool,
}
