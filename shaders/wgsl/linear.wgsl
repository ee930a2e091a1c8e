#include matrix
// out[r, n] = activate(sum_k x[r, k] w[n, k] + bias[n]) + residual[r, n], for one row window of the weights. A gate takes the residual's place: it is
// multiplied instead of added.
// One invocation makes TILE_M rows x 4 columns (a quad of n). Workgroup z is a head: its x columns start z * x_head quads behind those of the first
// head, its weight rows and output columns z * n_quads quads. Each element is summed as fma over k = 0, 1, 2 ... whatever the tile, so all variants
// agree to the bit.
//
// Without STAGED, lanes lie along n and read from memory: right where all lanes of a row load one x (a scalar) and caches are large, as on a CPU.
// LISTED: rows are numbers of a list of rows, whose places in x, the operands and out they have.
// With STAGED, a workgroup of COLUMNS x ROWS invocations stages KQ quads of its rows and columns in workgroup memory, read in order of memory.
struct Params {
    first_row: u32,
    end_row: u32,
    w_quads: u32,   // quads summed: one row of weights
    w_first: u32,   // row of the window with which the first head begins
    n_quads: u32,   // quads of output columns per head
    x_first: u32,   // quad of x with which the first head begins
    x_head: u32,    // quads of x from one head to the next
    x_ld: u32,      // row strides in quads
    out_ld: u32,
    residual_ld: u32,
    out_first: u32, // first output quad
    operands: u32,  // bit 0: bias, bit 1: residual, bit 2: gate
}
#include params
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
#ifdef LISTED
@group(0) @binding(5) var<storage, read> list: array<u32>;
fn line(row: u32) -> u32 { return list[row]; }
#else
fn line(row: u32) -> u32 { return row; }
#endif
#include activate

// Adds to a sum what x quad v and the weights of four columns (rows of `t` by k) give for four k.
fn advance(sum: vec4<f32>, v: vec4<f32>, t: mat4x4<f32>) -> vec4<f32> {
    return fma(vec4(v.w), t[3], fma(vec4(v.z), t[2], fma(vec4(v.y), t[1], fma(vec4(v.x), t[0], sum))));
}

fn finish(sum: vec4<f32>, number: u32, n: u32) {
    let row = line(number);
    let column = p.out_first + n;
    var v = sum;
    if ((p.operands & 1u) != 0u) { v += bias[column]; }
    v = activate(v);
    if ((p.operands & 6u) != 0u) {
        let other = residual[row * p.residual_ld + column];
        v = select(v * other, v + other, (p.operands & 2u) != 0u);
    }
    out[row * p.out_ld + column] = v;
}

#ifdef STAGED
override COLUMNS: u32 = 16u;
override ROWS: u32 = 16u;
override KQ: u32 = 4u;
// Rows of KQ quads with one quad between, which spreads them over the banks.
var<workgroup> x_stage: array<vec4<f32>, ROWS * #TILE_M * (KQ + 1u)>;
var<workgroup> w_stage: array<vec4<f32>, COLUMNS * 4u * (KQ + 1u)>;

@compute @workgroup_size(COLUMNS, ROWS)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_id) at: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let first_n = wg.x * COLUMNS;
    let first_row = p.first_row + wg.y * ROWS * #TILE_M;
    let head = p.x_first + wg.z * p.x_head;
    let w_row = p.w_first + wg.z * p.n_quads * 4u;
    var acc: array<vec4<f32>, #TILE_M>;
    for (var first_k = 0u; first_k < p.w_quads; first_k += KQ) {
        workgroupBarrier();
        // Rows, columns and quads beyond the edge repeat the last one.
        for (var i = tid; i < ROWS * #TILE_M * KQ; i += COLUMNS * ROWS) {
            let row = line(min(first_row + i / KQ, p.end_row - 1u));
            let k = min(first_k + i % KQ, p.w_quads - 1u);
            x_stage[i / KQ * (KQ + 1u) + i % KQ] = x[row * p.x_ld + head + k];
        }
        for (var i = tid; i < COLUMNS * 4u * KQ; i += COLUMNS * ROWS) {
            let column = i / KQ;
            let k = min(first_k + i % KQ, p.w_quads - 1u);
            let source = weight_row(w_row + min(first_n * 4u + column, p.n_quads * 4u - 1u));
            // The four columns of an invocation lie COLUMNS rows apart, so that neighbours read neighbouring banks.
            w_stage[(column % 4u * COLUMNS + column / 4u) * (KQ + 1u) + i % KQ] = weight(source, k);
        }
        workgroupBarrier();
        let quads = min(KQ, p.w_quads - first_k);
        for (var k = 0u; k < quads; k++) {
            let from_w = at.x * (KQ + 1u) + k;
            let step = COLUMNS * (KQ + 1u);
            let t = transpose(mat4x4<f32>(
                w_stage[from_w], w_stage[from_w + step], w_stage[from_w + 2u * step], w_stage[from_w + 3u * step]));
            for (var m = 0u; m < #TILE_M; m++) {
                acc[m] = advance(acc[m], x_stage[(m * ROWS + at.y) * (KQ + 1u) + k], t);
            }
        }
    }
    if (first_n + at.x >= p.n_quads) { return; }
    for (var m = 0u; m < #TILE_M; m++) {
        let row = first_row + m * ROWS + at.y;
        if (row >= p.end_row) { return; }
        finish(acc[m], row, wg.z * p.n_quads + first_n + at.x);
    }
}
#else
override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    // Lanes and rows beyond the edge repeat the last one and write nothing: no branch in the loop.
    let lane = wg.x * WG + tid;
    let n = wg.z * p.n_quads + min(lane, p.n_quads - 1u);
    let row = p.first_row + wg.y * #TILE_M;
    let head = p.x_first + wg.z * p.x_head;
    let w_at = weight_row(p.w_first + n * 4u);
    var x_at: array<u32, #TILE_M>;
    var acc: array<vec4<f32>, #TILE_M>;
    for (var m = 0u; m < #TILE_M; m++) { x_at[m] = line(min(row + m, p.end_row - 1u)) * p.x_ld + head; }
    for (var k = 0u; k < p.w_quads; k++) {
        let t = transpose(weight_rows(w_at, k));
        for (var m = 0u; m < #TILE_M; m++) { acc[m] = advance(acc[m], x[x_at[m] + k], t); }
    }
    if (lane >= p.n_quads) { return; }
    for (var m = 0u; m < #TILE_M; m++) {
        if (row + m >= p.end_row) { return; }
        finish(acc[m], row + m, n);
    }
}
#endif
