#include storage
// A window of a weight matrix, whatever its format: what a kernel knows of it are these two functions. Must be the first line of a shader, because
// of `enable`; the matrix is the first binding. Needs `p.w_quads`: quads of columns of a row, pads included.
@group(0) @binding(0) var<storage, read> weights: array<Quad>;

// Where a row of the window begins. Rows lie at even distances: row `a + b` begins at weight_row(a) + b * weight_row(1u).
fn weight_row(row: u32) -> u32 { return row * p.w_quads; }

// Four columns of the row that begins at `start`, from column 4 * quad on.
fn weight(start: u32, quad: u32) -> vec4<f32> { return widen(weights[start + quad]); }
