//! Which of transformers' tokenizer classes a directory asks for, and what each class brings of its own.

/// A tokenizer class of transformers, as far as it has rules of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TokenizerClass {
    /// Whatever tokenizer.json says.
    Generic,
    /// Byte-level BPE without a template.
    Gpt2,
    /// Byte-level BPE with `<s> A </s>`: BART.
    Roberta,
    /// Unigram with `A </s>`.
    T5,
    /// Unigram with `A </s>` and a block of pretraining tokens.
    Pegasus,
    /// Unigram with `A </s> language`.
    MBart,
    /// Unigram with `language A </s>`.
    MBart50,
    /// SentencePiece models for both sides, ids from vocab.json.
    Marian,
}

impl TokenizerClass {
    /// All classes.
    pub const ALL: [Self; 8] =
        [Self::Generic, Self::Gpt2, Self::Roberta, Self::T5, Self::Pegasus, Self::MBart, Self::MBart50, Self::Marian];

    /// The class of a tokenizer_config.json that names `declared`, or `own`, that of the model's family, where it names none.
    pub(super) fn resolve(declared: Option<&str>, own: Self) -> Self {
        match declared.map(|name| name.strip_suffix("Fast").unwrap_or(name)) {
            Some("GPT2Tokenizer") => Self::Gpt2,
            Some("BartTokenizer" | "RobertaTokenizer") => Self::Roberta,
            Some("T5Tokenizer") => Self::T5,
            Some("PegasusTokenizer") => Self::Pegasus,
            Some("MBartTokenizer") => Self::MBart,
            Some("MBart50Tokenizer") => Self::MBart50,
            Some("MarianTokenizer") => Self::Marian,
            Some(_) => Self::Generic,
            None => own,
        }
    }

    /// Whether the class builds a Unigram tokenizer from the pieces alone, by its own rules.
    pub(super) fn is_unigram(self) -> bool {
        matches!(self, Self::T5 | Self::Pegasus | Self::MBart | Self::MBart50)
    }

    /// The SentencePiece file that the class reads where there is no tokenizer.json.
    pub(super) fn model_file(self) -> Option<&'static str> {
        match self {
            Self::T5 | Self::Pegasus => Some("spiece.model"),
            Self::MBart | Self::MBart50 => Some("sentencepiece.bpe.model"),
            _ => None,
        }
    }

    /// The files that make a tokenizer of this class, in words.
    pub(super) fn wanted_files(self) -> &'static str {
        match self {
            Self::T5 | Self::Pegasus => "tokenizer.json or spiece.model",
            Self::MBart | Self::MBart50 => "tokenizer.json or sentencepiece.bpe.model",
            Self::Marian => "source.spm, target.spm and vocab.json",
            Self::Generic | Self::Gpt2 | Self::Roberta => "tokenizer.json, or vocab.json and merges.txt",
        }
    }

    /// The special tokens that the class has where no file says otherwise, by role.
    pub(super) fn default_tokens(self) -> &'static [(&'static str, &'static str)] {
        const END: &str = "<|endoftext|>";
        const OF_BART: [(&str, &str); 7] = [
            ("bos_token", "<s>"),
            ("eos_token", "</s>"),
            ("unk_token", "<unk>"),
            ("sep_token", "</s>"),
            ("pad_token", "<pad>"),
            ("cls_token", "<s>"),
            ("mask_token", "<mask>"),
        ];
        match self {
            Self::Generic => &[],
            Self::Gpt2 => &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
            Self::Roberta | Self::MBart => &OF_BART,
            // It has no beginning of its own.
            Self::MBart50 => OF_BART.split_at(1).1,
            Self::T5 | Self::Marian => &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
            Self::Pegasus => {
                &[("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "<pad>"), ("mask_token", "<mask_2>")]
            }
        }
    }

    /// Whether a mask token that is given as a plain string takes the spaces before it.
    pub(super) fn strips_before_mask(self) -> bool {
        matches!(self, Self::MBart | Self::MBart50)
    }
}

#[cfg(test)]
mod tests {
    use super::TokenizerClass;

    #[test]
    fn all_classes_are_listed() {
        let place = |class: TokenizerClass| match class {
            TokenizerClass::Generic => 0,
            TokenizerClass::Gpt2 => 1,
            TokenizerClass::Roberta => 2,
            TokenizerClass::T5 => 3,
            TokenizerClass::Pegasus => 4,
            TokenizerClass::MBart => 5,
            TokenizerClass::MBart50 => 6,
            TokenizerClass::Marian => 7,
        };
        assert_eq!(TokenizerClass::ALL.map(place), [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
