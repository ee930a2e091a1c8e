/// Sums of the quads of `x` in `groups` equal runs (the last may be shorter): each of 256 lanes takes every 256th quad of its run. `[groups, 1024]`.
pub fn stream(x: &[f64], groups: usize) -> Vec<f64> {
    let per_group = (x.len() / 4).div_ceil(groups);
    let mut sums = vec![0.0; groups * 1024];
    for (i, value) in x.iter().enumerate() {
        let (group, within) = (i / 4 / per_group, i / 4 % per_group);
        sums[group * 1024 + within % 256 * 4 + i % 4] += value;
    }
    sums
}
