//! Choosing the attention kinds of a session.

use elgen_tensor::DType;

use super::cost::{ModelShape, cross_break_even, self_break_even};
use super::device_class::DeviceClass;
use super::predict::{Prediction, Workload, predict};
use crate::kind::{Kind, Kinds};

/// Predicted throughputs that differ by less are a tie, which goes to the candidate that stands first: predictions are not better than that.
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
    /// All candidates; `mha` for both comes first.
    pub candidates: Vec<Candidate>,
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

/// The combinations for a model, those preferred on a tie first.
fn combinations(has_encoder: bool) -> Vec<Kinds> {
    let both = |kinds: &[Kind]| kinds.iter().map(|kind| Kinds::both(*kind)).collect();
    if !has_encoder {
        return both(&[Kind::Mha, Kind::El, Kind::MhaReplicated]);
    }
    vec![
        Kinds::both(Kind::Mha),
        Kinds { self_: Kind::El, cross: Kind::Mha },
        Kinds { self_: Kind::Mha, cross: Kind::El },
        Kinds::both(Kind::El),
        Kinds::both(Kind::MhaNocache),
        Kinds::both(Kind::MhaReplicated),
    ]
}

/// Chooses the kinds with the highest predicted throughput, each at the largest batch that `fits` (`None`: not even one sentence), which
/// the workload limits. Ties go to multi-head attention; where nothing fits, that is chosen too, whose errors are the clearest.
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
    let rate = |c: &Candidate| c.prediction.as_ref().map_or(0.0, Prediction::sentences_per_second);
    let best = candidates.iter().map(rate).fold(0.0, f64::max);
    let pick = candidates.iter().find(|c| rate(c) > 0.0 && rate(c) >= best * (1.0 - TIE)).cloned();
    let picked = pick.as_ref().and_then(|c| c.prediction);
    let pick = pick.map_or(Kinds::both(Kind::Mha), |c| c.kinds);
    for candidate in &mut candidates {
        candidate.reason = compared(candidate, pick, picked.as_ref());
    }
    let (heads, beams) = (model.decoder.attention.num_heads, workload.beams);
    let el_self =
        BreakEven { measured: class.el_self_flops(heads), needed: self_break_even(heads, class.bandwidth, dtype) };
    let el_cross = model.encoder.as_ref().map(|_| BreakEven {
        measured: class.el_cross_flops(beams, heads),
        needed: cross_break_even(beams, heads, class.bandwidth, dtype),
    });
    let mut plan = Plan { pick, candidates, self_reason: String::new(), cross_reason: None, el_self, el_cross };
    plan.self_reason = reason(&plan, Place::Self_, el_self);
    plan.cross_reason = el_cross.map(|at| reason(&plan, Place::Cross, at));
    plan
}

/// How a candidate compares with the pick.
fn compared(candidate: &Candidate, pick: Kinds, picked: Option<&Prediction>) -> String {
    match (&candidate.prediction, picked) {
        (None, _) => "does not fit into memory".to_owned(),
        (Some(_), None) => "not compared".to_owned(),
        (Some(_), Some(_)) if candidate.kinds == pick => "the pick".to_owned(),
        (Some(own), Some(best)) => {
            let speed = own.sentences_per_second() / best.sentences_per_second();
            let batch = if own.batch == best.batch { String::new() } else { format!(" at batch {}", own.batch) };
            format!("{speed:.2} times the pick's throughput{batch}")
        }
    }
}

/// Which block a reason is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Self_,
    Cross,
}

impl Place {
    fn kind(self, kinds: Kinds) -> Kind {
        match self {
            Self::Self_ => kinds.self_,
            Self::Cross => kinds.cross,
        }
    }

    /// The kinds with another one here.
    fn with(self, kinds: Kinds, kind: Kind) -> Kinds {
        match self {
            Self::Self_ => Kinds { self_: kind, ..kinds },
            Self::Cross => Kinds { cross: kind, ..kinds },
        }
    }

    fn bytes(self, prediction: &Prediction) -> f64 {
        match self {
            Self::Self_ => prediction.self_bytes / prediction.batch as f64,
            Self::Cross => prediction.cross_bytes / prediction.batch as f64,
        }
    }

    fn seconds(self, prediction: &Prediction) -> f64 {
        match self {
            Self::Self_ => prediction.self_seconds,
            Self::Cross => prediction.cross_seconds,
        }
    }
}

/// "el reads 1/2 of mha's bytes; its 4.1 GFLOP/s are below the break-even of 38 GFLOP/s; 0.40 times the throughput".
fn reason(plan: &Plan, place: Place, at: BreakEven) -> String {
    let kind = place.kind(plan.pick);
    let Some(picked) = plan.prediction() else { return "nothing fits into memory".to_owned() };
    // The other kind here, everything else as picked.
    let other = if kind == Kind::El { Kind::Mha } else { Kind::El };
    let rival = match kind {
        Kind::MhaNocache => Kinds::both(Kind::Mha),
        _ if plan.el_cross.is_none() => Kinds::both(other),
        _ => place.with(plan.pick, other),
    };
    let (picked_name, rival_name) = (kind.name(), place.kind(rival).name());
    let Some(against) = plan.of(rival) else { return format!("{rival_name} does not fit into memory") };
    if kind == Kind::MhaNocache || kind == Kind::MhaReplicated {
        return format!(
            "{picked_name} runs {} sentences together, {rival_name} {}: {:.2} times the throughput",
            picked.batch,
            against.batch,
            picked.sentences_per_second() / against.sentences_per_second()
        );
    }
    let (el, mha) = if kind == Kind::El { (picked, against) } else { (against, picked) };
    let gain = el.sentences_per_second() / mha.sentences_per_second();
    let batches = if el.batch == mha.batch {
        format!("at {} sentences", el.batch)
    } else {
        format!("at {} sentences instead of {}", el.batch, mha.batch)
    };
    let side = if at.measured < at.needed { "below" } else { "above" };
    format!(
        "el reads {:.2} of mha's bytes, its core runs at {}, {side} the break-even of {}, and takes {:.2} times mha's time in a step; \
         {gain:.2} times the throughput {batches}",
        place.bytes(el) / place.bytes(mha),
        flops(at.measured),
        flops(at.needed),
        place.seconds(el) / el.batch as f64 / (place.seconds(mha) / mha.batch as f64),
    )
}

/// A rate for people.
fn flops(rate: f64) -> String {
    let digits = |value: f64| if value < 10.0 { 1 } else { 0 };
    match rate {
        _ if rate >= 1e12 => format!("{:.*} TFLOP/s", digits(rate / 1e12), rate / 1e12),
        _ => format!("{:.*} GFLOP/s", digits(rate / 1e9), rate / 1e9),
    }
}

#[cfg(test)]
mod tests;
