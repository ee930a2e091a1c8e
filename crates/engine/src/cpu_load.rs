//! How busy the processors are with other programs: what a software adapter is measured beside.

/// Processor time since some moment, in the kernel's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CpuTime {
    /// Of all processors, idle or not.
    all: u64,
    /// Not idle.
    used: u64,
    /// By this process.
    own: u64,
}

impl CpuTime {
    /// Now; `None` where the system does not tell.
    pub(crate) fn now() -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        Self::parse(&read("/proc/stat")?, &read("/proc/self/stat")?)
    }

    /// From `/proc/stat` and `/proc/self/stat`.
    fn parse(machine: &str, process: &str) -> Option<Self> {
        let line = machine.lines().next()?.strip_prefix("cpu ")?;
        // User, nice, system, idle, waiting for input and output, interrupts, soft interrupts, stolen; guests are counted in user.
        let times: Vec<u64> = line.split_whitespace().take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        let all: u64 = times.iter().sum();
        let idle = times.get(3)?.checked_add(*times.get(4)?)?;
        // The program's name, in brackets, may hold anything; user and system time are the 12th and 13th number behind it.
        let behind = process.rsplit_once(')')?.1;
        let mut numbers = behind.split_whitespace().skip(11).map(str::parse::<u64>);
        let own = numbers.next()?.ok()?.checked_add(numbers.next()?.ok()?)?;
        Some(Self { all, used: all.checked_sub(idle)?, own })
    }

    /// The part of all processor time that others have taken since `self`; `None` where no time has passed.
    pub(crate) fn others_until(self, now: Self) -> Option<f64> {
        let passed = |of: fn(&Self) -> u64| of(&now).saturating_sub(of(&self)) as f64;
        let (all, used, own) = (passed(|t| t.all), passed(|t| t.used), passed(|t| t.own));
        (all > 0.0).then(|| ((used - own) / all).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_what_is_used_and_not_by_this_process() {
        let process = |own: u64| format!("71 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 {own} 5 0 0 20 0 3 0 100 1000 50");
        let before = CpuTime::parse("cpu  100 0 50 800 50 0 0 0 10 0\ncpu0 1 2 3\n", &process(40)).unwrap();
        assert_eq!(before, CpuTime { all: 1000, used: 150, own: 45 });
        let now = CpuTime::parse("cpu  180 0 70 890 60 0 0 0 10 0\n", &process(80)).unwrap();
        // 100 of 200 ticks are used, 40 of them by this process.
        assert_eq!(before.others_until(now), Some(0.3));
        assert_eq!(now.others_until(now), None);
        assert_eq!(CpuTime::parse("", &process(1)), None);
        assert_eq!(CpuTime::parse("cpu  1 2\n", &process(1)), None);
        assert_eq!(CpuTime::parse("cpu  1 2 3 4 5 6 7 8\n", "71 (a) R 1"), None);
        if cfg!(target_os = "linux") {
            assert!(CpuTime::now().is_some());
        }
    }
}
