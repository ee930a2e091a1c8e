#include storage
// Attention probabilities of query rows, averaged over heads (alignments), and on request the log-sum-exp of each head's scores: what `attend` never stores.
// A workgroup takes one query row and its heads one after another. Invocation t has the keys t, t + WG, t + 2 WG … of a row in both passes over them: the first
// finds the largest score and the sum of exponentials, the second computes the scores again and adds the probabilities to the output. So nothing but the
// result takes memory, whatever the number of heads, and no two invocations write one element.
//
// MHA: keys are [slots, heads * width], head h at column h * width.
// EL:  keys are the hidden states X [slots, width] of all heads (head_stride 0), queries are q' = q W_k.
//
// Columns behind the number of a row's keys are zeros; a row without keys is all zeros, and its log-sum-exp the lowest number.
struct Params {
    first_row: u32,   // first index into `row_numbers`
    heads: u32,
    width: u32,       // quads of one head's key
    key_ld: u32,      // quads from one slot to the next
    head_stride: u32, // quads from one head to the next within a slot
    k_first: u32,     // quad where keys begin in a slot
    q_ld: u32,        // quads of a query row: head h begins at q_first + h * width
    q_first: u32,
    out_ld: u32,      // elements of an output row
    lse_ld: u32,
    scale: f32,
}
#include params
@group(0) @binding(0) var<storage, read> row_numbers: array<u32>;
@group(0) @binding(1) var<storage, read> ranges: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> query: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> keys: array<Quad>;
@group(0) @binding(4) var<storage, read_write> probabilities: array<f32>;
#ifdef LSE
@group(0) @binding(5) var<storage, read_write> log_sum_exp: array<f32>;
#endif
override WG: u32 = 64u;
#include reduce
const LOWEST: f32 = -3.4028234663852886e38;

fn score(row: u32, head: u32, slot: u32) -> f32 {
    let q_at = row * p.q_ld + p.q_first + head * p.width;
    let k_at = slot * p.key_ld + p.k_first + head * p.head_stride;
    var dot = 0.0;
    for (var c = 0u; c < p.width; c++) {
        let q = query[q_at + c];
        let key = widen(keys[k_at + c]);
        dot = fma(q.w, key.w, fma(q.z, key.z, fma(q.y, key.y, fma(q.x, key.x, dot))));
    }
    return dot * p.scale;
}

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    let row = p.first_row + at.wg.x;
    let range = ranges[row_numbers[row]];
    let out = row * p.out_ld;
    for (var c = at.tid; c < p.out_ld; c += WG) { probabilities[out + c] = 0.0; }
    for (var head = 0u; head < p.heads; head++) {
        var top = LOWEST;
        var sum = 0.0;
        for (var k = at.tid; k < range.y; k += WG) {
            let s = score(row, head, range.x + k);
            let above = max(top, s);
            sum = fma(sum, exp(top - above), exp(s - above));
            top = above;
        }
        let peak = reduce_max(top, at);
        let total = reduce_sum(sum * exp(top - peak), at);
        for (var k = at.tid; k < range.y; k += WG) {
            let probability = exp(score(row, head, range.x + k) - peak) / total;
            probabilities[out + k] += probability / f32(p.heads);
        }
#ifdef LSE
        if (at.tid == 0u) { log_sum_exp[row * p.lse_ld + head] = select(LOWEST, peak + log(total), range.y > 0u); }
#endif
    }
}
