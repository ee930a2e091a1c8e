enable wgpu_cooperative_matrix;
#include storage
// EL-attention of a decode step with cooperative matrices (docs/el-attention.md §1.3 and 3): scores, online softmax and context in one pass over the hidden
// states X, f16. It has the interface of el_attend.wgsl, whose comment says what groups, pairs and splits are, with tiles of 16 pairs. A chunk of #EDGE keys at
// a time is staged in workgroup memory, once, and used for q' X^T and for P X.
//
// The columns of X are dealt out to the subgroups in tiles: each holds its part of q' and of the contexts in registers. Scores are partial sums
// over a subgroup's columns, exchanged through workgroup memory. One code runs for any number of subgroups and any subgroup size: a subgroup
// without a tile of its own works on a tile of zeros behind the last one, so that control flow is the same for all.
//
// q' and P are f32 and go in as two f16 each, upper and lower half: about 22 bits. q' is scaled to below 2^15 by a power of two per row; P is scaled by 2^10,
// so that neither half meets f16's subnormals where it counts.
// Contexts are rescaled only when a score exceeds the row's reference by more than SLACK, so P stays below 2^5.
#include el_interface
alias Left = #TILE<f16, A>;
alias Right = #TILE<f16, B>;
alias Sums = #TILE<f32, C>;
const ROWS: u32 = 16u;
const EDGE: u32 = #EDGE;
const AREA: u32 = ROWS * EDGE;
const LOWEST: f32 = -3.0e38;
const SLACK: f32 = 3.4657359; // 5 ln 2
const P_SCALE: f32 = 1024.0;
override WG: u32 = 64u;
override SUBGROUPS: u32 = 8u; // at most so many in a workgroup
override TILES: u32 = 4u;     // tile columns of a hidden state
// Quads from one staged row to the next: the tiles, the tile of zeros, and what makes rows begin in different banks.
override STAGE_LD: u32 = (TILES + 1u) * (EDGE / 4u) + (EDGE - 8u) / 4u;
var<workgroup> stage: array<vec4<f16>, EDGE * STAGE_LD>;
var<workgroup> exchange: array<f32, SUBGROUPS * AREA>;
var<workgroup> upper: array<f16, AREA>;
var<workgroup> lower: array<f16, AREA>;
var<workgroup> unit: array<f32, ROWS>;  // what a score of staged q' counts
var<workgroup> peak: array<f32, ROWS>;  // references: at most SLACK below the largest score so far
var<workgroup> next_peak: array<f32, ROWS>;
var<workgroup> fade: array<f32, ROWS>;  // what the contexts so far count after this chunk
var<workgroup> total: array<f32, ROWS>; // sums of P, scaled as P is
var<workgroup> moved: u32;

// The leading 11 bits, which f16 holds exactly from 2^-14 on. By bits: compilers take f32(f16(v)) for v, and the lower half for 0.
fn upper_half(v: vec4<f32>) -> vec4<f32> { return bitcast<vec4<f32>>(bitcast<vec4<u32>>(v) & vec4<u32>(0xffffe000u)); }

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) tid: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
#ifdef SLOTS
    let first_row = p.first + wg.y;
    let row = active_rows[first_row];
    let pairs = p.heads;
    let keys = state[row].live;
#ifdef BIASED
    let position = i32(state[row].length) - 1;
#endif
    let base = row * p.table_ld;
#else
    let group = groups[p.first + wg.y];
    let first_row = group.x;
    let pairs = group.y * p.heads;
    let range = ranges[row_numbers[first_row]];
    let keys = range.y;
    let base = range.x;
#endif
    let first_pair = wg.x * ROWS;
    if (first_pair >= pairs) { return; }
#ifdef SPLITS
    let begin = wg.z * p.split;
    let end = select(min(begin + p.split, keys), keys, wg.z + 1u == grid.z);
    if (begin >= end) {
        if (tid < ROWS && first_pair + tid < pairs) {
            let pair = first_pair + tid;
            stats[(wg.z * p.rows + first_row + pair / p.heads) * p.heads + pair % p.heads] = vec2<f32>(LOWEST, 0.0);
        }
        return;
    }
#else
    let begin = 0u;
    let end = keys;
#endif
    let own = subgroup * AREA;
    // An invocation stages quads `lane`, `lane + lanes` ... of one row.
    let lanes = WG / EDGE;
    let staged_row = tid / lanes;
    let lane = tid % lanes;

    // The largest |q'| of each row gives its scale.
    let scan = WG / ROWS;
    let scanned = first_pair + tid / scan;
    var largest = 0.0;
    if (scanned < pairs) {
        let at = (first_row + scanned / p.heads) * p.q_ld + scanned % p.heads * p.width;
        for (var c = tid % scan; c < p.width; c += scan) {
            let q = abs(query[at + c]);
            largest = max(largest, max(max(q.x, q.y), max(q.z, q.w)));
        }
    }
    exchange[tid] = largest;
    workgroupBarrier();
    if (tid < ROWS) {
        for (var i = 0u; i < scan; i++) { largest = max(largest, exchange[tid * scan + i]); }
        // 2^14 <= scaled < 2^15: the exponent of the largest becomes 127 + 14.
        let exponent = clamp(bitcast<u32>(largest) >> 23u, 15u, 254u);
        unit[tid] = bitcast<f32>((exponent - 14u) << 23u);
        peak[tid] = LOWEST;
        total[tid] = 0.0;
    }
    if (tid == 0u) { moved = 0u; }
    workgroupBarrier();

    // q' through the stage, halves apart; the same rows of zeros behind the columns serve X later.
    var q_upper: array<array<Left, #BANDS>, #OWNED>;
    var q_lower: array<array<Left, #BANDS>, #OWNED>;
    for (var band = 0u; band < #BANDS; band++) {
        let r = band * EDGE + staged_row;
        let pair = first_pair + r;
        let at = (first_row + pair / p.heads) * p.q_ld + pair % p.heads * p.width;
        let factor = 1.0 / unit[r];
        for (var c = lane; c < (TILES + 1u) * (EDGE / 4u); c += lanes) {
            var v = vec4<f32>(0.0);
            if (pair < pairs && c < p.width) { v = query[at + c] * factor; }
            stage[staged_row * STAGE_LD + c] = vec4<f16>(upper_half(v));
        }
        workgroupBarrier();
        for (var i = 0u; i < #OWNED; i++) {
            let tile = min(subgroup + i * subgroups, TILES) * (EDGE / 4u);
            q_upper[i][band] = coopLoadT<Left>(&stage[tile], STAGE_LD);
        }
        workgroupBarrier();
        for (var c = lane; c < p.width; c += lanes) {
            var v = vec4<f32>(0.0);
            if (pair < pairs) { v = query[at + c] * factor; }
            stage[staged_row * STAGE_LD + c] = vec4<f16>(v - upper_half(v));
        }
        workgroupBarrier();
        for (var i = 0u; i < #OWNED; i++) {
            let tile = min(subgroup + i * subgroups, TILES) * (EDGE / 4u);
            q_lower[i][band] = coopLoadT<Left>(&stage[tile], STAGE_LD);
        }
        workgroupBarrier();
    }

    var contexts: array<array<Sums, #BANDS>, #OWNED>;
    for (var start = begin; start < end; start += EDGE) {
        // Rows behind the last key are zero: whatever lies there must not meet a P of 0.
        let staged = start + staged_row;
        if (staged < end) {
#ifdef SLOTS
            let at = slots[base + staged] * p.x_ld;
#else
            let at = (base + staged) * p.x_ld;
#endif
            for (var c = lane; c < p.width; c += lanes) { stage[staged_row * STAGE_LD + c] = x[at + c]; }
        } else {
            for (var c = lane; c < p.width; c += lanes) { stage[staged_row * STAGE_LD + c] = vec4<f16>(0.0h); }
        }
        workgroupBarrier();

        // Scores over the subgroup's columns. X is [key, column]: as the right factor of q' X^T it is read by columns.
        var partial: array<Sums, #BANDS>;
        for (var band = 0u; band < #BANDS; band++) { partial[band] = Sums(); }
        for (var i = 0u; i < #OWNED; i++) {
            let tile = min(subgroup + i * subgroups, TILES) * (EDGE / 4u);
            let keys_tile = coopLoad<Right>(&stage[tile], STAGE_LD);
            for (var band = 0u; band < #BANDS; band++) {
                partial[band] = coopMultiplyAdd(q_upper[i][band], keys_tile, partial[band]);
                partial[band] = coopMultiplyAdd(q_lower[i][band], keys_tile, partial[band]);
            }
        }
        for (var band = 0u; band < #BANDS; band++) {
            let sums = partial[band];
            let at = own + band * EDGE * EDGE;
            coopStoreT(sums, &exchange[at], EDGE);
        }
        workgroupBarrier();
        for (var e = tid; e < AREA; e += WG) {
            let r = e / EDGE;
            let key = start + e % EDGE;
            var sum = 0.0;
            for (var s = 0u; s < subgroups; s++) { sum += exchange[s * AREA + e]; }
            sum = sum * unit[r] * p.scale;
#ifdef BIASED
            let reach = i32(p.bias_reach);
            // A key's index is its position only while a row keeps all its keys: see el_attend.wgsl.
            let distance = clamp(i32(key) - position, -reach, reach);
            sum += bias[min(first_pair + r, pairs - 1u) % p.heads * p.bias_ld + u32(distance + reach)];
#endif
            exchange[e] = select(LOWEST, sum, key < end);
        }
        workgroupBarrier();
        for (var e = tid; e < AREA; e += WG) {
            let r = e / EDGE;
            var top = LOWEST;
            for (var k = 0u; k < EDGE; k++) { top = max(top, exchange[r * EDGE + k]); }
            let moves = top > peak[r] + SLACK;
            let reference = select(peak[r], top, moves);
            let weight = exp(exchange[e] - reference) * P_SCALE;
            let front = upper_half(vec4<f32>(weight)).x;
            upper[e] = f16(front);
            lower[e] = f16(weight - front);
            if (e % EDGE == 0u) {
                next_peak[r] = reference;
                fade[r] = exp(peak[r] - reference);
                if (moves && start > begin) { moved = 1u; }
            }
        }
        let rescale = workgroupUniformLoad(&moved);
        if (rescale != 0u) {
            if (tid == 0u) { moved = 0u; }
            for (var i = 0u; i < #OWNED; i++) {
                for (var band = 0u; band < #BANDS; band++) {
                    let sums = contexts[i][band];
                    let at = own + band * EDGE * EDGE;
                    coopStoreT(sums, &exchange[at], EDGE);
                }
                workgroupBarrier();
                for (var e = tid; e < subgroups * AREA; e += WG) { exchange[e] *= fade[e % AREA / EDGE]; }
                workgroupBarrier();
                for (var band = 0u; band < #BANDS; band++) {
                    contexts[i][band] = coopLoadT<Sums>(&exchange[own + band * EDGE * EDGE], EDGE);
                }
            }
        }

        // Contexts of the subgroup's columns.
        var p_upper: array<Left, #BANDS>;
        var p_lower: array<Left, #BANDS>;
        for (var band = 0u; band < #BANDS; band++) {
            p_upper[band] = coopLoadT<Left>(&upper[band * EDGE * EDGE], EDGE);
            p_lower[band] = coopLoadT<Left>(&lower[band * EDGE * EDGE], EDGE);
        }
        for (var i = 0u; i < #OWNED; i++) {
            let tile = min(subgroup + i * subgroups, TILES) * (EDGE / 4u);
            let values_tile = coopLoadT<Right>(&stage[tile], STAGE_LD);
            for (var band = 0u; band < #BANDS; band++) {
                contexts[i][band] = coopMultiplyAdd(p_upper[band], values_tile, contexts[i][band]);
                contexts[i][band] = coopMultiplyAdd(p_lower[band], values_tile, contexts[i][band]);
            }
        }
        if (tid < ROWS) {
            var sum = 0.0;
            for (var k = 0u; k < EDGE; k++) { sum += f32(upper[tid * EDGE + k]) + f32(lower[tid * EDGE + k]); }
            total[tid] = fma(total[tid], fade[tid], sum);
            peak[tid] = next_peak[tid];
        }
        workgroupBarrier();
    }

    for (var i = 0u; i < #OWNED; i++) {
        for (var band = 0u; band < #BANDS; band++) {
            let sums = contexts[i][band];
            let at = own + band * EDGE * EDGE;
            coopStoreT(sums, &exchange[at], EDGE);
        }
        workgroupBarrier();
        for (var e = tid; e < subgroups * (AREA / 4u); e += WG) {
            let r = e % (AREA / 4u) / (EDGE / 4u);
            let c = (e / (AREA / 4u) + i * subgroups) * (EDGE / 4u) + e % (EDGE / 4u);
            let pair = first_pair + r;
            if (pair < pairs && c < p.width) {
                let sums = vec4<f32>(exchange[4u * e], exchange[4u * e + 1u], exchange[4u * e + 2u], exchange[4u * e + 3u]);
                let query_row = first_row + pair / p.heads;
                let column = pair % p.heads * p.width + c;
#ifdef SPLITS
                partials[(wg.z * p.rows + query_row) * p.out_ld + column] = sums / P_SCALE;
#else
                out[query_row * p.out_ld + column] = sums * select(0.0, 1.0 / total[r], keys > 0u);
#endif
            }
        }
        workgroupBarrier();
    }
#ifdef SPLITS
    if (tid < ROWS && first_pair + tid < pairs) {
        let pair = first_pair + tid;
        stats[(wg.z * p.rows + first_row + pair / p.heads) * p.heads + pair % p.heads] = vec2<f32>(peak[tid], total[tid] / P_SCALE);
    }
#endif
}
