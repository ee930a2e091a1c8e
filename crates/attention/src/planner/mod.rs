//! The planner: what attention costs, what a device can do, and which kinds a session should use.
//!
//! [`cost`] counts from shapes alone. See docs/planner.md.

pub mod cost;
