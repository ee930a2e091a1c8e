//! The memory pool: every GPU byte is counted by class and held under one limit.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What an allocation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Model weights.
    Weights,
    /// Attention caches and their tables.
    Cache,
    /// Activations, logits and search state.
    Activations,
    /// Upload and read-back rings.
    Staging,
}

impl Class {
    /// All classes, in report order.
    pub const ALL: [Self; 4] = [Self::Weights, Self::Cache, Self::Activations, Self::Staging];

    fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Weights => "weights",
            Self::Cache => "cache",
            Self::Activations => "activations",
            Self::Staging => "staging",
        })
    }
}

/// Bytes by class, and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    by_class: [u64; 4],
    /// Sum over the classes. In a peak report this is the peak of the sum, not the sum of the peaks.
    pub total: u64,
}

impl Usage {
    /// Bytes of one class.
    pub fn of(&self, class: Class) -> u64 {
        self.by_class[class.index()]
    }

    /// Adds bytes to a class and to the sum.
    pub fn add(&mut self, class: Class, bytes: u64) {
        let place = &mut self.by_class[class.index()];
        *place = place.saturating_add(bytes);
        self.total = self.total.saturating_add(bytes);
    }
}

#[derive(Debug, Default)]
struct Counters {
    current: Usage,
    peak: Usage,
    allocations: u64,
    /// Ids of freed buffers whose bind groups are still cached.
    freed: Vec<u64>,
    next_id: u64,
}

/// Counts what is allocated and holds it under `limit`.
#[derive(Debug)]
pub struct Pool {
    limit: u64,
    counters: Mutex<Counters>,
}

impl Pool {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, counters: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        // Counters stay consistent even if a holder panicked: each update is a few additions.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limit in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes held now.
    pub fn current(&self) -> Usage {
        self.lock().current
    }

    /// The highest bytes held so far.
    pub fn peak(&self) -> Usage {
        self.lock().peak
    }

    /// Counts peaks anew, from what is held now.
    pub fn reset_peak(&self) {
        let mut counters = self.lock();
        counters.peak = counters.current;
    }

    /// Buffers allocated so far.
    pub fn allocations(&self) -> u64 {
        self.lock().allocations
    }

    /// Reserves bytes; `Err` holds the bytes in use if they do not fit.
    pub(crate) fn reserve(self: &Arc<Self>, class: Class, bytes: u64) -> Result<Reservation, u64> {
        let mut counters = self.lock();
        let used = counters.current.total;
        if used.checked_add(bytes).is_none_or(|sum| sum > self.limit) {
            return Err(used);
        }
        counters.current.total += bytes;
        counters.current.by_class[class.index()] += bytes;
        counters.allocations += 1;
        counters.next_id += 1;
        let id = counters.next_id;
        let current = counters.current;
        counters.peak.total = counters.peak.total.max(current.total);
        for (peak, now) in counters.peak.by_class.iter_mut().zip(current.by_class) {
            *peak = (*peak).max(now);
        }
        drop(counters);
        Ok(Reservation { pool: Arc::clone(self), class, bytes, id })
    }

    pub(crate) fn take_freed(&self) -> Vec<u64> {
        std::mem::take(&mut self.lock().freed)
    }
}

/// Bytes counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    pool: Arc<Pool>,
    class: Class,
    bytes: u64,
    pub(crate) id: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut counters = self.pool.lock();
        counters.current.total -= self.bytes;
        counters.current.by_class[self.class.index()] -= self.bytes;
        counters.freed.push(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_class_and_refuses_beyond_the_limit() {
        let pool = Pool::new(100);
        let a = pool.reserve(Class::Weights, 60).unwrap();
        let b = pool.reserve(Class::Cache, 40).unwrap();
        assert_eq!(pool.reserve(Class::Cache, 1).unwrap_err(), 100);
        assert!(pool.reserve(Class::Cache, u64::MAX).is_err());
        drop(a);
        assert_eq!(
            (pool.current().total, pool.current().of(Class::Weights), pool.current().of(Class::Cache)),
            (40, 0, 40)
        );
        assert_eq!((pool.peak().total, pool.peak().of(Class::Weights)), (100, 60));
        pool.reset_peak();
        assert_eq!((pool.peak().total, pool.peak().of(Class::Weights)), (40, 0));
        drop(b);
        assert_eq!(pool.take_freed().len(), 2);
    }
}
