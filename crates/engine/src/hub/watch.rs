//! Ends what has not moved on in time.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

/// A thread that stops something at a given time, unless the time is put off or the watch is dropped before.
///
/// Timeouts of single reads do not suffice: a peer that sends a byte now and then satisfies each of them.
pub(super) struct Watch {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    end: Instant,
    over: bool,
    fired: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Calls `stop` at `end`.
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start(end: Instant, stop: impl FnOnce() + Send + 'static) -> io::Result<Watch> {
        let state = Mutex::new(State { end, over: false, fired: false });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let watched = Arc::clone(&shared);
        thread::Builder::new().name("hub watch".to_owned()).spawn(move || {
            let mut state = watched.lock();
            while !state.over {
                let left = state.end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    state.fired = true;
                    drop(state);
                    return stop();
                }
                state = watched.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        })?;
        Ok(Watch { shared })
    }

    /// Puts the time off, or forward.
    pub(super) fn move_to(&self, end: Instant) {
        self.shared.lock().end = end;
        self.shared.changed.notify_all();
    }

    /// Whether it was too late.
    pub(super) fn fired(&self) -> bool {
        self.shared.lock().fired
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;
    use crate::hub::limits::from_now;

    #[test]
    fn it_fires_once_and_only_if_nothing_puts_it_off() {
        let (send, receive) = mpsc::channel();
        let stop = |send: &mpsc::Sender<()>| {
            let send = send.clone();
            move || send.send(()).unwrap()
        };
        let watch = Watch::start(from_now(Duration::from_millis(20)), stop(&send)).unwrap();
        receive.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(watch.fired());
        let watch = Watch::start(from_now(Duration::from_secs(60)), stop(&send)).unwrap();
        watch.move_to(from_now(Duration::from_secs(120)));
        assert!(!watch.fired());
        watch.move_to(Instant::now());
        receive.recv_timeout(Duration::from_secs(10)).unwrap();
        drop(Watch::start(from_now(Duration::from_millis(30)), stop(&send)).unwrap());
        assert!(receive.recv_timeout(Duration::from_millis(100)).is_err());
    }
}
