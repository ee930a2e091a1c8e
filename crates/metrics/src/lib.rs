//! Text metrics: corpus and sentence [BLEU](bleu) and [chrF](chrf) and corpus [TER](ter) with sacreBLEU's numbers,
//! [ROUGE](mod@rouge) with rouge-score's.
//!
//! The numbers equal those of sacreBLEU 2.6.0 and rouge-score 0.1.2 to the last few bits; the tests hold recorded ones. Every
//! function takes plain strings, a hypothesis each and one or more references for it, and nothing here needs a device.
//!
//! ```
//! use elgen_metrics::{BleuOptions, RougeOptions, corpus_bleu, rouge};
//!
//! let hypotheses = ["the cat sat on a mat", "no"];
//! let references = [vec!["the cat sat on the mat", "a cat is on a mat here"], vec!["no no"]];
//! let bleu = corpus_bleu(&hypotheses, &references, &BleuOptions::default())?;
//! assert_eq!(format!("{:.2}", bleu.score), "61.30");
//! assert_eq!(bleu.signature, "nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0");
//!
//! let scores = rouge(&hypotheses, &references, &RougeOptions::default())?;
//! assert!(scores.rouge1.f1 > scores.rouge2.f1);
//! # Ok::<(), elgen_metrics::MetricError>(())
//! ```

pub mod bleu;
pub mod chrf;
mod error;
mod lcs;
mod ngrams;
pub mod porter;
pub mod rouge;
pub mod ter;
mod text;
pub mod tokenizer_13a;

pub use bleu::{BleuOptions, BleuScore, corpus_bleu, sentence_bleu};
pub use chrf::{ChrfOptions, ChrfScore, corpus_chrf, sentence_chrf};
pub use error::MetricError;
pub use rouge::{DEFAULT_WORD_PAIRS, RougeOptions, RougeScore, RougeScores, rouge, sentence_rouge};
pub use ter::{TerOptions, TerScore, corpus_ter};

/// The sacreBLEU release whose numbers [`bleu`], [`chrf`] and [`ter`] reproduce; signatures name it.
pub const SACREBLEU_VERSION: &str = "2.6.0";
