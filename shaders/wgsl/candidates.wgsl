// Beam search, first stage: the K best tokens of one part of one active row's vocabulary, by log-probability + the
// row's score, best first, the lower token on ties. Workgroup (part, row). An invocation hands out its own quads'
// tokens in order; after one is taken it looks for its next best behind that one, so nothing needs to be marked. A list
// that runs out ends with a token of NONE; NaN comes first. Pad columns are no tokens. With SAMPLE the order is that of score - ln(e) with
// exponential noise e, so that the best ones of all beams are draws without replacement.
#include rows
#include search
struct Params { vocab: u32, quads: u32, parts: u32, part_quads: u32 }
#include params
struct Hypothesis { score: f32, token: u32, parent: u32, grows: u32 }
#include candidate
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read> state: array<RowState>;
@group(0) @binding(2) var<storage, read> open: array<u32>;
@group(0) @binding(3) var<storage, read> hypotheses: array<Hypothesis>;
@group(0) @binding(4) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> lists: array<Candidate>;
#ifdef SAMPLE
@group(0) @binding(6) var<storage, read> settings: Settings;
#endif
override WG: u32 = 128u;
override K: u32 = 2u;
#include reduce
#include best
#ifdef SAMPLE
#include sentences
#include random

var<private> active_row: u32;
var<private> physical_row: u32;

// What the tokens of a quad are ordered by.
fn drawn(score: vec4<f32>, q: u32) -> vec4<f32> {
    let row = state[physical_row];
    return score - log(noise(q, row.length - row.prompt_len, active_row, row.beam, sentence(row.sentence)));
}
#endif

// The best (key, token) of this invocation's quads that comes behind `taken`.
fn next_behind(taken: vec2<u32>, base: u32, first: u32, last: u32, score: f32) -> vec2<u32> {
    var best = vec2<u32>(0u, NONE);
    for (var q = first; q < last; q += WG) {
#ifdef SAMPLE
        let x = drawn(logits[base + q] + vec4<f32>(score), q);
#else
        let x = logits[base + q] + vec4<f32>(score);
#endif
        for (var c = 0u; c < 4u; c++) {
            let other = vec2<u32>(candidate_key(x[c]), 4u * q + c);
            if (other.y < p.vocab && beats(taken, other) && beats(other, best)) { best = other; }
        }
    }
    return best;
}

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    let i = at.wg.y;
    let physical = active_rows[i];
    if (open[state[physical].sentence] == 0u) { return; }
    let score = hypotheses[physical].score;
#ifdef SAMPLE
    active_row = i;
    physical_row = physical;
#endif
    let base = i * p.quads;
    let first = at.wg.x * p.part_quads + at.tid;
    let last = min((at.wg.x + 1u) * p.part_quads, p.quads);
    let list = (i * p.parts + at.wg.x) * K;

    // No float has the key 0xffffffff: everything comes behind it.
    var mine = next_behind(vec2<u32>(NONE, 0u), base, first, last, score);
    for (var k = 0u; k < K; k++) {
        let best = reduce_best(mine, at);
        if (best.y == NONE) {
            if (at.tid == 0u) { lists[list + k].token = NONE; }
        } else if (mine.y == best.y) {
            lists[list + k].token = best.y;
            lists[list + k].logprob = logits[base + best.y / 4u][best.y % 4u];
#ifdef SAMPLE
            lists[list + k].key = best.x;
#endif
            mine = next_behind(mine, base, first, last, score);
        }
    }
}
