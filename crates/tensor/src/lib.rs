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

mod address_space;
mod bytes;
mod cooperative;
mod device;
mod error;
mod kernel;
mod memory;
pub mod ops;
mod pool;
mod recorder;
mod rows;
mod tally;
mod tensor;
mod transfer;

pub use bytes::Bytes;
pub use cooperative::Cooperative;
pub use device::{AdapterReport, Capabilities, Device, DeviceOptions, adapter, adapters};
pub use error::{Result, TensorError};
pub use kernel::{Kernel, KernelSpec};
pub use memory::MemoryInfo;
pub use pool::{Class, Pool, Usage};
pub use recorder::{RecordStats, Recorder};
pub use rows::{Grouping, RowState, Rows, Segment};
pub use tally::Tally;
pub use tensor::{Buffer, DType, Tensor, buffer_bytes, padded, product, tensor_bytes};
pub use transfer::Readback;
