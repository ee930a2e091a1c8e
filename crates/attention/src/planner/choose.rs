//! Choosing the attention kinds of a session.

mod reason;

use super::cost::{ModelShape, cross_break_even, self_break_even};
use super::device_class::DeviceClass;
use super::predict::{Prediction, Workload, predict};
use crate::formats::Formats;
use crate::kind::{Kind, Kinds, Standing};

/// Predicted throughputs that differ by less are a tie at least: predictions are not better than that. Where the measurement scatters
/// by more, that is the margin.
const TIE: f64 = 0.02;

/// A combination of kinds and what is predicted for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The kinds.
    pub kinds: Kinds,
    /// Whether a single sentence fits.
    pub fits: bool,
    /// At the largest batch that fits; `None` if no sentence does, or a kind does not say what it costs.
    pub prediction: Option<Prediction>,
    /// How it compares with the pick, in one sentence.
    pub reason: String,
}

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The kinds to use.
    pub pick: Kinds,
    /// All candidates, the simplest first: `mha` for both. Those that are not regular come last ([`Standing`]).
    pub candidates: Vec<Candidate>,
    /// Throughputs that differ by this part of the larger one are a tie, which goes to the simpler kinds.
    pub margin: f64,
    /// Why self-attention has its kind, in one sentence.
    pub self_reason: String,
    /// Why cross-attention has its kind; `None` for decoder-only models.
    pub cross_reason: Option<String>,
    /// EL's core beside its break-even.
    pub el_self: BreakEven,
    /// The same for cross-attention; `None` for decoder-only models.
    pub el_cross: Option<BreakEven>,
}

impl Plan {
    /// The prediction of the pick.
    pub fn prediction(&self) -> Option<&Prediction> {
        self.of(self.pick)
    }

    /// The prediction of these kinds, if they are a candidate and fit.
    pub fn of(&self, kinds: Kinds) -> Option<&Prediction> {
        self.candidates.iter().find(|c| c.kinds == kinds).and_then(|c| c.prediction.as_ref())
    }
}

/// EL's measured rate, and the rate above which it beats shared multi-head attention where memory is the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakEven {
    /// FLOP/s of EL's core at this number of heads and rows.
    pub measured: f64,
    /// FLOP/s from which on it wins: self `2 * heads * bandwidth / element size`, cross that times beams.
    pub needed: f64,
}

/// The combinations of `kinds` for a model, the simplest first. Of those that are regular, every pair: earlier ones before later ones, for
/// cross-attention before self-attention; of the others, each in both places.
pub fn combinations(kinds: &[Kind], has_encoder: bool) -> Vec<Kinds> {
    let of = |standing: Standing| kinds.iter().copied().filter(move |kind| kind.standing() == standing);
    let regular: Vec<Kind> = of(Standing::Regular).collect();
    let mut found = Vec::new();
    if has_encoder {
        let mut pairs: Vec<(usize, usize)> =
            (0..regular.len()).flat_map(|own| (0..regular.len()).map(move |cross| (own, cross))).collect();
        pairs.sort_by_key(|(own, cross)| (own + cross, *cross));
        found.extend(pairs.into_iter().map(|(own, cross)| Kinds::new(regular[own], regular[cross])));
    } else {
        found.extend(regular.into_iter().map(Kinds::both));
    }
    let others = [Standing::LastResort, Standing::Baseline, Standing::Named].into_iter().flat_map(of);
    found.extend(others.filter(|kind| has_encoder || !kind.needs_encoder()).map(Kinds::both));
    found
}

/// What a combination is to a choice: what the least of its kinds is.
pub fn standing(kinds: Kinds) -> Standing {
    let both = [kinds.self_.standing(), kinds.cross.standing()];
    let least = [Standing::Named, Standing::Baseline, Standing::LastResort];
    least.into_iter().find(|standing| both.contains(standing)).unwrap_or(Standing::Regular)
}

/// Chooses, of `kinds`, those with the highest predicted throughput, each at the largest batch that `fits` (`None`: not even one sentence), which
/// the workload limits. A tie within 2 %, or within the scatter of the class, goes to the simpler kinds: `mha` before `el`. What is picked at
/// all, each kind says ([`Standing`]). Where nothing fits, it is `mha`, whose errors are
/// the clearest.
pub fn choose(
    class: &DeviceClass,
    model: &ModelShape,
    workload: &Workload,
    formats: Formats,
    kinds: &[Kind],
    fits: impl Fn(Kinds) -> Option<usize>,
) -> Plan {
    let mut candidates: Vec<Candidate> = combinations(kinds, model.encoder.is_some())
        .into_iter()
        .map(|kinds| {
            let batch = fits(kinds).filter(|batch| *batch > 0).map(|batch| batch.min(workload.batch_limit.max(1)));
            let prediction = batch.and_then(|batch| predict(class, model, kinds, workload, formats, batch));
            Candidate { kinds, fits: batch.is_some(), prediction, reason: String::new() }
        })
        .collect();
    let margin = class.scatter.max(TIE);
    let pick = [Standing::Regular, Standing::LastResort]
        .into_iter()
        .find_map(|standing| fastest(candidates.iter().filter(|c| self::standing(c.kinds) == standing), margin))
        .unwrap_or(Kinds::both(Kind::MHA));
    let picked = candidates.iter().find(|c| c.kinds == pick).and_then(|c| c.prediction);
    for candidate in &mut candidates {
        candidate.reason = reason::of_candidate(candidate, pick, picked.as_ref());
    }
    let (heads, beams) = (model.decoder.attention.num_heads, workload.beams);
    let el_self = BreakEven {
        measured: class.el_self_flops(heads),
        needed: self_break_even(heads, class.bandwidth, formats.cache),
    };
    let el_cross = model.encoder.as_ref().map(|_| BreakEven {
        measured: class.el_cross_flops(beams, heads),
        needed: cross_break_even(beams, heads, class.bandwidth, formats.cache),
    });
    let about = |place, at| reason::of_pick(&candidates, pick, place, at, margin);
    let self_reason = about(if el_cross.is_some() { reason::Place::Self_ } else { reason::Place::Only }, el_self);
    let cross_reason = el_cross.map(|at| about(reason::Place::Cross, at));
    Plan { pick, candidates, margin, self_reason, cross_reason, el_self, el_cross }
}

/// The first of those whose throughput is the highest, but for the margin.
fn fastest<'a>(candidates: impl Iterator<Item = &'a Candidate> + Clone, margin: f64) -> Option<Kinds> {
    let rate = |c: &Candidate| c.prediction.as_ref().map_or(0.0, Prediction::sentences_per_second);
    let best = candidates.clone().map(rate).fold(0.0, f64::max);
    candidates.into_iter().find(|c| rate(c) > 0.0 && rate(c) >= best * (1.0 - margin)).map(|c| c.kinds)
}

#[cfg(test)]
mod tests;
