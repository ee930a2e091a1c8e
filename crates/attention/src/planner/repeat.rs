//! Repeating a measurement until it can be trusted.

use super::device_class::DeviceClass;

/// The largest scatter of a measurement that counts as steady.
pub const STEADY: f64 = 0.1;

/// When to stop although the numbers still differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Patience {
    /// Rounds at most.
    pub rounds: u32,
    /// No third or further round is begun that would end later, if it took as long as the one before.
    pub seconds: f64,
}

/// A class, and how it was come by.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The best of each number over all rounds, with their scatter.
    pub class: DeviceClass,
    /// Rounds that were measured.
    pub rounds: u32,
    /// Seconds that they took.
    pub seconds: f64,
}

impl Measured {
    /// Whether each number was seen twice within [`STEADY`].
    pub fn is_steady(&self) -> bool {
        self.class.scatter <= STEADY
    }
}

/// Measures by `once` until the two best values of every number lie within [`STEADY`] of each other, or patience ends. Other work on a
/// machine adds time and never takes it away, so the best of each number is kept, and a number counts as known when it was nearly
/// reached a second time. The scatter is the largest distance of a number's two best, at most 1. `clock` tells
/// seconds since the beginning.
///
/// # Errors
/// Those of `once`.
pub fn until_steady<E>(
    patience: Patience,
    clock: impl Fn() -> f64,
    mut once: impl FnMut() -> Result<DeviceClass, E>,
) -> Result<Measured, E> {
    let mut class = once()?;
    class.scatter = 1.0;
    let mut seen: Vec<[f64; 2]> = class.costs().into_iter().map(|cost| [cost, f64::INFINITY]).collect();
    let mut rounds = 1;
    let mut now = clock();
    let mut last = now;
    while class.scatter > STEADY && rounds < patience.rounds && (rounds < 2 || now + last <= patience.seconds) {
        let next = once()?;
        rounds += 1;
        match class.best(&next) {
            Some(best) => class = best,
            // A number that could not be taken: what was seen before cannot be compared.
            None => {
                seen = next.costs().into_iter().map(|_| [f64::INFINITY; 2]).collect();
                class = next.clone();
            }
        }
        for (two, cost) in seen.iter_mut().zip(next.costs()) {
            let [best, second] = *two;
            *two = [best.min(cost), second.min(best.max(cost))];
        }
        let apart = seen.iter().map(|[best, second]| second / best - 1.0);
        // `min` also takes the place of what is no number.
        class.scatter = apart.fold(0.0, f64::max).min(1.0);
        last = clock() - now;
        now += last;
    }
    Ok(Measured { class, rounds, seconds: now })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::planner::Curve;

    /// A device whose numbers are those of an idle one times a factor for each number of each round.
    fn device(factor: impl Fn(usize) -> f64) -> DeviceClass {
        let curve = |number: usize| Curve::new(vec![(1.0, 1e-9 * factor(number)), (16.0, 8e-9 * factor(number + 1))]);
        DeviceClass {
            bandwidth: 1e10 / factor(0),
            alu_flops: 1e11,
            dispatch_seconds: 1e-5 * factor(1),
            submission_seconds: 1e-4,
            linear: curve(2),
            mha_self: curve(4),
            mha_cross: curve(6),
            el_self: curve(8),
            el_cross: curve(10),
            ..DeviceClass::default()
        }
    }

    /// Measures with rounds of `seconds` each; `factor` of the round and the number.
    fn measured(seconds: f64, factor: impl Fn(u32, usize) -> f64) -> Measured {
        let (round, time) = (Cell::new(0), Cell::new(0.0));
        let once = || -> Result<DeviceClass, ()> {
            round.set(round.get() + 1);
            time.set(time.get() + seconds);
            Ok(device(|number| factor(round.get(), number)))
        };
        until_steady(Patience { rounds: 8, seconds: 10.0 }, || time.get(), once).unwrap()
    }

    #[test]
    fn a_quiet_device_takes_two_rounds() {
        let found = measured(1.0, |round, _| if round == 1 { 1.04 } else { 1.0 });
        assert_eq!((found.rounds, found.seconds), (2, 2.0));
        assert!(found.is_steady() && (found.class.scatter - 0.04).abs() < 1e-9, "{found:?}");
        let DeviceClass { scatter: _, ref linear, .. } = found.class;
        assert_eq!(linear, &device(|_| 1.0).linear);
    }

    #[test]
    fn a_round_under_load_is_measured_again() {
        // The first and the third are disturbed.
        let found = measured(0.5, |round, _| [1.7, 1.0, 2.5, 1.02][round as usize - 1]);
        assert_eq!(found.rounds, 4);
        assert!(found.is_steady() && (found.class.scatter - 0.02).abs() < 1e-9, "{found:?}");
        assert_eq!(DeviceClass { scatter: 0.0, ..found.class }, device(|_| 1.0));
    }

    #[test]
    fn one_disturbed_number_in_each_round_does_no_harm() {
        // Every number is undisturbed in all rounds but one.
        let found = measured(0.5, |round, number| if number as u32 % 4 == round { 3.0 } else { 1.0 });
        assert_eq!(found.rounds, 3);
        assert!(found.class.scatter < 1e-9, "{found:?}");
        assert_eq!(DeviceClass { scatter: 0.0, ..found.class }, device(|_| 1.0));
    }

    #[test]
    fn what_is_never_steady_ends_and_says_so() {
        // Slower by a quarter every time: the best was reached once.
        let drifting = measured(1.0, |round, _| 1.25f64.powi(round as i32));
        assert_eq!(drifting.rounds, 8);
        assert!(!drifting.is_steady() && (drifting.class.scatter - 0.25).abs() < 1e-9, "{drifting:?}");
        // Far apart: no more than 1, with which everything is a tie.
        assert_eq!(measured(1.0, |round, _| 3f64.powi(round as i32)).class.scatter, 1.0);
        // Time ends before the rounds do: a fourth would have ended after ten seconds.
        let slow = measured(3.0, |round, _| 1.25f64.powi(round as i32));
        assert_eq!((slow.rounds, slow.seconds), (3, 9.0));
        // One round says nothing: there are always two, if they are allowed.
        assert_eq!(measured(11.0, |_, _| 1.0).rounds, 2);
        let once = until_steady(Patience { rounds: 1, seconds: 1.0 }, || 0.0, || Ok::<_, ()>(device(|_| 1.0))).unwrap();
        assert_eq!((once.rounds, once.class.scatter), (1, 1.0));
    }

    #[test]
    fn a_device_that_fails_fails() {
        let patience = Patience { rounds: 8, seconds: 10.0 };
        let calls = Cell::new(0);
        let once = || {
            calls.set(calls.get() + 1);
            if calls.get() == 3 { Err("lost") } else { Ok(device(|_| f64::from(calls.get()))) }
        };
        assert_eq!(until_steady(patience, || 0.0, once), Err("lost"));
    }

    #[test]
    fn a_number_that_could_not_be_taken_is_no_agreement() {
        let calls = Cell::new(0);
        let once = || -> Result<DeviceClass, ()> {
            calls.set(calls.get() + 1);
            let class = device(|_| 1.0);
            Ok(if calls.get() == 1 { DeviceClass { linear: Curve::new(vec![(1.0, 1.0)]), ..class } } else { class })
        };
        let found = until_steady(Patience { rounds: 8, seconds: 10.0 }, || 0.0, once).unwrap();
        assert_eq!((found.rounds, found.class.scatter), (3, 0.0));
    }
}
