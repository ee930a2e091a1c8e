#include storage
// out[r] = softmax(scale q[r] K^T) V per head, over the first `keep_first` keys of row r and its last `window` ones. A workgroup is a row and a
// head; 64 keys at a time are scored by one lane each, then each lane adds the values of its quad of columns (online softmax).
struct Params {
    first_row: u32,
    head_quads: u32,  // quads of a head, at most as many as lanes
    window: u32,
    keep_first: u32,
    q_ld: u32,        // row strides in quads
    kv_ld: u32,
    k_first: u32,     // first quad of keys and of values in a row of kv
    v_first: u32,
    out_ld: u32,
    table_ld: u32,    // slots from one row of the table to the next
    scale: f32,
}
#include params
#ifdef PACKED
@group(0) @binding(0) var<storage, read> index: array<u32>;
@group(0) @binding(1) var<storage, read> ranges: array<vec2<u32>>; // (first, count) of the rows that row number i sees
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> kv: array<Quad>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
#else
#include rows
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read> state: array<RowState>;
@group(0) @binding(2) var<storage, read> slots: array<u32>;
@group(0) @binding(3) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> kv: array<Quad>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
#endif

const LANES: u32 = 64u;
var<workgroup> scores: array<f32, LANES>;
var<workgroup> places: array<u32, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = p.first_row + wg.x;
    let head = wg.y * p.head_quads;
#ifdef PACKED
    let range = ranges[index[row]];
    let keys = range.y;
#else
    let physical = active_rows[row];
    let keys = state[physical].live;
#endif
    let seen = min(keys, p.keep_first + p.window);
    let q_at = row * p.q_ld + head;
    var peak = -3.0e38;
    var total = 0.0;
    var context = vec4(0.0);
    for (var start = 0u; start < seen; start += LANES) {
        let count = min(LANES, seen - start);
        workgroupBarrier();
        if (lane < count) {
            let i = start + lane;
            let position = select(keys - seen + i, i, i < p.keep_first);
#ifdef PACKED
            let place = range.x + position;
#else
            let place = slots[physical * p.table_ld + position];
#endif
            let k_at = place * p.kv_ld + p.k_first + head;
            var sum = 0.0;
            for (var k = 0u; k < p.head_quads; k++) { sum += dot(q[q_at + k], widen(kv[k_at + k])); }
            scores[lane] = sum * p.scale;
            places[lane] = place;
        }
        workgroupBarrier();
        var highest = peak;
        for (var i = 0u; i < count; i++) { highest = max(highest, scores[i]); }
        let fade = exp(peak - highest);
        total *= fade;
        context *= fade;
        peak = highest;
        for (var i = 0u; i < count; i++) {
            let weight = exp(scores[i] - peak);
            total += weight;
            if (lane < p.head_quads) { context += weight * widen(kv[places[i] * p.kv_ld + p.v_first + head + lane]); }
        }
    }
    if (lane < p.head_quads) { out[row * p.out_ld + head + lane] = context / max(total, 1e-30); }
}
