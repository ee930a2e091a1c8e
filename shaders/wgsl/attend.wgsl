#include storage
// Attention of query rows over cached keys and values [slots, heads * width], head h at column h * width: a workgroup takes one query row and one head, walks
// its keys in chunks of WG from position 0, and keeps a running maximum, sum and context (online softmax), so the probabilities are never stored.
//
// SLOTS: row i attends to positions 0 .. length of its physical row, found through the slot table. Without: to the range (first, count) of its physical row.
// A row without keys gets a zero context.
//
// BIASED: scores += bias[head, clamp(key position - query position, -reach, reach) + reach] (T5). The query stands at the last position of its row (SLOTS),
// or is itself key row i of the range.
#ifdef SLOTS
#include rows
#endif
struct Params {
    first_row: u32,   // first index into `active_rows`
    width: u32,       // quads of one head's key
    kv_ld: u32,       // quads from one slot to the next
    k_first: u32,     // quad where keys begin in a slot
    v_first: u32,
    q_ld: u32,        // quads of a query row: head h begins at q_first + h * width
    q_first: u32,
    out_ld: u32,
    table_ld: u32,    // row stride of the slot table
    scale: f32,
    bias_reach: u32,
    bias_ld: u32,     // elements from one head of the bias to the next
}
#include params
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
#ifdef SLOTS
@group(0) @binding(1) var<storage, read> state: array<RowState>;
@group(0) @binding(2) var<storage, read> slots: array<u32>;
@group(0) @binding(3) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> keys: array<Quad>;
@group(0) @binding(5) var<storage, read> values: array<Quad>;
@group(0) @binding(6) var<storage, read_write> context: array<vec4<f32>>;
#ifdef BIASED
@group(0) @binding(7) var<storage, read> bias: array<f32>;
#endif
#else
@group(0) @binding(1) var<storage, read> ranges: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> keys: array<Quad>;
@group(0) @binding(4) var<storage, read> values: array<Quad>;
@group(0) @binding(5) var<storage, read_write> context: array<vec4<f32>>;
#ifdef BIASED
@group(0) @binding(6) var<storage, read> bias: array<f32>;
#endif
#endif
override WG: u32 = 64u;
override ACC: u32 = 64u; // width: the running context, in quads
var<workgroup> acc: array<vec4<f32>, ACC>;
var<workgroup> weight: array<f32, WG>;
var<workgroup> place: array<u32, WG>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let i = p.first_row + wg.x;
    let row = active_rows[i];
    let head = wg.y;
#ifdef SLOTS
    let first = row * p.table_ld;
    let count = state[row].length;
#else
    let first = ranges[row].x;
    let count = ranges[row].y;
#endif
    var peak = -3.0e38;
    var total = 0.0;
    for (var c = tid; c < p.width; c += WG) { acc[c] = vec4<f32>(0.0); }

    for (var start = 0u; start < count; start += WG) {
        let n = min(WG, count - start);
        // Scores: one key per invocation.
        if (tid < n) {
#ifdef SLOTS
            let at = slots[first + start + tid] * p.kv_ld;
#else
            let at = (first + start + tid) * p.kv_ld;
#endif
            place[tid] = at;
            var dot = 0.0;
            for (var c = 0u; c < p.width; c++) {
                let key = widen(keys[at + p.k_first + head * p.width + c]);
                let q = query[i * p.q_ld + p.q_first + head * p.width + c];
                dot = fma(q.w, key.w, fma(q.z, key.z, fma(q.y, key.y, fma(q.x, key.x, dot))));
            }
#ifdef BIASED
#ifdef SLOTS
            let position = i32(count) - 1;
#else
            let position = i32(i) - i32(first);
#endif
            let reach = i32(p.bias_reach);
            let bias_at = u32(clamp(i32(start + tid) - position, -reach, reach) + reach);
#endif
#ifdef BIASED
            weight[tid] = fma(dot, p.scale, bias[head * p.bias_ld + bias_at]);
#else
            weight[tid] = dot * p.scale;
#endif
        }
        workgroupBarrier();
        // Every invocation follows the running maximum itself: the same numbers in the same order.
        var top = peak;
        for (var k = 0u; k < n; k++) { top = max(top, weight[k]); }
        let fade = exp(peak - top);
        peak = top;
        workgroupBarrier();
        if (tid < n) { weight[tid] = exp(weight[tid] - peak); }
        workgroupBarrier();
        var sum = 0.0;
        for (var k = 0u; k < n; k++) { sum += weight[k]; }
        total = fma(total, fade, sum);
        // Context: one quad of columns per invocation.
        for (var c = tid; c < p.width; c += WG) {
            var part = acc[c] * fade;
            for (var k = 0u; k < n; k++) {
                let value = widen(values[place[k] + p.v_first + head * p.width + c]);
                part = fma(vec4<f32>(weight[k]), value, part);
            }
            acc[c] = part;
        }
        workgroupBarrier();
    }

    let share = select(0.0, 1.0 / total, count > 0u);
    for (var c = tid; c < p.width; c += WG) { context[i * p.out_ld + head * p.width + c] = acc[c] * share; }
}
