#include storage
// out[r, h, n] = sum_{k < 4 head_quads} q[r, h, k] w[h, k, n]: per head, a product with weights `[k, n]` as they lie.
// One invocation makes TILE_M rows x 4 columns; workgroup z is the head. Summed as fma over k = 0, 1, 2 ..., like every matrix kernel.
struct Params {
    first_row: u32,
    end_row: u32,
    head_quads: u32, // quads of one head in q; 4 head_quads rows of w
    n_quads: u32,    // quads of one head in out; row stride of w
    q_ld: u32,       // row strides in quads
    out_ld: u32,
}
#include params
@group(0) @binding(0) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> w: array<Quad>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let lane = wg.x * WG + tid;
    let n = min(lane, p.n_quads - 1u);
    let row = p.first_row + wg.y * #TILE_M;
    let w_at = wg.z * p.head_quads * 4u * p.n_quads + n;
    var q_at: array<u32, #TILE_M>;
    var acc: array<vec4<f32>, #TILE_M>;
    for (var m = 0u; m < #TILE_M; m++) {
        q_at[m] = min(row + m, p.end_row - 1u) * p.q_ld + wg.z * p.head_quads;
        acc[m] = vec4(0.0);
    }
    for (var k = 0u; k < p.head_quads; k++) {
        let at = w_at + 4u * k * p.n_quads;
        let t0 = widen(w[at]);
        let t1 = widen(w[at + p.n_quads]);
        let t2 = widen(w[at + 2u * p.n_quads]);
        let t3 = widen(w[at + 3u * p.n_quads]);
        for (var m = 0u; m < #TILE_M; m++) {
            let v = q[q_at[m] + k];
            acc[m] = fma(vec4(v.x), t0, acc[m]);
            acc[m] = fma(vec4(v.y), t1, acc[m]);
            acc[m] = fma(vec4(v.z), t2, acc[m]);
            acc[m] = fma(vec4(v.w), t3, acc[m]);
        }
    }
    if (lane >= p.n_quads) { return; }
    for (var m = 0u; m < #TILE_M; m++) {
        if (row + m >= p.end_row) { return; }
        out[(row + m) * p.out_ld + wg.z * p.n_quads + n] = acc[m];
    }
}
