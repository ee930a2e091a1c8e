//! What the tests of elgen share: devices and comparisons ([`harness`]), and a CPU twin of every kernel ([`twin`]).

pub mod harness;
pub mod twin;
