//! Why kinds were picked: sentences about what was compared, and about nothing else.

use super::{BreakEven, Candidate, standing};
use crate::kind::{Kind, Kinds, Standing};
use crate::planner::predict::Prediction;

/// Which block a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Self-attention of a model that has cross-attention too.
    Self_,
    /// Cross-attention.
    Cross,
    /// Self-attention of a decoder-only model.
    Only,
}

impl Place {
    fn kind(self, kinds: Kinds) -> Kind {
        match self {
            Self::Self_ | Self::Only => kinds.self_,
            Self::Cross => kinds.cross,
        }
    }

    /// The kinds with another one here.
    fn with(self, kinds: Kinds, kind: Kind) -> Kinds {
        match self {
            Self::Self_ => Kinds { self_: kind, ..kinds },
            Self::Cross => Kinds { cross: kind, ..kinds },
            Self::Only => Kinds::both(kind),
        }
    }

    fn bytes(self, prediction: &Prediction) -> f64 {
        match self {
            Self::Self_ | Self::Only => prediction.self_bytes / prediction.batch as f64,
            Self::Cross => prediction.cross_bytes / prediction.batch as f64,
        }
    }

    fn seconds(self, prediction: &Prediction) -> f64 {
        match self {
            Self::Self_ | Self::Only => prediction.self_seconds / prediction.batch as f64,
            Self::Cross => prediction.cross_seconds / prediction.batch as f64,
        }
    }

    /// The kinds as this place sees them: "el", or "el beside mha for cross-attention".
    fn name(self, kinds: Kinds) -> String {
        let name = self.kind(kinds).name();
        match self {
            Self::Only => name.to_owned(),
            Self::Self_ => format!("{name} beside {} for cross-attention", kinds.cross),
            Self::Cross => format!("{name} beside {} for self-attention", kinds.self_),
        }
    }
}

/// How a candidate compares with the pick.
pub(super) fn of_candidate(candidate: &Candidate, pick: Kinds, picked: Option<&Prediction>) -> String {
    let speed = match (&candidate.prediction, picked) {
        (None, _) if candidate.fits => return "nothing is known about its cost".to_owned(),
        (None, _) => return "not one sentence fits into memory".to_owned(),
        (Some(_), _) if candidate.kinds == pick => return "the pick".to_owned(),
        (Some(_), None) => return "not compared: not one sentence of the pick fits into memory".to_owned(),
        (Some(own), Some(best)) => {
            let speed = own.sentences_per_second() / best.sentences_per_second();
            let batch = if own.batch == best.batch { String::new() } else { format!(" at batch {}", own.batch) };
            format!("{speed:.2} times the pick's throughput{batch}")
        }
    };
    match standing(candidate.kinds) {
        Standing::Regular => speed,
        Standing::LastResort => format!("only where nothing else fits; {speed}"),
        Standing::Baseline => format!("a baseline, never picked; {speed}"),
        Standing::Named => format!("only where it is named; {speed}"),
    }
}

/// "el reads 0.50 of mha's bytes, its core runs at 4.1 GFLOP/s, below the break-even of 38 GFLOP/s, and takes 1.80 times mha's time in a
/// step; 0.40 times the throughput at 32 sentences".
pub(super) fn of_pick(candidates: &[Candidate], pick: Kinds, place: Place, at: BreakEven, margin: f64) -> String {
    let find = |kinds: Kinds| candidates.iter().find(|c| c.kinds == kinds);
    let Some(picked) = find(pick).and_then(|c| c.prediction.as_ref()) else {
        return match candidates.iter().all(|c| c.prediction.is_none()) {
            true => "not one sentence fits into memory, whatever the kind".to_owned(),
            false => format!("not one sentence fits into memory with {}", place.name(pick)),
        };
    };
    let mut regular = candidates.iter().filter(|c| standing(c.kinds) == Standing::Regular);
    if standing(pick) == Standing::LastResort && regular.all(|c| c.prediction.is_none()) {
        return format!(
            "not one sentence fits into memory with caches of keys, values or hidden states for every layer; {} at a time do with {}",
            picked.batch,
            place.name(pick)
        );
    }
    // The other kind here, everything else as picked; else what every plan begins with.
    let kind = place.kind(pick);
    let other = if kind == Kind::MHA { Kind::EL } else { Kind::MHA };
    let swapped = place.with(pick, other);
    let rival = find(swapped).or_else(|| find(Kinds::both(Kind::MHA))).filter(|c| c.kinds != pick);
    let Some(rival) = rival else { return format!("{} was compared with nothing", place.name(pick)) };
    let Some(against) = &rival.prediction else {
        return format!("not one sentence fits into memory with {}", place.name(rival.kinds));
    };
    let faster = picked.sentences_per_second() >= against.sentences_per_second();
    let tie = match standing(pick) {
        Standing::Regular if !faster => {
            format!(", which is no more than the margin of {:.0} %: the simpler kind is taken", margin * 100.0)
        }
        _ => String::new(),
    };
    let is_swapped = rival.kinds == swapped;
    match [kind, other] {
        both if is_swapped && both == [Kind::MHA, Kind::EL] => {
            format!("{}{tie}", el_against_mha(place, against, picked, at))
        }
        both if is_swapped && both == [Kind::EL, Kind::MHA] => {
            format!("{}{tie}", el_against_mha(place, picked, against, at))
        }
        _ => format!(
            "{} runs {} sentences together, {} {}: {:.2} times the throughput{tie}",
            place.name(pick),
            picked.batch,
            place.name(rival.kinds),
            against.batch,
            picked.sentences_per_second() / against.sentences_per_second()
        ),
    }
}

fn el_against_mha(place: Place, el: &Prediction, mha: &Prediction, at: BreakEven) -> String {
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
        place.seconds(el) / place.seconds(mha),
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
