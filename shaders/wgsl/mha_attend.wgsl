#include storage
// Multi-head attention of few query rows over many cached keys and values: decode steps, and cross-attention of prompts.
//
// A workgroup takes HEADS heads of up to #ROWS query rows that share their keys, so that each load of a key or value quad serves all of them. Keys
// and values are [slots, heads * width] each, head h at column h * width. Every invocation plays three parts in turn:
//  - lane `lane` of head `head`: the scores of four neighbouring keys for all rows, in registers;
//  - the first HEADS * #ROWS: the running maximum of one (row, head), over what the lanes found (online softmax);
//  - column `column`: the context of one quad of columns for all rows, over every subset-th block of four keys. The sum of weights goes along as one
//    column more, so nobody adds it up twice.
// Three barriers a chunk of 4 * WG / HEADS keys. Chunks begin at position 0 (PARTIAL: of the split), and neither #ROWS nor the other rows have a part
// in the order of any sum.
//
// SLOTS: query row i alone; its keys are the live ones of its physical row, through the slot table. Without: rows of group x, workgroup y's tile,
// over the range (first, count) of the tile's first row. A row without keys gets a zero context.
// BIASED: scores += bias[head, clamp(key position - query position, -reach, reach) + reach] (T5); the query stands at the last position of its row.
// COUNTING (for tests): counts loads of the cache and multiply-adds.
// PARTIAL: workgroup z takes keys z * split ..; contexts stay un-normalised, and `stats` gets (maximum, sum): see combine.wgsl.
#ifdef SLOTS
#include rows
#endif
struct Params {
    first: u32,      // first query row (SLOTS) or group
    heads: u32,
    width: u32,      // quads of one head
    kv_ld: u32,      // quads from one slot to the next
    k_first: u32,    // quad where keys begin in a slot
    v_first: u32,
    q_ld: u32,       // quads of a query row: head h begins at q_first + h * width
    q_first: u32,
    out_ld: u32,
    table_ld: u32,   // row stride of the slot table
    split: u32,      // keys of a workgroup
    split_rows: u32, // PARTIAL: rows from one split to the next in `out` and `stats`
    scale: f32,
    bias_reach: u32,
    bias_ld: u32,    // elements from one head of the bias to the next
}
#include params
@group(0) @binding(0) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> cache: array<Quad>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> index: array<u32>;
#ifdef SLOTS
@group(0) @binding(4) var<storage, read> state: array<RowState>;
@group(0) @binding(5) var<storage, read> slots: array<u32>;
#else
@group(0) @binding(4) var<storage, read> ranges: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read> groups: array<vec2<u32>>;
#endif
#ifdef BIASED
@group(0) @binding(6) var<storage, read> bias: array<f32>;
#endif
#ifdef PARTIAL
@group(0) @binding(#PARTIAL) var<storage, read_write> stats: array<vec2<f32>>;
#endif
#ifdef COUNTING
@group(0) @binding(#COUNTING) var<storage, read_write> counts: array<atomic<u32>>;
#include count
// Four quads of the cache. Behind the two sums of `count` there is a word for each quad: how often it was loaded.
fn count_quads(at: vec4<u32>) {
    count_loads(4u);
    atomicAdd(&counts[2u + at.x], 1u);
    atomicAdd(&counts[2u + at.y], 1u);
    atomicAdd(&counts[2u + at.z], 1u);
    atomicAdd(&counts[2u + at.w], 1u);
}
#endif
override WG: u32 = 64u;
override HEADS: u32 = 1u; // divides WG; more than 1 only if HEADS * width <= WG
var<workgroup> weight: array<vec4<f32>, WG * #ROWS>; // [row][head][lane]: weights of four keys; in the end, contexts of the subsets
var<workgroup> lane_top: array<f32, WG * #ROWS>;     // the lanes' maxima; in the end, sums of weights of the subsets
var<workgroup> top: array<f32, HEADS * #ROWS>;       // [row][head]
var<workgroup> fade: array<f32, HEADS * #ROWS>;
#ifdef SLOTS
var<workgroup> place: array<vec4<u32>, WG>; // quads where four slots begin
#endif

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let span = HEADS * p.width;
    let column_tiles = (span + WG - 1u) / WG;
    let head_tiles = (p.heads + HEADS - 1u) / HEADS;
    let head0 = wg.y / column_tiles % head_tiles * HEADS;
#ifdef SLOTS
    let first_row = p.first + wg.x;
    let rows = 1u;
    let row = index[first_row];
    let base = row * p.table_ld;
    let count = state[row].live;
#ifdef BIASED
    let position = i32(state[row].length) - 1;
#endif
#else
    let group = groups[p.first + wg.x];
    let behind = wg.y / (column_tiles * head_tiles) * #ROWS;
    if (behind >= group.y) { return; }
    let first_row = group.x + behind;
    let rows = min(#ROWS, group.y - behind);
    let base = ranges[index[first_row]].x;
    let count = ranges[index[first_row]].y;
#endif
    let begin = min(wg.z * p.split, count);
    let end = begin + min(p.split, count - begin);

    // As a lane. Heads beyond the last repeat it; so do rows below.
    let lanes = WG / HEADS;
    let head = tid / lanes;
    let lane = tid % lanes;
    let k_head = p.k_first + min(head0 + head, p.heads - 1u) * p.width;
    var q_at: array<u32, #ROWS>;
    for (var r = 0u; r < #ROWS; r++) {
        q_at[r] = (first_row + min(r, rows - 1u)) * p.q_ld + p.q_first + min(head0 + head, p.heads - 1u) * p.width;
    }
    // As a column: invocations of the subsets that are left over, and columns beyond the last, have none.
    let columns = min(span, WG);
    let subsets = WG / columns;
    let subset = tid / columns;
    let column = wg.y % column_tiles * WG + tid % columns;
    let here = subset < subsets && column < span && head0 * p.width + column < p.heads * p.width;
    let c_head = min(column / p.width, HEADS - 1u);
    let v_column = p.v_first + head0 * p.width + column;
    var acc: array<vec4<f32>, #ROWS>;
    var mass: array<f32, #ROWS>;
    for (var r = 0u; r < #ROWS; r++) {
        acc[r] = vec4<f32>(0.0);
        mass[r] = 0.0;
    }
    for (var t = tid; t < HEADS * #ROWS; t += WG) { top[t] = -3.0e38; }

    for (var start = begin; start < end; start += 4u * lanes) {
        let blocks = (min(4u * lanes, end - start) + 3u) / 4u;
        // Keys behind the last one are that one again: they change no maximum, and their weight becomes 0.
        let key = vec4<u32>(start + 4u * lane) + vec4<u32>(0u, 1u, 2u, 3u);
        let real = min(key, vec4<u32>(end - 1u));
        var at = vec4<u32>(0u);
        var score: array<vec4<f32>, #ROWS>;
        // One turn at most: a loop lets a driver that runs invocations in vectors pass over a vector without keys, a condition does not.
        for (var b = lane; b < blocks; b += lanes) {
#ifdef SLOTS
            at = vec4<u32>(slots[base + real.x], slots[base + real.y], slots[base + real.z], slots[base + real.w]) * p.kv_ld;
#else
            at = (vec4<u32>(base) + real) * p.kv_ld;
#endif
            let k_at = at + vec4<u32>(k_head);
            for (var r = 0u; r < #ROWS; r++) { score[r] = vec4<f32>(0.0); }
            for (var c = 0u; c < p.width; c++) {
                let k = transpose(mat4x4<f32>(
                    widen(cache[k_at.x + c]), widen(cache[k_at.y + c]), widen(cache[k_at.z + c]), widen(cache[k_at.w + c])));
#ifdef COUNTING
                count_quads(k_at + vec4<u32>(c));
                count_fmas(4 * #ROWS);
#endif
                for (var r = 0u; r < #ROWS; r++) {
                    let q = query[q_at[r] + c];
                    score[r] = fma(vec4(q.w), k[3], fma(vec4(q.z), k[2], fma(vec4(q.y), k[1], fma(vec4(q.x), k[0], score[r]))));
                }
            }
#ifdef BIASED
            let reach = i32(p.bias_reach);
            // A key's index is its position only while its row keeps all keys. Once a policy drops some, those that stay must bring their positions.
            let distance = vec4<i32>(real) - vec4<i32>(position);
            let entry = vec4<u32>(clamp(distance, vec4<i32>(-reach), vec4<i32>(reach)) + vec4<i32>(reach))
                + vec4<u32>(min(head0 + head, p.heads - 1u) * p.bias_ld);
            let shift = vec4<f32>(bias[entry.x], bias[entry.y], bias[entry.z], bias[entry.w]);
#endif
            for (var r = 0u; r < #ROWS; r++) {
#ifdef BIASED
                score[r] = fma(score[r], vec4<f32>(p.scale), shift);
#else
                score[r] *= p.scale;
#endif
                lane_top[r * WG + tid] = max(max(score[r].x, score[r].y), max(score[r].z, score[r].w));
            }
        }
        workgroupBarrier();
        for (var t = tid; t < HEADS * #ROWS; t += WG) {
            let last = top[t];
            let from_lane = t / HEADS * WG + t % HEADS * lanes;
            var peak = last;
            for (var b = 0u; b < blocks; b++) { peak = max(peak, lane_top[from_lane + b]); }
            top[t] = peak;
            fade[t] = exp(last - peak);
        }
        workgroupBarrier();
        for (var b = lane; b < blocks; b += lanes) {
#ifdef SLOTS
            if (head == 0u) { place[b] = at; }
#endif
            for (var r = 0u; r < #ROWS; r++) {
                let e = exp(score[r] - vec4<f32>(top[r * HEADS + head]));
                weight[r * WG + tid] = select(vec4<f32>(0.0), e, key < vec4<u32>(end));
            }
        }
        workgroupBarrier();
        for (var r = 0u; r < #ROWS; r++) {
            acc[r] *= fade[r * HEADS + c_head];
            mass[r] *= fade[r * HEADS + c_head];
        }
        for (var b = select(blocks, subset, here); b < blocks; b += subsets) {
#ifdef SLOTS
            let v_at = place[b] + vec4<u32>(v_column);
#else
            let keys = min(vec4<u32>(start + 4u * b) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(end - 1u));
            let v_at = (vec4<u32>(base) + keys) * p.kv_ld + vec4<u32>(v_column);
#endif
            let x = widen(cache[v_at.x]);
            let y = widen(cache[v_at.y]);
            let z = widen(cache[v_at.z]);
            let w = widen(cache[v_at.w]);
#ifdef COUNTING
            count_quads(v_at);
            count_fmas(4 * #ROWS);
#endif
            for (var r = 0u; r < #ROWS; r++) {
                let share = weight[r * WG + c_head * lanes + b];
                acc[r] = fma(vec4(share.w), w, fma(vec4(share.z), z, fma(vec4(share.y), y, fma(vec4(share.x), x, acc[r]))));
                mass[r] += (share.x + share.y) + (share.z + share.w);
            }
        }
    }

    if (subsets > 1u) {
        workgroupBarrier();
        for (var r = 0u; r < #ROWS; r++) {
            weight[r * WG + tid] = acc[r];
            lane_top[r * WG + tid] = mass[r];
        }
        workgroupBarrier();
        for (var other = select(subsets, 1u, subset == 0u); other < subsets; other++) {
            for (var r = 0u; r < #ROWS; r++) {
                acc[r] += weight[r * WG + other * columns + tid];
                mass[r] += lane_top[r * WG + other * columns + tid];
            }
        }
    }
    if (!here || subset > 0u) { return; }
    // A constant bound, so that the arrays stay in registers.
    for (var r = 0u; r < #ROWS; r++) {
        if (r < rows) {
#ifdef PARTIAL
            let to = wg.z * p.split_rows + first_row + r;
            out[to * p.out_ld + head0 * p.width + column] = acc[r];
            if (column % p.width == 0u) {
                stats[to * p.heads + head0 + c_head] = vec2<f32>(select(-3.0e38, top[r * HEADS + c_head], begin < end), mass[r]);
            }
#else
            out[(first_row + r) * p.out_ld + head0 * p.width + column] = acc[r] * select(0.0, 1.0 / mass[r], count > 0u);
#endif
        }
    }
}
