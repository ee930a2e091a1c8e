#include storage
// Fills a rectangle of a weight matrix with random numbers, each a function of a key and of its place alone: element (row, column) of the
// rectangle is number (from_row + row, from_col + column) of the numbered matrix, or with `transposed` (from_row + column, from_col + row).
struct Params {
    first_row: u32, // of the rectangle, in the matrix
    row: u32, // of the rectangle, where this dispatch begins
    first_quad: u32,
    cols: u32,
    ld: u32,
    key_low: u32,
    key_high: u32,
    from_row: u32,
    from_col: u32,
    transposed: u32,
    step: f32,
}
#include params
@group(0) @binding(0) var<storage, read_write> matrix: array<Quad>;
override WG: u32 = 64u;

// pcg4d of Jarzynski and Olano, Hash Functions for GPU Rendering, Journal of Computer Graphics Techniques 9(3), 2020.
fn scramble(words: vec4<u32>) -> vec4<u32> {
    var v = words * 1664525u + 1013904223u;
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    v ^= v >> vec4<u32>(16u);
    v.x += v.y * v.w;
    v.y += v.z * v.x;
    v.z += v.x * v.y;
    v.w += v.y * v.z;
    return v;
}

// An odd multiple of `step` from -1023 to 1023: exact in f16 as well, so that all dtypes hold the same model.
fn number(row: u32, col: u32) -> f32 {
    let place = select(vec2<u32>(row, col), vec2<u32>(col, row), p.transposed != 0u);
    let word = scramble(vec4<u32>(p.from_row + place.x, p.from_col + place.y, p.key_low, p.key_high)).x;
    return (f32((word >> 22u) * 2u) - 1023.0) * p.step;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let quad = wg.x * WG + tid;
    if (quad * 4u >= p.cols) { return; }
    let row = p.row + wg.y;
    var values = vec4<f32>(0.0);
    for (var lane = 0u; lane < 4u; lane++) {
        if (quad * 4u + lane < p.cols) { values[lane] = number(row, quad * 4u + lane); }
    }
    matrix[(p.first_row + row) * p.ld + p.first_quad + quad] = narrow(values);
}
