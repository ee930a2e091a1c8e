//! `el_attend_coop.wgsl`: EL's decode kernel on cooperative matrices, for f16 caches. [`el_attend`] takes it in place of the portable kernel where the device and
//! the width of the hidden states allow it.

use elgen_tensor::{
    Capabilities, Class, DType, Device, KernelSpec, Range, RowState, Rows, Segment, Table, Tensor, TensorError, padded,
    tile_name,
};

use crate::block::CrossQueries;
use crate::el_attend::{ElAttend, ElQueries, el_attend};
use crate::kind::Shape;

/// Query rows of a tile: pairs of a row and a head.
pub(crate) const ROWS: u32 = 16;

/// Tile columns that a subgroup may own, as the shader is listed.
const OWNED: [u32; 8] = [1, 2, 3, 4, 6, 8, 12, 16];

/// Subgroups of a workgroup. More would share the columns of X further, but each adds a tile of partial scores to workgroup memory.
const MAX_SUBGROUPS: u32 = 8;

/// Invocations of a workgroup at most, whatever the device allows.
const MAX_INVOCATIONS: u32 = 512;

/// How the kernel is cut for a device and a width of hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    /// Edge of a tile, and keys of a chunk.
    edge: u32,
    /// Invocations of a workgroup.
    workgroup: u32,
    /// Subgroups that it has at most.
    subgroups: u32,
    /// Tile columns of a hidden state.
    tiles: u32,
    /// Of which a subgroup owns so many at most.
    owned: u32,
}

impl Plan {
    /// `None` where the device has no cooperative matrices, or where a chunk of hidden states of `width` elements does not fit its workgroup memory.
    fn new(device: &Capabilities, width: usize) -> Option<Self> {
        let edge = device.cooperative?;
        let tiles = u32::try_from(width).ok()?.div_ceil(edge);
        let (smallest, largest) = device.subgroup_sizes;
        let cut = |least: u32| {
            let workgroup = least * largest;
            let subgroups = workgroup / smallest.max(1);
            let owned = *OWNED.iter().find(|owned| **owned * least >= tiles)?;
            let plan = Self { edge, workgroup, subgroups, tiles, owned };
            let fits = workgroup > 0
                && workgroup.is_multiple_of(ROWS)
                && workgroup <= device.workgroup_invocations.min(MAX_INVOCATIONS)
                && plan.bytes() <= u64::from(device.workgroup_bytes);
            fits.then_some(plan)
        };
        (1..=MAX_SUBGROUPS.min(tiles.next_multiple_of(2))).rev().find_map(cut)
    }

    /// Workgroup memory: staged hidden states, exchanged tiles, P in halves, five numbers per row and a flag.
    fn bytes(&self) -> u64 {
        let (edge, rows) = (u64::from(self.edge), u64::from(ROWS));
        let stage_ld = (u64::from(self.tiles) + 1) * (edge / 4) + (edge - 8) / 4;
        edge * stage_ld * 8 + u64::from(self.subgroups) * rows * edge * 4 + 2 * rows * edge * 2 + 5 * rows * 4 + 16
    }
}

/// Whether [`el_attend`] takes cooperative matrices for hidden states of this width and storage.
pub fn el_uses_matrices(device: &Device, d_model: usize, dtype: DType) -> bool {
    dtype == DType::F16 && Plan::new(&device.capabilities(), padded(d_model)).is_some()
}

/// The kernel, without the symbols that its twin has too; `None`: the portable one does it.
pub(crate) fn spec(device: &Device, width: usize, dtype: DType) -> Option<KernelSpec> {
    let plan = Plan::new(&device.capabilities(), width).filter(|_| dtype == DType::F16)?;
    let spec = KernelSpec::new("el_attend_coop")
        .storage(device, dtype)
        .set_text("TILE", tile_name(plan.edge))
        .set("EDGE", plan.edge)
        .set("BANDS", ROWS / plan.edge)
        .set("OWNED", plan.owned)
        .constant("WG", plan.workgroup)
        .constant("SUBGROUPS", plan.subgroups)
        .constant("TILES", plan.tiles);
    Some(spec)
}

/// Lets the kernel for hidden states of `d_model` columns solve a known problem, once per device. If it cannot, the device has no cooperative matrices from then
/// on and the portable kernel does everything.
///
/// # Errors
/// Memory, or a lost device.
pub(crate) fn try_out(device: &Device, d_model: usize, dtype: DType) -> Result<(), TensorError> {
    match Plan::new(&device.capabilities(), padded(d_model)) {
        Some(plan) if dtype == DType::F16 => device
            .try_cooperative(&format!("el_attend_coop {d_model} {plan:?}"), || Trial::new(plan, d_model).run(device)),
        _ => Ok(()),
    }
}

/// Two rows of a sentence, with two chunks of keys and a part of a third.
struct Trial {
    shape: Shape,
    keys: usize,
    q: Vec<f32>,
    x: Vec<f32>,
}

impl Trial {
    const QUERY_ROWS: usize = 2;

    fn new(plan: Plan, d_model: usize) -> Self {
        // Eleven heads: the second tile of query rows is not full.
        let shape = Shape { d_model, num_heads: 11, head_dim: 4, scale: 1.0 };
        let keys = 2 * plan.edge as usize + 3;
        let wave = |i: usize, step: f64| (i as f64 * step).sin() as f32;
        let factor = 4.0 / (d_model as f32).sqrt();
        Self {
            shape,
            keys,
            q: (0..Self::QUERY_ROWS * shape.num_heads * d_model).map(|i| wave(i, 0.7) * factor).collect(),
            x: (0..keys * d_model).map(|i| (wave(i, 1.3) * 64.0).round() / 64.0).collect(),
        }
    }

    /// softmax(q' X^T) X in 64 bits, without the pads of rows.
    fn answer(&self) -> Vec<f64> {
        let d = self.shape.d_model;
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let context = |q: &[f32]| {
            let scores: Vec<f64> = self.x.chunks(d).map(|x| dot(q, x)).collect();
            let peak = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - peak).exp()).collect();
            let total: f64 = weights.iter().sum();
            let column = |c: usize| weights.iter().zip(self.x.chunks(d)).map(|(w, x)| w * f64::from(x[c])).sum::<f64>();
            (0..d).map(|c| column(c) / total).collect::<Vec<f64>>()
        };
        self.q.chunks(d).flat_map(context).collect()
    }

    /// What is wrong with the kernel's answer, keys in a range and through a slot table.
    fn run(&self, device: &Device) -> Result<Option<String>, TensorError> {
        let (rows, columns) = (Self::QUERY_ROWS, self.shape.num_heads * padded(self.shape.d_model));
        let activation = |what: &str| device.tensor(what, Class::Activations, rows, columns, DType::F32);
        let (q, out) = (activation("trial queries")?, activation("trial contexts")?);
        device.write_rows(&q, 0, &padded_rows(&self.q, self.shape.d_model))?;
        let x = device.tensor_from(
            "trial states",
            Class::Activations,
            self.keys,
            self.shape.d_model,
            DType::F16,
            &self.x,
        )?;
        let keys = self.keys as u32;
        let index = Table::of(device, "trial rows", &[0, 0])?;
        let ranges = Table::of(device, "trial ranges", &[Range::new(0, keys)])?;
        let groups = Table::of(device, "trial groups", &[Range::new(0, rows as u32)])?;
        let mut tables = Rows::new(device, rows, self.keys)?;
        tables.set_active(device, vec![0, 1], &[0, 0])?;
        let slots: Vec<u32> = (0..2 * keys).map(|i| i % keys).collect();
        tables.place(device, &[RowState { length: keys, ..RowState::default() }; 2], None, Some(&slots))?;
        let segment = Segment { slab: 0, first: 0, count: 2, first_group: 0, groups: 1, widest_group: 2 };
        let product = ElAttend { shape: self.shape, q: &q, x: &x, bias: None, out: &out, splits: (1, None), segment };
        let segments = [segment];
        let (index, ranges, groups) = (index.view(), ranges.view(), groups.view());
        let queries = CrossQueries { index, ranges, groups, segments: &segments, count: rows };
        let ways = [ElQueries::Groups(queries), ElQueries::Slots(&tables)];
        for queries in ways {
            let mut rec = device.recorder();
            el_attend(&mut rec, queries, product)?;
            rec.submit()?;
            if let Some(wrong) = self.judge(device, &out)? {
                return Ok(Some(wrong));
            }
        }
        Ok(None)
    }

    fn judge(&self, device: &Device, out: &Tensor) -> Result<Option<String>, TensorError> {
        let want = padded_rows(&self.answer(), self.shape.d_model);
        let got = device.read_tensor(out)?;
        // Written so that a NaN is wrong.
        let fits = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= 1e-3;
        let misses = got.iter().zip(&want).filter(|pair| !fits(*pair)).count();
        let wrong = || format!("{misses} of {} numbers of a known problem are wrong", want.len());
        Ok((misses > 0 || got.len() != want.len()).then(wrong))
    }
}

/// Rows of `width` numbers, padded with zeros to whole quads.
fn padded_rows<T: Copy + Default>(values: &[T], width: usize) -> Vec<T> {
    let pads = padded(width) - width;
    values.chunks(width).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(T::default(), pads))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(edge: u32, lanes: u32, kib: u32) -> Capabilities {
        Capabilities {
            shader_f16: true,
            subgroup: true,
            immediates: true,
            max_binding_bytes: 1 << 30,
            max_buffer_bytes: 1 << 30,
            workgroup_bytes: kib << 10,
            workgroup_invocations: 1024,
            subgroup_sizes: (lanes, lanes),
            cooperative: Some(edge),
            software: false,
        }
    }

    #[test]
    fn columns_are_dealt_out_to_as_many_subgroups_as_memory_allows() {
        let cut = |edge, lanes, kib, width| {
            Plan::new(&device(edge, lanes, kib), width).map(|p| (p.workgroup / lanes, p.owned))
        };
        // BART-base, GPT-2, BART-large and GPT-2 large; 48 KiB and 32 lanes.
        assert_eq!([512, 768, 1024, 1280].map(|d| cut(16, 32, 48, d)), [(8, 4), (8, 6), (8, 8), (5, 16)].map(Some));
        // 32 KiB and 8 lanes: a software driver.
        assert_eq!([64, 512, 768].map(|d| cut(16, 8, 32, d)), [(4, 1), (8, 4), (4, 12)].map(Some));
        assert_eq!([8, 64, 1024].map(|d| cut(8, 8, 32, d)), [(2, 1), (8, 1), (8, 16)].map(Some));
        // What docs/el-attention.md §3 says.
        let largest = |edge, lanes, kib| (1..1024).map(|n| 4 * n).rfind(|d| cut(edge, lanes, kib, *d).is_some());
        assert_eq!(
            [(16, 8, 32), (16, 32, 48), (16, 32, 64)].map(|(e, l, k)| largest(e, l, k)),
            [816, 1280, 1744].map(Some)
        );
        assert_eq!(largest(8, 8, 32), Some(1024));
        // Subgroups of 64, and of 8 to 32, of which a workgroup may then have four times as many.
        assert_eq!(cut(16, 64, 64, 1024), Some((8, 8)));
        let varying = Capabilities { subgroup_sizes: (8, 32), ..device(16, 32, 64) };
        assert_eq!(Plan::new(&varying, 256).map(|p| (p.workgroup, p.subgroups)), Some((256, 32)));
        assert_eq!(Plan::new(&Capabilities { cooperative: None, ..device(16, 32, 48) }, 64), None);
    }

    #[test]
    fn the_trial_notices_a_wrong_number() {
        let plan = Plan::new(&device(8, 8, 32), 30).unwrap();
        let trial = Trial::new(plan, 30);
        let answer = trial.answer();
        assert_eq!(answer.len(), 2 * 11 * 30);
        let spread = |row: &[f64]| row.iter().fold(0f64, |m, x| m.max(x.abs()));
        assert!(answer.chunks(30).all(|row| spread(row) > 0.01), "an answer of zeros would pass");
        assert_eq!(padded_rows(&[1, 2, 3, 4, 5, 6], 3), [1, 2, 3, 0, 4, 5, 6, 0]);
    }
}
