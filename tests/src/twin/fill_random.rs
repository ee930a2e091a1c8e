/// Rows `rows`, columns `cols` of a matrix of `width` columns become pcg4d numbers (Jarzynski and Olano 2020) of their places, counted from
/// (`from_row`, `from_col`) on; `transposed` swaps what a place's two numbers are.
#[expect(clippy::too_many_arguments, reason = "the parameters of the shader")]
pub fn fill_random(
    matrix: &mut [f64],
    width: usize,
    rows: std::ops::Range<usize>,
    cols: std::ops::Range<usize>,
    key: u64,
    step: f64,
    (from_row, from_col): (usize, usize),
    transposed: bool,
) {
    for r in rows.clone() {
        for c in cols.clone() {
            let (a, b) = (r - rows.start, c - cols.start);
            let (a, b) = if transposed { (b, a) } else { (a, b) };
            let lcg = |word: u64| (word as u32).wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (mut x, mut y) = (lcg((from_row + a) as u64), lcg((from_col + b) as u64));
            let (mut z, mut w) = (lcg(key), lcg(key >> 32));
            for round in 0..2 {
                if round == 1 {
                    (x, y, z, w) = (x ^ x >> 16, y ^ y >> 16, z ^ z >> 16, w ^ w >> 16);
                }
                x = x.wrapping_add(y.wrapping_mul(w));
                y = y.wrapping_add(z.wrapping_mul(x));
                z = z.wrapping_add(x.wrapping_mul(y));
                w = w.wrapping_add(y.wrapping_mul(z));
            }
            matrix[r * width + c] = (2.0 * f64::from(x / (1 << 22)) - 1023.0) * step;
        }
    }
}
