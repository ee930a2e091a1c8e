//! For tests: what a piece of code costs its thread, in memory and in processor time.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::{Duration, Instant},
};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

thread_local! {
    /// Bytes that the thread holds, and the most since [`measure`] began.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// Counts bytes that come or go; a thread that ends counts no more.
fn count(bytes: isize) {
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        let now = now.saturating_add(bytes);
        held.set((now, most.max(now)));
    });
}

/// A layout's size; none is larger than `isize::MAX`.
fn size(layout: Layout) -> isize {
    layout.size() as isize
}

// SAFETY: every call goes to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        count(new as isize - size(layout));
        // SAFETY: the caller's promise.
        unsafe { System.realloc(old, layout, new) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        count(-size(layout));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(old, layout) }
    }
}

/// What something cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    /// The most bytes that were held at once, beyond those before.
    pub(crate) bytes: usize,
    /// Processor time of the thread; wall-clock time where the system does not tell it.
    pub(crate) time: Duration,
}

/// Runs something on this thread and tells what it cost.
pub(crate) fn measure<T>(run: impl FnOnce() -> T) -> (T, Spent) {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let (started, processor) = (Instant::now(), processor_time());
    let result = run();
    let time = match (processor, processor_time()) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => started.elapsed(),
    };
    let most = HELD.with(|held| held.get().1);
    (result, Spent { bytes: usize::try_from(most - before).unwrap_or(0), time })
}

/// Time that the thread has run on a processor (Linux).
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

#[test]
fn memory_is_counted() {
    let (length, spent) = measure(|| {
        drop(vec![1_u8; 3 << 20]);
        let kept = vec![0_u8; 5 << 20];
        kept.len()
    });
    assert_eq!((length, spent.bytes >> 20), (5 << 20, 5));
}
