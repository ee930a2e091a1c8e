// Merges the partial contexts of a query row whose keys were cut into splits (flash decoding): each split left, per head, the maximum and the sum of its
// weights in `stats`, and its context, not yet divided by the sum, in `partials`. They are taken in order of the splits, so that a result has one
// arithmetic; a split without keys left the sum 0 and no context.
//
// A row whose keys lie in one split gets the bits that its workgroup would have written: its weight is exactly 1.
struct Params {
    first_row: u32,
    rows: u32,   // rows from one split to the next in `partials` and `stats`
    splits: u32,
    heads: u32,
    width: u32,  // quads of one head
    part_ld: u32, // row strides in quads
    out_ld: u32,
}
#include params
@group(0) @binding(0) var<storage, read> partials: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
override WG: u32 = 64u;

fn fade(distance: f32) -> f32 { return select(exp(distance), 1.0, distance == 0.0); }

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) tid: u32) {
    let row = p.first_row + wg.x;
    let head = wg.y;
    var peak = -3.0e38;
    for (var s = 0u; s < p.splits; s++) { peak = max(peak, stats[(s * p.rows + row) * p.heads + head].x); }
    var total = 0.0;
    for (var s = 0u; s < p.splits; s++) {
        let part = stats[(s * p.rows + row) * p.heads + head];
        total = fma(part.y, fade(part.x - peak), total);
    }
    let share = select(0.0, 1.0 / total, total > 0.0);
    for (var c = tid; c < p.width; c += WG) {
        var sum = vec4<f32>(0.0);
        for (var s = 0u; s < p.splits; s++) {
            let part = stats[(s * p.rows + row) * p.heads + head];
            // What a split without keys left behind may be anything, NaN too.
            if (part.y > 0.0) {
                let context = partials[(s * p.rows + row) * p.part_ld + head * p.width + c];
                sum = fma(context, vec4<f32>(fade(part.x - peak)), sum);
            }
        }
        out[row * p.out_ld + head * p.width + c] = sum * share;
    }
}
