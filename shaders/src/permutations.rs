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
    /// Cooperative matrices, f16 x f16 -> f32 at subgroup scope.
    CooperativeMatrix,
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
/// How weight matrices are stored: as caches, or in blocks of integers.
const WEIGHTS: &[&[&str]] = &[&["STORE_F32"], &["STORE_F16"], &["STORE_F16_PACKED"], &["WEIGHTS_INT8_BLOCKS"]];
const PARAMS: &[&[&str]] = &[&["IMMEDIATES"], &[]];
const REDUCTION: &[&[&str]] = &[&["SUBGROUP"], &[]];

/// Whether an option looks at the sources of sentences.
const SOURCE_OPTIONS: &[&[&str]] = &[&["SOURCES"], &[]];

/// Query rows of a workgroup that share their keys, each with or without key splits; the values of PARTIAL and COUNTING are bindings.
const MHA_CROSS: &[&[&str]] = &[
    &["ROWS=1"],
    &["ROWS=2"],
    &["ROWS=3"],
    &["ROWS=4"],
    &["ROWS=5"],
    &["ROWS=6"],
    &["ROWS=8"],
    &["ROWS=1", "PARTIAL=6"],
    &["ROWS=2", "PARTIAL=6"],
    &["ROWS=3", "PARTIAL=6"],
    &["ROWS=4", "PARTIAL=6"],
    &["ROWS=5", "PARTIAL=6"],
    &["ROWS=6", "PARTIAL=6"],
    &["ROWS=8", "PARTIAL=6"],
    &["ROWS=1", "COUNTING=6"],
    &["ROWS=4", "COUNTING=6"],
    &["ROWS=4", "PARTIAL=6", "COUNTING=7"],
];
const MHA_SELF: &[&[&str]] = &[
    &["SLOTS", "ROWS=1"],
    &["SLOTS", "ROWS=1", "BIASED"],
    &["SLOTS", "ROWS=1", "PARTIAL=6"],
    &["SLOTS", "ROWS=1", "BIASED", "PARTIAL=7"],
    &["SLOTS", "ROWS=1", "COUNTING=6"],
    &["SLOTS", "ROWS=1", "PARTIAL=6", "COUNTING=7"],
];

/// Cooperative-matrix tiles: their type and edge, how many tiles 16 query rows take, and how many tile columns of a hidden state a subgroup owns.
const MATRIX_TILES: &[&[&str]] = &[
    &["STORE_F16", "TILE=coop_mat8x8", "EDGE=8", "BANDS=2"],
    &["STORE_F16", "TILE=coop_mat16x16", "EDGE=16", "BANDS=1"],
];
const MATRIX_EDGES: &[&[&str]] =
    &[&["STORE_F16", "TILE=coop_mat8x8", "EDGE=8"], &["STORE_F16", "TILE=coop_mat16x16", "EDGE=16"]];
const OWNED_TILES: &[&[&str]] =
    &[&["OWNED=1"], &["OWNED=2"], &["OWNED=3"], &["OWNED=4"], &["OWNED=6"], &["OWNED=8"], &["OWNED=12"], &["OWNED=16"]];

/// BIASED: a bias by head and distance is added to the scores (T5).
const BIAS: &[&[&str]] = &[&["BIASED"], &[]];
/// LSE: log-sum-exp is written too.
const LOG_SUM_EXP: &[&[&str]] = &[&["LSE"], &[]];
/// RMS: without mean and bias (T5).
const NORM: &[&[&str]] = &[&["RMS"], &[]];

/// What shares an X, and whether a bias by distance is added: the heads of a hypothesis, or all heads of a sentence's rows.
const EL_QUERIES: &[&[&str]] = &[&["SLOTS"], &["SLOTS", "BIASED"], &[]];
/// Query rows and quads of the hidden state per invocation.
const EL_TILES: &[&[&str]] = &[
    &["ROWS=1", "QUADS=1"],
    &["ROWS=2", "QUADS=1"],
    &["ROWS=4", "QUADS=1"],
    &["ROWS=8", "QUADS=1"],
    &["ROWS=12", "QUADS=1"],
    &["ROWS=16", "QUADS=1"],
    &["ROWS=1", "QUADS=2"],
    &["ROWS=4", "QUADS=2"],
    &["ROWS=8", "QUADS=2"],
    &["ROWS=1", "QUADS=4"],
    &["ROWS=4", "QUADS=4"],
    &["ROWS=1", "QUADS=8"],
    &["ROWS=2", "QUADS=8"],
];
/// One workgroup takes all keys of a row, or those of a split.
const SPLITS: &[&[&str]] = &[&["SPLITS"], &[]];
/// Tests let a kernel count its loads and multiply-adds.
const EL_COUNTING: &[&[&str]] = &[&["COUNTING", "SLOTS"], &["COUNTING"]];

/// Rows per invocation of the matrix kernels; STAGED: through workgroup memory.
const ROW_TILES: &[&[&str]] = &[&["TILE_M=1"], &["TILE_M=2"], &["TILE_M=4"], &["TILE_M=8"], &["TILE_M=16"]];
const STAGED_TILES: &[&[&str]] =
    &[&["STAGED", "TILE_M=1"], &["STAGED", "TILE_M=2"], &["STAGED", "TILE_M=4"], &["STAGED", "TILE_M=8"]];
/// Beam search's candidates: the best, or drawn.
const CHOICE: &[&[&str]] = &[&["SAMPLE"], &[]];
const PACKING: &[&[&str]] = &[&["PACKED"], &[]];
const LISTED: &[&[&str]] = &[&["LISTED"], &[]];

const FAMILIES: &[Family] = &[
    Family { shader: "linear", axes: &[WEIGHTS, PARAMS, ROW_TILES, LISTED] },
    Family { shader: "linear", axes: &[WEIGHTS, PARAMS, STAGED_TILES, LISTED] },
    Family { shader: "heads_expand", axes: &[WEIGHTS, PARAMS, ROW_TILES] },
    Family { shader: "layer_norm", axes: &[PARAMS, REDUCTION, NORM] },
    Family { shader: "token_logprobs", axes: &[PARAMS, REDUCTION] },
    Family { shader: "embed", axes: &[WEIGHTS, PARAMS, PACKING] },
    Family { shader: "align", axes: &[STORAGE, PARAMS, REDUCTION, LOG_SUM_EXP] },
    Family { shader: "fill_random", axes: &[STORAGE, PARAMS] },
    Family { shader: "attend", axes: &[STORAGE, PARAMS, BIAS] },
    Family { shader: "combine", axes: &[PARAMS] },
    Family { shader: "el_attend", axes: &[STORAGE, PARAMS, REDUCTION, EL_QUERIES, EL_TILES, SPLITS] },
    Family { shader: "el_attend", axes: &[STORAGE, PARAMS, EL_COUNTING, EL_TILES, SPLITS] },
    Family { shader: "mha_attend", axes: &[STORAGE, PARAMS, MHA_CROSS] },
    Family { shader: "mha_attend", axes: &[STORAGE, PARAMS, MHA_SELF] },
    Family { shader: "el_attend_coop", axes: &[MATRIX_TILES, OWNED_TILES, PARAMS, EL_QUERIES, SPLITS] },
    Family { shader: "store", axes: &[STORAGE, PARAMS, PACKING] },
    Family { shader: "stream", axes: &[PARAMS] },
    Family { shader: "fma", axes: &[PARAMS] },
    Family { shader: "matrix_fma", axes: &[MATRIX_EDGES, PARAMS] },
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
        ("EDGE", Requirement::CooperativeMatrix),
        ("EDGE", Requirement::Subgroup),
    ]
    .into_iter()
    .filter(|(name, _)| symbols.is_defined(name))
    .map(|(_, requirement)| requirement)
    .collect()
}
