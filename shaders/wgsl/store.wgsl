#include storage
// Stores activation rows into a cache slab: row i of `x` (columns x_first .. x_first + quads) goes to the slot of the position that physical row active_rows[first_row + i] feeds
// in this step. Rows of a shared prompt that do not own it write nothing. With PACKED, the slot of row i is slots[first_row + i].
#ifndef PACKED
#include rows
#endif
struct Params { first_row: u32, quads: u32, x_first: u32, x_ld: u32 }
#include params
#ifdef PACKED
@group(0) @binding(0) var<storage, read> slots: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> slab: array<Quad>;
#else
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read> state: array<RowState>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> slab: array<Quad>;
#endif
override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let i = p.first_row + wg.x;
#ifdef PACKED
    let slot = slots[i];
#else
    let row = state[active_rows[i]];
    let position = row.length - 1u;
    if (position < row.prompt_len && row.owns_prompt == 0u) { return; }
    let slot = own_slot(row, position);
#endif
    for (var q = tid; q < p.quads; q += WG) {
        slab[slot * p.quads + q] = narrow(x[i * p.x_ld + p.x_first + q]);
    }
}
