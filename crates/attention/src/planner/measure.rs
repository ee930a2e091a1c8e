//! Measuring a [`DeviceClass`] with the kernels themselves.
//!
//! Attention is measured through its blocks, over many keys and over few: the difference is the core, whatever kernels the block
//! dispatches. Every number is the best of some submissions behind a warm-up, which also compiles: other work on the machine adds time
//! and never takes it away, and a difference of medians would be at its mercy. All of it is repeated until the numbers are steady.

use std::time::Instant;

use elgen_tensor::ops::{Activation, FMA_CHAINS, Linear, MatrixLayout, fma_rounds, linear, matrix_rounds, stream};
use elgen_tensor::{
    Buffer, Class, DType, Device, Grouping, MatrixSource, Range, Readback, Recorder, Rows, SourceError, Table, Tensor,
    TensorError, WeightFormat,
};

use super::device_class::{Curve, DeviceClass};
use super::repeat::{Measured, Patience, until_steady};
use crate::block::{BlockInput, CrossQueries, Cx, Epilogue, Step};
use crate::caches::{Caches, Placement};
use crate::error::{AttentionError, Result};
use crate::kind::{Kind, Kinds, Pass};
use crate::layout::{CacheLayout, Need};
use crate::position_scheme::PositionScheme;
use crate::shape::Shape;
use crate::spec::BlockSpec;
use crate::splits::Splits;
use crate::weights::{AttentionWeights, Projection};
use crate::workspace::{Extras, Workspace};

/// How much is measured. On a software adapter a few milliseconds of work suffice, a GPU must be filled.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Width of the hidden states.
    d_model: usize,
    /// Width of a head.
    head_dim: usize,
    /// Sentences of cross-attention; self-attention has four times as many rows.
    sentences: usize,
    /// Keys of a sentence.
    keys: usize,
    /// Bytes that are streamed.
    stream_bytes: u64,
    /// Rounds of 64 x 1024 x 4 multiply-adds.
    rounds: u32,
    /// Seconds of one submission.
    seconds: f64,
}

const SOFTWARE: Size =
    Size { d_model: 512, head_dim: 64, sentences: 2, keys: 208, stream_bytes: 32 << 20, rounds: 100, seconds: 0.006 };

const HARDWARE: Size = Size {
    d_model: 1024,
    head_dim: 64,
    sentences: 32,
    keys: 1024,
    stream_bytes: 512 << 20,
    rounds: 4000,
    seconds: 0.004,
};

/// The few keys that stand for none.
const FEW_KEYS: usize = 16;
/// Rows that products with weights are measured at.
const LINEAR_ROWS: [usize; 4] = [1, 4, 16, 64];
/// Rows of a sentence that cross-attention is measured at.
const CROSS_ROWS: [usize; 3] = [1, 2, 5];
/// Timed submissions of each number in a round.
const SAMPLES: usize = 4;
/// How long a device is measured for numbers that can be trusted.
const PATIENCE: Patience = Patience { rounds: 8, seconds: 10.0 };

impl Size {
    /// For a device; where memory is short, less of it.
    fn of(device: &Device) -> Self {
        let mut size = if device.capabilities().software { SOFTWARE } else { HARDWARE };
        if device.report().device_type == "integrated" {
            // Filled by less, and slower: the time would be felt.
            (size.sentences, size.stream_bytes) = (8, 128 << 20);
        }
        let room = device.pool().limit() / 4;
        let binding = device.capabilities().max_binding_bytes;
        size.stream_bytes = size.stream_bytes.min(binding).min(room).max(1 << 20);
        // Keys and values in f32 are the largest.
        let sentence = |size: &Self| (size.keys * size.d_model * 2 * 4) as u64;
        while size.sentences > 2 && sentence(&size) * 4 * size.sentences as u64 > room {
            size.sentences /= 2;
        }
        size
    }

    fn shape(&self, num_heads: usize) -> Shape {
        Shape::new(self.d_model, num_heads, self.d_model / num_heads, 0.125)
    }

    fn num_heads(&self) -> usize {
        self.d_model / self.head_dim
    }
}

/// Measures the class of a device for weights and caches of `dtype`, again and again until each number has been seen twice
/// ([`until_steady`]). Takes a few seconds, on a busy machine about ten, and some hundred MiB of the pool for so long: best given a device
/// of its own.
///
/// # Errors
/// Out of memory, or the device failed.
pub fn measure(device: &Device, dtype: DType) -> Result<Measured> {
    let started = Instant::now();
    until_steady(PATIENCE, || started.elapsed().as_secs_f64(), || measure_once(device, dtype))
}

fn measure_once(device: &Device, dtype: DType) -> Result<DeviceClass> {
    let size = Size::of(device);
    let timer = Timer::new(device, size.seconds)?;
    let (submission_seconds, dispatch_seconds) = timer.overheads()?;
    let mut class = DeviceClass {
        bandwidth: bandwidth(&timer, &size)?,
        alu_flops: alu_flops(&timer, &size)?,
        matrix_flops: matrix_flops(&timer, &size)?,
        dispatch_seconds,
        submission_seconds,
        ..DeviceClass::default()
    };
    class.linear = linear_curve(&timer, &size, dtype, dispatch_seconds)?;
    for kind in [Kind::MHA, Kind::EL] {
        // EL's rows are heads; half as many heads, twice as wide, show how it grows with them.
        let halved = (kind == Kind::EL).then_some((size.num_heads() / 2).max(1));
        let heads: Vec<usize> = halved.into_iter().chain([size.num_heads()]).collect();
        let in_self = self_curve(&timer, &size, kind, dtype, &heads)?;
        let in_cross = cross_curve(&timer, &size, kind, dtype)?;
        if kind == Kind::EL {
            (class.el_self, class.el_cross) = (in_self, in_cross);
        } else {
            (class.mha_self, class.mha_cross) = (in_self, in_cross);
        }
    }
    class.bandwidth = class.bandwidth.max(fastest_read(device, &class, dtype));
    Ok(class)
}

/// Bytes/s at which the kernels were seen to read: memory is at least that fast, whatever `stream` makes of it. Weights were few enough
/// to lie in a GPU's cache; a CPU gains little by that.
fn fastest_read(device: &Device, class: &DeviceClass, dtype: DType) -> f64 {
    let rate = |curve: &Curve, elements: f64| {
        curve.points().first().map_or(0.0, |(_, seconds)| elements * dtype.bytes() as f64 / seconds)
    };
    let keys = [&class.mha_self, &class.mha_cross].map(|curve| rate(curve, 2.0));
    let states = [&class.el_self, &class.el_cross].map(|curve| rate(curve, 1.0));
    let weights = if device.capabilities().software { rate(&class.linear, 1.0) } else { 0.0 };
    keys.into_iter().chain(states).fold(weights, f64::max)
}

/// Times recordings by the host's clock around a submission and the read-back of a few bytes.
struct Timer<'d> {
    device: &'d Device,
    readback: Readback,
    fence: Buffer,
    seconds: f64,
}

impl<'d> Timer<'d> {
    fn new(device: &'d Device, seconds: f64) -> Result<Self> {
        let readback = device.readback("timing", 16)?;
        let fence = device.alloc("timing", Class::Staging, 16)?;
        Ok(Self { device, readback, fence, seconds })
    }

    /// Seconds of one submission with `op` recorded `repeats` times.
    fn run(&self, repeats: usize, op: &dyn Fn(&mut Recorder) -> Result<()>) -> Result<f64> {
        let mut rec = self.device.recorder();
        for _ in 0..repeats {
            op(&mut rec)?;
        }
        let started = Instant::now();
        rec.submit_and_read(&self.readback, &self.fence, 16)?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Seconds of `op`: the best of some submissions of as many as fill the time, behind a warm-up.
    fn seconds(&self, op: &dyn Fn(&mut Recorder) -> Result<()>) -> Result<f64> {
        self.run(1, op)?;
        let once = self.run(1, op)?;
        let repeats = (self.seconds / once.max(1e-9)).clamp(1.0, 500.0) as usize;
        self.best(|| Ok(self.run(repeats, op)? / repeats as f64))
    }

    fn best(&self, sample: impl Fn() -> Result<f64>) -> Result<f64> {
        (0..SAMPLES).map(|_| sample()).try_fold(f64::INFINITY, |best, seconds| Ok(best.min(seconds?)))
    }

    /// (seconds of an empty submission, seconds of each dispatch that does next to nothing).
    fn overheads(&self) -> Result<(f64, f64)> {
        let results = self.device.tensor("timing", Class::Activations, 1, 1024, DType::F32)?;
        let op = |rec: &mut Recorder| Ok(fma_rounds(rec, &results, 0, 1.0, 0.0)?);
        const MANY: usize = 200;
        self.run(MANY, &op)?;
        let submission = self.best(|| self.run(0, &op))?;
        let many = self.best(|| self.run(MANY, &op))?;
        Ok((submission, (many - submission).max(0.0) / MANY as f64))
    }
}

fn bandwidth(timer: &Timer<'_>, size: &Size) -> Result<f64> {
    let rows = (size.stream_bytes / 4096) as usize;
    let x = timer.device.tensor("streamed", Class::Activations, rows, 1024, DType::F32)?;
    // Runs of 32 quads for each invocation.
    let groups = (rows / 32).clamp(1, 65535);
    let sums = timer.device.tensor("sums", Class::Activations, groups, 1024, DType::F32)?;
    let seconds = timer.seconds(&|rec| Ok(stream(rec, &x, &sums)?))?;
    Ok((rows * 4096) as f64 / seconds)
}

fn alu_flops(timer: &Timer<'_>, size: &Size) -> Result<f64> {
    let groups = if timer.device.capabilities().software { 64 } else { 2048 };
    let results = timer.device.tensor("multiply-adds", Class::Activations, groups, 1024, DType::F32)?;
    let seconds = timer.seconds(&|rec| Ok(fma_rounds(rec, &results, size.rounds, 0.99, 0.01)?))?;
    Ok(2.0 * (groups as u64 * 1024 * FMA_CHAINS) as f64 * f64::from(size.rounds) / seconds)
}

/// `None` where cooperative matrices are not used, or turn out not to work.
fn matrix_flops(timer: &Timer<'_>, size: &Size) -> Result<Option<f64>> {
    let Some(layout) = MatrixLayout::of(timer.device) else { return Ok(None) };
    let (edge, groups) = (layout.edge as usize, 1024);
    let rows = groups * layout.places;
    let results = timer.device.tensor("matrices", Class::Activations, rows, edge * edge, DType::F32)?;
    let seconds = match timer.seconds(&|rec| Ok(matrix_rounds(rec, &results, size.rounds)?)) {
        Err(AttentionError::Tensor(TensorError::Kernel { .. })) => return Ok(None),
        other => other?,
    };
    Ok(Some((groups as u64 * layout.flops()) as f64 * f64::from(size.rounds) / seconds))
}

fn linear_curve(timer: &Timer<'_>, size: &Size, dtype: DType, dispatch_seconds: f64) -> Result<Curve> {
    let (device, d) = (timer.device, size.d_model);
    let weights = Linear::build(&device.into(), "weights", d, d, dtype.into(), None)?;
    let rows = LINEAR_ROWS[LINEAR_ROWS.len() - 1];
    let tensor = |what: &str| device.tensor(what, Class::Activations, rows, d, DType::F32);
    let (x, out) = (tensor("inputs")?, tensor("outputs")?);
    let point = |rows: usize| -> Result<(f64, f64)> {
        let seconds = timer.seconds(&|rec| Ok(linear(rec, &x, &weights, Activation::None, None, &out, rows)?))?;
        Ok((rows as f64, work(seconds, dispatch_seconds) / (d * d) as f64))
    };
    Ok(Curve::new(LINEAR_ROWS.into_iter().map(point).collect::<Result<_>>()?))
}

/// What is left of `seconds` without `fixed`, a tenth at least: where noise is larger than the work, it must not come out as nothing.
fn work(seconds: f64, fixed: f64) -> f64 {
    (seconds - fixed).max(seconds / 10.0)
}

/// A matrix of small values: its speed is that of any other.
struct Made {
    rows: usize,
    cols: usize,
}

impl MatrixSource for Made {
    fn rows(&self) -> usize {
        self.rows
    }

    fn cols(&self) -> usize {
        self.cols
    }

    fn read(&self, first: usize, out: &mut [f32], _: WeightFormat) -> Result<(), SourceError> {
        for (i, value) in out.iter_mut().enumerate() {
            *value = ((first * self.cols + i) % 31) as f32 / 500.0 - 0.03;
        }
        Ok(())
    }
}

/// What a block needs around it.
struct Bench {
    shape: Shape,
    caches: Caches,
    placements: Vec<Placement>,
    work: Workspace,
    x: Tensor,
    out: Tensor,
}

impl Bench {
    fn new(device: &Device, shape: Shape, kind: Kind, dtype: DType, needs: &[Need], rows: usize) -> Result<Self> {
        let (kinds, format) = (Kinds::both(kind), dtype.into());
        let layout = CacheLayout { layers: 1, kinds, self_shape: shape, cross_shape: Some(shape), format };
        let mut caches = Caches::new(device, layout);
        caches.prepare(needs)?;
        let placements = needs.iter().map(|need| caches.admit(*need)).collect::<Result<_>>()?;
        let tensor = |what: &str| device.tensor(what, Class::Activations, rows, shape.d_model, DType::F32);
        let most = |keys: fn(&Need) -> usize| needs.iter().map(keys).max().unwrap_or(0);
        let splits = Splits::of(most(|need| need.prompt_len + need.max_new), most(|need| need.source_len));
        let extras = Extras { kinds, pass: Pass::Step, splits, ..Extras::default() };
        let (x, out) = (tensor("inputs")?, tensor("outputs")?);
        Ok(Self { shape, caches, placements, work: Workspace::new(device, shape, rows, extras)?, x, out })
    }

    fn cx<'a>(&'a self, rec: &'a mut Recorder) -> Cx<'a> {
        Cx::new(rec, &self.caches, &self.work)
    }

    fn epilogue(&self) -> Epilogue<'_> {
        Epilogue { residual: None, out: &self.out }
    }

    /// Builds a block of made-up weights.
    fn block<B>(
        &self,
        dtype: DType,
        build: impl FnOnce(&BlockSpec<'_>, AttentionWeights<'_>) -> Result<B>,
    ) -> Result<B> {
        let inner = self.shape.num_heads * self.shape.head_dim;
        let (narrow, wide) =
            (Made { rows: inner, cols: self.shape.d_model }, Made { rows: self.shape.d_model, cols: inner });
        let part = |weight| Projection { weight, bias: None };
        let weights = AttentionWeights { q: part(&narrow), k: part(&narrow), v: part(&narrow), o: part(&wide) };
        build(
            &BlockSpec {
                what: "timing",
                layer: 0,
                shape: self.shape,
                formats: dtype.into(),
                positions: PositionScheme::None,
            },
            weights,
        )
    }
}

/// Elements of a key: of a hidden state, or of a key and its value as one.
fn key_elements(kind: Kind, shape: Shape) -> f64 {
    if kind == Kind::EL { elgen_tensor::padded(shape.d_model) as f64 } else { shape.inner() as f64 }
}

/// Self-attention: rows without beams, so that each has keys of its own.
fn self_curve(timer: &Timer<'_>, size: &Size, kind: Kind, dtype: DType, heads: &[usize]) -> Result<Curve> {
    let device = timer.device;
    let count = 4 * size.sentences;
    let point = |num_heads: &usize| -> Result<(f64, f64)> {
        let shape = size.shape(*num_heads);
        let needs = vec![Need { prompt_len: size.keys, max_new: 1, width: 1, source_len: 0 }; count];
        let bench = Bench::new(device, shape, kind, dtype, &needs, count)?;
        let block = bench.block(dtype, |spec, weights| kind.self_attention(&device.into(), spec, weights))?;
        let mut rows = Rows::new(device, count, size.keys)?;
        let slabs: Vec<usize> = bench.placements.iter().map(|p| p.slab).collect();
        let mut timed = |keys: usize| -> Result<f64> {
            let state = |(s, p): (u32, &Placement)| p.row(s, 0).with_length(keys as u32);
            let states: Vec<_> = (0..).zip(&bench.placements).map(state).collect();
            let slots: Vec<u32> = states
                .iter()
                .flat_map(|row| (0..size.keys as u32).map(|position| row.own_slot(position.min(row.length - 1))))
                .collect();
            rows.set_active(device, (0..count as u32).collect(), &slabs)?;
            rows.place(device, &states, None, Some(&slots))?;
            let step = Step { rows: &rows, cross_ranges: None };
            timer.seconds(&|rec| block.step(&mut bench.cx(rec), &BlockInput::plain(&bench.x), &bench.epilogue(), step))
        };
        let (few, many) = (timed(FEW_KEYS)?, timed(size.keys)?);
        let elements = (count * (size.keys - FEW_KEYS)) as f64 * key_elements(kind, shape);
        let group = if kind == Kind::EL { *num_heads } else { 1 };
        Ok((group as f64, work(many, few) / elements))
    };
    Ok(Curve::new(heads.iter().map(point).collect::<Result<_>>()?))
}

/// Cross-attention, by rows of a sentence.
fn cross_curve(timer: &Timer<'_>, size: &Size, kind: Kind, dtype: DType) -> Result<Curve> {
    let (device, shape) = (timer.device, size.shape(size.num_heads()));
    let needs = vec![Need { prompt_len: 1, max_new: 1, width: 1, source_len: size.keys }; size.sentences];
    let most = size.sentences * CROSS_ROWS[CROSS_ROWS.len() - 1];
    let bench = Bench::new(device, shape, kind, dtype, &needs, most)?;
    let block = bench.block(dtype, |spec, weights| kind.cross_attention(&device.into(), spec, weights))?;
    let point = |width: &usize| -> Result<(f64, f64)> {
        let count = size.sentences * width;
        let mut grouping = Grouping::default();
        for (s, placement) in (0..).zip(&bench.placements) {
            grouping.push(placement.slab, s, *width as u32);
        }
        let index = Table::of(device, "row numbers", &(0..count as u32).collect::<Vec<_>>())?;
        let groups = Table::of(device, "row groups", &grouping.groups)?;
        let timed = |keys: usize| -> Result<f64> {
            let range = |p: &Placement| Range::new(p.cross_range(0).first, keys as u32);
            let ranges: Vec<Range> = bench.placements.iter().flat_map(|p| vec![range(p); *width]).collect();
            let ranges = Table::of(device, "key ranges", &ranges)?;
            let (index, ranges, groups) = (index.view(), ranges.view(), groups.view());
            let queries = CrossQueries { index, ranges, groups, segments: &grouping.segments, count };
            timer.seconds(&|rec| {
                block.attend(&mut bench.cx(rec), &BlockInput::plain(&bench.x), &bench.epilogue(), queries)
            })
        };
        let (few, many) = (timed(FEW_KEYS)?, timed(size.keys)?);
        let elements = (size.sentences * (size.keys - FEW_KEYS)) as f64 * key_elements(kind, shape);
        let group = if kind == Kind::EL { width * shape.num_heads } else { *width };
        Ok((group as f64, work(many, few) / elements))
    };
    Ok(Curve::new(CROSS_ROWS.iter().map(point).collect::<Result<_>>()?))
}
