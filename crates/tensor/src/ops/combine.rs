//! What splits of keys leave behind, and `combine.wgsl`, which merges it.

use bytemuck::{Pod, Zeroable};

use crate::arena::Arena;
use crate::bind;
use crate::device::Device;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::ops::MAX_GROUPS;
use crate::pool::Class;
use crate::recorder::Recorder;
use crate::tensor::{Buffer, DType, Tensor, product};

/// What splits leave behind: un-normalised contexts, and the maximum and sum of the weights of each head.
#[derive(Debug)]
pub struct Partials {
    /// `[splits * rows, columns]` f32: row `r` of split `s` lies at `s * rows + r`.
    pub contexts: Tensor,
    /// `[splits * rows, num_heads]` pairs of f32: maximum and sum.
    pub stats: Buffer,
    /// Query rows that fit.
    pub rows: usize,
    /// Splits that fit.
    pub splits: usize,
}

impl Partials {
    /// Room on a device; see [`Partials::build`].
    ///
    /// # Errors
    /// Out of memory, or larger than a binding.
    pub fn new(device: &Device, rows: usize, splits: usize, num_heads: usize, columns: usize) -> Result<Self> {
        Self::build(&device.into(), rows, splits, num_heads, columns)
    }

    /// Allocates or counts room for `splits` splits of `rows` query rows of `num_heads` heads with `columns` columns in all.
    ///
    /// # Errors
    /// As [`Arena::tensor`].
    pub fn build(arena: &Arena, rows: usize, splits: usize, num_heads: usize, columns: usize) -> Result<Self> {
        let all = splits.saturating_mul(rows);
        let contexts = arena.tensor("partial contexts", Class::Activations, all, columns, DType::F32)?;
        let stats = arena.buffer("partial sums", Class::Activations, product(&[splits, rows, num_heads, 8]))?;
        Ok(Self { contexts, stats, rows, splits })
    }

    /// True if there is room for so many splits of query rows below `rows`, with `columns` columns.
    pub fn hold(&self, splits: usize, rows: usize, columns: usize) -> bool {
        splits <= self.splits && rows <= self.rows && columns <= self.contexts.ld()
    }
}

/// Merges what `splits` splits left of the query rows `first ..` + `count`: `out[r, h] = sum_s w_s context_s / sum_s w_s sum_s`, with
/// `w_s = exp(max_s - max)`. `out` is `[rows, num_heads * width]` f32, `width` a multiple of 4. A row without keys gets zeros.
///
/// # Errors
/// Shapes that do not fit.
pub fn combine(
    rec: &mut Recorder,
    partials: &Partials,
    splits: usize,
    (num_heads, width): (usize, usize),
    out: &Tensor,
    first: u32,
    count: u32,
) -> Result<()> {
    #[repr(C)]
    #[derive(Clone, Copy, Pod, Zeroable)]
    struct Params {
        first_row: u32,
        rows: u32,
        splits: u32,
        heads: u32,
        width: u32,
        part_ld: u32,
        out_ld: u32,
    }
    let columns = num_heads.saturating_mul(width);
    let end = first as usize + count as usize;
    let fits = width.is_multiple_of(4)
        && partials.hold(splits, end, columns)
        && end <= out.rows
        && columns <= out.ld()
        && product(&[partials.splits, partials.rows, num_heads, 8]) <= partials.stats.bytes()
        && out.dtype == DType::F32;
    if !fits {
        let message = format!(
            "{splits} splits of {num_heads} heads x {width}, rows {first}+{count}: {} splits of {} rows, contexts {}, out {}",
            partials.splits,
            partials.rows,
            partials.contexts.describe(),
            out.describe()
        );
        return Err(TensorError::Shape { op: "combine", message });
    }
    let kernel = rec.device().kernel(&KernelSpec::new("combine").constant("WG", 64))?;
    for at in (first..first + count).step_by(MAX_GROUPS) {
        let params = Params {
            first_row: at,
            rows: partials.rows as u32,
            splits: splits as u32,
            heads: num_heads as u32,
            width: (width / 4) as u32,
            part_ld: partials.contexts.quads(),
            out_ld: out.quads(),
        };
        let buffers = bind![&partials.contexts, &partials.stats, out];
        let grid = [(MAX_GROUPS as u32).min(first + count - at), num_heads as u32, 1];
        // SAFETY: contexts and sums of all splits and rows, and the rows of out, were found to be there.
        unsafe { rec.dispatch_trusted(&kernel, &buffers, &params, grid)? };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_heads_and_columns_are_padded() {
        let arena = Arena::counting(1 << 20);
        Partials::build(&arena, 5, 2, 3, 6).unwrap();
        assert_eq!(arena.tally().usage().total, 5 * 2 * (4 * 8 + 8 * 3));
    }
}
