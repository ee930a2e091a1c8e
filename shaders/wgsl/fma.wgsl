// Multiply-adds without memory, for measuring the arithmetic rate: 16 chains per invocation, so that no multiply-add waits for the one before.
struct Params { rounds: u32, factor: f32, offset: f32 }
#include params
@group(0) @binding(0) var<storage, read_write> results: array<vec4<f32>>;
override WG: u32 = 256u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let at = wg.x * WG + tid;
    let factor = vec4(p.factor);
    let offset = vec4(p.offset);
    var a = vec4(0.0, 1.0, 2.0, 3.0) + vec4(f32(tid));
    var b = a + vec4(4.0);
    var c = a + vec4(8.0);
    var d = a + vec4(12.0);
    for (var round = 0u; round < p.rounds; round++) {
        a = fma(a, factor, offset);
        b = fma(b, factor, offset);
        c = fma(c, factor, offset);
        d = fma(d, factor, offset);
    }
    results[at] = (a + b) + (c + d);
}
