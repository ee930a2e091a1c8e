// The warpers of sampling that need one pass or one threshold, in place: with HEAT the temperature, with CUT top-k, top-p
// and min-p, each on the result of the one before; one workgroup per active row. No sorting.
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
override HEAT: bool = true;
override CUT: bool = true;
#include reduce
#include warping

// The sum of exp(x - peak) over the scores whose key is below `key`. It grows with the key, rounding included, because
// every invocation adds the same places in the same order.
fn weight_below(key: u32, peak: f32, at: Invocation) -> f32 {
    var sum = 0.0;
    for (var q = at.tid; q < p.quads; q += WG) {
        let x = logits[base + q];
        let k = keys(x);
        // Key 0 is NaN, which has no weight.
        let counted = real(q) & (k < vec4<u32>(key)) & (k > vec4<u32>(0u));
        sum += sum4(select(vec4<f32>(0.0), exp(x - vec4<f32>(peak)), counted));
    }
    return reduce_sum(sum, at);
}

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    if (open[state[active_rows[at.wg.x]].sentence] == 0u) { return; }
    base = at.wg.x * p.quads;
    if (HEAT && settings.temperature != 1.0) {
        for (var q = at.tid; q < p.quads; q += WG) { logits[base + q] = logits[base + q] / settings.temperature; }
    }
    if (!CUT) { return; }
    if (settings.top_k > 0u) { keep_from(key_of_best(settings.top_k, at), at.tid); }
    if (settings.top_p_limit > 0.0) {
        let peak = largest_score(at);
        let limit = settings.top_p_limit * weight_below(NONE, peak, at);
        // The largest key below which no more than 1 - p of the probability lies.
        var key = 0u;
        for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
            if (weight_below(key | bit, peak, at) <= limit) { key |= bit; }
        }
        keep_from(min(key, key_to_keep(peak, at)), at.tid);
    }
    if (settings.min_p > 0.0) {
        let peak = largest_score(at);
        keep_weights(settings.min_p, peak, key_to_keep(peak, at), at.tid);
    }
}
