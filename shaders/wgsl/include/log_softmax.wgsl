// The log-softmax of a row of `logits`, in place; goes behind `reduce` and `search` and needs `p.vocab` and `p.quads`. An
// invocation reads only quads that it writes itself.
var<private> base: u32; // first quad of this row

// Gives `outside` to the pad columns of a quad.
fn within(q: u32, value: vec4<f32>, outside: f32) -> vec4<f32> {
    return select(vec4<f32>(outside), value, vec4<u32>(4u * q) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(p.vocab));
}

// x - max - ln sum exp(x - max). A row of -inf stays as it is.
fn log_softmax(at: Invocation) {
    var peak = LOWEST;
    var sum = 0.0;
    for (var q = at.tid; q < p.quads; q += WG) {
        let x = within(q, logits[base + q], LOWEST);
        let top = max(max(x.x, x.y), max(x.z, x.w));
        if (top > peak) {
            sum *= exp(peak - top);
            peak = top;
        }
        let e = within(q, exp(x - vec4<f32>(peak)), 0.0);
        sum += (e.x + e.y) + (e.z + e.w);
    }
    let row_peak = reduce_max(peak, at);
    let row_sum = reduce_sum(sum * exp(peak - row_peak), at);
    if (!(row_sum == 0.0)) {
        for (var q = at.tid; q < p.quads; q += WG) {
            logits[base + q] = within(q, logits[base + q] - vec4<f32>(row_peak) - vec4<f32>(log(row_sum)), 0.0);
        }
    }
}
