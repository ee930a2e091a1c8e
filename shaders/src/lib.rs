//! Every WGSL file of elgen, the small expander that turns one source into its permutations, and the list of them.
//!
//! No GPU code lives here: the crate hands out text. A shader and the Rust file that dispatches it bear the same name.
//!
//! ```
//! use elgen_shaders::{Symbols, expand, expand_text};
//! let mut symbols = Symbols::new();
//! symbols.define("STORE_F32");
//! symbols.define("IMMEDIATES");
//! let wgsl = expand("store", &symbols).unwrap();
//! assert!(wgsl.contains("var<immediate>") && !wgsl.contains("#ifdef"));
//! ```

mod expander;
mod permutations;
mod sources;

pub use expander::{ExpandError, Symbols, expand, expand_text};
pub use permutations::{Permutation, Requirement, permutations};
pub use sources::{INCLUDES, SHADERS};
