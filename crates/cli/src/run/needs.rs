//! What a run takes at least, for those whose memory limit is too small.

use elgen_attention::{Kinds, Standing};
use elgen_engine::{
    AttentionChoice, BatchWorkload, EngineError, ErrorKind, Expected, MemoryPlan, Registry, SessionOptions, best_device,
};
use elgen_models::{ModelConfig, Outline};
use elgen_search::GenerationConfig;

/// Source tokens where neither the inputs nor the positions say anything.
const USUAL_SOURCE: usize = 512;
/// Nobody limits memory more finely.
const FINE: u64 = 1 << 10;

/// Whether the memory limit, or what the driver has, is the reason; the size of the device's bindings may be another.
pub(super) fn is_short(error: &EngineError) -> bool {
    error.kind() == ErrorKind::OutOfMemory
}

/// The smallest memory limit under which an expected input runs alone, in words; `None` where that cannot be told.
///
/// Which input it is that does not fit is not known, so this is the least for the longest that was expected.
pub(super) fn least(model: &ModelConfig, options: &SessionOptions, config: &GenerationConfig) -> Option<String> {
    let device = best_device(options.device.as_deref()).ok()?;
    let outline = Outline::new(model);
    let formats = options.formats(device.software, model);
    let (source, prompt, new) = lengths(&outline, config, &options.expected)?;
    let workload = BatchWorkload::new(config, source, prompt, new);
    let bytes = kinds(options.attention, &options.registry, outline.limits.is_encoder_decoder).into_iter().filter_map(
        |kinds| {
            let total = |memory_limit| {
                let max_binding_bytes = device.max_binding_bytes;
                let plan = MemoryPlan { model, kinds, formats, max_binding_bytes, memory_limit };
                plan.predict(&workload, 1).ok().map(|bytes| bytes.total)
            };
            least_limit(total)
        },
    );
    bytes.min().map(rounded_up)
}

/// Ids of the source (0 for a decoder-only model) and of the decoder's prompt, and new ones.
fn lengths(outline: &Outline, config: &GenerationConfig, expected: &Expected) -> Option<(usize, usize, usize)> {
    let positions = outline.limits.max_position_embeddings;
    let source = expected.source_length.or(positions).unwrap_or(USUAL_SOURCE).max(1);
    let source = source.min(positions.unwrap_or(usize::MAX));
    if outline.limits.is_encoder_decoder {
        return Some((source, 1, config.lengths(1).ok()?.max_length - 1));
    }
    match config.lengths(source) {
        Ok(lengths) => Some((0, source, lengths.max_length - source)),
        Err(_) => Some((0, 1, config.lengths(1).ok()?.max_length - 1)),
    }
}

/// What the model may be loaded with.
fn kinds(choice: AttentionChoice, registry: &Registry, has_encoder: bool) -> Vec<Kinds> {
    if let Some(named) = choice.named() {
        return vec![named];
    }
    let of = |standing: Standing| registry.kinds().iter().copied().filter(move |kind| kind.standing() == standing);
    let kinds = of(Standing::Regular).chain(of(Standing::LastResort));
    kinds.filter(|kind| has_encoder || !kind.needs_encoder()).map(Kinds::both).collect()
}

/// The smallest limit whose total does not exceed it: upload rings and working tensors grow with the limit up to some size.
fn least_limit(total: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    // As much as there is takes the most.
    let (mut short, mut enough) = (0, total(u64::MAX)?);
    while enough - short > FINE {
        let middle = short + (enough - short) / 2;
        match total(middle) {
            Some(total) if total <= middle => enough = middle,
            _ => short = middle,
        }
    }
    Some(enough)
}

/// A size as `--memory-limit` takes it, no smaller than what is needed.
fn rounded_up(size: u64) -> String {
    let (unit, name) = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|(unit, _)| size >= *unit)
        .unwrap_or((1, "B"));
    if unit == 1 {
        return format!("{size}{name}");
    }
    let tenths = (u128::from(size) * 10).div_ceil(u128::from(unit));
    format!("{}.{}{name}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use elgen_models::ModelError;
    use elgen_tensor::TensorError;

    use super::*;

    #[test]
    fn a_binding_that_is_too_small_is_no_lack_of_memory() {
        let short = TensorError::MemoryLimit {
            what: "x".into(),
            class: elgen_tensor::Class::Cache,
            asked: 4,
            used: 1,
            limit: 2,
        };
        assert!(is_short(&short.clone().into()) && is_short(&ModelError::from(short).into()));
        let large = TensorError::TooLarge { what: "x".into(), asked: 4, limit: 2, kind: "binding" };
        assert!(!is_short(&large.into()) && !is_short(&EngineError::Cancelled));
    }

    #[test]
    fn sizes_are_never_told_too_small() {
        for (size, text) in [
            (7, "7B"),
            (1024, "1.0KiB"),
            (1025, "1.1KiB"),
            ((12 << 20) + 1, "12.1MiB"),
            (5 << 29, "2.5GiB"),
            (u64::MAX, "17179869184.0GiB"),
        ] {
            assert_eq!(rounded_up(size), text);
        }
    }

    #[test]
    fn the_least_limit_holds_its_own_total() {
        // A ring of an eighth of the limit, 64 KiB at most, beside what is fixed.
        let total = |limit: u64| Some((1 << 20) + (limit / 8).min(1 << 16));
        let least = least_limit(total).unwrap();
        assert!(total(least).unwrap() <= least && least <= (1 << 20) + (1 << 16) + FINE);
        assert_eq!(least_limit(|_| None), None);
        assert_eq!(least_limit(|limit| (limit == u64::MAX).then_some(9)), Some(9));
    }
}
