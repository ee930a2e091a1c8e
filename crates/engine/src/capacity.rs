//! How many sentences go together.

use elgen_attention::Need;
use elgen_models::Runner;
use elgen_search::GenerationConfig;
use elgen_search::device::BatchTraits;
use elgen_tensor::{Arena, Device, Tally};

use crate::backoff::Item;
use crate::batch::{BatchBuffers, logits};
use crate::bisect::largest;
use crate::error::EngineError;
use crate::prepare::Prepared;

/// Sentences together at most on a software adapter: its memory traffic per sentence no longer falls beyond that.
const SOFTWARE_SENTENCES: usize = 256;
/// Sentences together at most elsewhere.
const HARDWARE_SENTENCES: usize = 4096;

/// Sentences together at most with [`crate::BatchSize::Auto`].
pub(crate) fn most_sentences(device: &Device) -> usize {
    if device.capabilities().software { SOFTWARE_SENTENCES } else { HARDWARE_SENTENCES }
}

/// Sentences of a batch that one binding of logits or of working tensors allows.
pub(crate) fn sentences_per_binding(
    device: &Device,
    runner: &Runner,
    config: &GenerationConfig,
    ready: &[Prepared],
) -> usize {
    let width = config.rows_per_sentence().max(1);
    let binding = device.capabilities().max_binding_bytes;
    let row = Arena::counting(binding);
    // Rows wider than a kernel counts do not run.
    let rows = match logits(&row, config, 1) {
        Ok(_) => (binding / row.tally().largest_binding().max(1)) as usize,
        Err(_) => 0,
    };
    (rows.min(runner.footprint().max_rows(longest_ids(ready))) / width).max(1)
}

/// The most (source ids, decoder ids) of a request.
fn longest_ids(ready: &[Prepared]) -> (usize, usize) {
    ready.iter().fold((0, 0), |(s, d), r| (r.source.len().max(s), r.lengths.max_length.max(d)))
}

/// The longest, in sum over all requests of a run: what a [`crate::batch::BatchState`] is sized for.
pub(crate) fn longest(ready: &[Prepared]) -> (usize, usize) {
    let max_length = ready.iter().map(|p| p.lengths.max_length).max().unwrap_or(1);
    (max_length, ready.iter().map(Prepared::max_new).max().unwrap_or(1))
}

/// The most sentences whose predicted bytes fit what is free of the memory limit, one at least. `ready`: the longest first,
/// so that no later batch takes more. `aligned`: what is returned will be aligned. `own`: bytes that this session holds and will
/// use again or give back. The peak of the pool will be what is predicted here (without alignments; those may take less), so nothing is
/// kept in reserve.
pub(crate) fn auto_sentences(
    device: &Device,
    runner: &Runner,
    config: &GenerationConfig,
    ready: &[Prepared],
    aligned: bool,
    traits: BatchTraits,
    own: u64,
) -> usize {
    let pool = device.pool();
    let limit = pool.limit();
    let own = own.saturating_add(device.upload_ring_bytes());
    let free = limit.saturating_sub(pool.current().total.saturating_sub(own));
    let cap = most_sentences(device);
    let width = config.rows_per_sentence();
    let need =
        |p: &Prepared| Need { prompt_len: p.prompt.len(), max_new: p.max_new(), width, source_len: p.source.len() };
    let needs: Vec<Need> = ready.iter().take(cap).map(need).collect();
    // What a state is sized for, whichever sentences are in its batch.
    let (max_length, max_new) = longest(ready);
    let longest_source = ready.iter().map(|p| p.source.len()).max().unwrap_or(0);
    let binding = device.capabilities().max_binding_bytes;
    let counted = |count: usize| {
        let arena = Arena::counting(binding);
        let source_ids = ready[..count].iter().map(Prepared::input_len).sum();
        BatchBuffers::build(&arena, config, count, max_length, max_new, BatchTraits { source_ids, ..traits })?;
        runner.count(&arena, &needs[..count], count.saturating_mul(width))?;
        if aligned {
            let returned = ready[..count].iter().fold(0_usize, |sum, p| {
                sum.saturating_add(config.num_return_sequences.saturating_mul(p.lengths.max_length))
            });
            runner.count_align(&arena, returned, max_length, longest_source)?;
        }
        let mut tally = arena.tally();
        tally.upload_ring(limit);
        Ok::<Tally, EngineError>(tally)
    };
    let fits = |count: usize| {
        counted(count).is_ok_and(|tally| tally.usage().total <= free && tally.largest_binding() <= binding)
    };
    largest(needs.len(), fits).unwrap_or(1)
}
