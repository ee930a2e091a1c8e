//! What kind of thing went wrong.

/// What kind of thing went wrong, for programs that decide by it: every error of this workspace has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The memory limit is reached, or the driver has no more; a smaller batch may do.
    OutOfMemory,
    /// A buffer would be larger than the device can bind or create; a smaller batch may do.
    TooLarge,
    /// The model, or what was asked of it, is sound and not supported.
    Unsupported,
    /// A file of the model is missing, damaged, or contradicts another.
    BadModel,
    /// The request's own text or ids cannot be run.
    BadInput,
    /// An option does not fit the model or another option.
    BadOption,
    /// Weights, states or scores are not finite, or beyond the range of their dtype.
    NotFinite,
    /// It was cancelled, or its deadline passed.
    Cancelled,
    /// There is no device, or it failed.
    Device,
    /// The system refused to read a file.
    Io,
    /// A hook failed.
    Hook,
    /// What cannot be by itself: a broken invariant.
    Internal,
}

impl ErrorKind {
    /// Whether fewer sentences together may succeed.
    pub fn may_fit_smaller(self) -> bool {
        matches!(self, Self::OutOfMemory | Self::TooLarge)
    }
}
