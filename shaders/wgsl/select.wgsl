// Greedy search and sampling: chooses each active row's token, appends it in place (no row takes another's prefix) and
// notes it in the trace. With SAMPLE, the largest score - ln(e) with exponential noise e from a counter-based
// generator or from outside; the log-probability is that of the noiseless score. One workgroup per row.
#include rows
#include search
struct Params { vocab: u32, quads: u32, table: u32, trace_rows: u32 }
#include params
struct Trace { token: u32, parent: u32, logprob: f32 }
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read_write> state: array<RowState>;
@group(0) @binding(2) var<storage, read> settings: Settings;
@group(0) @binding(3) var<storage, read> logits: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(5) var<storage, read_write> slots: array<u32>;
@group(0) @binding(6) var<storage, read_write> trace: array<Trace>;
@group(0) @binding(7) var<storage, read_write> open: array<atomic<u32>>;
override WG: u32 = 256u;
override SAMPLE: bool = false;
#include reduce
#include best
#include sentences
#include random

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    let physical = active_rows[at.wg.x];
    let row = state[physical];
    let limits = sentence(row.sentence);
    let said = physical * p.table;
    let step = row.length - row.prompt_len;
    // A row that ended keeps its last token until its sentence leaves the batch. One whose scores are not finite has ended
    // too: the host finds it in the trace.
    var ended = row.length >= limits.max_length;
    if (step > 0u) {
        let last = trace[(step - 1u) * p.trace_rows + physical].logprob;
        ended = ended || is_eos(tokens[said + row.length - 1u]) || !is_finite(last);
    }
    if (ended) { return; }
    let base = at.wg.x * p.quads;

    var peak = LOWEST;
    var sum = 0.0;
    var mine = vec2<u32>(0u, NONE);
    for (var q = at.tid; q < p.quads; q += WG) {
        let in_row = vec4<u32>(4u * q) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.vocab);
        let x = logits[base + q];
        let inside = select(vec4<f32>(LOWEST), x, in_row);
        let top = max(max(inside.x, inside.y), max(inside.z, inside.w));
        if (top > peak) {
            sum *= exp(peak - top);
            peak = top;
        }
        let e = select(vec4<f32>(0.0), exp(inside - vec4<f32>(peak)), in_row);
        sum += (e.x + e.y) + (e.z + e.w);
        var key = x;
        // Where nothing is above -inf, noise would change nothing.
        if (SAMPLE && top > LOWEST) {
            key -= log(noise(q, step, at.wg.x, row.beam, limits));
        }
        for (var c = 0u; c < 4u; c++) {
            let other = vec2<u32>(ordered_key(key[c]), 4u * q + c);
            if (in_row[c] && beats(other, mine)) { mine = other; }
        }
    }
    let row_peak = reduce_max(peak, at);
    let row_sum = reduce_sum(sum * exp(peak - row_peak), at);
    let token = reduce_best(mine, at).y;

    if (at.tid == 0u) {
        var logprob = logits[base + token / 4u][token % 4u];
        if (!(row_sum == 0.0)) { logprob = logprob - row_peak - log(row_sum); }
        trace[step * p.trace_rows + physical] = Trace(token, row.beam, logprob);
        tokens[said + row.length] = token;
        slots[said + row.live] = own_slot(row, row.length);
        state[physical].length = row.length + 1u;
        state[physical].live = row.live + 1u;
        if (row.length + 1u >= limits.max_length || is_eos(token) || !is_finite(logprob)) { atomicSub(&open[row.sentence], 1u); }
    }
}
