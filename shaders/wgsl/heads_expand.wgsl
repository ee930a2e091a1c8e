#include matrix
// out[r, h, n] = sum_k q[r, h, k] w[h, k, n]: per head, a product with weights `[k, n]` as they lie.
// One invocation makes TILE_M rows x 4 columns; workgroup z is the head. Summed as fma over k = 0, 1, 2 ..., like every matrix kernel.
struct Params {
    first_row: u32,
    end_row: u32,
    k_quads: u32,   // quads of q summed per head; 4 k_quads rows of weights
    w_quads: u32,   // quads of one head in out: one row of weights
    w_first: u32,   // row of the window with which the first head begins
    q_first: u32,   // quad of q with which the first head begins
    q_head: u32,    // quads of q from one head to the next
    q_ld: u32,      // row strides in quads
    out_ld: u32,
    out_first: u32, // first output quad
    continued: u32, // 1: sums go on from what `out` holds: the window has the later rows of a head
}
#include params
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let lane = wg.x * WG + tid;
    let n = min(lane, p.w_quads - 1u);
    let row = p.first_row + wg.y * #TILE_M;
    let step = weight_row(1u);
    let w_at = weight_row(p.w_first + wg.z * p.k_quads * 4u);
    let out_at = p.out_first + wg.z * p.w_quads + n;
    var q_at: array<u32, #TILE_M>;
    var acc: array<vec4<f32>, #TILE_M>;
    for (var m = 0u; m < #TILE_M; m++) {
        q_at[m] = min(row + m, p.end_row - 1u) * p.q_ld + p.q_first + wg.z * p.q_head;
        acc[m] = vec4(0.0);
        // Only what this invocation itself writes.
        if (p.continued != 0u && lane < p.w_quads && row + m < p.end_row) { acc[m] = out[(row + m) * p.out_ld + out_at]; }
    }
    for (var k = 0u; k < p.k_quads; k++) {
        let t = weight_rows(w_at + 4u * k * step, n);
        for (var m = 0u; m < #TILE_M; m++) {
            let v = q[q_at[m] + k];
            acc[m] = fma(vec4(v.x), t[0], acc[m]);
            acc[m] = fma(vec4(v.y), t[1], acc[m]);
            acc[m] = fma(vec4(v.z), t[2], acc[m]);
            acc[m] = fma(vec4(v.w), t[3], acc[m]);
        }
    }
    if (lane >= p.w_quads) { return; }
    for (var m = 0u; m < #TILE_M; m++) {
        if (row + m >= p.end_row) { return; }
        out[(row + m) * p.out_ld + out_at] = acc[m];
    }
}
