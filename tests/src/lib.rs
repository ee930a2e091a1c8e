//! What the tests of elgen share: devices and comparisons ([`harness`]), attention blocks ([`blocks`], [`block_runs`]), the demo models as test data ([`demo`]),
//! hooks that look on ([`hooks`]), models with any kinds of attention ([`kinds`]), batches whose memory is predicted ([`planned`]), recorded searches ([`recorded`]) and hidden states ([`states`]), what a step costs the host ([`step_cost`]), a judge of near ties
//! ([`rescore`]), times of kernels ([`timing`]), and a CPU twin of every kernel ([`twin`]).

pub mod block_runs;
pub mod blocks;
pub mod counting_allocator;
pub mod demo;
pub mod harness;
pub mod hooks;
pub mod kinds;
pub mod planned;
pub mod recorded;
pub mod rescore;
pub mod states;
pub mod step_cost;
pub mod timing;
pub mod twin;

use std::path::PathBuf;

/// The repository: `$ELGEN_ROOT`, or where this crate was built. Fixtures and the demo are found below it.
pub fn repo_root() -> PathBuf {
    match std::env::var_os("ELGEN_ROOT") {
        Some(root) => root.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(".."),
    }
}

/// True if the long runs are asked for: `ELGEN_FULL=1`.
pub fn full() -> bool {
    std::env::var_os("ELGEN_FULL").is_some_and(|v| v == "1")
}

/// The examples of the README and of the crates' own.
#[cfg(doctest)]
mod readmes {
    macro_rules! examples {
        ($($name:ident: $file:literal),* $(,)?) => {
            $(#[doc = include_str!(concat!("../../", $file, "README.md"))] pub struct $name;)*
        };
    }
    examples! {
        Elgen: "", Shaders: "shaders/", Tensor: "crates/tensor/", Attention: "crates/attention/", Search: "crates/search/", Models: "crates/models/",
        Engine: "crates/engine/", Metrics: "crates/metrics/", Cli: "crates/cli/",
    }
}
