//! Timing what a device does, for the benchmarks of kernels.

use std::time::Instant;

use elgen_tensor::{Class, Device, Recorder, Result};

/// Seconds per call of what `op` records: the best of eight submissions of about 20 ms, fewer where that takes more than two seconds.
///
/// # Errors
/// What `op` returns; the device failed.
pub fn best_seconds(device: &Device, op: &dyn Fn(&mut Recorder) -> Result<()>) -> Result<f64> {
    let readback = device.readback("fence", 16)?;
    let fence = device.alloc("fence", Class::Staging, 16)?;
    let run = |repeats: usize| -> Result<f64> {
        let mut rec = device.recorder();
        for _ in 0..repeats {
            op(&mut rec)?;
        }
        let started = Instant::now();
        rec.submit_and_read(&readback, &fence, 16)?;
        Ok(started.elapsed().as_secs_f64() / repeats as f64)
    };
    run(1)?;
    let mut time = run(1)?;
    let started = Instant::now();
    for _ in 0..8 {
        if started.elapsed().as_secs_f64() < 2.0 {
            time = time.min(run((0.02 / time).clamp(1.0, 500.0) as usize)?);
        }
    }
    Ok(time)
}
