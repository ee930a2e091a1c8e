//! Times the attention kernels of multi-head attention over the shapes of decode steps, and of prompts: GB/s of unique key and value bytes and
//! GFLOP/s as a table on stderr and as JSON on stdout.
//!
//! `attend_bench [self|cross|prefill|tilings]..`; `$ELGEN_TEST_DEVICE` selects the adapter. `tilings` times every tiling of a few shapes: where
//! `Tiling::choose` gets its numbers from.

use elgen_attention::{Attend, CrossQueries, KeyRanges, MhaAttend, QueryRows, Shape, Tiling, attend, mha_attend_tiled};
use elgen_tensor::{
    Class, DType, Device, DeviceOptions, Range, Recorder, Result, RowStart, RowState, Rows, Segment, Table, Tensor,
};
use elgen_tests::harness::{numbers, ranges, values};
use elgen_tests::timing::best_seconds;
use serde_json::json;

/// (d_model, heads).
const MODELS: [(usize, usize); 3] = [(256, 8), (512, 8), (1024, 16)];
const KEYS: [usize; 3] = [64, 300, 1024];
const BEAMS: [usize; 2] = [1, 4];
/// Sentences of a batch.
const SENTENCES: usize = 4;

struct Bench {
    device: Device,
    results: Vec<serde_json::Value>,
}

/// Query rows of `SENTENCES` sentences with `beams` beams and `keys` keys each, and where their keys are.
struct Step {
    shape: Shape,
    keys: usize,
    q: Tensor,
    kv: Tensor,
    out: Tensor,
    rows: Rows,
    ranges: Table<Range>,
    segment: Segment,
}

impl Step {
    /// `copies`: keys stored once per beam (self-attention), or once per sentence.
    fn new(
        device: &Device,
        (d_model, heads): (usize, usize),
        beams: usize,
        keys: usize,
        copies: usize,
        dtype: DType,
    ) -> Result<Self> {
        let (n, slots) = (SENTENCES * beams, SENTENCES * copies * keys);
        let shape = Shape::new(d_model, heads, d_model / heads, 1.0 / ((d_model / heads) as f32).sqrt());
        let q = device.tensor_from("q", Class::Activations, n, d_model, DType::F32, &values(1, n * d_model))?;
        let kv = device.tensor("kv", Class::Cache, slots, 2 * d_model, dtype)?;
        let line = values(2, 2 * d_model);
        for first in (0..slots).step_by(64) {
            let count = 64.min(slots - first);
            let part = device.tensor_from("part", Class::Staging, count, 2 * d_model, dtype, &line.repeat(count))?;
            let mut rec = device.recorder();
            let ld = 2 * d_model as u64 * dtype.bytes();
            rec.copy(&part.buffer, 0, &kv.buffer, first as u64 * ld, count as u64 * ld)?;
            rec.submit()?;
        }
        let out = device.tensor("out", Class::Activations, n, d_model, DType::F32)?;
        let mut rows = Rows::new(device, n, keys)?;
        let states: Vec<RowState> = (0..n)
            .map(|i| RowState {
                sentence: (i / beams) as u32,
                length: 1,
                live: 1,
                prompt_len: 1,
                ..RowState::default()
            })
            .collect();
        let start = |state: &RowState| RowStart { state: *state, prompt: &[1], slab: 0, max_length: 1 };
        rows.begin(device, &states.iter().map(start).collect::<Vec<_>>())?;
        let lengths: Vec<RowState> = states.iter().map(|s| s.with_length(keys as u32)).collect();
        let first = |i: usize| if copies == 1 { i / beams * keys } else { i * keys };
        // Slots as beams leave them: neighbouring positions of a row lie `beams` slots apart.
        let table: Vec<u32> = (0..n)
            .flat_map(|i| (0..keys).map(move |k| (i / beams * beams * keys + k * beams + i % beams) as u32))
            .collect();
        if copies > 1 || beams == 1 {
            rows.place(device, &lengths, None, Some(&table))?;
        }
        let range = |i: usize| Range::new(first(i) as u32, keys as u32);
        let ranges = Table::of(device, "ranges", &(0..n).map(range).collect::<Vec<_>>())?;
        let segment = rows.segments()[0];
        Ok(Self { shape, keys, q, kv, out, rows, ranges, segment })
    }

    fn product(&self, rec: &mut Recorder, slots: bool, tiling: Option<Tiling>) -> Result<()> {
        let product = MhaAttend {
            shape: self.shape,
            q: (&self.q, 0),
            kv: &self.kv,
            columns: [0, self.shape.d_model],
            bias: None,
            out: &self.out,
            splits: None,
        };
        if slots {
            return mha_attend_tiled(rec, QueryRows::Slots(&self.rows, &self.segment), product, tiling, None);
        }
        let queries = CrossQueries {
            index: self.rows.active(),
            ranges: self.ranges.view(),
            groups: self.rows.groups(),
            segments: &[self.segment],
            count: self.rows.count(),
        };
        let which = QueryRows::Groups { queries: &queries, segment: &self.segment, shared: true };
        mha_attend_tiled(rec, which, product, tiling, None)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut parts: Vec<String> = std::env::args().skip(1).collect();
    if parts.is_empty() {
        parts = ["self", "cross", "prefill"].map(str::to_owned).to_vec();
    }
    let options = DeviceOptions { selector: std::env::var("ELGEN_TEST_DEVICE").ok(), ..DeviceOptions::default() };
    let device = Device::open(&options)?;
    let software = device.capabilities().software;
    eprintln!(
        "{}{}",
        device.report().name,
        if software { " (software adapter: only ratios mean something)" } else { "" }
    );
    let mut bench = Bench { device, results: Vec::new() };
    for part in &parts {
        match part.as_str() {
            "self" => bench.decode(true)?,
            "cross" => bench.decode(false)?,
            "prefill" => bench.prefill()?,
            "tilings" => bench.tilings()?,
            other => return Err(format!("{other:?} is none of self, cross, prefill, tilings").into()),
        }
    }
    let report = bench.device.report();
    println!(
        "{:#}",
        json!({"device": report.name, "driver": report.driver, "software_adapter": software, "results": bench.results})
    );
    Ok(())
}

impl Bench {
    fn decode(&mut self, slots: bool) -> Result<()> {
        let op = if slots { "self" } else { "cross" };
        for dtype in [DType::F32, DType::F16] {
            for model in MODELS {
                for beams in BEAMS {
                    for keys in KEYS {
                        let copies = if slots { beams } else { 1 };
                        let step = Step::new(&self.device, model, beams, keys, copies, dtype)?;
                        let seconds = best_seconds(&self.device, &|rec| step.product(rec, slots, None))?;
                        self.note(op, &step, dtype, beams, copies, seconds);
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, op: &str, step: &Step, dtype: DType, beams: usize, copies: usize, seconds: f64) {
        let Shape { d_model, num_heads, .. } = step.shape;
        let bytes = (2 * SENTENCES * copies * step.keys * d_model) as f64 * dtype.bytes() as f64;
        let flops = (4 * SENTENCES * beams * step.keys * d_model) as f64;
        let (gb, gflops) = (bytes / seconds / 1e9, flops / seconds / 1e9);
        eprintln!(
            "{op:16} {:4} d {d_model:4} heads {num_heads:2} beams {beams} keys {:4}  {:9.1} us  {gb:6.2} GB/s  {gflops:6.2} GFLOP/s",
            dtype.name(),
            step.keys,
            seconds * 1e6
        );
        self.results
            .push(json!({"op": op, "dtype": dtype.name(), "d_model": d_model, "heads": num_heads, "beams": beams,
            "keys": step.keys, "sentences": SENTENCES, "seconds": seconds, "gb_per_s": gb, "gflops": gflops}));
    }

    /// One source of an encoder: every token attends to all.
    fn prefill(&mut self) -> Result<()> {
        for (d_model, heads) in MODELS {
            for tokens in [300, 1024] {
                let shape = Shape::new(d_model, heads, d_model / heads, 1.0 / ((d_model / heads) as f32).sqrt());
                let wide = self.device.tensor_from(
                    "wide",
                    Class::Activations,
                    tokens,
                    3 * d_model,
                    DType::F32,
                    &values(1, tokens * 3 * d_model),
                )?;
                let out = self.device.tensor("out", Class::Activations, tokens, d_model, DType::F32)?;
                let index = numbers(&self.device, &(0..tokens as u32).collect::<Vec<_>>());
                let ranges = ranges(&self.device, &vec![[0, tokens as u32]; tokens]);
                let product = Attend {
                    shape,
                    q: (&wide, 0),
                    k: (&wide, d_model),
                    v: (&wide, 2 * d_model),
                    bias: None,
                    out: &out,
                    first: 0,
                    count: tokens as u32,
                };
                let seconds = best_seconds(&self.device, &|rec| {
                    attend(rec, KeyRanges { index: index.view(), ranges: ranges.view() }, product)
                })?;
                let gflops = (4 * tokens * tokens * d_model) as f64 / seconds / 1e9;
                eprintln!(
                    "prefill attend   f32  d {d_model:4} heads {heads:2} tokens {tokens:4}  {:9.1} us  {gflops:6.2} GFLOP/s",
                    seconds * 1e6
                );
                self.results.push(
                    json!({"op": "prefill attend", "dtype": "f32", "d_model": d_model, "heads": heads, "tokens": tokens,
                    "seconds": seconds, "gflops": gflops}),
                );
            }
        }
        Ok(())
    }

    fn tilings(&mut self) -> Result<()> {
        for (slots, model, beams, keys) in [
            (true, (256, 16), 4, 20),
            (true, (256, 8), 4, 20),
            (true, (256, 8), 4, 300),
            (true, (1024, 16), 4, 300),
            (false, (256, 8), 4, 12),
            (false, (256, 8), 4, 300),
            (false, (1024, 16), 4, 300),
        ] {
            let step = Step::new(&self.device, model, beams, keys, if slots { beams } else { 1 }, DType::F32)?;
            for workgroup in [16, 32, 64, 128] {
                for heads in [1, 2, 4, 8, 16] {
                    if heads > 1 && heads as usize * model.0 / model.1 / 4 > workgroup as usize {
                        continue;
                    }
                    let tiling = Tiling { workgroup, heads, rows: if slots { 1 } else { beams as u32 } };
                    let seconds = best_seconds(&self.device, &|rec| step.product(rec, slots, Some(tiling)))?;
                    self.note(&format!("wg {workgroup:2} heads {heads}"), &step, DType::F32, beams, 1, seconds);
                }
            }
        }
        Ok(())
    }
}
