#include matrix
// out[i] = table[id] * scale + positions[position + offset], for one row window of the table: rows with other ids are left to the other windows.
// Without a table (no window rows), out[i] = positions[position + offset].
// In a decode step the id and its position come from the row's tables; with PACKED, row i is the pair ids[i].
#ifndef PACKED
#include rows
#endif
struct Params {
    first_row: u32,
    w_quads: u32,          // quads of a row, of the table and of positions
    window_first: u32,     // first table row of this window
    window_rows: u32,      // 0: no token table
    scale: f32,
    position_offset: u32,
    position_rows: u32,    // 0: no position table
    position_words: u32,   // row stride of positions
    position_halves: u32,  // 1: f16; 0: f32
    max_length: u32,       // row stride of tokens
    out_ld: u32,           // row stride of out in quads
}
#include params
@group(0) @binding(1) var<storage, read> positions: array<u32>;
#ifdef PACKED
@group(0) @binding(2) var<storage, read> ids: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
#else
@group(0) @binding(2) var<storage, read> active_rows: array<u32>;
@group(0) @binding(3) var<storage, read> state: array<RowState>;
@group(0) @binding(4) var<storage, read> tokens: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
#endif
override WG: u32 = 64u;

// Four columns of a row of positions that begins at word `start`. The format is looked at here and not where the kernel is compiled: positions are
// few, and tables need not be stored as they are.
fn place(start: u32, quad: u32) -> vec4<f32> {
    if (p.position_halves != 0u) {
        let at = start + 2u * quad;
        return vec4(unpack2x16float(positions[at]), unpack2x16float(positions[at + 1u]));
    }
    let at = start + 4u * quad;
    return bitcast<vec4<f32>>(vec4(positions[at], positions[at + 1u], positions[at + 2u], positions[at + 3u]));
}

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
    let position_at = min(position + p.position_offset, max(p.position_rows, 1u) - 1u) * p.position_words;
    if (p.window_rows == 0u) {
        for (var q = tid; q < p.w_quads; q += WG) { out[i * p.out_ld + q] = place(position_at, q); }
        return;
    }
    // An id below the window wraps to a large number.
    if (id - p.window_first >= p.window_rows) { return; }
    let source = weight_row(id - p.window_first);
    if (p.position_rows == 0u) {
        for (var q = tid; q < p.w_quads; q += WG) { out[i * p.out_ld + q] = weight(source, q) * p.scale; }
    } else {
        for (var q = tid; q < p.w_quads; q += WG) {
            out[i * p.out_ld + q] = fma(weight(source, q), vec4(p.scale), place(position_at, q));
        }
    }
}
