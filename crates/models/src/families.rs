//! The model families: a file each, which reads its `config.json`, says what its models take, and loads them. Their rows stand in
//! [`crate::registry`].

pub(crate) mod bart;
pub(crate) mod gpt2;
pub(crate) mod opt;
pub(crate) mod t5;

pub use bart::{BartConfig, Positions, StackConfig};
pub use gpt2::Gpt2Config;
pub use opt::OptConfig;
pub use t5::T5Config;
