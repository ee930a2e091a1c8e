//! The tensor runtime of elgen: a wgpu device with a counted memory pool, tensors, a recorder and the kernels that every model needs.
//!
//! ```no_run
//! use elgen_tensor::{Class, DType, Device, DeviceOptions};
//! # fn main() -> Result<(), elgen_tensor::TensorError> {
//! let device = Device::open(&DeviceOptions::default())?;
//! let x = device.tensor_from("x", Class::Activations, 2, 3, DType::F32, &[1., 2., 3., 4., 5., 6.])?;
//! assert_eq!(device.read_tensor(&x)?, [1., 2., 3., 4., 5., 6.]);
//! println!("{} bytes in use", device.pool().current().total);
//! # Ok(()) }
//! ```

mod adapter;
mod address_space;
mod arena;
#[cfg(feature = "testing")]
mod bare;
mod bind_groups;
mod binding;
mod bytes;
mod cooperative;
mod counts;
mod device;
mod error;
mod error_kind;
mod kernel;
mod load;
mod matrix;
mod memory;
pub mod ops;
mod pool;
mod readback;
mod recorder;
mod recording;
mod rows;
mod staging;
mod submit;
mod table;
mod tally;
mod tensor;
mod transfer;

pub use adapter::{AdapterReport, adapter, adapters};
pub use arena::Arena;
#[cfg(feature = "testing")]
pub use bare::Bare;
pub use binding::{Binding, Bindings};
pub use bytes::Bytes;
pub use cooperative::{Cooperative, tile_name};
pub use counts::{DeviceCounts, RecordStats};
pub use device::{Capabilities, Device, DeviceOptions};
pub use error::{Result, TensorError};
pub use error_kind::ErrorKind;
pub use kernel::{HostBuffer, HostCx, HostFunction, Kernel, KernelSource, KernelSpec};
pub use load::{LoadError, MatrixSource, SeeRows, SourceError, Vector, load_linear};
pub use matrix::{Matrix, WeightFormat};
pub use memory::MemoryInfo;
pub use pool::{Class, Pool, Usage};
pub use readback::{Pending, Readback};
pub use recorder::{Mark, Recorder};
pub use rows::{Grouping, RowStart, RowState, Rows, Segment};
pub use submit::Submission;
pub use table::{Entry, Range, Table, TableRef, TokenAt};
pub use tally::Tally;
pub use tensor::{Buffer, DType, Tensor, buffer_bytes, padded, product, tensor_bytes};
