// top_h, in place: of the 100 best scores keeps the first, and further ones in order as long as their terms -p ln p sum to
// no more than the part top_h of the entropy of all 100; one workgroup per active row. The best are found one after
// the other, each behind the last, the lower token on ties.
#include rows
#include search
struct Params { vocab: u32, quads: u32 }
#include params
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read> state: array<RowState>;
@group(0) @binding(2) var<storage, read> settings: Settings;
@group(0) @binding(3) var<storage, read> open: array<u32>;
@group(0) @binding(4) var<storage, read_write> logits: array<vec4<f32>>;
override WG: u32 = 256u;
#include reduce
#include best

const MOST: u32 = 100u;
var<workgroup> values: array<f32, MOST>;
var<workgroup> ids: array<u32, MOST>;

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    if (open[state[active_rows[at.wg.x]].sentence] == 0u) { return; }
    let base = at.wg.x * p.quads;
    // No float has the key 0xffffffff: everything comes behind it.
    var last = vec2<u32>(NONE, 0u);
    let count = min(MOST, p.vocab);
    for (var i = 0u; i < count; i++) {
        var mine = vec2<u32>(0u, NONE);
        for (var q = at.tid; q < p.quads; q += WG) {
            let x = logits[base + q];
            for (var c = 0u; c < 4u; c++) {
                let other = vec2<u32>(ordered_key(x[c]), 4u * q + c);
                if (other.y < p.vocab && beats(last, other) && beats(other, mine)) { mine = other; }
            }
        }
        last = reduce_best(mine, at);
        if (at.tid == 0u) {
            values[i] = logits[base + last.y / 4u][last.y % 4u];
            ids[i] = last.y;
        }
    }
    workgroupBarrier();

    let peak = values[0];
    // A row of -inf stays as it is.
    if (peak < LOWEST) { return; }
    var sum = 0.0;
    for (var i = 0u; i < count; i++) { sum += exp(values[i] - peak); }
    let ln_sum = log(sum);
    var entropy = 0.0;
    for (var i = 0u; i < count; i++) { entropy += term(values[i] - peak, sum, ln_sum); }
    var kept = 0u;
    var total = 0.0;
    for (; kept < count; kept++) {
        total += term(values[kept] - peak, sum, ln_sum);
        if (total > settings.top_h * entropy || exp(values[kept] - peak) == 0.0) { break; }
    }
    kept = max(kept, 1u) - 1u;
    let worst = vec2<u32>(ordered_key(values[kept]), ids[kept]);
    for (var q = at.tid; q < p.quads; q += WG) {
        let x = logits[base + q];
        for (var c = 0u; c < 4u; c++) {
            let id = 4u * q + c;
            let key = ordered_key(x[c]);
            // NaN, of key 0, stays.
            if (id < p.vocab && key > 0u && beats(worst, vec2<u32>(key, id))) { logits[base + q][c] = settings.neg_inf; }
        }
    }
}

// -p ln p of p = exp(x) / sum; 0 where there is no probability.
fn term(x: f32, sum: f32, ln_sum: f32) -> f32 {
    let weight = exp(x);
    return select(0.0, -weight / sum * (x - ln_sum), weight > 0.0);
}
