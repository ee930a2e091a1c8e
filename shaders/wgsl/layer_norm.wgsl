// out[r] = (x[r] - mean) / sqrt(variance + eps) * weight + bias, one workgroup per row. The variance is taken in a second pass over the row, so that
// a large mean costs no digits. Pad columns are left out of the sums and written as 0 (weight and bias are 0 there).
// RMS: out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight (Zhang and Sennrich 2019): no mean, no bias.
struct Params { first_row: u32, quads: u32, cols: u32, x_ld: u32, out_ld: u32, eps: f32 }
#include params
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
#ifdef RMS
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
#else
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
#endif
override WG: u32 = 64u;
#include reduce

fn inside(q: u32) -> vec4<bool> {
    return vec4(4u * q) + vec4(0u, 1u, 2u, 3u) < vec4(p.cols);
}

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    let row = (p.first_row + at.wg.x) * p.x_ld;
#ifdef RMS
    let mean = 0.0;
#else
    var sum = vec4(0.0);
    for (var q = at.tid; q < p.quads; q += WG) { sum += select(vec4(0.0), x[row + q], inside(q)); }
    let mean = reduce_sum((sum.x + sum.y) + (sum.z + sum.w), at) / f32(p.cols);
#endif
    var squares = vec4(0.0);
    for (var q = at.tid; q < p.quads; q += WG) {
        let d = select(vec4(0.0), x[row + q] - mean, inside(q));
        squares = fma(d, d, squares);
    }
    let variance = reduce_sum((squares.x + squares.y) + (squares.z + squares.w), at) / f32(p.cols);
    let to = (p.first_row + at.wg.x) * p.out_ld;
    let scale = 1.0 / sqrt(variance + p.eps);
    for (var q = at.tid; q < p.quads; q += WG) {
#ifdef RMS
        out[to + q] = x[row + q] * scale * weight[q];
#else
        out[to + q] = fma((x[row + q] - mean) * scale, weight[q], bias[q]);
#endif
    }
}
