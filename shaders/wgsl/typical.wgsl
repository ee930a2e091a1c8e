// typical_p, in place: keeps the scores whose -ln p lies nearest to the entropy, up to the smallest distance within which
// the probability typical_p lies; one workgroup per active row. A distance is never negative, so its bits order like it
// and bisection on them needs no sorting.
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
#include warping
#include entropy

var<private> peak: f32;
var<private> ln_sum: f32;
var<private> entropy: f32;

fn distances(x: vec4<f32>) -> vec4<u32> {
    return bitcast<vec4<u32>>(abs(-(x - vec4<f32>(peak) - vec4<f32>(ln_sum)) - vec4<f32>(entropy)));
}

// The sum of exp(x - peak) over the scores nearer than `bits`; it grows with them, rounding included.
fn weight_within(bits: u32, at: Invocation) -> f32 {
    var sum = 0.0;
    for (var q = at.tid; q < p.quads; q += WG) {
        let x = logits[base + q];
        let counted = real(q) & (distances(x) < vec4<u32>(bits)) & (keys(x) > vec4<u32>(0u));
        sum += sum4(select(vec4<f32>(0.0), exp(x - vec4<f32>(peak)), counted));
    }
    return reduce_sum(sum, at);
}

fn count_within(bits: u32, at: Invocation) -> f32 {
    var count = 0.0;
    for (var q = at.tid; q < p.quads; q += WG) {
        let nearer = real(q) & (distances(logits[base + q]) < vec4<u32>(bits));
        count += sum4(select(vec4<f32>(0.0), vec4<f32>(1.0), nearer));
    }
    return reduce_sum(count, at);
}

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    if (open[state[active_rows[at.wg.x]].sentence] == 0u) { return; }
    base = at.wg.x * p.quads;
    peak = largest_score(at);
    let found = sum_and_entropy(peak, at);
    // A row of -inf stays as it is.
    if (found.x == 0.0) { return; }
    ln_sum = log(found.x);
    entropy = found.y;
    let limit = settings.typical_p * weight_within(0x80000000u, at);
    // The largest bits within which there is less than the limit: the smallest distance that reaches it.
    var farthest = 0u;
    for (var bit = 0x40000000u; bit > 0u; bit >>= 1u) {
        if (weight_within(farthest | bit, at) < limit) { farthest |= bit; }
    }
    if (settings.keep > 1u) {
        var least = 0u;
        for (var bit = 0x40000000u; bit > 0u; bit >>= 1u) {
            if (count_within(least | bit, at) < f32(settings.keep)) { least |= bit; }
        }
        farthest = max(farthest, least);
    }
    for (var q = at.tid; q < p.quads; q += WG) {
        let x = logits[base + q];
        let goes = real(q) & (distances(x) > vec4<u32>(farthest));
        logits[base + q] = select(x, vec4<f32>(settings.neg_inf), goes);
    }
}
