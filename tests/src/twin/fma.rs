/// A row of results: `x = x * factor + offset`, `rounds` times, for 16 chains of 256 invocations, summed four by four. `[1024]`.
pub fn fma_rounds(rounds: u32, factor: f64, offset: f64) -> Vec<f64> {
    let chain = |start: usize| (0..rounds).fold(start as f64, |x, _| x * factor + offset);
    let quad = |tid: usize| (0..4).map(move |c| (0..4).map(|k| chain(tid + c + 4 * k)).sum());
    (0..256).flat_map(quad).collect()
}
