//! Freed buffers are free for the driver too, before more is allocated.

use elgen_tensor::ops::{Norm, layer_norm};
use elgen_tensor::{Arena, Class, DType, Device, DeviceOptions};

#[test]
fn a_freed_buffer_does_not_outlive_its_count() {
    let device =
        Device::open(&DeviceOptions { selector: std::env::var("ELGEN_TEST_DEVICE").ok(), ..DeviceOptions::default() })
            .unwrap();
    let Some(before) = device.allocator_bytes() else {
        println!("skipped: this backend has no allocator report");
        return;
    };
    let tensor = |rows| device.tensor("test", Class::Activations, rows, 1024, DType::F32).unwrap();
    let norm = Norm::layer_norm(&Arena::from(&device), "norm", &[1.0; 1024], &[0.0; 1024], 1e-5).unwrap();
    // 32 MiB each, used in a dispatch, so that a cached bind group holds them.
    let (x, out) = (tensor(8192), tensor(8192));
    let mut rec = device.recorder();
    layer_norm(&mut rec, &x, &norm, &out, 16).unwrap();
    rec.submit().unwrap();
    drop((x, out));
    let larger = tensor(24576);
    let held = device.allocator_bytes().unwrap() - before;
    let counted = device.pool().current().total;
    assert!(larger.buffer.bytes() == 96 << 20 && counted >= 96 << 20);
    assert!(held <= counted + counted / 50, "the allocator holds {held} bytes, the pool counts {counted}");
}
