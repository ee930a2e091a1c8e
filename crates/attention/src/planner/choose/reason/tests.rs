use super::*;

fn combinations(has_encoder: bool) -> Vec<Kinds> {
    crate::planner::combinations(&Kind::BUILT_IN, has_encoder)
}

const AT: BreakEven = BreakEven { measured: 4e9, needed: 38e9 };
const MARGIN: f64 = 0.05;

fn every_pick(place: Place) -> Vec<Kinds> {
    match place {
        Place::Only => Kind::BUILT_IN.map(Kinds::both).to_vec(),
        _ => Kind::BUILT_IN.iter().flat_map(|s| Kind::BUILT_IN.map(|cross| Kinds::new(*s, cross))).collect(),
    }
}

/// Candidates of which those with a bit in `fitting` fit, each with a throughput of its own, in another order for each `turn`.
fn candidates(place: Place, fitting: u32, turn: usize) -> Vec<Candidate> {
    let all = combinations(place != Place::Only);
    let count = all.len();
    let of = |(number, kinds): (usize, Kinds)| {
        let prediction = (fitting >> number & 1 == 1).then(|| Prediction {
            batch: 1 + (number * 5 + turn) % 7,
            prefill_seconds: 0.5,
            step_seconds: 0.01 * (1.0 + ((number + turn) % count) as f64 * 0.03),
            self_seconds: 0.002 * (1.0 + number as f64),
            cross_seconds: 0.003 * (1.0 + number as f64),
            self_bytes: 1e6 * (1.0 + number as f64),
            cross_bytes: 2e6 * (1.0 + number as f64),
            steps: 100,
        });
        Candidate { kinds, fits: prediction.is_some(), prediction, reason: String::new() }
    };
    all.into_iter().enumerate().map(of).collect()
}

/// The number in front of these words.
fn number_before(text: &str, words: &str) -> Option<f64> {
    text.split(words).next().filter(|before| before.len() < text.len())?.rsplit(' ').next()?.parse().ok()
}

/// What a reason claims about fits and throughputs is what the candidates say, for every pick, whatever fits.
#[test]
fn reasons_claim_what_was_compared() {
    let (mut absences, mut comparisons, mut ties, mut nothing) = (0, 0, 0, 0);
    for place in [Place::Self_, Place::Cross, Place::Only] {
        let count = combinations(place != Place::Only).len();
        for fitting in 0..1u32 << count {
            for turn in 0..3 {
                let all = candidates(place, fitting, turn);
                for pick in every_pick(place) {
                    let text = of_pick(&all, pick, place, AT, MARGIN);
                    let picked = all.iter().find(|c| c.kinds == pick).and_then(|c| c.prediction);
                    if let Some((_, named)) = text.split_once("into memory with ") {
                        if text.contains("caches of keys") {
                            let regular = || all.iter().filter(|c| standing(c.kinds) == Standing::Regular);
                            assert!(regular().all(|c| c.prediction.is_none()), "{text}");
                            assert!(picked.is_some() && standing(pick) == Standing::LastResort, "{text}");
                        } else {
                            // These kinds were asked for and did not fit; the pick itself may be no candidate.
                            let named: Vec<_> = all.iter().filter(|c| place.name(c.kinds) == named).collect();
                            assert!(named.iter().all(|c| c.prediction.is_none()), "{pick:?} {fitting:b}: {text}");
                            assert!(!named.is_empty() || picked.is_none(), "{pick:?} {fitting:b}: {text}");
                        }
                        absences += 1;
                    } else if text.contains("whatever the kind") {
                        assert_eq!(fitting, 0, "{text}");
                    } else if let Some(ratio) = number_before(&text, " times the throughput") {
                        let picked = picked.unwrap();
                        let (own, other) = (place.kind(pick).name(), text.contains("el reads"));
                        let rivals = all.iter().filter(|c| c.kinds != pick && c.prediction.is_some()).filter(|c| {
                            let [a, b] =
                                [&picked, c.prediction.as_ref().unwrap()].map(Prediction::sentences_per_second);
                            // Sentences about el tell its gain, those about other kinds the pick's.
                            let gain = if other && own == "mha" { b / a } else { a / b };
                            (gain - ratio).abs() <= 0.005 + 1e-9
                        });
                        let named = rivals.filter(|c| other || text.contains(&place.name(c.kinds)));
                        assert!(named.count() > 0, "{pick:?} {fitting:b}: {text}");
                        comparisons += 1;
                        if text.contains("margin of 5 %") {
                            ties += 1;
                        }
                    } else {
                        assert!(text.contains("compared with nothing"), "{text}");
                        assert!(all.iter().all(|c| c.kinds == pick || c.kinds != Kinds::both(Kind::MHA)), "{text}");
                        nothing += 1;
                    }
                }
            }
        }
    }
    assert!(
        absences > 500 && comparisons > 200 && ties > 20 && nothing == 0,
        "{absences} {comparisons} {ties} {nothing}"
    );
}

#[test]
fn candidates_are_compared_with_the_pick() {
    let all = candidates(Place::Self_, 0b111111, 0);
    let (pick, picked) = (all[0].kinds, all[0].prediction);
    let text = |c: &Candidate| of_candidate(c, pick, picked.as_ref());
    assert_eq!(text(&all[0]), "the pick");
    assert!(text(&all[3]).contains("times the pick's throughput at batch"));
    assert!(text(&all[4]).starts_with("only where nothing else fits; "));
    assert!(text(&all[5]).starts_with("a baseline, never picked; "));
    let absent = Candidate { prediction: None, fits: false, ..all[5].clone() };
    assert_eq!(text(&absent), "not one sentence fits into memory");
    assert_eq!(text(&Candidate { fits: true, ..absent }), "nothing is known about its cost");
    assert!(of_candidate(&all[1], pick, None).starts_with("not compared"));
}
