// What both EL kernels of a decode step take and give, so that either can stand for the other: `el_attend` and `el_attend_coop`.
#ifdef SLOTS
#include rows
#endif
struct Params {
    first: u32,      // SLOTS: first query row; else first group
    heads: u32,
    width: u32,      // quads of a hidden state
    x_ld: u32,       // row strides in quads
    q_ld: u32,
    out_ld: u32,     // of `out` or of `partials`
    table_ld: u32,   // row stride of the slot table
    split: u32,      // keys of a split
    rows: u32,       // rows from one split to the next in `partials` and `stats`
    scale: f32,
    bias_reach: u32,
    bias_ld: u32,    // elements from one head of the bias to the next
}
#include params
#ifdef SLOTS
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read> state: array<RowState>;
@group(0) @binding(2) var<storage, read> slots: array<u32>;
#else
@group(0) @binding(0) var<storage, read> groups: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> row_numbers: array<u32>;
@group(0) @binding(2) var<storage, read> ranges: array<vec2<u32>>;
#endif
@group(0) @binding(3) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> x: array<Quad>;
#ifdef SPLITS
@group(0) @binding(5) var<storage, read_write> partials: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> stats: array<vec2<f32>>;
#ifdef BIASED
@group(0) @binding(7) var<storage, read> bias: array<f32>;
#endif
#ifdef COUNTING
@group(0) @binding(7) var<storage, read_write> counts: array<atomic<u32>>;
#endif
#else
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
#ifdef BIASED
@group(0) @binding(6) var<storage, read> bias: array<f32>;
#endif
#ifdef COUNTING
@group(0) @binding(6) var<storage, read_write> counts: array<atomic<u32>>;
#endif
#endif
