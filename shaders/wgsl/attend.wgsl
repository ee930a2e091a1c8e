#include storage
// Attention of query rows over cached keys and values, all kinds: a workgroup takes one query row and a tile of #TILE heads, walks its keys in chunks of WG
// from position 0, and keeps a running maximum, sum and context per head (online softmax), so the probabilities are never stored.
//
// MHA: keys and values are [slots, heads * width], head h at column h * width, TILE = 1.
// EL:  keys and values are the same hidden states X [slots, width], shared by all heads (head_stride 0), queries are q' = q W_k: TILE heads reuse each load of X.
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
    heads: u32,
    width: u32,       // quads of one head's key
    kv_ld: u32,       // quads from one slot to the next
    head_stride: u32, // quads from one head to the next within a slot
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
override ACC: u32 = 64u; // #TILE * width: the running contexts, in quads
var<workgroup> acc: array<vec4<f32>, ACC>;
var<workgroup> weight: array<f32, WG * #TILE>;
var<workgroup> place: array<u32, WG>;
var<workgroup> peak: array<f32, #TILE>;
var<workgroup> fade: array<f32, #TILE>;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let i = p.first_row + wg.x;
    let row = active_rows[i];
    let head0 = wg.y * #TILE;
#ifdef SLOTS
    let first = row * p.table_ld;
    let count = state[row].length;
#else
    let first = ranges[row].x;
    let count = ranges[row].y;
#endif
    var total: array<f32, #TILE>;
    for (var h = 0u; h < #TILE; h++) { total[h] = 0.0; }
    if (tid < #TILE) { peak[tid] = -3.0e38; }
    for (var c = tid; c < #TILE * p.width; c += WG) { acc[c] = vec4<f32>(0.0); }

    for (var start = 0u; start < count; start += WG) {
        let n = min(WG, count - start);
        // Scores: one key per invocation, all heads of the tile.
        if (tid < n) {
#ifdef SLOTS
            let at = slots[first + start + tid] * p.kv_ld;
#else
            let at = (first + start + tid) * p.kv_ld;
#endif
            place[tid] = at;
            var dots: array<f32, #TILE>;
            for (var h = 0u; h < #TILE; h++) { dots[h] = 0.0; }
            for (var c = 0u; c < p.width; c++) {
#ifdef SHARED
                let shared_key = widen(keys[at + p.k_first + c]);
#endif
                for (var h = 0u; h < #TILE; h++) {
                    let head = min(head0 + h, p.heads - 1u);
#ifdef SHARED
                    let key = shared_key;
#else
                    let key = widen(keys[at + p.k_first + head * p.head_stride + c]);
#endif
                    let q = query[i * p.q_ld + p.q_first + head * p.width + c];
                    dots[h] = fma(q.w, key.w, fma(q.z, key.z, fma(q.y, key.y, fma(q.x, key.x, dots[h]))));
                }
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
            for (var h = 0u; h < #TILE; h++) {
#ifdef BIASED
                weight[h * WG + tid] = fma(dots[h], p.scale, bias[min(head0 + h, p.heads - 1u) * p.bias_ld + bias_at]);
#else
                weight[h * WG + tid] = dots[h] * p.scale;
#endif
            }
        }
        workgroupBarrier();
        // One invocation a head follows the running maximum.
        if (tid < #TILE) {
            var top = peak[tid];
            for (var k = 0u; k < n; k++) { top = max(top, weight[tid * WG + k]); }
            fade[tid] = exp(peak[tid] - top);
            peak[tid] = top;
        }
        workgroupBarrier();
        if (tid < n) {
            for (var h = 0u; h < #TILE; h++) { weight[h * WG + tid] = exp(weight[h * WG + tid] - peak[h]); }
        }
        workgroupBarrier();
        // Context: one quad of columns per invocation, all heads of the tile. The sum of weights goes along, once per invocation that has a column.
        for (var c = tid; c < p.width; c += WG) {
            var parts: array<vec4<f32>, #TILE>;
            var sum: array<f32, #TILE>;
            for (var h = 0u; h < #TILE; h++) {
                parts[h] = acc[h * p.width + c] * fade[h];
                sum[h] = 0.0;
            }
            for (var k = 0u; k < n; k++) {
#ifdef SHARED
                let shared_value = widen(values[place[k] + p.v_first + c]);
#endif
                for (var h = 0u; h < #TILE; h++) {
#ifdef SHARED
                    let value = shared_value;
#else
                    let value = widen(values[place[k] + p.v_first + min(head0 + h, p.heads - 1u) * p.head_stride + c]);
#endif
                    let share = weight[h * WG + k];
                    parts[h] = fma(vec4<f32>(share), value, parts[h]);
                    sum[h] += share;
                }
            }
            for (var h = 0u; h < #TILE; h++) {
                acc[h * p.width + c] = parts[h];
                if (c == tid) { total[h] = fma(total[h], fade[h], sum[h]); }
            }
        }
        workgroupBarrier();
    }

    for (var h = 0u; h < #TILE; h++) {
        if (head0 + h < p.heads) {
            let share = select(0.0, 1.0 / total[h], count > 0u);
            for (var c = tid; c < p.width; c += WG) { context[i * p.out_ld + (head0 + h) * p.width + c] = acc[h * p.width + c] * share; }
        }
    }
}
