//! Devices to test on, comparisons, and inputs that are the same in every run.

use std::sync::OnceLock;

use elgen_tensor::ops::Linear;
use elgen_tensor::{
    Arena, Buffer, Class, Cooperative, DType, Device, DeviceOptions, Entry, Matrix, Range, RowState, Rows, Table,
    Tensor, Vector, WeightFormat,
};

use crate::twin;

/// One way of running the same kernels.
#[derive(Debug)]
pub struct Variant {
    /// "checked", "portable" and so on, for messages.
    pub name: String,
    /// The device, opened that way.
    pub device: Device,
}

/// Bytes of one binding in [`windowed_devices`].
pub const SMALL_BINDING: u64 = 64 << 10;

/// Every variant that kernels are tested in: shaders checked or not, with all features of the adapter or only what every device has. Opened once
/// per process, on the adapter that `$ELGEN_TEST_DEVICE` selects.
///
/// # Panics
/// There is no Vulkan adapter: kernel tests cannot be skipped silently.
pub fn devices() -> &'static [Variant] {
    static DEVICES: OnceLock<Vec<Variant>> = OnceLock::new();
    DEVICES.get_or_init(|| open(None))
}

/// The same with bindings of at most [`SMALL_BINDING`] bytes, so that matrices of a few hundred rows take several windows.
///
/// # Panics
/// As [`devices`].
pub fn windowed_devices() -> &'static [Variant] {
    static DEVICES: OnceLock<Vec<Variant>> = OnceLock::new();
    DEVICES.get_or_init(|| open(Some(SMALL_BINDING)))
}

fn open(binding_limit: Option<u64>) -> Vec<Variant> {
    let variants: Vec<_> = [(true, false), (true, true), (false, false), (false, true)]
        .into_iter()
        .map(|(checked, portable)| {
            let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
            let options = DeviceOptions { selector, checked, portable, binding_limit, ..DeviceOptions::default() };
            let device = Device::open(&options).unwrap_or_else(|e| panic!("kernel tests need a Vulkan adapter: {e}"));
            let checks = if checked { "checked" } else { "unchecked" };
            let features = if portable { "portable" } else { "all features" };
            Variant { name: format!("{checks}, {features}"), device }
        })
        .collect();
    let report = variants[0].device.report();
    eprintln!(
        "adapter: {} ({}), {}, subgroups {:?}",
        report.name,
        report.driver,
        report.features.join(" "),
        report.subgroup_sizes
    );
    variants
}

/// Devices whose kernels use cooperative matrices: on software drivers tiles of edge 8 (shaders checked) and 16 (not checked), whatever the adapter lists; elsewhere
/// the edge that it lists, both ways. None where the adapter has none, with a message.
///
/// # Panics
/// There is no Vulkan adapter; or none with cooperative matrices, and `ELGEN_REQUIRE_COOP` is 1.
pub fn coop_devices() -> &'static [Variant] {
    static DEVICES: OnceLock<Vec<Variant>> = OnceLock::new();
    let devices = DEVICES.get_or_init(|| {
        let listed = open_coop(Cooperative::Listed, false);
        if listed.report().software {
            let edges =
                [(8, true), (16, false)].map(|(edge, checked)| (open_coop(Cooperative::Edge(edge), checked), checked));
            edges.into_iter().filter_map(coop_variant).collect()
        } else {
            [(open_coop(Cooperative::Listed, true), true), (listed, false)]
                .into_iter()
                .filter_map(coop_variant)
                .collect()
        }
    });
    if devices.is_empty() {
        let required = std::env::var_os("ELGEN_REQUIRE_COOP").is_some_and(|v| v == "1");
        assert!(!required, "this adapter has no cooperative matrices");
        eprintln!("skipped: this adapter has no cooperative matrices");
    }
    devices
}

fn coop_variant((device, checked): (Device, bool)) -> Option<Variant> {
    let edge = device.capabilities().cooperative?;
    Some(Variant { name: format!("edge {edge}, {}", if checked { "checked" } else { "unchecked" }), device })
}

fn open_coop(cooperative: Cooperative, checked: bool) -> Device {
    let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
    let options = DeviceOptions { selector, checked, cooperative, ..DeviceOptions::default() };
    Device::open(&options).unwrap_or_else(|e| panic!("kernel tests need a Vulkan adapter: {e}"))
}

/// A device of its own that uses the same cooperative matrices.
///
/// # Panics
/// There is no Vulkan adapter.
pub fn open_like(device: &Device) -> Device {
    open_coop(device.capabilities().cooperative.map_or(Cooperative::Off, Cooperative::Edge), true)
}

/// A table with these entries.
///
/// # Panics
/// It does not fit.
pub fn table<E: Entry>(device: &Device, entries: &[E]) -> Table<E> {
    Table::of(device, "test table", entries).unwrap()
}

/// A table of row numbers, slots or ids.
///
/// # Panics
/// It does not fit.
pub fn numbers(device: &Device, numbers: &[u32]) -> Table<u32> {
    table(device, numbers)
}

/// A table of ranges or groups, each (first, count).
///
/// # Panics
/// It does not fit.
pub fn ranges(device: &Device, pairs: &[[u32; 2]]) -> Table<Range> {
    table(device, &pairs.iter().map(|[first, count]| Range::new(*first, *count)).collect::<Vec<_>>())
}

/// Rows of decode kernels, `[capacity, max_length]`, some of them active: `keys` are physical rows with the slots of their live keys, in any order, as a beam
/// search leaves them. Each of these has `dropped` positions more, whose slots are there too: only the number of live keys keeps a kernel off them. The other
/// rows name slots that no cache has.
///
/// # Panics
/// They do not fit.
pub fn placed<'a>(
    device: &Device,
    [capacity, max_length]: [usize; 2],
    active: Vec<u32>,
    keys: impl Iterator<Item = (u32, &'a Vec<u32>)>,
    dropped: usize,
) -> Rows {
    let mut states = vec![RowState::default().with_length(77); capacity];
    let mut table = vec![u32::MAX; capacity * max_length];
    let mut live = vec![77; capacity];
    for (row, slots) in keys.map(|(row, slots)| (row as usize, slots)) {
        let (named, behind) = table[row * max_length..][..max_length].split_at_mut(slots.len());
        named.copy_from_slice(slots);
        behind[..dropped].fill(7);
        states[row] = states[row].with_length((slots.len() + dropped) as u32);
        live[row] = slots.len() as u32;
    }
    let mut rows = Rows::new(device, capacity, max_length).unwrap();
    rows.set_active(device, active, &vec![0; capacity]).unwrap();
    rows.place(device, &states, None, Some(&table)).unwrap();
    rows.set_live(device, &live).unwrap();
    rows
}

/// `n` values in [-1, 1) that depend on the seed alone.
pub fn values(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed;
    (0..n)
        .map(|_| {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// The values as a tensor of this dtype holds them, for the twins.
pub fn stored(values: &[f32], dtype: DType) -> Vec<f64> {
    let keep = |x: &f32| match dtype {
        DType::F32 => f64::from(*x),
        DType::F16 => half::f16::from_f32(*x).to_f64(),
    };
    values.iter().map(keep).collect()
}

/// The values as a weight matrix of `cols` columns holds them, for the twins.
pub fn stored_weights(values: &[f32], cols: usize, format: WeightFormat) -> Vec<f64> {
    match format {
        WeightFormat::Int8Blocks => stored(&twin::int8_blocks(values, cols), DType::F32),
        WeightFormat::F16 => stored(values, DType::F16),
        _ => stored(values, DType::F32),
    }
}

/// An f32 activation tensor with these values.
///
/// # Panics
/// The device failed.
pub fn upload(device: &Device, rows: usize, cols: usize, values: &[f32]) -> Tensor {
    device.tensor_from("test", Class::Activations, rows, cols, DType::F32, values).unwrap()
}

/// A weight matrix with these values.
///
/// # Panics
/// The device failed.
pub fn matrix(device: &Device, rows: usize, cols: usize, format: impl Into<WeightFormat>, values: &[f32]) -> Matrix {
    let arena = Arena::from(device);
    let matrix = Matrix::build(&arena, "test", rows, cols, format.into()).unwrap();
    matrix.write_rows(&arena, 0, values).unwrap();
    matrix
}

/// A projection of zeros with this bias.
///
/// # Panics
/// The device failed.
pub fn zeros(
    device: &Device,
    out: usize,
    input: usize,
    format: impl Into<WeightFormat>,
    bias: Option<&[f32]>,
) -> Linear {
    Linear::build(&device.into(), "test", out, input, format.into(), bias.map(Vector::from)).unwrap()
}

/// A buffer of u32.
///
/// # Panics
/// The device failed.
pub fn upload_u32(device: &Device, values: &[u32]) -> Buffer {
    let buffer = device.alloc("test", Class::Activations, values.len() as u64 * 4).unwrap();
    device.write(&buffer, 0, bytemuck::cast_slice(values)).unwrap();
    buffer
}

/// A tensor whose every bit, pads too, says "not written": NaN in f32 and in f16.
///
/// # Panics
/// The device failed.
pub fn poisoned(device: &Device, rows: usize, cols: usize, dtype: DType) -> Tensor {
    let tensor = device.tensor("test", Class::Activations, rows, cols, dtype).unwrap();
    device.write(&tensor.buffer, 0, &vec![0xff; tensor.buffer.bytes() as usize]).unwrap();
    tensor
}

/// Reads the first `rows` rows without padding, and asserts that their pad columns are 0 and that all rows behind are still poisoned.
///
/// # Panics
/// The device failed, a pad column is not 0, or a row beyond was written.
pub fn read_rows(device: &Device, tensor: &Tensor, rows: usize, what: &str) -> Vec<f32> {
    let raw = read_raw(device, tensor);
    let (ld, cols) = (tensor.ld(), tensor.cols);
    for (r, row) in raw.chunks(ld).enumerate() {
        if r >= rows {
            assert!(row.iter().all(|x| x.is_nan()), "{what}: row {r} lies behind the {rows} live rows and was written");
        } else if let Some(c) = row[cols..].iter().position(|x| *x != 0.0) {
            panic!("{what}: pad column {} of row {r} is {}", cols + c, row[cols + c]);
        }
    }
    raw.chunks(ld).take(rows).flat_map(|row| &row[..cols]).copied().collect()
}

/// All elements of a tensor as f32, pads too.
///
/// # Panics
/// The device failed.
pub fn read_raw(device: &Device, tensor: &Tensor) -> Vec<f32> {
    let n = tensor.rows * tensor.ld();
    let bytes = device.read(&tensor.buffer, n as u64 * tensor.dtype.bytes()).unwrap();
    match tensor.dtype {
        DType::F32 => bytemuck::pod_collect_to_vec(&bytes),
        DType::F16 => bytemuck::pod_collect_to_vec::<u8, half::f16>(&bytes).into_iter().map(f32::from).collect(),
    }
}

/// Compares with the tolerance of all tensors: `|a - b| <= 1e-4 * max(rms(b), |b|)`. `Err` tells the first mismatch and how many there are.
/// NaN never passes.
pub fn compare(got: &[f32], want: &[f64]) -> Result<(), String> {
    compare_within(got, want, 1e-4)
}

/// [`compare`] with another relative tolerance.
pub fn compare_within(got: &[f32], want: &[f64], tolerance: f64) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} values, {} wanted", got.len(), want.len()));
    }
    let rms = (want.iter().map(|b| b * b).sum::<f64>() / want.len().max(1) as f64).sqrt();
    // Written so that a NaN on either side counts as a mismatch.
    let fits = |a: f32, b: f64| (f64::from(a) - b).abs() <= tolerance * rms.max(b.abs());
    let misses: Vec<usize> = (0..got.len()).filter(|i| !fits(got[*i], want[*i])).collect();
    match misses.first() {
        None => Ok(()),
        Some(&i) => Err(format!(
            "{} of {} values differ (rms {rms:.4}), first [{i}]: {} is not {}",
            misses.len(),
            got.len(),
            got[i],
            want[i]
        )),
    }
}

/// Asserts [`compare`].
///
/// # Panics
/// On a mismatch.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f64], what: &str) {
    if let Err(message) = compare(got, want) {
        panic!("{what}: {message}");
    }
}

/// Asserts that two results are equal to the last bit.
///
/// # Panics
/// At the first differing value.
#[track_caller]
pub fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    let differs = (0..got.len()).find(|i| got[*i].to_bits() != want[*i].to_bits());
    if let Some(i) = differs {
        panic!(
            "{what}: [{i}] {:?} ({:08x}) is not {:?} ({:08x})",
            got[i],
            got[i].to_bits(),
            want[i],
            want[i].to_bits()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_can_fail() {
        assert!(compare(&[1.0, 2.0], &[1.0, 2.0]).is_ok());
        assert!(compare(&[1.0, 2.001], &[1.0, 2.0]).is_err());
        assert!(compare(&[f32::NAN], &[1.0]).is_err());
        assert!(compare(&[f32::NAN], &[f64::NAN]).is_err());
        assert!(compare(&[1.0], &[1.0, 2.0]).is_err());
        // Near a zero, the scale of the whole tensor counts.
        assert!(compare(&[1e-6, 1.0], &[0.0, 1.0]).is_ok());
    }

    #[test]
    fn values_are_spread_and_repeat() {
        let v = values(7, 4096);
        assert_eq!(v, values(7, 4096));
        assert!(v.iter().all(|x| (-1.0..1.0).contains(x)));
        assert!(v.iter().sum::<f32>().abs() < 100.0 && v.iter().any(|x| *x > 0.9) && v.iter().any(|x| *x < -0.9));
    }
}

/// Rows of attention heads as they lie in device memory: each head is padded with zeros to whole quads.
#[derive(Clone, Copy, Debug)]
pub struct HeadRows {
    /// Heads of a row.
    pub heads: usize,
    /// Values of a head.
    pub dim: usize,
    /// Quads of nonsense before the first head.
    pub lead: usize,
}

impl HeadRows {
    /// `rows` rows: the first value of each head is `constant`, the others are random ones between `-factor` and `factor`.
    pub fn values(self, seed: u64, rows: usize, factor: f32, constant: f32) -> Vec<f32> {
        let mut out = Vec::new();
        for row in values(seed, rows * self.heads * self.dim).chunks(self.heads * self.dim) {
            out.extend(vec![7.0; 4 * self.lead]);
            for head in row.chunks(self.dim) {
                out.push(constant);
                out.extend(head[1..].iter().map(|x| x * factor));
                out.resize(out.len().next_multiple_of(4), 0.0);
            }
        }
        out
    }
}
