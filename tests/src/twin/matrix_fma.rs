/// What a subgroup leaves after `rounds` rounds of `matrix_fma.wgsl` on tiles of `edge`: `[edge * edge]`.
pub fn matrix_rounds(edge: usize, rounds: u32) -> Vec<f64> {
    let left = |i: usize, k: usize| ((i + k) % 5) as f64 / 8.0;
    let right = |n: usize, k: usize, j: usize| (((n * edge + k) * edge + j) % 7) as f64 / 8.0 - 0.25;
    let product = |i: usize, j: usize| -> f64 {
        (0..4).flat_map(|n| (0..edge).map(move |k| (n, k))).map(|(n, k)| left(i, k) * right(n, k, j)).sum()
    };
    (0..edge * edge).map(|e| f64::from(rounds) * product(e / edge, e % edge)).collect()
}
