//! The list of every permutation that elgen may compile. A pipeline that is not listed here is a bug: the shader gate (a test
//! that needs no GPU) parses, validates and lowers each of these.

use crate::Symbols;

/// What a permutation needs from a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Requirement {
    /// 16-bit floats in shaders.
    ShaderF16,
    /// Subgroup operations.
    Subgroup,
    /// Immediates (push constants).
    Immediates,
}

/// One shader with one set of symbols.
#[derive(Clone, Debug)]
pub struct Permutation {
    /// The shader's name.
    pub shader: &'static str,
    /// The symbols that select it.
    pub symbols: Symbols,
    /// What it needs from a device.
    pub requires: Vec<Requirement>,
}

/// A shader and the axes along which it varies: each axis is a list of alternatives, each alternative a list of `NAME` or `NAME=VALUE`.
struct Family {
    shader: &'static str,
    axes: &'static [&'static [&'static [&'static str]]],
}

const STORAGE: &[&[&str]] = &[&["STORE_F32"], &["STORE_F16"], &["STORE_F16_PACKED"]];
const PARAMS: &[&[&str]] = &[&["IMMEDIATES"], &[]];
const REDUCTION: &[&[&str]] = &[&["SUBGROUP"], &[]];

/// Whether an option looks at the sources of sentences.
const SOURCE_OPTIONS: &[&[&str]] = &[&["SOURCES"], &[]];

/// Where keys are found: through the slot table, or in a range.
const ADDRESSING: &[&[&str]] = &[&["SLOTS"], &[]];
/// Heads per workgroup; SHARED: all heads read the same keys (EL-attention).
const HEAD_TILES: &[&[&str]] = &[&["TILE=1"], &["TILE=1", "SHARED"], &["TILE=2", "SHARED"], &["TILE=4", "SHARED"]];

/// BIASED: a bias by head and distance is added to the scores (T5).
const BIAS: &[&[&str]] = &[&["BIASED"], &[]];
/// RMS: without mean and bias (T5).
const NORM: &[&[&str]] = &[&["RMS"], &[]];

/// Rows per invocation of the matrix kernels; STAGED: through workgroup memory.
const ROW_TILES: &[&[&str]] = &[&["TILE_M=1"], &["TILE_M=2"], &["TILE_M=4"], &["TILE_M=8"], &["TILE_M=16"]];
const STAGED_TILES: &[&[&str]] =
    &[&["STAGED", "TILE_M=1"], &["STAGED", "TILE_M=2"], &["STAGED", "TILE_M=4"], &["STAGED", "TILE_M=8"]];
/// Beam search's candidates: the best, or drawn.
const CHOICE: &[&[&str]] = &[&["SAMPLE"], &[]];
const PACKING: &[&[&str]] = &[&["PACKED"], &[]];

const FAMILIES: &[Family] = &[
    Family { shader: "linear", axes: &[STORAGE, PARAMS, ROW_TILES] },
    Family { shader: "linear", axes: &[STORAGE, PARAMS, STAGED_TILES] },
    Family { shader: "heads_expand", axes: &[STORAGE, PARAMS, ROW_TILES] },
    Family { shader: "layer_norm", axes: &[PARAMS, REDUCTION, NORM] },
    Family { shader: "token_logprobs", axes: &[PARAMS, REDUCTION] },
    Family { shader: "embed", axes: &[STORAGE, PARAMS, PACKING] },
    Family { shader: "fill_random", axes: &[STORAGE, PARAMS] },
    Family { shader: "attend", axes: &[STORAGE, PARAMS, ADDRESSING, HEAD_TILES, BIAS] },
    Family { shader: "store", axes: &[STORAGE, PARAMS, PACKING] },
    Family { shader: "stream", axes: &[PARAMS] },
    Family { shader: "fma", axes: &[PARAMS] },
    Family { shader: "process", axes: &[PARAMS, REDUCTION, SOURCE_OPTIONS] },
    Family { shader: "warp", axes: &[PARAMS, REDUCTION] },
    Family { shader: "top_h", axes: &[PARAMS, REDUCTION] },
    Family { shader: "typical", axes: &[PARAMS, REDUCTION] },
    Family { shader: "cutoff", axes: &[PARAMS, REDUCTION] },
    Family { shader: "renormalize", axes: &[PARAMS, REDUCTION] },
    Family { shader: "select", axes: &[PARAMS, REDUCTION] },
    Family { shader: "candidates", axes: &[PARAMS, REDUCTION, CHOICE] },
    Family { shader: "beam_step", axes: &[PARAMS, REDUCTION, CHOICE] },
    Family { shader: "advance", axes: &[PARAMS] },
];

/// Every permutation of every shader.
pub fn permutations() -> Vec<Permutation> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let mut sets = vec![Symbols::new()];
        for axis in family.axes {
            sets = sets
                .iter()
                .flat_map(|set| {
                    axis.iter().map(move |words| {
                        let mut set = set.clone();
                        for word in *words {
                            match word.split_once('=') {
                                Some((name, value)) => set.set(name, value),
                                None => set.define(word),
                            };
                        }
                        set
                    })
                })
                .collect();
        }
        all.extend(sets.into_iter().map(|symbols| Permutation {
            shader: family.shader,
            requires: requirements(&symbols),
            symbols,
        }));
    }
    all
}

fn requirements(symbols: &Symbols) -> Vec<Requirement> {
    [
        ("STORE_F16", Requirement::ShaderF16),
        ("SUBGROUP", Requirement::Subgroup),
        ("IMMEDIATES", Requirement::Immediates),
    ]
    .into_iter()
    .filter(|(name, _)| symbols.is_defined(name))
    .map(|(_, requirement)| requirement)
    .collect()
}
