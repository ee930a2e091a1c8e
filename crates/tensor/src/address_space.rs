//! The limit that a process may have on its address space.

/// Bytes that this process may map, where that is limited (`ulimit -v`) and the system tells.
pub(crate) fn limit() -> Option<u64> {
    if cfg!(target_os = "linux") { parse(&std::fs::read_to_string("/proc/self/limits").ok()?) } else { None }
}

/// The soft limit in the table of `/proc/self/limits`.
fn parse(limits: &str) -> Option<u64> {
    let row = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    row.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let table = |limit: &str| {
            format!(
                "Limit   Soft Limit  Hard Limit  Units\nMax cpu time  unlimited  unlimited  seconds\nMax address space         {limit}            unlimited            bytes\n"
            )
        };
        assert_eq!(parse(&table("204800000")), Some(204_800_000));
        assert_eq!(parse(&table("unlimited")), None);
        assert_eq!(parse(""), None);
    }
}
