#include storage
// out[i] = table[id] * scale + positions[position + offset], for one row window of the table: rows with other ids are left to the other windows.
// Without a table (no window rows), out[i] = positions[position + offset].
// In a decode step the id and its position come from the row's tables; with PACKED, row i is the pair ids[i].
#ifndef PACKED
#include rows
#endif
struct Params {
    first_row: u32,
    quads: u32,
    window_first: u32, // first table row of this window
    window_rows: u32,     // 0: no token table
    scale: f32,
    position_offset: u32,
    position_rows: u32, // 0: no position table
    max_length: u32,    // row stride of tokens
    out_ld: u32,        // row stride of out in quads
}
#include params
#ifdef PACKED
@group(0) @binding(0) var<storage, read> ids: array<vec2<u32>>;
@group(0) @binding(1) var<storage, read> table: array<Quad>;
@group(0) @binding(2) var<storage, read> positions: array<Quad>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
#else
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read> state: array<RowState>;
@group(0) @binding(2) var<storage, read> tokens: array<u32>;
@group(0) @binding(3) var<storage, read> table: array<Quad>;
@group(0) @binding(4) var<storage, read> positions: array<Quad>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
#endif
override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let i = p.first_row + wg.x;
#ifdef PACKED
    let id = ids[i].x;
    let position = ids[i].y;
#else
    let row = active_rows[i];
    let position = state[row].length - 1u;
    let id = tokens[row * p.max_length + position];
#endif
    // The host refuses sequences beyond the table; the minimum only keeps a broken caller inside the buffer.
    let place = min(position + p.position_offset, max(p.position_rows, 1u) - 1u) * p.quads;
    if (p.window_rows == 0u) {
        for (var q = tid; q < p.quads; q += WG) { out[i * p.out_ld + q] = widen(positions[place + q]); }
        return;
    }
    // An id below the window wraps to a large number.
    if (id - p.window_first >= p.window_rows) { return; }
    let source = (id - p.window_first) * p.quads;
    if (p.position_rows == 0u) {
        for (var q = tid; q < p.quads; q += WG) { out[i * p.out_ld + q] = widen(table[source + q]) * p.scale; }
    } else {
        for (var q = tid; q < p.quads; q += WG) {
            out[i * p.out_ld + q] = fma(widen(table[source + q]), vec4(p.scale), widen(positions[place + q]));
        }
    }
}
