//! `el_attend_coop.wgsl` against its twin, on devices with cooperative matrices: both tile edges, whatever the adapter lists.
//!
//! The software driver of current distributions has none; `scripts/lavapipe-coopmat` runs these tests on a newer one. Where there are none, each test says so and
//! passes, unless `ELGEN_REQUIRE_COOP` is set to 1.

use std::sync::OnceLock;

use elgen_attention::{CoopAttend, CoopKeys, Partials, PositionBias, SPLIT, Shape, combine, el_attend_coop};
use elgen_tensor::{Class, Cooperative, DType, Device, DeviceOptions, RowState, Rows};
use elgen_tests::harness::{Variant, assert_same_bits, poisoned, read_raw, stored, upload, upload_u32, values};
use elgen_tests::twin;
use proptest::prelude::*;

/// Devices that use tiles of edge 8 and 16, shaders checked and not.
fn coop_devices() -> &'static [Variant] {
    static DEVICES: OnceLock<Vec<Variant>> = OnceLock::new();
    let devices = DEVICES.get_or_init(|| {
        let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
        let open = |edge: u32, checked: bool| {
            let cooperative = Cooperative::Edge(edge);
            let options =
                DeviceOptions { selector: selector.clone(), cooperative, checked, ..DeviceOptions::default() };
            let device = Device::open(&options).unwrap_or_else(|e| panic!("kernel tests need a Vulkan adapter: {e}"));
            let name = format!("edge {edge}, {}", if checked { "checked" } else { "unchecked" });
            device.capabilities().cooperative.map(|_| Variant { name, device })
        };
        [(8, true), (16, true), (8, false), (16, false)].into_iter().filter_map(|(e, c)| open(e, c)).collect()
    });
    if devices.is_empty() {
        assert!(
            std::env::var_os("ELGEN_REQUIRE_COOP").is_none_or(|v| v != "1"),
            "this adapter has no cooperative matrices"
        );
        eprintln!("skipped: this adapter has no cooperative matrices");
    }
    devices
}

/// Slots of the slab.
const SLOTS: usize = 1300;

#[derive(Clone, Debug)]
struct Case {
    heads: usize,
    dim: usize,
    slots: bool,
    /// (rows, keys) of each group; with `slots`, every row has as many keys, less its number in the group.
    groups: Vec<(usize, usize)>,
    /// How far scores spread.
    spread: f32,
    /// Offset of four channels of X.
    outliers: f32,
    reach: Option<usize>,
    seed: u64,
}

impl Case {
    fn width(&self) -> usize {
        self.dim.next_multiple_of(4)
    }

    fn rows(&self) -> usize {
        self.groups.iter().map(|g| g.0).sum()
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }

    fn pad(&self, v: &[f32]) -> Vec<f32> {
        v.chunks(self.dim)
            .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, self.width() - self.dim)))
            .collect()
    }

    fn queries(&self) -> Vec<f32> {
        let factor = 3.0 * self.spread / (self.dim as f32).sqrt() / self.scale();
        let mut v: Vec<f32> =
            values(self.seed ^ 1, self.rows() * self.heads * self.dim).iter().map(|x| x * factor).collect();
        if self.outliers != 0.0 {
            // The outliers' part of a score would drown everything else.
            for q in v.chunks_mut(self.dim) {
                q.iter_mut().take(4).for_each(|x| *x /= self.outliers);
            }
        }
        self.pad(&v)
    }

    fn x(&self) -> Vec<f32> {
        let mut v = values(self.seed ^ 2, SLOTS * self.dim);
        for row in v.chunks_mut(self.dim) {
            row.iter_mut().take(4).for_each(|x| *x += self.outliers);
        }
        self.pad(&v)
    }

    fn bias(&self, reach: usize) -> Vec<f32> {
        values(self.seed ^ 99, self.heads * (2 * reach + 1)).into_iter().map(|x| 2.0 * x).collect()
    }

    /// Slots of each query row's keys.
    fn places(&self) -> Vec<Vec<u32>> {
        let order = |seed: u64| {
            let keys = values(seed, SLOTS);
            let mut order: Vec<u32> = (0..SLOTS as u32).collect();
            order.sort_by(|a, b| keys[*a as usize].total_cmp(&keys[*b as usize]));
            order
        };
        let mut places = Vec::new();
        for (g, (rows, keys)) in self.groups.iter().enumerate() {
            for r in 0..*rows {
                places.push(match self.slots {
                    true => order(self.seed ^ (7 + places.len() as u64))[..keys.saturating_sub(r)].to_vec(),
                    false => {
                        let start = (self.seed as usize % 97 + 13 * g) % (SLOTS - keys + 1);
                        (start as u32..(start + keys) as u32).collect()
                    }
                });
            }
        }
        places
    }

    fn twin(&self) -> Vec<f64> {
        let (q, x) = (stored(&self.queries(), DType::F32), stored(&self.x(), DType::F16));
        let x: Vec<&[f64]> = x.chunks(self.width()).collect();
        let mut out = Vec::new();
        for (q, places) in q.chunks(self.heads * self.width()).zip(self.places()) {
            let keys: Vec<&[f64]> = places.iter().map(|s| x[*s as usize]).collect();
            let bias = |head: usize, key: usize| {
                let distance = key as i64 - (places.len() as i64 - 1);
                self.reach.map_or(0.0, |reach| twin::distance_bias(&self.bias(reach), reach, head, distance))
            };
            out.extend(twin::attend_biased(q, &keys, &keys, self.heads, true, f64::from(self.scale()), bias));
        }
        out
    }

    fn run(&self, device: &Device) -> Vec<f32> {
        let (columns, places) = (self.heads * self.width(), self.places());
        let q = upload(device, self.rows(), columns, &self.queries());
        let x = device.tensor_from("x", Class::Cache, SLOTS, self.width(), DType::F16, &self.x()).unwrap();
        let out = poisoned(device, self.rows() + 1, columns, DType::F32);
        let shape = Shape { d_model: self.dim, num_heads: self.heads, head_dim: 4, scale: self.scale() };
        let bias = self.reach.map(|reach| {
            let table = self.bias(reach);
            PositionBias::new(device, "bias", self.heads, reach, |head, distance| {
                table[head * (2 * reach + 1) + (distance + reach as i64) as usize]
            })
            .unwrap()
        });
        let most = places.iter().map(Vec::len).max().unwrap();
        let splits = most.div_ceil(SPLIT);
        let parts = (splits > 1).then(|| Partials::new(device, self.rows(), splits, self.heads, columns).unwrap());
        let product = CoopAttend {
            shape,
            q: &q,
            x: &x,
            bias: bias.as_ref(),
            out: &out,
            partials: parts.as_ref().map(|p| (p, splits)),
        };
        let mut rec = device.recorder();
        let n = self.rows();
        if self.slots {
            let mut rows = Rows::new(device, n, SLOTS).unwrap();
            let mut states = vec![RowState::default(); n];
            let mut table = vec![u32::MAX; n * SLOTS];
            for (row, places) in places.iter().enumerate() {
                states[row].length = places.len() as u32;
                table[row * SLOTS..][..places.len()].copy_from_slice(places);
            }
            rows.set_active(device, (0..n as u32).collect(), &vec![0; n]).unwrap();
            device.write(&rows.state, 0, bytemuck::cast_slice(&states)).unwrap();
            device.write(rows.slots(), 0, bytemuck::cast_slice(&table)).unwrap();
            assert!(
                el_attend_coop(&mut rec, CoopKeys::Slots { rows: &rows, first: 0, count: n as u32 }, product).unwrap()
            );
        } else {
            let index = upload_u32(device, &(0..n as u32).collect::<Vec<_>>());
            let ranges: Vec<u32> =
                places.iter().flat_map(|p| [p.first().copied().unwrap_or(5), p.len() as u32]).collect();
            let mut first = 0;
            let groups: Vec<u32> = self
                .groups
                .iter()
                .flat_map(|g| {
                    first += g.0 as u32;
                    [first - g.0 as u32, g.0 as u32]
                })
                .collect();
            let (ranges, groups) = (upload_u32(device, &ranges), upload_u32(device, &groups));
            let widest = self.groups.iter().map(|g| g.0 as u32).max().unwrap();
            let keys = CoopKeys::Groups {
                index: &index,
                ranges: &ranges,
                groups: &groups,
                first: 0,
                count: self.groups.len() as u32,
                widest,
            };
            assert!(el_attend_coop(&mut rec, keys, product).unwrap());
        }
        if let Some(parts) = &parts {
            combine(&mut rec, parts, splits, (self.heads, self.width()), &out, 0, n as u32).unwrap();
        }
        rec.submit().unwrap();
        let raw = read_raw(device, &out);
        assert!(raw[n * columns..].iter().all(|x| x.is_nan()));
        raw[..n * columns].to_vec()
    }
}

fn rms_error(got: &[f32], want: &[f64]) -> f64 {
    let square: f64 = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
    let norm: f64 = want.iter().map(|b| b * b).sum();
    (square / norm).sqrt()
}

#[test]
fn coop_smoke() {
    for variant in coop_devices() {
        for (slots, dim, heads, groups, outliers, reach) in [
            (false, 64, 4, vec![(4, 40)], 0.0, None),
            (false, 30, 3, vec![(3, 7), (1, 33), (6, 100)], 0.0, None),
            (true, 100, 5, vec![(3, 20), (1, 70)], 0.0, Some(10)),
            (false, 256, 16, vec![(2, 1100), (1, 3), (2, 0), (1, 600)], 0.0, None),
            (false, 256, 16, vec![(2, 200)], 300.0, None),
        ] {
            let case = Case { heads, dim, slots, groups, spread: 3.0, outliers, reach, seed: 5 };
            let started = std::time::Instant::now();
            let got = case.run(&variant.device);
            let took = started.elapsed();
            eprintln!("{} {slots} {dim} {heads}: rms {:.3e} in {took:?}", variant.name, rms_error(&got, &case.twin()));
        }
    }
}
