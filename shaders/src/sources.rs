//! The embedded WGSL files.

macro_rules! wgsl {
    ($folder:literal: $($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../wgsl/", $folder, $name, ".wgsl")))),*] };
}

/// Shaders with an entry point `main`, by name.
pub const SHADERS: &[(&str, &str)] = wgsl!["": "advance", "attend", "beam_step", "candidates", "cutoff", "embed", "fill_random", "fma", "heads_expand", "layer_norm", "linear", "process", "renormalize", "select", "store", "stream", "token_logprobs", "top_h", "typical", "warp"];

/// Files that shaders include, by name.
pub const INCLUDES: &[(&str, &str)] = wgsl!["include/": "activate", "best", "candidate", "entropy", "log_softmax", "params", "random", "reduce", "rows", "search", "sentences", "storage", "warping"];
