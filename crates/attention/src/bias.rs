//! A bias on the scores by head and distance (T5, Raffel et al. 2020, section 2.1).

use elgen_tensor::{Arena, Class, DType, Tensor, TensorError, tensor_bytes};

use crate::error::Result;

/// What is added to the scores: `table[head, clamp(key position - query position, -reach, reach) + reach]`. A clone shares the device
/// buffer, so that all layers of a stack use one table.
#[derive(Clone, Debug)]
pub struct PositionBias {
    /// `[num_heads, 2 * reach + 1]` f32.
    pub(crate) table: Tensor,
    /// The largest distance that is told apart.
    pub(crate) reach: usize,
}

impl PositionBias {
    /// Uploads the table, or counts it, whose entries `value(head, key position - query position)` gives for distances `-reach ..= reach`.
    ///
    /// # Errors
    /// Out of memory, or a table larger than a binding.
    pub fn new(
        arena: &Arena,
        what: &str,
        num_heads: usize,
        reach: usize,
        value: impl Fn(usize, i64) -> f32,
    ) -> Result<Self> {
        // The shader's arithmetic is in i32; far below that, the device refuses the table.
        let cols = reach.checked_mul(2).and_then(|n| n.checked_add(1)).filter(|n| *n <= i32::MAX as usize);
        let cols = cols.ok_or_else(|| TensorError::Shape {
            op: "attend",
            message: format!("{what}: a bias for distances up to {reach}"),
        })?;
        let table = arena.tensor(what, Class::Weights, num_heads, cols, DType::F32)?;
        let Some(device) = arena.device() else {
            arena.will_upload(tensor_bytes(1, cols, DType::F32));
            return Ok(Self { table, reach });
        };
        let reach_i64 = reach as i64;
        for head in 0..num_heads {
            let row: Vec<f32> = (-reach_i64..=reach_i64).map(|distance| value(head, distance)).collect();
            device.write_rows(&table, head, &row)?;
        }
        Ok(Self { table, reach })
    }

    /// Number of heads.
    pub fn num_heads(&self) -> usize {
        self.table.rows
    }

    /// The largest distance that is told apart.
    pub fn reach(&self) -> usize {
        self.reach
    }
}
