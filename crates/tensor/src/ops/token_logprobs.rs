//! Log-probabilities of given ids (`token_logprobs.wgsl`).

use bytemuck::{Pod, Zeroable};

use crate::bind;
use crate::error::{Result, TensorError};
use crate::kernel::KernelSpec;
use crate::ops::{MAX_GROUPS, expect, parts};
use crate::recorder::Recorder;
use crate::table::TableRef;
use crate::tensor::{Buffer, Tensor, product};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    first_row: u32,
    vocab: u32,
    quads: u32,
}

/// What a row of logits says of a given id; mirrors `Score` in the shader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct TokenScore {
    /// Natural log of the given id's probability.
    pub logprob: f32,
    /// The id with the largest logit; the lowest one on ties.
    pub top_id: u32,
    /// Natural log of its probability.
    pub top_logprob: f32,
}

/// For rows `0..rows` of `logits` `[_, V]` f32: `scores[r]` ([`TokenScore`]) of the id `ids[r]` (u32), by log-softmax in f32.
///
/// # Errors
/// Logits that are not f32 or have fewer rows, fewer ids or scores, an id outside the vocabulary, a vocabulary beyond 2^24.
pub fn token_logprobs(
    rec: &mut Recorder,
    logits: &Tensor,
    ids: TableRef<'_, u32>,
    scores: &Buffer,
    rows: usize,
) -> Result<()> {
    expect("token_logprobs", "logits", logits, rows, 1)?;
    let fits = scores.bytes() >= product(&[rows, size_of::<TokenScore>()]) && logits.cols <= 1 << 24;
    if !fits || !ids.holds(0, rows, logits.cols) {
        let message = format!(
            "{rows} rows of {} logits, {} ids below {}, {} bytes of scores",
            logits.cols,
            ids.entries().len(),
            ids.end(),
            scores.bytes()
        );
        return Err(TensorError::Shape { op: "token_logprobs", message });
    }
    let kernel = rec.device().kernel(&KernelSpec::new("token_logprobs").subgroup(rec.device()))?;
    for (first, count) in parts(0, rows, MAX_GROUPS) {
        let params = Params { first_row: first as u32, vocab: logits.cols as u32, quads: logits.quads() };
        // SAFETY: `rows` rows of logits, ids and scores were found to be there, and every id is below the vocabulary.
        unsafe { rec.dispatch_trusted(&kernel, &bind![logits, ids, scores], &params, [count as u32, 1, 1])? };
    }
    Ok(())
}
