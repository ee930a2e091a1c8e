// Reads a buffer once, for measuring bandwidth: workgroup g sums the quads g * per_group .. (g + 1) * per_group, each lane every WG-th of them.
struct Params { quads: u32, per_group: u32 }
#include params
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> sums: array<vec4<f32>>;
override WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let first = wg.x * p.per_group;
    let end = min(first + p.per_group, p.quads);
    var sum = vec4(0.0);
    for (var q = first + tid; q < end; q += WG) { sum += x[q]; }
    sums[wg.x * WG + tid] = sum;
}
