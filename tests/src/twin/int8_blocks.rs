/// What rows of `cols` values are once they are stored in blocks of 32 columns: 8-bit integers, the largest magnitude of a block being 127, times the
/// block's scale.
pub fn int8_blocks(values: &[f32], cols: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for row in values.chunks(cols) {
        for block in row.chunks(32) {
            let peak = block.iter().map(|x| x.abs()).fold(0.0_f32, f32::max);
            let scale = peak / 127.0;
            let held = |x: &f32| if peak == 0.0 { 0.0 } else { (x / scale).round().clamp(-127.0, 127.0) * scale };
            out.extend(block.iter().map(held));
        }
    }
    out
}
