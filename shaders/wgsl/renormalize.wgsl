// The log-softmax of each active row of scores, in place; a row of -inf stays as it is. One workgroup per row. Pad columns
// stay 0.
#include rows
#include search
struct Params { vocab: u32, quads: u32 }
#include params
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read> state: array<RowState>;
@group(0) @binding(2) var<storage, read> open: array<u32>;
@group(0) @binding(3) var<storage, read_write> logits: array<vec4<f32>>;
override WG: u32 = 256u;
#include reduce
#include log_softmax

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    if (open[state[active_rows[at.wg.x]].sentence] == 0u) { return; }
    base = at.wg.x * p.quads;
    log_softmax(at);
}
