// What the warpers share; goes behind `reduce` and `search` and needs `p.vocab`, `p.quads` and `logits`. Thresholds are
// found without sorting, bit by bit on keys that order like the scores, by counting and by summing probabilities. An
// invocation reads only quads that it wrote itself.
var<private> base: u32; // first quad of this row

fn keys(value: vec4<f32>) -> vec4<u32> {
    return vec4<u32>(ordered_key(value.x), ordered_key(value.y), ordered_key(value.z), ordered_key(value.w));
}

// Which columns of a quad are not padding.
fn real(q: u32) -> vec4<bool> {
    return vec4<u32>(4u * q) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.vocab);
}

fn sum4(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

fn largest_score(at: Invocation) -> f32 {
    var peak = LOWEST;
    for (var q = at.tid; q < p.quads; q += WG) {
        let x = select(vec4<f32>(LOWEST), logits[base + q], real(q));
        peak = max(peak, max(max(x.x, x.y), max(x.z, x.w)));
    }
    return reduce_max(peak, at);
}

// The scores whose key is at least `key`; an f32 counts exactly up to 2^24.
fn count_from(key: u32, at: Invocation) -> f32 {
    var count = 0.0;
    for (var q = at.tid; q < p.quads; q += WG) {
        count += sum4(select(vec4<f32>(0.0), vec4<f32>(1.0), real(q) & (keys(logits[base + q]) >= vec4<u32>(key))));
    }
    return reduce_sum(count, at);
}

// The largest key that at least `k` scores reach: that of the k-th largest. A key that exactly k reach parts the scores
// as well. 0 if there are not more than k.
fn key_of_best(k: u32, at: Invocation) -> u32 {
    var key = 0u;
    if (k >= p.vocab) { return key; }
    for (var bit = 0x80000000u; bit > 0u; bit >>= 1u) {
        let count = count_from(key | bit, at);
        if (count >= f32(k)) { key |= bit; }
        if (count == f32(k)) { break; }
    }
    return key;
}

// The key from which on scores must stay: that of the largest, or of the last of `settings.keep`.
fn key_to_keep(peak: f32, at: Invocation) -> u32 {
    if (settings.keep <= 1u) { return ordered_key(peak); }
    return key_of_best(settings.keep, at);
}

// NaN stays NaN: what is not finite must not look like a score that was taken away. Its key is 0.
fn keep_from(key: u32, tid: u32) {
    for (var q = tid; q < p.quads; q += WG) {
        let x = logits[base + q];
        logits[base + q] = select(x, vec4<f32>(settings.neg_inf), real(q) & (keys(x) - vec4<u32>(1u) < vec4<u32>(max(key, 1u) - 1u)));
    }
}

// Keeps scores whose exp(x - peak) is at least `least`, and those from `key` on.
fn keep_weights(least: f32, peak: f32, key: u32, tid: u32) {
    for (var q = tid; q < p.quads; q += WG) {
        let x = logits[base + q];
        let goes = (keys(x) - vec4<u32>(1u) < vec4<u32>(max(key, 1u) - 1u)) & (exp(x - vec4<f32>(peak)) < vec4<f32>(least));
        logits[base + q] = select(x, vec4<f32>(settings.neg_inf), real(q) & goes);
    }
}
