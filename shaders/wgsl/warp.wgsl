// The warpers of sampling, in place: temperature, top-k, top-p, each on the result of the one before; one workgroup per
// active row. No sorting: both thresholds are found bit by bit on the ordered key, by counting and by summing
// probabilities. An invocation reads only quads that it wrote itself.
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

var<private> base: u32; // first quad of this row

fn keys(value: vec4<f32>) -> vec4<u32> {
    return vec4<u32>(ordered_key(value.x), ordered_key(value.y), ordered_key(value.z), ordered_key(value.w));
}

// Which columns of a quad are not padding.
fn real(q: u32) -> vec4<bool> {
    return vec4<u32>(4u * q) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.vocab);
}

fn sum4(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

// The scores whose key is at least `key`; an f32 counts exactly up to 2^24.
fn count_from(key: u32, at: Invocation) -> f32 {
    var count = 0.0;
    for (var q = at.tid; q < p.quads; q += WG) {
        count += sum4(select(vec4<f32>(0.0), vec4<f32>(1.0), real(q) & (keys(logits[base + q]) >= vec4<u32>(key))));
    }
    return reduce_sum(count, at);
}

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

// The largest key that at least k scores reach: that of the k-th largest. A key that exactly k reach parts the scores as
// well.
fn kth_key(k: u32, at: Invocation) -> u32 {
    var key = 0u;
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        let count = count_from(key | bit, at);
        if (count >= f32(k)) { key |= bit; }
        if (count == f32(k)) { break; }
    }
    return key;
}

fn keep_from(key: u32, tid: u32) {
    for (var q = tid; q < p.quads; q += WG) {
        let x = logits[base + q];
        logits[base + q] = select(x, vec4<f32>(settings.neg_inf), real(q) & (keys(x) < vec4<u32>(key)));
    }
}

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    if (open[state[active_rows[at.wg.x]].sentence] == 0u) { return; }
    base = at.wg.x * p.quads;
    if (settings.temperature != 1.0) {
        for (var q = at.tid; q < p.quads; q += WG) { logits[base + q] = logits[base + q] / settings.temperature; }
    }
    if (settings.top_k > 0u && settings.top_k < p.vocab) {
        keep_from(kth_key(settings.top_k, at), at.tid);
    }
    if (settings.top_p_limit > 0.0) {
        var peak = LOWEST;
        for (var q = at.tid; q < p.quads; q += WG) {
            let x = select(vec4<f32>(LOWEST), logits[base + q], real(q));
            peak = max(peak, max(max(x.x, x.y), max(x.z, x.w)));
        }
        peak = reduce_max(peak, at);
        let limit = settings.top_p_limit * weight_below(NONE, peak, at);
        // The largest key below which no more than 1 - p of the probability lies; the best score always stays.
        var key = 0u;
        for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
            if (weight_below(key | bit, peak, at) <= limit) { key |= bit; }
        }
        var enough = ordered_key(peak);
        if (settings.keep > 1u) { enough = kth_key(settings.keep, at); }
        keep_from(min(key, enough), at.tid);
    }
}
