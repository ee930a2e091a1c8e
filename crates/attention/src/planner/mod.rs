//! The planner: what attention costs, what a device can do, and which kinds a session should use.
//!
//! [`cost`] counts from shapes alone. [`measure()`] takes a [`DeviceClass`] of a device. [`choose()`] predicts every combination of kinds
//! at the largest batch that fits, and picks the one with the highest throughput. See docs/planner.md.

mod choose;
pub mod cost;
mod device_class;
mod kind_cost;
mod measure;
mod predict;
mod repeat;

pub use choose::{BreakEven, Candidate, Plan, choose, combinations, standing};
pub use cost::{Core, Cost, KindCost, ModelShape, Stack, StepCost, StepLoad};
pub use device_class::{ATTEND_FLOPS, ClassKey, Curve, DeviceClass, LINEAR_FLOPS};
pub use measure::measure;
pub use predict::{Prediction, Workload, predict};
pub use repeat::{Measured, Patience, STEADY, until_steady};
