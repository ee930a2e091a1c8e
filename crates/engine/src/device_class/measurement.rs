//! When a device was measured, and how well.

use elgen_attention::planner::STEADY;
use serde::{Deserialize, Serialize};

/// When a device was measured for the planner, and how well it is known since. [`crate::measure_device`] measures it anew.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Seconds since 1970.
    pub measured_at: u64,
    /// How often it was measured, until the numbers agreed or time was up.
    pub rounds: u32,
    /// Seconds that this took.
    pub seconds: f64,
    /// How far the numbers lie apart, as a part of the smaller one: 0.1 or less is steady, 1 is not known.
    pub scatter: f64,
    /// Part of the processors' time that other programs took meanwhile; `None` where that says nothing (a GPU) or is not known.
    pub others: Option<f64>,
    /// Whether this process measured it.
    #[serde(skip)]
    pub is_new: bool,
}

impl Measurement {
    /// Whether the numbers agree and the machine was not busy with something else. What was measured otherwise is measured again some
    /// time later, a few times.
    pub fn is_steady(&self) -> bool {
        self.scatter <= STEADY && self.others.is_none_or(|others| others <= MOST_OTHERS)
    }
}

/// Part of the processors' time that other programs may take while a software adapter is measured.
const MOST_OTHERS: f64 = 0.25;
