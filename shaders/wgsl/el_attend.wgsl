#include storage
// EL-attention of query rows over cached hidden states X, in one pass: out = softmax(scale * q' X^T + bias) X, with q' = q W_k of one head (docs/el-attention.md).
//
// The query rows that share an X are the pairs (row, head) of a group of rows: with SLOTS the heads of one hypothesis, whose keys are the live ones of
// its physical row, found through the slot table; without, all heads of a sentence's rows, whose keys are its range (first, count). A workgroup (tile, group,
// split) takes #ROWS pairs and walks the keys of its split in chunks of 4. Invocation t owns the quads t, t + WG ... of a hidden state, #QUADS in all: q' and the
// context of every pair, and each quad of X, which is loaded once, used for the scores, kept, and used again for the contexts.
//
// Per chunk: (1) each invocation sums its part of every score and leaves it in `exchange`; (2) invocation r adds up the parts of pair r and moves its softmax on
// (running maximum and sum); (3) each invocation fades and extends its contexts. The arithmetic of a pair depends on WG, #QUADS and its own keys, not on its
// tile, and a pair that a tile lacks repeats the last one and is not written.
//
// SPLITS: workgroup z takes the keys from z * split on (the last one all that remain) and leaves its context undivided in `partials`, with the maximum and sum of
// its weights in `stats`, for combine.wgsl. A row without keys gets a zero context, a split without keys the sum 0.
#include el_interface
#ifdef COUNTING
#include count
#endif
override WG: u32 = 32u;
override PARTS: u32 = 33u; // places of a pair in `exchange`: at least WG, or the subgroups of a workgroup
var<workgroup> exchange: array<vec4<f32>, PARTS * #ROWS>;
var<workgroup> weights: array<vec4<f32>, #ROWS>;
var<workgroup> factors: array<f32, #ROWS>;

struct Place {
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) tid: u32,
#ifdef SUBGROUP
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_size) lanes: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
#endif
}

// Leaves an invocation's part of the scores of pair r with 4 keys.
fn give(r: u32, dots: vec4<f32>, at: Place) {
#ifdef SUBGROUP
    // Neighbours swap halves, so that each lane adds up one key over four lanes; then the fours are added.
    let odd = (at.lane & 1u) != 0u;
    let two = select(dots.xy, dots.zw, odd) + subgroupShuffleXor(select(dots.zw, dots.xy, odd), 1u);
    let high = (at.lane & 2u) != 0u;
    var one = select(two.x, two.y, high) + subgroupShuffleXor(select(two.y, two.x, high), 2u);
    for (var reach = 4u; reach < at.lanes; reach *= 2u) { one += subgroupShuffleXor(one, reach); }
    if (at.lane < 4u) { exchange[r * PARTS + at.subgroup][(at.lane & 1u) * 2u + (at.lane >> 1u)] = one; }
#else
    exchange[r * PARTS + at.tid] = dots;
#endif
}

@compute @workgroup_size(WG)
fn main(at: Place) {
#ifdef SLOTS
    let first_row = p.first + at.wg.y;
    let physical = active_rows[first_row];
    let keys = vec2<u32>(physical * p.table_ld, state[physical].live);
    let pairs = p.heads;
#ifdef BIASED
    // The query stands at the last position of its row.
    let position = i32(state[physical].length) - 1;
#endif
#else
    let group = groups[p.first + at.wg.y];
    let first_row = group.x;
    let keys = ranges[row_numbers[first_row]];
    let pairs = group.y * p.heads;
#endif
    let first_pair = at.wg.x * #ROWS;
    if (first_pair >= pairs) { return; }
    let own_pair = min(first_pair + at.tid, pairs - 1u);
#ifdef SPLITS
    let begin = at.wg.z * p.split;
    let end = select(min(begin + p.split, keys.y), keys.y, at.wg.z + 1u == at.grid.z);
#else
    let begin = 0u;
    let end = keys.y;
#endif

    var q: array<vec4<f32>, #ROWS * #QUADS>;
    var context: array<vec4<f32>, #ROWS * #QUADS>;
    for (var r = 0u; r < #ROWS; r++) {
        let pair = min(first_pair + r, pairs - 1u);
        let q_at = (first_row + pair / p.heads) * p.q_ld + pair % p.heads * p.width;
        for (var n = 0u; n < #QUADS; n++) {
            let c = n * WG + at.tid;
            if (c < p.width) { q[r * #QUADS + n] = query[q_at + c]; }
        }
    }
    var peak = -3.0e38;
    var total = 0.0;
    for (var key = begin; key < end; key += 4u) {
        // What is not loaded stays 0: quads beyond the width, and keys beyond the end, whose weight will be 0.
        var chunk: array<vec4<f32>, 4 * #QUADS>;
        for (var k = 0u; k < 4u; k++) {
            if (key + k < end) {
#ifdef SLOTS
                let x_at = slots[keys.x + key + k] * p.x_ld;
#else
                let x_at = (keys.x + key + k) * p.x_ld;
#endif
                for (var n = 0u; n < #QUADS; n++) {
                    let c = n * WG + at.tid;
                    if (c < p.width) {
                        chunk[k * #QUADS + n] = widen(x[x_at + c]);
#ifdef COUNTING
                        count_loads(1u);
#endif
                    }
                }
            }
        }
        for (var r = 0u; r < #ROWS; r++) {
            var dots = vec4<f32>(0.0);
            for (var n = 0u; n < #QUADS; n++) {
                let t = transpose(mat4x4<f32>(chunk[n], chunk[#QUADS + n], chunk[2 * #QUADS + n], chunk[3 * #QUADS + n]));
                let v = q[r * #QUADS + n];
                dots = fma(vec4(v.w), t[3], fma(vec4(v.z), t[2], fma(vec4(v.y), t[1], fma(vec4(v.x), t[0], dots))));
            }
            give(r, dots, at);
        }
#ifdef COUNTING
        count_fmas(4 * #ROWS * #QUADS);
#endif
        workgroupBarrier();
        if (at.tid < #ROWS) {
            var scores = exchange[at.tid * PARTS];
#ifdef SUBGROUP
            for (var i = 1u; i < at.subgroups; i++) { scores += exchange[at.tid * PARTS + i]; }
#else
            for (var i = 1u; i < WG; i++) { scores += exchange[at.tid * PARTS + i]; }
#endif
            let numbers = vec4<u32>(key) + vec4<u32>(0u, 1u, 2u, 3u);
#ifdef BIASED
            // A key's index is its position only while its row keeps all keys. Once a policy drops some, those that stay must bring their positions.
            let reach = vec4<i32>(i32(p.bias_reach));
            let columns = clamp(vec4<i32>(numbers) - vec4<i32>(position), -reach, reach) + reach;
            let b = vec4<u32>(own_pair % p.heads * p.bias_ld) + vec4<u32>(columns);
            scores = fma(scores, vec4<f32>(p.scale), vec4<f32>(bias[b.x], bias[b.y], bias[b.z], bias[b.w]));
#else
            scores *= p.scale;
#endif
            scores = select(vec4<f32>(-3.0e38), scores, numbers < vec4<u32>(end));
            let top = max(peak, max(max(scores.x, scores.y), max(scores.z, scores.w)));
            let fade = exp(peak - top);
            let weight = exp(scores - vec4<f32>(top));
            total = fma(total, fade, (weight.x + weight.y) + (weight.z + weight.w));
            peak = top;
            factors[at.tid] = fade;
            weights[at.tid] = weight;
        }
        workgroupBarrier();
        for (var r = 0u; r < #ROWS; r++) {
            let fade = factors[r];
            let w = weights[r];
            for (var n = 0u; n < #QUADS; n++) {
                let faded = context[r * #QUADS + n] * fade;
                context[r * #QUADS + n] = fma(vec4(w.w), chunk[3 * #QUADS + n], fma(vec4(w.z), chunk[2 * #QUADS + n],
                    fma(vec4(w.y), chunk[#QUADS + n], fma(vec4(w.x), chunk[n], faded))));
            }
        }
#ifdef COUNTING
        count_fmas(4 * #ROWS * #QUADS);
#endif
        // No barrier here: what the next chunk writes first is not read after the last one.
    }
#ifdef SPLITS
    if (at.tid < #ROWS && first_pair + at.tid < pairs) {
        let row = at.wg.z * p.rows + first_row + own_pair / p.heads;
        stats[row * p.heads + own_pair % p.heads] = vec2<f32>(peak, total);
    }
    if (begin >= end) { return; }
#else
    workgroupBarrier();
    if (at.tid < #ROWS) { factors[at.tid] = select(0.0, 1.0 / total, end > 0u); }
    workgroupBarrier();
#endif
    for (var r = 0u; r < #ROWS; r++) {
        let pair = first_pair + r;
        if (pair < pairs) {
            let row = first_row + pair / p.heads;
            for (var n = 0u; n < #QUADS; n++) {
                let c = n * WG + at.tid;
                if (c < p.width) {
#ifdef SPLITS
                    partials[(at.wg.z * p.rows + row) * p.out_ld + pair % p.heads * p.width + c] = context[r * #QUADS + n];
#else
                    out[row * p.out_ld + pair % p.heads * p.width + c] = context[r * #QUADS + n] * factors[r];
#endif
                }
            }
        }
    }
}
