//! How long and how large an answer may be.

use std::time::{Duration, Instant};

/// Bounds on what the hub may take, in time and in bytes. The defaults suit a person who waits.
///
/// A question (a list of files, or what a file is) is over after [`question`](Self::question), all attempts and pauses included. A file may
/// take as long as it needs while it moves on; where it does not, the attempt ends after [`stall`](Self::stall) and the download after
/// [`silence`](Self::silence).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubLimits {
    /// To find a host's address, and again to connect to it, TLS included: 10 s each.
    pub connect: Duration,
    /// From a request to the end of its answer's headers: 10 s.
    pub answer: Duration,
    /// A question as a whole: 20 s.
    pub question: Duration,
    /// In this time a file must bring [`stall_bytes`](Self::stall_bytes): 10 s.
    pub stall: Duration,
    /// What a file must bring in that time: 1024 bytes.
    pub stall_bytes: u64,
    /// A download ends after this time in which no attempt moved on, pauses included: 45 s.
    pub silence: Duration,
    /// Attempts after the first: 4; one where what came was damaged.
    pub retries: u32,
    /// Before the first of them; doubled before each further one: 300 ms.
    pub pause: Duration,
    /// The longest pause that the hub may ask for (`Retry-After`): 10 s.
    pub longest_pause: Duration,
    /// Redirects of one request: 5.
    pub redirects: u32,
    /// Bytes of a list of files: 10 MiB.
    pub list_bytes: u64,
    /// Bytes of a file that is not weights: 64 MiB.
    pub small_bytes: u64,
    /// Bytes of a file of weights: 1 TiB.
    pub weight_bytes: u64,
    /// To wait for another program that downloads the same file: 10 s.
    pub lock: Duration,
}

impl Default for HubLimits {
    fn default() -> HubLimits {
        HubLimits {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            question: Duration::from_secs(20),
            stall: Duration::from_secs(10),
            stall_bytes: 1 << 10,
            silence: Duration::from_secs(45),
            retries: 4,
            pause: Duration::from_millis(300),
            longest_pause: Duration::from_secs(10),
            redirects: 5,
            list_bytes: 10 << 20,
            small_bytes: 64 << 20,
            weight_bytes: 1 << 40,
            lock: Duration::from_secs(10),
        }
    }
}

/// The end of a time that begins now. What no clock can hold is a year.
pub(super) fn from_now(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600))
}

/// The pauses between attempts.
pub(super) struct Pauses {
    left: u32,
    next: Duration,
    longest_asked: Duration,
}

impl Pauses {
    pub(super) fn new(limits: &HubLimits) -> Pauses {
        Pauses { left: limits.retries, next: limits.pause, longest_asked: limits.longest_pause }
    }

    /// The pause before another attempt that is over before `end`, longer if the hub `asked` for it; `None` if there is to be none.
    pub(super) fn next(&mut self, asked: Option<Duration>, end: Instant) -> Option<Duration> {
        self.left = self.left.checked_sub(1)?;
        let asked = asked.unwrap_or_default();
        if asked > self.longest_asked {
            return None;
        }
        let pause = self.next.max(asked);
        self.next = self.next.saturating_mul(2);
        (from_now(pause) < end).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let limits = HubLimits { retries: 3, pause: Duration::from_millis(100), ..HubLimits::default() };
        let late = from_now(Duration::MAX);
        let pauses = |asked: Option<u64>, end| {
            let mut pauses = Pauses::new(&limits);
            std::iter::from_fn(|| pauses.next(asked.map(Duration::from_millis), end))
                .map(|pause| pause.as_millis())
                .collect::<Vec<_>>()
        };
        assert_eq!(pauses(None, late), [100, 200, 400]);
        assert_eq!(pauses(Some(250), late), [250, 250, 400]);
        assert_eq!(pauses(Some(10_001), late), [] as [u128; 0]);
        assert_eq!(pauses(None, from_now(Duration::from_millis(150))), [100]);
    }

    #[test]
    fn no_limit_is_too_large_for_a_clock() {
        let limits =
            HubLimits { retries: u32::MAX, pause: Duration::MAX, longest_pause: Duration::MAX, ..HubLimits::default() };
        let mut pauses = Pauses::new(&limits);
        assert_eq!(pauses.next(Some(Duration::MAX), from_now(Duration::MAX)), None);
        assert_eq!(pauses.next(None, from_now(Duration::ZERO)), None);
    }
}
