// epsilon_cutoff and eta_cutoff, in place: keep the scores whose probability reaches a bar, fixed or lower the flatter the
// distribution is; one workgroup per active row.
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

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    if (open[state[active_rows[at.wg.x]].sentence] == 0u) { return; }
    base = at.wg.x * p.quads;
    let peak = largest_score(at);
    if (settings.epsilon > 0.0) {
        let sum = sum_and_entropy(peak, at).x;
        keep_weights(settings.epsilon * sum, peak, key_to_keep(peak, at), at.tid);
    }
    if (settings.eta > 0.0) {
        let found = sum_and_entropy(peak, at);
        let bar = min(settings.eta, sqrt(settings.eta) * exp(-found.y));
        keep_weights(bar * found.x, peak, key_to_keep(peak, at), at.tid);
    }
}
