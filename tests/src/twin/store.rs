/// Row `i` of `x` `[_, cols]`, columns from `first_col` on, goes to slot `slots[i]` of `slab` `[_, width]`; `None` goes nowhere.
pub fn store(x: &[f64], cols: usize, first_col: usize, slots: &[Option<usize>], slab: &mut [f64], width: usize) {
    for (row, slot) in x.chunks(cols).zip(slots) {
        if let Some(slot) = slot {
            slab[slot * width..(slot + 1) * width].copy_from_slice(&row[first_col..first_col + width]);
        }
    }
}
