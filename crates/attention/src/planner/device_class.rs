//! What a device can do, in the few numbers that predictions need. [`super::measure`] makes it.

use elgen_shaders::{INCLUDES, SHADERS};
use elgen_tensor::DType;
use serde::{Deserialize, Serialize};

/// Seconds per element by query rows, between measured points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// (query rows that share an element, seconds per element), ascending.
    points: Vec<(f64, f64)>,
}

impl Curve {
    /// Through measured points `(rows, seconds per element)`. More rows never take less time: a point that says so is noise and
    /// raised to the one before. Points without a positive number of rows and of seconds are dropped.
    pub fn new(mut points: Vec<(f64, f64)>) -> Self {
        points.retain(|(rows, seconds)| rows.is_finite() && *rows > 0.0 && seconds.is_finite() && *seconds > 0.0);
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup_by(|next, first| next.0 == first.0);
        let mut least = 0.0f64;
        for (_, seconds) in &mut points {
            least = least.max(*seconds);
            *seconds = least;
        }
        Self { points }
    }

    /// Seconds per element for `rows` rows: linear between points; as at the first point below it, where loading the element is all;
    /// beyond the last with the slope of the last two, or in proportion where there is one point alone or the slope is flatter than
    /// half of that (a kernel that has not yet come to its arithmetic).
    pub fn at(&self, rows: f64) -> f64 {
        let (Some(first), Some(last)) = (self.points.first(), self.points.last()) else { return 0.0 };
        if rows <= first.0 {
            return first.1;
        }
        if rows >= last.0 {
            let before = self.points.iter().rev().nth(1);
            let measured = before.map_or(0.0, |before| (last.1 - before.1) / (last.0 - before.0));
            let slope = if before.is_some() { measured.max(0.5 * last.1 / last.0) } else { last.1 / last.0 };
            return last.1 + slope * (rows - last.0);
        }
        let after = self.points.partition_point(|(at, _)| *at <= rows);
        let (a, b) = (self.points[after - 1], self.points[after]);
        a.1 + (b.1 - a.1) * (rows - a.0) / (b.0 - a.0)
    }

    /// FLOP/s at the largest measured number of rows, with `flops` per element and row.
    pub fn best_flops(&self, flops: f64) -> f64 {
        self.points.last().map_or(0.0, |(rows, seconds)| flops * rows / seconds)
    }

    /// The less of the seconds at each point; `None` for curves of other rows.
    fn best(&self, other: &Self) -> Option<Self> {
        let same = self.points.len() == other.points.len();
        let pairs = || self.points.iter().zip(&other.points);
        (same && pairs().all(|(a, b)| a.0 == b.0))
            .then(|| Self { points: pairs().map(|(a, b)| (a.0, a.1.min(b.1))).collect() })
    }

    /// The measured points.
    pub fn points(&self) -> &[(f64, f64)] {
        &self.points
    }

    fn is_usable(&self) -> bool {
        let ascending = self.points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let positive = |(rows, seconds): &(f64, f64)| *rows > 0.0 && *seconds > 0.0 && seconds.is_finite();
        !self.points.is_empty() && ascending && self.points.iter().all(positive)
    }
}

/// FLOPs of a product with weights, per weight and row.
pub const LINEAR_FLOPS: f64 = 2.0;
/// FLOPs of attention, per row and element of a cached hidden state (EL), or of a cached key with its value (MHA).
pub const ATTEND_FLOPS: f64 = 4.0;

/// Seconds of a dispatch below which differences are the clock's.
const LEAST_DISPATCH: f64 = 2e-6;

/// What was measured on an adapter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceClass {
    /// Bytes/s of reading a buffer larger than the caches.
    pub bandwidth: f64,
    /// FLOP/s of independent f32 multiply-adds.
    pub alu_flops: f64,
    /// FLOP/s of independent multiply-adds of cooperative matrices, f16 x f16 -> f32; `None` where they are not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix_flops: Option<f64>,
    /// Seconds that a dispatch takes beyond its work, one after the other in a submission.
    pub dispatch_seconds: f64,
    /// Seconds from a submission until the host has read its result.
    pub submission_seconds: f64,
    /// Products with weights: seconds per weight, by rows.
    pub linear: Curve,
    /// MHA of a decode step through the slot table: seconds per element of a key and its value; one row.
    pub mha_self: Curve,
    /// MHA of a decode step over ranges: the same, by rows of a sentence.
    pub mha_cross: Curve,
    /// EL through the slot table: seconds per element of a hidden state, by heads.
    pub el_self: Curve,
    /// EL over ranges: the same, by heads x rows of a sentence.
    pub el_cross: Curve,
    /// How far the numbers that predictions are made of lay apart when they were measured repeatedly, as a part of the smaller one; 1 where
    /// nothing is known.
    pub scatter: f64,
}

impl DeviceClass {
    /// Seconds of what predictions are made of: bandwidth, a dispatch, and each point of the curves.
    pub(super) fn costs(&self) -> Vec<f64> {
        let curves = [&self.linear, &self.mha_self, &self.mha_cross, &self.el_self, &self.el_cross];
        let points = curves.into_iter().flat_map(|curve| curve.points().iter().map(|(_, seconds)| *seconds));
        [1.0 / self.bandwidth, self.dispatch_seconds.max(LEAST_DISPATCH)].into_iter().chain(points).collect()
    }

    /// The better of each number of two measurements. `None` if they are not of the same points.
    pub(super) fn best(&self, other: &Self) -> Option<Self> {
        Some(Self {
            bandwidth: self.bandwidth.max(other.bandwidth),
            alu_flops: self.alu_flops.max(other.alu_flops),
            matrix_flops: self.matrix_flops.into_iter().chain(other.matrix_flops).reduce(f64::max),
            dispatch_seconds: self.dispatch_seconds.min(other.dispatch_seconds),
            submission_seconds: self.submission_seconds.min(other.submission_seconds),
            linear: self.linear.best(&other.linear)?,
            mha_self: self.mha_self.best(&other.mha_self)?,
            mha_cross: self.mha_cross.best(&other.mha_cross)?,
            el_self: self.el_self.best(&other.el_self)?,
            el_cross: self.el_cross.best(&other.el_cross)?,
            scatter: self.scatter,
        })
    }

    /// FLOP/s of EL's core in self-attention with `num_heads` heads.
    pub fn el_self_flops(&self, num_heads: usize) -> f64 {
        ATTEND_FLOPS * num_heads as f64 / self.el_self.at(num_heads as f64)
    }

    /// FLOP/s of EL's core in cross-attention with `beams` rows of `num_heads` heads.
    pub fn el_cross_flops(&self, beams: usize, num_heads: usize) -> f64 {
        let rows = beams as f64 * num_heads as f64;
        ATTEND_FLOPS * rows / self.el_cross.at(rows)
    }

    /// True if every number can be computed with: what a file said may be anything.
    pub fn is_usable(&self) -> bool {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let rates = [self.bandwidth, self.alu_flops, self.matrix_flops.unwrap_or(1.0)];
        let waits = [self.dispatch_seconds, self.submission_seconds];
        let curves = [&self.linear, &self.mha_self, &self.mha_cross, &self.el_self, &self.el_cross];
        (0.0..=1.0).contains(&self.scatter)
            && rates.into_iter().all(positive)
            && waits.into_iter().all(|value| value.is_finite() && value >= 0.0)
            && curves.into_iter().all(Curve::is_usable)
    }
}

/// How classes are measured and kept; another way makes other numbers. 2: repeatedly, with the scatter.
const MEASURING: u32 = 2;

/// What a measured class belongs to: another adapter, driver, version or dtype has another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassKey {
    /// Adapter name.
    pub adapter: String,
    /// Driver name and version.
    pub driver: String,
    /// Version of this crate and of how it measures, and a checksum of the shaders, which were measured.
    pub version: String,
    /// Storage of weights and caches.
    pub dtype: String,
}

impl ClassKey {
    /// The key of an adapter and a dtype.
    pub fn new(adapter: &str, driver: &str, dtype: DType) -> Self {
        Self {
            adapter: adapter.to_owned(),
            driver: driver.to_owned(),
            version: format!("{}-{MEASURING}-{:016x}", env!("CARGO_PKG_VERSION"), shader_checksum()),
            dtype: dtype.name().to_owned(),
        }
    }
}

/// FNV-1a over the text of every shader: another kernel is another speed.
fn shader_checksum() -> u64 {
    let text = SHADERS.iter().chain(INCLUDES).flat_map(|(_, text)| text.bytes());
    text.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_go_through_their_points() {
        let curve = Curve::new(vec![(16.0, 4.0), (1.0, 1.0), (4.0, 2.0)]);
        assert_eq!([0.5, 1.0, 2.5, 4.0, 10.0, 16.0].map(|rows| curve.at(rows)), [1.0, 1.0, 1.5, 2.0, 3.0, 4.0]);
        // The last slope is 1/6 per row.
        assert!((curve.at(22.0) - 5.0).abs() < 1e-12);
        assert_eq!(curve.best_flops(2.0), 8.0);
        // One point: in proportion. A flat end: half of that.
        assert_eq!(Curve::new(vec![(2.0, 3.0)]).at(4.0), 6.0);
        assert_eq!(Curve::new(vec![(2.0, 3.0), (4.0, 3.0)]).at(8.0), 4.5);
        assert_eq!(Curve::default().at(3.0), 0.0);
    }

    #[test]
    fn noise_does_not_make_a_curve_fall() {
        let curve = Curve::new(vec![(1.0, 2.0), (2.0, 1.5), (4.0, 3.0), (8.0, f64::NAN), (0.0, 1.0)]);
        assert_eq!(curve.points(), [(1.0, 2.0), (2.0, 2.0), (4.0, 3.0)]);
    }

    #[test]
    fn nonsense_is_not_usable() {
        let curve = Curve::new(vec![(1.0, 1e-9)]);
        let class = DeviceClass {
            bandwidth: 1e9,
            alu_flops: 1e9,
            linear: curve.clone(),
            mha_self: curve.clone(),
            mha_cross: curve.clone(),
            el_self: curve.clone(),
            el_cross: curve,
            ..DeviceClass::default()
        };
        assert!(class.is_usable());
        assert!(!DeviceClass::default().is_usable());
        assert!(!DeviceClass { bandwidth: 0.0, ..class.clone() }.is_usable());
        assert!(!DeviceClass { dispatch_seconds: -1.0, ..class.clone() }.is_usable());
        assert!(!DeviceClass { scatter: 1.5, ..class.clone() }.is_usable());
        assert!(!DeviceClass { scatter: f64::NAN, ..class.clone() }.is_usable());
        assert!(!DeviceClass { el_cross: Curve { points: vec![(2.0, 1.0), (1.0, 1.0)] }, ..class }.is_usable());
    }
}
