//! Times the matrix kernels over the shapes of small models, and EL-attention's decode kernel over those of larger ones: GFLOP/s as a table on
//! stderr and as JSON on stdout.
//!
//! `kernel_bench [rows,..]`; `$ELGEN_TEST_DEVICE` selects the adapter.

use elgen_attention::{CrossQueries, ElAttend, ElQueries, SPLIT, Shape, el_attend};
use elgen_tensor::ops::Partials;
use elgen_tensor::ops::{Activation, Linear, Prologue, Tile, heads_contract, heads_expand, linear, linear_tiled};
use elgen_tensor::{
    Arena, Class, DType, Device, DeviceOptions, Grouping, Range, Result, RowState, Rows, Table, Vector,
};
use elgen_tests::harness::{matrix, values};
use elgen_tests::timing::best_seconds;
use serde_json::json;

/// Shapes (n, k): the products of a 256-wide model with 8 000 ids, and of a 768-wide one.
const SHAPES: [(usize, usize); 5] = [(256, 256), (1024, 256), (256, 1024), (8000, 256), (768, 768)];

/// Decode steps of EL-attention: (d_model, heads).
const EL_SHAPES: [(usize, usize); 3] = [(256, 8), (512, 8), (1024, 16)];
/// Their sentences, beams and keys.
const EL_SENTENCES: usize = 4;
const EL_BEAMS: [usize; 2] = [1, 4];
const EL_KEYS: [usize; 3] = [64, 300, 1024];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows: Vec<usize> = match std::env::args().nth(1) {
        Some(list) => list.split(',').map(str::parse).collect::<Result<_, _>>()?,
        None => vec![1, 4, 16, 64, 256],
    };
    let options = DeviceOptions { selector: std::env::var("ELGEN_TEST_DEVICE").ok(), ..DeviceOptions::default() };
    let device = Device::open(&options)?;
    let software = device.capabilities().software;
    eprintln!(
        "{}{}",
        device.report().name,
        if software { " (software adapter: only ratios mean something)" } else { "" }
    );
    let mut results = Vec::new();
    let mut note = |op: &str, dtype: DType, rows: usize, n: usize, k: usize, seconds: f64| {
        let gflops = 2.0 * (rows * n * k) as f64 / seconds / 1e9;
        eprintln!(
            "{op:24} {:4} rows {rows:4}  n {n:5}  k {k:5}  {:9.1} us  {gflops:8.2} GFLOP/s",
            dtype.name(),
            seconds * 1e6
        );
        results.push(json!({"op": op, "dtype": dtype.name(), "rows": rows, "n": n, "k": k, "seconds": seconds, "gflops": gflops}));
    };
    for dtype in [DType::F32, DType::F16] {
        for (n, k) in SHAPES {
            let arena = Arena::from(&device);
            let w = Linear::build(&arena, "w", n, k, dtype.into(), Some(Vector::from(&values(1, n))))?;
            w.weight.write_rows(&arena, 0, &values(2, n * k))?;
            for &rows in &rows {
                let x = device.tensor_from("x", Class::Activations, rows, k, DType::F32, &values(3, rows * k))?;
                let out = device.tensor("out", Class::Activations, rows, n, DType::F32)?;
                let seconds = best_seconds(&device, &|rec| linear(rec, &x, &w, Activation::None, None, &out, rows))?;
                note("linear", dtype, rows, n, k, seconds);
            }
        }
        // Every tile at one shape: where Tile::choose gets its numbers from.
        let (n, k) = (768, 768);
        let w = Linear::build(&Arena::from(&device), "w", n, k, dtype.into(), None)?;
        for &rows in &rows {
            let x = device.tensor_from("x", Class::Activations, rows, k, DType::F32, &values(3, rows * k))?;
            let out = device.tensor("out", Class::Activations, rows, n, DType::F32)?;
            for tile in Tile::ALL {
                let seconds = best_seconds(&device, &|rec| {
                    linear_tiled(rec, &x, &w, Activation::None, None, &out, rows, Some(tile))
                })?;
                note(&format!("{tile:?}"), dtype, rows, n, k, seconds);
            }
        }
        let (heads, width, d) = (4, 64, 256);
        let w = Linear::from(matrix(&device, heads * width, d, dtype, &values(4, heads * width * d)));
        for &rows in &rows {
            let q = device.tensor_from(
                "q",
                Class::Activations,
                rows,
                heads * width,
                DType::F32,
                &values(5, rows * heads * width),
            )?;
            let c = device.tensor("c", Class::Activations, rows, heads * d, DType::F32)?;
            let back = device.tensor("back", Class::Activations, rows, heads * width, DType::F32)?;
            let seconds = best_seconds(&device, &|rec| heads_expand(rec, &q, &w.weight, heads, &c, rows))?;
            note("heads_expand", dtype, rows, heads * d, width, seconds);
            let seconds =
                best_seconds(&device, &|rec| heads_contract(rec, Prologue::None, &c, &w, heads, &back, rows))?;
            note("heads_contract", dtype, rows, heads * width, d, seconds);
        }
    }
    for dtype in [DType::F32, DType::F16] {
        for (d, heads) in EL_SHAPES {
            for (beams, keys) in EL_BEAMS.into_iter().flat_map(|beams| EL_KEYS.map(|keys| (beams, keys))) {
                for own in [true, false] {
                    let seconds = time_el(&device, dtype, (d, heads), beams, keys, own)?;
                    let op = format!("el_attend {} {beams}x{keys}", if own { "self" } else { "cross" });
                    // 4 R H S D FLOPs.
                    note(&op, dtype, EL_SENTENCES * beams * heads, 2 * keys, d, seconds);
                }
            }
        }
    }
    let report = json!({"device": device.report().name, "driver": device.report().driver, "software_adapter": software, "results": results});
    println!("{report:#}");
    Ok(())
}

/// Seconds of the attention product of a decode step: each row over keys of its own, through the slot table, or all rows of a sentence over one range.
fn time_el(
    device: &Device,
    dtype: DType,
    (d, heads): (usize, usize),
    beams: usize,
    keys: usize,
    own: bool,
) -> std::result::Result<f64, Box<dyn std::error::Error>> {
    let rows = EL_SENTENCES * beams;
    let activations = |what: &str| {
        device.tensor_from(what, Class::Activations, rows, heads * d, DType::F32, &values(6, rows * heads * d))
    };
    let (q, out) = (activations("q")?, activations("out")?);
    let n = if own { rows } else { EL_SENTENCES } * keys;
    let x = device.tensor_from("x", Class::Cache, n, d, dtype, &values(7, n * d))?;
    let mut grouping = Grouping::default();
    (0..EL_SENTENCES).for_each(|s| grouping.push(0, s as u32, beams as u32));
    let index = Table::of(device, "index", &(0..rows as u32).collect::<Vec<_>>())?;
    let ranges: Vec<Range> = (0..rows).map(|r| Range::new((r / beams * keys) as u32, keys as u32)).collect();
    let (ranges, groups) = (Table::of(device, "ranges", &ranges)?, Table::of(device, "groups", &grouping.groups)?);
    let mut table = Rows::new(device, rows, keys)?;
    table.set_active(device, (0..rows as u32).collect(), &vec![0; rows])?;
    let states = vec![RowState::default().with_length(keys as u32); rows];
    // Generated slots of a sentence's beams alternate.
    let slot = |r: usize, k: usize| (r / beams * beams * keys + k * beams + r % beams) as u32;
    let slots: Vec<u32> = (0..rows).flat_map(|r| (0..keys).map(move |k| slot(r, k))).collect();
    table.place(device, &states, None, Some(&slots))?;
    let splits = keys.div_ceil(SPLIT);
    let partials = Partials::new(device, rows, splits, heads, heads * d)?;
    let product = ElAttend {
        shape: Shape::new(d, heads, d / heads, 0.1),
        q: &q,
        x: &x,
        bias: None,
        out: &out,
        splits: Some((&partials, splits)),
        segment: grouping.segments[0],
    };
    let queries = match own {
        true => ElQueries::Slots(&table),
        false => ElQueries::Groups(CrossQueries {
            groups: groups.view(),
            index: index.view(),
            ranges: ranges.view(),
            segments: &grouping.segments,
            count: rows,
        }),
    };
    Ok(best_seconds(device, &|rec| el_attend(rec, queries, product))?)
}
