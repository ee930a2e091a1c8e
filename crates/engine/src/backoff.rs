//! Running what is ready in batches, in smaller ones where memory runs out: one way for generating, scoring and encoding.
//!
//! A result does not depend on its batch, so a smaller one gives the same. What does not fit alone fails alone, whatever the batch size:
//! the last attempt of an item is made with nothing held from before, as if it were the only one of its run.

use crate::error::EngineError;
use crate::events::Notice;

/// Something that runs in batches.
pub(crate) trait Item {
    /// Ids that [`crate::SessionOptions::max_batch_tokens`] counts.
    fn input_len(&self) -> usize;
}

/// What runs together.
pub(crate) struct Batch<'a, T> {
    pub(crate) items: &'a [T],
    /// These and what may run after them: what buffers should be sized for.
    pub(crate) rest: &'a [T],
    /// Items that run together at most from here on.
    pub(crate) capacity: usize,
}

/// What is done with batches.
pub(crate) trait Work {
    type Item: Item;

    /// Runs a batch and tells its results; false if it was cancelled, which ends the run.
    ///
    /// # Errors
    /// Out of memory: nothing was told. Anything else ends the run.
    fn run(&mut self, batch: Batch<'_, Self::Item>) -> Result<bool, EngineError>;

    /// Tells that an item does not fit.
    fn refuse(&mut self, item: &Self::Item, error: EngineError);

    /// Gives back what batches hold and keep: a smaller one must not find it held.
    fn let_go(&mut self);

    /// Remembers how many together went well after memory had run out.
    fn proved(&mut self, capacity: usize);

    /// Tells a user that memory ran out.
    fn notice(&mut self, notice: &Notice);
}

/// Runs `ready` in order, `most` at a time, with at most `max_tokens` ids in a batch. Gives how many items have ended, and why the run
/// did if others have not; a cancelled run is no error.
pub(crate) fn run_batches<W: Work>(
    ready: &[W::Item],
    most: usize,
    max_tokens: Option<usize>,
    work: &mut W,
) -> (usize, Result<(), EngineError>) {
    let mut capacity = most.max(1);
    // The items that did not fit together first, and what did not fit.
    let mut refused: Option<(usize, String)> = None;
    let mut told = false;
    // Whether nothing is held from before the coming attempt.
    let mut clean = false;
    let mut at = 0;
    while at < ready.len() {
        let items = &ready[at..at + next_batch(&ready[at..], capacity, max_tokens)];
        let alone = clean && items.len() == 1;
        let rest = if alone { items } else { &ready[at..] };
        match work.run(Batch { items, rest, capacity: if alone { 1 } else { capacity } }) {
            Ok(true) => {
                at += items.len();
                clean = false;
                if let Some((from, reason)) = refused.take() {
                    work.proved(capacity);
                    if !told {
                        work.notice(&Notice::BatchHalved { from, to: capacity, reason });
                        told = true;
                    }
                }
            }
            Ok(false) => return (at, Ok(())),
            Err(error) if error.kind().may_fit_smaller() => {
                work.let_go();
                if items.len() > 1 {
                    capacity = items.len().div_ceil(2);
                    refused.get_or_insert_with(|| (items.len(), error.to_string()));
                } else if alone {
                    work.refuse(&items[0], error);
                    at += 1;
                }
                clean = true;
            }
            Err(error) => return (at, Err(error)),
        }
    }
    (at, Ok(()))
}

/// Sentences of the next batch: the first of `ready`, at most `capacity`, with at most `max_tokens` source ids in sum.
fn next_batch<T: Item>(ready: &[T], capacity: usize, max_tokens: Option<usize>) -> usize {
    let mut left = max_tokens.unwrap_or(usize::MAX);
    let fits = |p: &&T| match left.checked_sub(p.input_len()) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    ready.iter().take(capacity).take_while(fits).count().clamp(1, ready.len().max(1))
}

/// The largest batch of a run: what buffers are allocated for.
pub(crate) fn largest_batch<T: Item>(ready: &[T], capacity: usize, max_tokens: Option<usize>) -> usize {
    let (mut at, mut largest) = (0, 1);
    while at < ready.len() {
        let n = next_batch(&ready[at..], capacity, max_tokens);
        largest = largest.max(n);
        at += n;
    }
    largest
}

#[cfg(test)]
mod tests {
    use elgen_tensor::{Class, TensorError};

    use super::*;

    /// An item that takes so many bytes.
    #[derive(Debug, PartialEq)]
    struct Sized(usize);

    impl Item for Sized {
        fn input_len(&self) -> usize {
            self.0
        }
    }

    /// Batches within a limit; what the largest took stays held, and is of use to no other.
    struct Memory {
        limit: usize,
        held: usize,
        ran: Vec<Vec<usize>>,
        refused: Vec<usize>,
        proved: Vec<usize>,
        notices: Vec<Notice>,
        /// Fails at this item, or is cancelled there.
        broken: Option<usize>,
        cancelled: Option<usize>,
    }

    impl Work for Memory {
        type Item = Sized;

        fn run(&mut self, batch: Batch<'_, Sized>) -> Result<bool, EngineError> {
            let sizes: Vec<usize> = batch.items.iter().map(|item| item.0).collect();
            if self.broken.is_some_and(|size| sizes.contains(&size)) {
                return Err(EngineError::NoTarget);
            }
            if self.cancelled.is_some_and(|size| sizes.contains(&size)) {
                return Ok(false);
            }
            let largest = batch.rest.iter().map(|item| item.0).max().unwrap_or(0);
            let asked = largest * batch.items.len();
            if self.held + asked > self.limit {
                let (asked, used, limit) = (asked as u64, self.held as u64, self.limit as u64);
                let what = "batch".to_owned();
                return Err(TensorError::MemoryLimit { what, class: Class::Cache, asked, used, limit }.into());
            }
            self.held += asked / 2;
            self.ran.push(sizes);
            Ok(true)
        }

        fn refuse(&mut self, item: &Sized, error: EngineError) {
            assert!(error.kind().may_fit_smaller());
            self.refused.push(item.0);
        }

        fn let_go(&mut self) {
            self.held = 0;
        }

        fn proved(&mut self, capacity: usize) {
            self.proved.push(capacity);
        }

        fn notice(&mut self, notice: &Notice) {
            self.notices.push(notice.clone());
        }
    }

    fn memory(limit: usize) -> Memory {
        let (ran, refused, proved, notices) = Default::default();
        Memory { limit, held: 0, ran, refused, proved, notices, broken: None, cancelled: None }
    }

    fn items(sizes: &[usize]) -> Vec<Sized> {
        sizes.iter().copied().map(Sized).collect()
    }

    #[test]
    fn what_does_not_fit_alone_fails_at_every_batch_size() {
        let ready = items(&[90, 31, 70, 30, 20, 95, 20, 10, 5, 5, 60, 1]);
        for limit in [1, 10, 29, 30, 31, 60, 69, 89, 94, 1000] {
            let large: Vec<usize> = ready.iter().map(|item| item.0).filter(|size| *size > limit).collect();
            for most in [1, 2, 3, 5, 8, 12, 60] {
                let mut work = memory(limit);
                let (ended, result) = run_batches(&ready, most, None, &mut work);
                assert!(ended == ready.len() && result.is_ok());
                assert_eq!(work.refused, large, "{most} at a time, {limit} bytes");
                let ran: Vec<usize> = work.ran.concat();
                let fitting = ready.iter().map(|item| item.0).filter(|size| *size <= limit);
                assert!(ran.into_iter().eq(fitting), "{most} at a time, {limit} bytes");
            }
        }
    }

    #[test]
    fn halving_is_told_once_and_what_went_well_is_kept() {
        let ready = items(&[10; 40]);
        let mut work = memory(100);
        run_batches(&ready, 40, None, &mut work).1.unwrap();
        assert_eq!(work.ran[0].len(), 10);
        let [Notice::BatchHalved { from: 40, to: 10, reason }] = &work.notices[..] else {
            panic!("{:?}", work.notices)
        };
        assert!(reason.contains("400 B of"), "{reason}");
        assert_eq!(work.proved.first(), Some(&10));
        // What the first batch kept stood in the way of a second one of that size alone; it was let go.
        assert!(work.ran.iter().all(|batch| batch.len() <= 10) && work.refused.is_empty());
    }

    #[test]
    fn no_batch_has_more_ids_than_allowed() {
        let ready = items(&[9, 8, 7, 3, 2, 1]);
        let mut work = memory(1000);
        run_batches(&ready, 60, Some(10), &mut work).1.unwrap();
        assert_eq!(work.ran, [vec![9], vec![8], vec![7, 3], vec![2, 1]]);
    }

    #[test]
    fn an_end_before_the_last_item_says_where() {
        let ready = items(&[4, 3, 2, 1]);
        let mut work = Memory { broken: Some(2), ..memory(1000) };
        let (ended, result) = run_batches(&ready, 1, None, &mut work);
        assert_eq!(
            (ended, result.unwrap_err().to_string().as_str()),
            (2, "the target is missing; only decoder-only models score a text alone")
        );
        let mut work = Memory { cancelled: Some(3), ..memory(1000) };
        let (ended, result) = run_batches(&ready, 1, None, &mut work);
        assert!(ended == 1 && result.is_ok());
        assert_eq!(run_batches(&[], 1, None, &mut memory(0)).0, 0);
    }
}
