#include storage
// A window of a weight matrix, whatever its format: what a kernel knows of it are these three functions. Must be the first line of a shader, because
// of `enable`; the matrix is the first binding. Needs `p.w_quads`: quads of columns of a row, pads included.
//
// weight_row(row): where a row of the window begins. Rows lie at even distances: row `a + b` begins at weight_row(a) + b * weight_row(1u).
// weight(start, quad): four columns of the row that begins at `start`, from column 4 * quad on.
// weight_rows(start, quad): the same of four rows, from that one on: each is a column of the matrix. What differs from row to row is then uniform.
#ifdef WEIGHTS_INT8_BLOCKS
// A row is its integers, four to a word, padded to whole blocks of 32, and behind them an f32 scale for each block.
@group(0) @binding(0) var<storage, read> weights: array<u32>;

fn weight_row(row: u32) -> u32 { return row * ((p.w_quads + 7u) / 8u * 9u); }

fn weight(start: u32, quad: u32) -> vec4<f32> {
    let scales = start + (p.w_quads + 7u) / 8u * 8u;
    return vec4<f32>(unpack4xI8(weights[start + quad])) * bitcast<f32>(weights[scales + quad / 8u]);
}

fn weight_rows(start: u32, quad: u32) -> mat4x4<f32> {
    let step = weight_row(1u);
    return mat4x4<f32>(
        weight(start, quad), weight(start + step, quad), weight(start + 2u * step, quad), weight(start + 3u * step, quad));
}
#else
@group(0) @binding(0) var<storage, read> weights: array<Quad>;

fn weight_row(row: u32) -> u32 { return row * p.w_quads; }

fn weight(start: u32, quad: u32) -> vec4<f32> { return widen(weights[start + quad]); }

fn weight_rows(start: u32, quad: u32) -> mat4x4<f32> {
    let at = start + quad;
    return mat4x4<f32>(
        widen(weights[at]), widen(weights[at + p.w_quads]), widen(weights[at + 2u * p.w_quads]), widen(weights[at + 3u * p.w_quads]));
}
#endif
