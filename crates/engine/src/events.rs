//! What a run tells while it goes on.

use std::fmt;

use crate::error::EngineError;
use crate::request::Generation;

/// Hears what a run has to tell. [`on_done`] makes one of a closure.
pub trait Events {
    /// The request at `index` of the call has ended. Called once for each request, in any order.
    fn done(&mut self, index: usize, result: Result<Generation, EngineError>);

    /// A token was generated ([`crate::RunOptions::stream`]), before the request's [`Events::done`].
    fn token(&mut self, token: &StreamedToken) {
        let _ = token;
    }

    /// A streamed sequence has ended. `rest`: text that its tokens held back, usually nothing; the pieces of its tokens and
    /// this are its whole text.
    fn sequence_end(&mut self, index: usize, sequence: usize, rest: &str) {
        let _ = (index, sequence, rest);
    }

    /// Something that a user should know once.
    fn notice(&mut self, notice: &Notice) {
        let _ = notice;
    }
}

/// A token as it comes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StreamedToken {
    /// Index of the request in the call.
    pub index: usize,
    /// Which of the request's sequences: samples have several.
    pub sequence: usize,
    /// The token; EOS is told too.
    pub token_id: u32,
    /// Its log-probability after the processors.
    pub logprob: f32,
    /// The text that is now certain: whole characters only, so often of more than one token, or nothing yet. Empty for a
    /// model without a tokenizer.
    pub text: String,
}

/// What a user should know once.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Memory ran out with `from` sentences together; `to` went well. Results do not depend on it.
    BatchHalved {
        /// Sentences together that did not fit.
        from: usize,
        /// Sentences together from now on.
        to: usize,
        /// What did not fit.
        reason: String,
    },
    /// A source was cut to fit; told for the first of a session, all are counted in its metrics.
    SourceCut {
        /// Its ids.
        tokens: usize,
        /// The ids that were kept.
        kept: usize,
    },
    /// The directory's tokenizer cannot be loaded; token ids need none. Told once per session.
    TokenizerUnusable {
        /// Why.
        reason: String,
    },
    /// The adapter has cooperative matrices, but a kernel that uses them failed its trial; told once per session. Results do not depend on it.
    MatricesUnused {
        /// Which kernel, and what it did.
        reason: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BatchHalved { from, to, reason } => {
                write!(f, "not enough memory for {from} inputs at a time, going on with {to} ({reason})")
            }
            Self::SourceCut { tokens, kept } => {
                write!(f, "an input of {tokens} tokens was cut to {kept}; further ones are only counted")
            }
            Self::TokenizerUnusable { reason } => {
                write!(f, "going on without a tokenizer, with token ids alone: {reason}")
            }
            Self::MatricesUnused { reason } => {
                write!(f, "this device's cooperative matrices are not used: {reason}")
            }
        }
    }
}

/// Events of which only the results matter: `f(index, result)` for each request.
pub fn on_done<F: FnMut(usize, Result<Generation, EngineError>)>(f: F) -> OnDone<F> {
    OnDone(f)
}

/// See [`on_done`].
#[derive(Debug)]
pub struct OnDone<F>(F);

impl<F: FnMut(usize, Result<Generation, EngineError>)> Events for OnDone<F> {
    fn done(&mut self, index: usize, result: Result<Generation, EngineError>) {
        (self.0)(index, result);
    }
}
