//! What a layer's attention costs in a decode step, by kind: docs/el-attention.md §1.5 to 1.7.

use super::cost::{Cost, F32, StepLoad, TILE_ROWS, product, widths};
use crate::mha::Mha;
use crate::shape::Shape;

/// The measured kernel that a kind's core runs as fast as, and how many query rows share an element that it loads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Core {
    /// `mha_attend`.
    Mha {
        /// Query rows of a load.
        rows: f64,
    },
    /// `el_attend`.
    El {
        /// Query rows of a load, heads counted one by one.
        rows: f64,
    },
}

/// What a block of a kind costs in a decode step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KindCost {
    /// FLOPs, bytes and dispatches.
    pub cost: Cost,
    /// What its core is predicted by.
    pub core: Core,
}

/// Times that a tile of [`TILE_ROWS`] query rows reads its keys again.
fn tiles(query_rows: usize) -> f64 {
    query_rows.div_ceil(TILE_ROWS) as f64
}

/// Expanded queries and contexts of EL, `[rows, num_heads * d_model]` each, written once and read once.
fn expanded_bytes(shape: &Shape, rows: f64) -> f64 {
    let (d, _) = widths(shape);
    4.0 * rows * shape.num_heads as f64 * d * F32
}

/// `count` products of d_model x inner.
fn projections(shape: &Shape, load: &StepLoad, count: usize) -> Cost {
    let (d, e) = widths(shape);
    (0..count).map(|_| product(load.rows(), d * e, load.formats.weights)).sum()
}

/// Bytes of a cached element.
fn cache_bytes(load: &StepLoad) -> f64 {
    load.formats.cache.dtype().bytes() as f64
}

/// Keys of self-attention that lie in the cache: a shared prompt is read by every row, but it is one prompt.
fn unique_self_keys(load: &StepLoad, replicated: bool) -> f64 {
    let shared = if replicated { 0.0 } else { (load.beams as f64 - 1.0) * load.shared_keys };
    load.sentences as f64 * (load.beams as f64 * load.self_keys - shared)
}

/// Beside the products: store, attend, norm.
const SELF_DISPATCHES: Cost = dispatches(3.0);
/// Beside the products: attend, norm.
const CROSS_DISPATCHES: Cost = dispatches(2.0);

const fn dispatches(dispatches: f64) -> Cost {
    Cost {
        projection_flops: 0.0,
        core_flops: 0.0,
        weight_bytes: 0.0,
        cache_bytes: 0.0,
        issued_cache_bytes: 0.0,
        scratch_bytes: 0.0,
        dispatches,
    }
}

pub(crate) fn mha_self(shape: &Shape, load: &StepLoad, replicated: bool) -> KindCost {
    let ((d, e), size) = (widths(shape), cache_bytes(load));
    let key_rows = load.rows() * load.self_keys;
    let core = Cost {
        core_flops: 4.0 * key_rows * e,
        cache_bytes: unique_self_keys(load, replicated) * 2.0 * e * size,
        issued_cache_bytes: key_rows * 2.0 * e * size,
        ..Cost::default()
    };
    // Queries, keys and values are one product.
    let products =
        product(load.rows(), 3.0 * d * e, load.formats.weights) + product(load.rows(), d * e, load.formats.weights);
    KindCost { cost: SELF_DISPATCHES + products + core, core: Core::Mha { rows: 1.0 } }
}

pub(crate) fn el_self(shape: &Shape, load: &StepLoad) -> KindCost {
    let ((d, _), size) = (widths(shape), cache_bytes(load));
    let key_rows = load.rows() * load.self_keys;
    let core = Cost {
        core_flops: 4.0 * key_rows * shape.num_heads as f64 * d,
        cache_bytes: unique_self_keys(load, false) * d * size,
        issued_cache_bytes: key_rows * d * size * tiles(shape.num_heads),
        scratch_bytes: expanded_bytes(shape, load.rows()),
        ..Cost::default()
    };
    // q and out, and EL's two between them.
    let cost = SELF_DISPATCHES + projections(shape, load, 4) + core;
    KindCost { cost, core: Core::El { rows: shape.num_heads as f64 } }
}

pub(crate) fn mha_cross(variant: Mha, shape: &Shape, load: &StepLoad) -> KindCost {
    let ((d, e), size) = (widths(shape), cache_bytes(load));
    let sources = load.sentences as f64 * load.source_keys;
    let key_rows = load.rows() * load.source_keys;
    let core_flops = 4.0 * key_rows * e;
    let core = match variant {
        Mha::Shared => Cost {
            core_flops,
            cache_bytes: sources * 2.0 * e * size,
            issued_cache_bytes: sources * 2.0 * e * size * tiles(load.beams),
            ..Cost::default()
        },
        Mha::Replicated => Cost {
            core_flops,
            cache_bytes: key_rows * 2.0 * e * size,
            issued_cache_bytes: key_rows * 2.0 * e * size,
            ..Cost::default()
        },
        Mha::Nocache => {
            let made = product(sources, 2.0 * d * e, load.formats.weights);
            let read = Cost {
                core_flops,
                // The encoder output is kept in f32, and so are the keys and values that are written and read.
                cache_bytes: sources * d * F32,
                issued_cache_bytes: sources * d * F32,
                scratch_bytes: sources * 4.0 * e * F32,
                ..Cost::default()
            };
            made + read
        }
    };
    let rows = if variant == Mha::Replicated { 1.0 } else { load.beams as f64 };
    KindCost { cost: projections(shape, load, 2) + core + CROSS_DISPATCHES, core: Core::Mha { rows } }
}

pub(crate) fn el_cross(shape: &Shape, load: &StepLoad) -> KindCost {
    let ((d, _), size) = (widths(shape), cache_bytes(load));
    let sources = load.sentences as f64 * load.source_keys;
    let core = Cost {
        core_flops: 4.0 * load.rows() * load.source_keys * shape.num_heads as f64 * d,
        cache_bytes: sources * d * size,
        issued_cache_bytes: sources * d * size * tiles(load.beams.saturating_mul(shape.num_heads)),
        scratch_bytes: expanded_bytes(shape, load.rows()),
        ..Cost::default()
    };
    let rows = load.beams as f64 * shape.num_heads as f64;
    KindCost { cost: projections(shape, load, 4) + core + CROSS_DISPATCHES, core: Core::El { rows } }
}
