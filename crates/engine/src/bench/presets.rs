//! The settings of the EL-attention paper (Yan et al., ICML 2021), as far as its readable parts, its repository and pages that quote it tell them:
//! docs/bench.md.

use elgen_search::GenerationOptions;

/// A task of the paper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    /// Its name on the command line.
    pub name: &'static str,
    /// Built-in configs ([`super::BUILTIN_CONFIGS`]).
    pub models: &'static [&'static str],
    /// Source ids; prompt ids of a decoder-only model.
    pub source_length: usize,
    /// New ids: the task's longest output, which every sentence is made to reach.
    pub new_tokens: usize,
    /// Beams.
    pub num_beams: usize,
    /// Power of the length that divides a score.
    pub length_penalty: f64,
    /// Length of n-grams that may not recur; 0: none is banned.
    pub no_repeat_ngram_size: usize,
    /// Sentences where all kinds get the same batch.
    pub equal_batch: usize,
    /// Values that are not the paper's, by column, and why they are what they are.
    pub ours: &'static [(&'static str, &'static str)],
}

const BATCH: (&str, &str) = ("batch", "the equal batch is given for CNN/DM alone; the same 32");

/// The four tasks.
pub const PRESETS: [Preset; 4] = [
    Preset {
        name: "squad-qg",
        models: &["transformer-270m"],
        source_length: 512,
        new_tokens: 32,
        num_beams: 4,
        length_penalty: 1.0,
        no_repeat_ngram_size: 0,
        equal_batch: 32,
        ours: &[
            (
                "model",
                "only \"transformer 270M\" is known: the big Transformer with 30,522 ids and three embedding tables has that size",
            ),
            ("new", "not found; questions of SQuAD are about ten words long, so 32 ids hold nearly all of them"),
            BATCH,
        ],
    },
    Preset {
        name: "xsum",
        models: &["bart-large"],
        source_length: 1024,
        new_tokens: 60,
        num_beams: 6,
        length_penalty: 1.0,
        no_repeat_ngram_size: 3,
        equal_batch: 32,
        ours: &[BATCH],
    },
    Preset {
        name: "cnndm",
        models: &["bart-large"],
        source_length: 1024,
        new_tokens: 140,
        num_beams: 4,
        length_penalty: 2.0,
        no_repeat_ngram_size: 3,
        equal_batch: 32,
        ours: &[],
    },
    Preset {
        name: "gpt2-cnndm",
        models: &["gpt2", "gpt2-medium"],
        source_length: 512,
        new_tokens: 199,
        num_beams: 4,
        length_penalty: 2.0,
        no_repeat_ngram_size: 3,
        equal_batch: 32,
        ours: &[
            ("source", "not found; 512 ids, as the benchmark of the authors' repository has them for GPT-2"),
            ("new", "not found; 711 ids in all, as in that benchmark"),
            ("options", "not found; the penalties of CNN/DM with BART"),
            BATCH,
        ],
    },
];

impl Preset {
    /// The preset of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// Its options beyond beams and lengths.
    pub fn options(&self) -> GenerationOptions {
        GenerationOptions {
            length_penalty: Some(self.length_penalty),
            no_repeat_ngram_size: Some(self.no_repeat_ngram_size),
            ..GenerationOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::builtin_config;

    #[test]
    fn presets_fit_their_models() {
        for preset in &PRESETS {
            assert_eq!(Preset::find(preset.name), Some(preset));
            for model in preset.models {
                let config = builtin_config(model, 1).unwrap();
                let positions = config.config().max_positions().unwrap();
                let both = if config.config().family().is_encoder_decoder { 0 } else { preset.new_tokens };
                assert!(preset.source_length + both <= positions, "{} {model}", preset.name);
            }
        }
    }
}
