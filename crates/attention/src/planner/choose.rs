//! Choosing the attention kinds of a session.

mod reason;

use elgen_tensor::DType;

use super::cost::{ModelShape, cross_break_even, self_break_even};
use super::device_class::DeviceClass;
use super::predict::{Prediction, Workload, predict};
use crate::kind::{Kind, Kinds};

/// Predicted throughputs that differ by less are a tie at least: predictions are not better than that. Where the measurement scatters
/// by more, that is the margin.
const TIE: f64 = 0.02;

/// A combination of kinds and what is predicted for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The kinds.
    pub kinds: Kinds,
    /// At the largest batch that fits; `None` if no sentence does.
    pub prediction: Option<Prediction>,
    /// How it compares with the pick, in one sentence.
    pub reason: String,
}

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The kinds to use.
    pub pick: Kinds,
    /// All candidates, the simplest first: `mha` for both. The last two, `mha-nocache` and `mha-replicated`, are compared but not
    /// picked: the one only where no other fits a single sentence, the other never.
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

/// The combinations for a model, the simplest first: `mha` before `el`, for cross-attention before self-attention.
fn combinations(has_encoder: bool) -> Vec<Kinds> {
    let mut kinds = vec![Kinds::both(Kind::Mha)];
    if has_encoder {
        kinds.push(Kinds { self_: Kind::El, cross: Kind::Mha });
        kinds.push(Kinds { self_: Kind::Mha, cross: Kind::El });
    }
    kinds.push(Kinds::both(Kind::El));
    if has_encoder {
        kinds.push(Kinds::both(Kind::MhaNocache));
    }
    kinds.push(Kinds::both(Kind::MhaReplicated));
    kinds
}

/// What kinds are to a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// They are picked where they are fastest.
    Regular,
    /// They are picked where nothing regular fits a single sentence: they compute at every step what others keep.
    LastResort,
    /// They keep a copy for every beam, which never pays; they are there to be named and compared.
    Baseline,
}

impl Standing {
    fn of(kinds: Kinds) -> Self {
        match [kinds.self_, kinds.cross] {
            both if both.contains(&Kind::MhaReplicated) => Self::Baseline,
            both if both.contains(&Kind::MhaNocache) => Self::LastResort,
            _ => Self::Regular,
        }
    }
}

/// Chooses the kinds with the highest predicted throughput, each at the largest batch that `fits` (`None`: not even one sentence), which
/// the workload limits. A tie within 2 %, or within the scatter of the class, goes to the simpler kinds: `mha` before `el`. `mha-nocache`
/// is picked only where no other kinds fit a single sentence, `mha-replicated` never. Where nothing fits, it is `mha`, whose errors are
/// the clearest.
pub fn choose(
    class: &DeviceClass,
    model: &ModelShape,
    workload: &Workload,
    dtype: DType,
    fits: impl Fn(Kinds) -> Option<usize>,
) -> Plan {
    let mut candidates: Vec<Candidate> = combinations(model.encoder.is_some())
        .into_iter()
        .map(|kinds| {
            let batch = fits(kinds).filter(|batch| *batch > 0).map(|batch| batch.min(workload.batch_limit.max(1)));
            let prediction = batch.map(|batch| predict(class, model, kinds, workload, dtype, batch));
            Candidate { kinds, prediction, reason: String::new() }
        })
        .collect();
    let margin = class.scatter.max(TIE);
    let pick = [Standing::Regular, Standing::LastResort]
        .into_iter()
        .find_map(|standing| fastest(candidates.iter().filter(|c| Standing::of(c.kinds) == standing), margin))
        .unwrap_or(Kinds::both(Kind::Mha));
    let picked = candidates.iter().find(|c| c.kinds == pick).and_then(|c| c.prediction);
    for candidate in &mut candidates {
        candidate.reason = reason::of_candidate(candidate, pick, picked.as_ref());
    }
    let (heads, beams) = (model.decoder.attention.num_heads, workload.beams);
    let el_self =
        BreakEven { measured: class.el_self_flops(heads), needed: self_break_even(heads, class.bandwidth, dtype) };
    let el_cross = model.encoder.as_ref().map(|_| BreakEven {
        measured: class.el_cross_flops(beams, heads),
        needed: cross_break_even(beams, heads, class.bandwidth, dtype),
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
