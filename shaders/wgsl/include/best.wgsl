// The best of a workgroup's (key, index) pairs: the largest key, the lowest index on ties. Goes behind `reduce` and
// `search`. Every invocation gets the result; all must call it, in uniform control flow. Indices must differ, those of
// NONE excepted.
var<workgroup> best_partial: array<vec2<u32>, WG>;

fn beats(a: vec2<u32>, b: vec2<u32>) -> bool {
    return a.x > b.x || (a.x == b.x && a.y < b.y);
}

#ifdef SUBGROUP
fn reduce_best(mine: vec2<u32>, at: Invocation) -> vec2<u32> {
    let key = subgroupMax(mine.x);
    let index = subgroupMin(select(NONE, mine.y, mine.x == key));
    var best = vec2<u32>(key, index);
    if (at.subgroups == 1u) { return best; }
    if (at.lane == 0u) { best_partial[at.subgroup] = best; }
    workgroupBarrier();
    for (var i = 0u; i < at.subgroups; i++) {
        if (beats(best_partial[i], best)) { best = best_partial[i]; }
    }
    workgroupBarrier();
    return best;
}
#else
fn reduce_best(mine: vec2<u32>, at: Invocation) -> vec2<u32> {
    best_partial[at.tid] = mine;
    workgroupBarrier();
    for (var reach = WG / 2u; reach > 0u; reach /= 2u) {
        if (at.tid < reach && beats(best_partial[at.tid + reach], best_partial[at.tid])) {
            best_partial[at.tid] = best_partial[at.tid + reach];
        }
        workgroupBarrier();
    }
    let best = best_partial[0];
    workgroupBarrier();
    return best;
}
#endif
