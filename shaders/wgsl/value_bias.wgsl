// Adds a bias to the rows that have keys: x[i] += bias where the range (first, count) of physical row active_rows[i] is not empty. The context of a row without
// keys is zero, so b_v times the sum of its probabilities is zero too.
struct Params { first_row: u32, quads: u32 }
#include params
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read> ranges: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;
override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let i = p.first_row + wg.x;
    if (ranges[active_rows[i]].y == 0u) { return; }
    for (var q = tid; q < p.quads; q += WG) { x[i * p.quads + q] += bias[q]; }
}
