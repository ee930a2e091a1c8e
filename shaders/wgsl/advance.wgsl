// Beam search, last stage, one workgroup per active row: takes the parent's prefix of the token and slot tables into
// the other parity and appends the new token with a slot of the row's own. A row of a finished sentence copies its own
// prefix and does not grow. All rows of a sentence have one length and as many live keys.
#include rows
struct Params { table: u32 }
#include params
struct Hypothesis { score: f32, token: u32, parent: u32, grows: u32 }
@group(0) @binding(0) var<storage, read> active_rows: array<u32>;
@group(0) @binding(1) var<storage, read_write> state: array<RowState>;
@group(0) @binding(2) var<storage, read> hypotheses: array<Hypothesis>;
@group(0) @binding(3) var<storage, read> tokens: array<u32>;
@group(0) @binding(4) var<storage, read> slots: array<u32>;
@group(0) @binding(5) var<storage, read_write> next_tokens: array<u32>;
@group(0) @binding(6) var<storage, read_write> next_slots: array<u32>;
override WG: u32 = 64u;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let physical = active_rows[wg.x];
    let row = state[physical];
    let chosen = hypotheses[physical];
    let parent = (physical - row.beam + chosen.parent) * p.table;
    let to = physical * p.table;
    for (var j = tid; j < row.length; j += WG) {
        next_tokens[to + j] = tokens[parent + j];
        if (j < row.live) { next_slots[to + j] = slots[parent + j]; }
    }
    // Every invocation has read the state.
    storageBarrier();
    if (tid == 0u && chosen.grows == 1u) {
        next_tokens[to + row.length] = chosen.token;
        next_slots[to + row.live] = own_slot(row, row.length);
        state[physical].length = row.length + 1u;
        state[physical].live = row.live + 1u;
    }
}
