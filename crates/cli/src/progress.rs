//! How far a run has come: finished records, their rate, and the time that the rest will take.

use std::time::{Duration, Instant};

/// Counts records as they finish.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    begin: Instant,
    /// Records that an interrupted run had finished: they count, but not for the rate.
    before: u64,
    done: u64,
    total: Option<u64>,
}

impl Progress {
    /// Begins to count at `before` records of `total`, if that is known.
    pub(crate) fn new(begin: Instant, before: u64, total: Option<u64>) -> Progress {
        Progress { begin, before, done: before, total }
    }

    /// A record has finished.
    pub(crate) fn finished_one(&mut self) {
        self.done += 1;
    }

    /// The number of all records has become known.
    pub(crate) fn set_total(&mut self, total: u64) {
        self.total = Some(total);
    }

    /// Finished records and all records, if their number is known.
    pub(crate) fn counts(&self) -> (u64, Option<u64>) {
        (self.done, self.total)
    }

    /// The state at `now`: `120/2000 records (6 %), 55 s left, 34.1/s`.
    pub(crate) fn line(&self, now: Instant) -> String {
        let elapsed = now.saturating_duration_since(self.begin);
        let mut line = match self.total {
            Some(total) => {
                let percent = self.done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
                format!("{}/{total} records ({percent} %)", self.done)
            }
            None => format!("{} records", self.done),
        };
        let rate = (self.done - self.before) as f64 / elapsed.as_secs_f64();
        if rate.is_finite() && rate > 0.0 {
            if let Some(rest) = self.total.map(|total| total.saturating_sub(self.done))
                && rest > 0
            {
                // Far beyond any run; a Duration could not hold more.
                let seconds = (rest as f64 / rate).min(1e12);
                // What people wait for comes first: a narrow terminal shows the beginning.
                line.push_str(&format!(", {} left, {rate:.1}/s", duration(Duration::from_secs_f64(seconds))));
                return line;
            }
            line.push_str(&format!(", {rate:.1}/s"));
        }
        line.push_str(&format!(", {} elapsed", duration(elapsed)));
        line
    }
}

/// A time for people: `55 s`, `3 min 2 s`, `5 h 7 min`, `2 d 3 h`.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days} d {} h", hours % 24),
        () if hours > 0 => format!("{hours} h {} min", minutes % 60),
        () if minutes > 0 => format!("{minutes} min {} s", seconds % 60),
        () => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_counts_what_this_run_did() {
        let begin = Instant::now();
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut progress = Progress::new(begin, 100, Some(200));
        assert_eq!(progress.line(begin), "100/200 records (50 %), 0 s elapsed");
        assert_eq!(progress.line(after(3)), "100/200 records (50 %), 3 s elapsed");
        for _ in 0..20 {
            progress.finished_one();
        }
        assert_eq!(progress.line(after(10)), "120/200 records (60 %), 40 s left, 2.0/s");
        assert_eq!(progress.counts(), (120, Some(200)));
        for _ in 0..80 {
            progress.finished_one();
        }
        assert_eq!(progress.line(after(50)), "200/200 records (100 %), 2.0/s, 50 s elapsed");
    }

    #[test]
    fn without_a_total_there_is_no_time_left() {
        let begin = Instant::now();
        let mut progress = Progress::new(begin, 0, None);
        progress.finished_one();
        assert_eq!(progress.line(begin + Duration::from_secs(4)), "1 records, 0.2/s, 4 s elapsed");
        progress.set_total(5);
        assert_eq!(progress.line(begin + Duration::from_secs(4)), "1/5 records (20 %), 16 s left, 0.2/s");
        assert_eq!(Progress::new(begin, 0, Some(0)).line(begin), "0/0 records (100 %), 0 s elapsed");
        // A file that grew behind the count.
        progress.set_total(0);
        assert_eq!(progress.line(begin + Duration::from_secs(4)), "1/0 records (100 %), 0.2/s, 4 s elapsed");
    }

    #[test]
    fn times_for_people() {
        for (seconds, text) in
            [(0, "0 s"), (59, "59 s"), (182, "3 min 2 s"), (18_420, "5 h 7 min"), (183_600, "2 d 3 h")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
