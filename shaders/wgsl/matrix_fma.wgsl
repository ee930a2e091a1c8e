enable wgpu_cooperative_matrix;
#include storage
// Multiply-adds of cooperative matrices without memory, for measuring their rate: each subgroup keeps 4 sums, so that none waits for the one before. A subgroup adds
// up its sums in the end and leaves them in its own place of `results`, [workgroups, PLACES, EDGE * EDGE]; a place without a subgroup is not written.
struct Params { rounds: u32 }
#include params
@group(0) @binding(0) var<storage, read_write> results: array<f32>;
alias Left = #TILE<f16, A>;
alias Right = #TILE<f16, B>;
alias Sums = #TILE<f32, C>;
const EDGE: u32 = #EDGE;
const AREA: u32 = EDGE * EDGE;
const CHAINS: u32 = 4u;
override WG: u32 = 128u;
override PLACES: u32 = 16u; // subgroups of a workgroup at most
var<workgroup> left: array<f16, AREA>;
var<workgroup> right: array<f16, CHAINS * AREA>;

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(local_invocation_index) tid: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    for (var e = tid; e < AREA; e += WG) { left[e] = f16(f32((e / EDGE + e % EDGE) % 5u) * 0.125); }
    for (var e = tid; e < CHAINS * AREA; e += WG) { right[e] = f16(f32(e % 7u) * 0.125 - 0.25); }
    workgroupBarrier();
    let a = coopLoadT<Left>(&left[0], EDGE);
    var b: array<Right, CHAINS>;
    var sums: array<Sums, CHAINS>;
    for (var n = 0u; n < CHAINS; n++) {
        b[n] = coopLoadT<Right>(&right[n * AREA], EDGE);
        sums[n] = Sums();
    }
    for (var round = 0u; round < p.rounds; round++) {
        for (var n = 0u; n < CHAINS; n++) { sums[n] = coopMultiplyAdd(a, b[n], sums[n]); }
    }
    let all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
    let at = (wg.x * PLACES + subgroup) * AREA;
    coopStoreT(all, &results[at], EDGE);
}
