//! An attention kind of one's own: self-attention that sees the first few positions and a window of the last ones.
//!
//! The first positions are *sinks* (Xiao et al. 2023, arXiv 2309.17453): softmax leaves the weight there that no other key wants, and a window
//! without them breaks a model that was trained without a window. Everything else is multi-head attention: the cache holds all keys and values.
//!
//! A program has it on its command line by its registry, a library by [`elgen_attention::Kind`]:
//!
//! ```no_run
//! use elgen_attention::Kinds;
//! use elgen_engine::{Model, SessionOptions};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::load_with("gpt2", Kinds::both(own_attention::WINDOW_8), &SessionOptions::default())?;
//! println!("{}", model.kinds().self_);
//! # Ok(()) }
//! ```

mod block;
mod kind;
mod op;

use elgen_attention::Kind;

pub use kind::Windowed;
pub use op::{WindowAttend, WindowRows, window_attend};

static WINDOW_8_2: Windowed = Windowed::new("window-8", 8, 2);
static WINDOW_1024_4: Windowed = Windowed::new("window-1024", 1024, 4);

/// The last 8 positions and 2 sinks: for small models, and for tests.
pub const WINDOW_8: Kind = Kind::new(&WINDOW_8_2);
/// The last 1,024 positions and 4 sinks.
pub const WINDOW_1024: Kind = Kind::new(&WINDOW_1024_4);

/// The kinds of elgen and those of this crate.
pub fn registry() -> elgen::Registry {
    elgen::Registry::default().with(WINDOW_8).with(WINDOW_1024)
}
