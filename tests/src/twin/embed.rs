/// `out[i] = table[id] * scale + positions[position + offset]` for (id, position) pairs; `table`: `[vocab, d]`, `positions`: `[p, d]` and its offset.
pub fn embed(rows: &[(u32, u32)], table: &[f64], d: usize, scale: f64, positions: Option<(&[f64], usize)>) -> Vec<f64> {
    let mut out = Vec::new();
    for (id, position) in rows {
        for c in 0..d {
            let place = positions.map_or(0.0, |(p, offset)| p[(*position as usize + offset) * d + c]);
            out.push(table[*id as usize * d + c] * scale + place);
        }
    }
    out
}
