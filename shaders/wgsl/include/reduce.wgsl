// Reductions over a workgroup of WG (a power of two) invocations, in one fixed order. With SUBGROUP the lanes of a subgroup are combined first (any
// subgroup size); without, a tree over workgroup memory. Every invocation gets the result; all must call them, in uniform control flow.
// The entry point takes `at: Invocation` and hands it on; `override WG: u32` is the shader's.
struct Invocation {
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(local_invocation_index) tid: u32,
#ifdef SUBGROUP
    @builtin(subgroup_invocation_id) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
#endif
}

var<workgroup> reduce_partial: array<f32, WG>;

#ifdef SUBGROUP
fn reduce_sum(value: f32, at: Invocation) -> f32 {
    let part = subgroupAdd(value);
    if (at.subgroups == 1u) { return part; }
    if (at.lane == 0u) { reduce_partial[at.subgroup] = part; }
    workgroupBarrier();
    var total = reduce_partial[0];
    for (var i = 1u; i < at.subgroups; i++) { total += reduce_partial[i]; }
    workgroupBarrier();
    return total;
}
fn reduce_max(value: f32, at: Invocation) -> f32 {
    let part = subgroupMax(value);
    if (at.subgroups == 1u) { return part; }
    if (at.lane == 0u) { reduce_partial[at.subgroup] = part; }
    workgroupBarrier();
    var total = reduce_partial[0];
    for (var i = 1u; i < at.subgroups; i++) { total = max(total, reduce_partial[i]); }
    workgroupBarrier();
    return total;
}
#else
fn reduce_sum(value: f32, at: Invocation) -> f32 {
    reduce_partial[at.tid] = value;
    workgroupBarrier();
    for (var reach = WG / 2u; reach > 0u; reach /= 2u) {
        if (at.tid < reach) { reduce_partial[at.tid] += reduce_partial[at.tid + reach]; }
        workgroupBarrier();
    }
    let total = reduce_partial[0];
    workgroupBarrier();
    return total;
}
fn reduce_max(value: f32, at: Invocation) -> f32 {
    reduce_partial[at.tid] = value;
    workgroupBarrier();
    for (var reach = WG / 2u; reach > 0u; reach /= 2u) {
        if (at.tid < reach) { reduce_partial[at.tid] = max(reduce_partial[at.tid], reduce_partial[at.tid + reach]); }
        workgroupBarrier();
    }
    let total = reduce_partial[0];
    workgroupBarrier();
    return total;
}
#endif
