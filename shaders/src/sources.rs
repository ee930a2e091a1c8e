//! The embedded WGSL files.

macro_rules! wgsl {
    ($folder:literal: $($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../wgsl/", $folder, $name, ".wgsl")))),*] };
}

/// Shaders with an entry point `main`, by name.
pub const SHADERS: &[(&str, &str)] = wgsl!["": "advance", "align", "attend", "beam_step", "candidates", "combine", "cutoff", "el_attend", "el_attend_coop", "embed", "fill_random", "fma", "heads_expand", "layer_norm", "linear", "matrix_fma", "mha_attend", "process", "renormalize", "select", "store", "stream", "token_logprobs", "top_h", "typical", "warp"];

/// Files that shaders include, by name.
pub const INCLUDES: &[(&str, &str)] = wgsl!["include/": "activate", "best", "candidate", "count", "el_interface", "entropy", "log_softmax", "matrix", "params", "random", "reduce", "rows", "search", "sentences", "storage", "warping"];
