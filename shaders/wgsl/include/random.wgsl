// Philox4x32-10 and exponential noise, the same bits as crates/search/src/twin/random.rs; needs `sentences` and `p.quads`.

// High and low half of a * b, from four 16-bit products.
fn mul_wide(a: u32, b: u32) -> vec2<u32> {
    let al = a & 0xffffu;
    let ah = a >> 16u;
    let bl = b & 0xffffu;
    let bh = b >> 16u;
    let low = al * bl;
    let mid = ah * bl + (low >> 16u); // at most 0xfffe0001 + 0xffff: no overflow
    let cross = al * bh + (mid & 0xffffu);
    return vec2<u32>(ah * bh + (mid >> 16u) + (cross >> 16u), (cross << 16u) | (low & 0xffffu));
}

// The random words of token ids 4 * quad .. 4 * quad + 3.
fn random_words(quad: u32, step: u32, ordinal_low: u32, stream: u32) -> vec4<u32> {
    var counter = vec4<u32>(quad, step, ordinal_low, stream);
    var key = vec2<u32>(settings.seed_low, settings.seed_high);
    for (var round = 0u; round < 10u; round++) {
        let one = mul_wide(0xd2511f53u, counter.x);
        let two = mul_wide(0xcd9e8d57u, counter.z);
        counter = vec4<u32>(two.x ^ counter.y ^ key.x, two.y, one.x ^ counter.w ^ key.y, one.y);
        key += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return counter;
}

// word / 2^32, cut to 24 bits so that the conversion is exact.
fn unit(word: u32) -> f32 {
    return f32(select(word & 0xffffff00u, word, word < 0x1000000u)) / 4294967296.0;
}

// -ln(1 - v) with v = word / 2^32, never 0: below 1/2 as 2 artanh(v / (2 - v)), to which all bits of v contribute.
fn exponential(word: u32) -> f32 {
    if (word >= 0x80000000u) { return -log(unit(~word + 1u)); }
    let v = unit(max(word, 1u));
    let t = v / (2.0 - v);
    let s = t * t;
    var sum = 1.0 / 15.0;
    sum = sum * s + 1.0 / 13.0;
    sum = sum * s + 1.0 / 11.0;
    sum = sum * s + 1.0 / 9.0;
    sum = sum * s + 1.0 / 7.0;
    sum = sum * s + 1.0 / 5.0;
    sum = sum * s + 1.0 / 3.0;
    sum = sum * s + 1.0;
    return 2.0 * t * sum;
}

// The noise of token ids 4 * quad .. 4 * quad + 3 for new token number `step` of active row `i`, which is beam or sample
// `beam` of its sentence.
fn noise(quad: u32, step: u32, i: u32, beam: u32, limits: Sentence) -> vec4<f32> {
    if (settings.noise != NONE) {
        let at = settings.noise + (i * p.quads + quad) * 4u;
        let words = vec4<u32>(settings.words[at], settings.words[at + 1u], settings.words[at + 2u], settings.words[at + 3u]);
        return bitcast<vec4<f32>>(words);
    }
    let words = random_words(quad, step, limits.ordinal_low, (beam << 16u) | (limits.ordinal_high & 0xffffu));
    return vec4<f32>(exponential(words.x), exponential(words.y), exponential(words.z), exponential(words.w));
}
