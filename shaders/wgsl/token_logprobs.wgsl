// For each row of logits: log-softmax at one given id, and the row's largest logit (the lowest index on ties) with its own
// log-softmax. One workgroup per row. An index is exact in f32 up to 2^24, more than any vocabulary.
struct Params { first_row: u32, vocab: u32, quads: u32 }
#include params
struct Score { logprob: f32, top_id: u32, top_logprob: f32 }
@group(0) @binding(0) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> scores: array<Score>;
override WG: u32 = 256u;
#include reduce
const LOWEST: f32 = -3.4028234663852886e38;

fn inside(q: u32) -> vec4<bool> {
    return vec4(4u * q) + vec4(0u, 1u, 2u, 3u) < vec4(p.vocab);
}

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    let row = p.first_row + at.wg.x;
    let base = row * p.quads;
    var peak = LOWEST;
    for (var q = at.tid; q < p.quads; q += WG) {
        let x = select(vec4(LOWEST), logits[base + q], inside(q));
        peak = max(peak, max(max(x.x, x.y), max(x.z, x.w)));
    }
    peak = reduce_max(peak, at);
    var sum = vec4(0.0);
    var top = p.vocab;
    for (var q = at.tid; q < p.quads; q += WG) {
        let x = logits[base + q];
        let in_row = inside(q);
        sum += select(vec4(0.0), exp(x - vec4(peak)), in_row);
        for (var c = 0u; c < 4u; c++) {
            if (in_row[c] && x[c] == peak) { top = min(top, 4u * q + c); }
        }
    }
    let total = reduce_sum((sum.x + sum.y) + (sum.z + sum.w), at);
    let top_id = u32(-reduce_max(-f32(top), at));
    if (at.tid == 0u) {
        let id = ids[row];
        let log_total = log(total);
        scores[row] = Score(logits[base + id / 4u][id % 4u] - peak - log_total, top_id, -log_total);
    }
}
