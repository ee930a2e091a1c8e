// The softmax of a row as numbers; goes behind `warping`.

// The sum of exp(x - peak), and the entropy of the softmax in nats.
fn sum_and_entropy(peak: f32, at: Invocation) -> vec2<f32> {
    var sum = 0.0;
    var turn = 0.0;
    for (var q = at.tid; q < p.quads; q += WG) {
        let x = logits[base + q];
        let e = select(vec4<f32>(0.0), exp(x - vec4<f32>(peak)), real(q));
        sum += sum4(e);
        // A score of -inf has no weight, and 0 * inf is no number.
        turn += sum4(select(vec4<f32>(0.0), e * (x - vec4<f32>(peak)), real(q) & (x >= vec4<f32>(LOWEST))));
    }
    let total = reduce_sum(sum, at);
    return vec2<f32>(total, log(total) - reduce_sum(turn, at) / total);
}
