//! Recordings as values: their order, their staging, read-backs that are pending, cuts, and what is counted.

use elgen_tensor::{
    Buffer, Class, Device, DeviceOptions, KernelSource, KernelSpec, RecordStats, Recorder, TensorError, bind,
};
use elgen_tests::harness::devices;

fn buffer(device: &Device, words: usize) -> Buffer {
    device.alloc("words", Class::Activations, words as u64 * 4).expect("a small buffer")
}

fn words(device: &Device, from: &Buffer, count: usize) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(&device.read(from, count as u64 * 4).expect("a read"))
}

/// `out[i] = x[i] + add` for `i < count`.
fn adder() -> KernelSource {
    KernelSource::new(
        "adder",
        "struct Params { count: u32, add: u32 }
#include params
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(1)
fn main(@builtin(workgroup_id) wg: vec3<u32>) {
    if (wg.x < p.count) { out[wg.x] = x[wg.x] + p.add; }
}
",
    )
}

fn add(rec: &mut Recorder, source: &KernelSource, x: &Buffer, out: &Buffer, count: u32, by: u32) {
    let kernel = rec.device().kernel(&KernelSpec::from_source(source)).expect("a kernel from outside");
    rec.dispatch(&kernel, &bind![x, out], &[count, by], [count, 1, 1]).expect("a dispatch");
}

#[test]
fn commands_see_what_was_recorded_before_them_and_nothing_later() {
    let source = adder();
    for variant in devices() {
        let device = &variant.device;
        let [x, early, late, third] = [(); 4].map(|()| buffer(device, 4));
        let ring = device.readback_ring("values", 16, 3).expect("a ring");
        let mut rec = device.recorder();
        let write = |rec: &mut Recorder, value: u32| {
            rec.write(&x, 0, bytemuck::cast_slice(&[value; 4])).expect("an upload");
        };
        // An upload behind a dispatch that reads the buffer stays behind it; one to a buffer that nothing has touched may go first.
        write(&mut rec, 10);
        add(&mut rec, &source, &x, &early, 4, 1);
        write(&mut rec, 20);
        add(&mut rec, &source, &x, &late, 4, 2);
        rec.write(&third, 0, bytemuck::cast_slice(&[7_u32, 8, 9, 10])).expect("an upload");
        let middle = rec.read_back(&ring, &late, 0, 16).expect("a read-back");
        rec.copy(&early, 0, &late, 8, 8).expect("a copy");
        let end = rec.read_back(&ring, &late, 8, 8).expect("a read-back");
        assert_eq!(words(device, &early, 4), [0; 4], "{}: nothing runs before it is submitted", variant.name);
        rec.submit().expect("submission");
        let see = |bytes: &[u8]| bytemuck::pod_collect_to_vec::<u8, u32>(bytes);
        let mut stats = RecordStats::default();
        assert_eq!(end.see(&mut stats, see).expect("a value"), [11, 11], "{}", variant.name);
        assert_eq!(middle.see(&mut stats, see).expect("a value"), [22; 4], "{}", variant.name);
        assert_eq!(words(device, &third, 4), [7, 8, 9, 10], "{}", variant.name);
        assert_eq!(stats.host_waits, 2);
        // The recorder goes on where it was cut.
        add(&mut rec, &source, &late, &third, 4, 100);
        rec.submit().expect("submission");
        assert_eq!(words(device, &third, 4), [122, 122, 111, 111], "{}", variant.name);
    }
}

#[test]
fn recordings_that_upload_more_than_the_ring_wait_for_nobody() {
    let limit = 512 << 20;
    let options = DeviceOptions {
        selector: std::env::var("ELGEN_TEST_DEVICE").ok(),
        memory_limit: Some(limit),
        ..DeviceOptions::default()
    };
    let device = Device::open(&options).expect("a Vulkan adapter");
    // The ring takes a thirty-second of the limit, 16 MiB at most: each of the three uploads more.
    let count = (20 << 20) / 4;
    let targets = [(); 3].map(|()| buffer(&device, count));
    let mut recorders = [(); 3].map(|()| device.recorder());
    for (number, (rec, target)) in (1_u32..).zip(recorders.iter_mut().zip(&targets)) {
        let values: Vec<u32> = (0..count as u32).map(|i| i.wrapping_mul(number)).collect();
        for (part, values) in values.chunks(count / 8).enumerate() {
            rec.write(target, (part * (count / 8) * 4) as u64, bytemuck::cast_slice(values)).expect("an upload");
        }
    }
    // In another order than they were made in.
    for (rec, number) in recorders.iter_mut().rev().zip([3, 2, 1]) {
        rec.submit().expect("submission");
        let stats = rec.take_stats();
        assert_eq!((stats.uploads, stats.upload_bytes), (8, count as u64 * 4), "{number}");
        assert!(stats.submissions >= 2, "{number}: more than a chunk cannot be one submission: {stats:?}");
    }
    for (number, target) in (1_u32..).zip(&targets) {
        let values = words(&device, target, count);
        let wrong = (0..count).find(|i| values[*i] != (*i as u32).wrapping_mul(number));
        assert_eq!(wrong, None, "{number}");
    }
    assert!(device.upload_ring_bytes() <= limit / 32, "{}", device.upload_ring_bytes());
}

#[test]
fn a_ring_holds_as_many_values_as_it_is_deep() {
    let device = &devices()[0].device;
    let source = adder();
    let (zero, out) = (buffer(device, 1), buffer(device, 1));
    let ring = device.readback_ring("values", 4, 3).expect("a ring");
    let mut rec = device.recorder();
    let mut pending = Vec::new();
    for value in [5, 6, 7] {
        add(&mut rec, &source, &zero, &out, 1, value);
        pending.push(rec.read_back(&ring, &out, 0, 4).expect("a read-back"));
        rec.submit().expect("submission");
    }
    let full = rec.read_back(&ring, &out, 0, 4).expect_err("a fourth value").to_string();
    assert_eq!(full, "read_back: all 3 buffers of the ring are pending");
    assert!(rec.read_back(&ring, &out, 0, 8).is_err(), "more than there is");
    let see = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().expect("a word"));
    let mut stats = RecordStats::default();
    for value in [7, 6, 5] {
        let mut one = pending.pop().expect("a pending value");
        if value == 6 {
            // Whoever polls until it is there does not wait.
            while !one.is_ready().expect("a device that works") {
                std::thread::yield_now();
            }
        }
        assert_eq!(one.see(&mut stats, see).expect("a value"), value);
    }
    assert_eq!(stats.host_waits, 2);
    // What nobody reads gives its buffer back, submitted or not.
    for submitted in [false, true, false, true, true] {
        let mut rec = device.recorder();
        add(&mut rec, &source, &zero, &out, 1, 9);
        let mut dropped = [(); 3].map(|()| Some(rec.read_back(&ring, &out, 0, 4).expect("a read-back")));
        if submitted {
            rec.submit().expect("submission");
            let last = dropped[2].take().expect("a value").see(&mut stats, see).expect("a value");
            assert_eq!(last, 9);
        } else {
            let lost = dropped[2].take().expect("a value").see(&mut stats, see).expect_err("not submitted").to_string();
            assert_eq!(lost, "read_back: the recording of this value was not submitted");
        }
    }
    device.wait().expect("an idle device");
}

#[test]
fn everything_that_reaches_the_queue_is_counted() {
    for portable in [false, true] {
        // A device of its own: other tests run on those of the process.
        let selector = std::env::var("ELGEN_TEST_DEVICE").ok();
        let options = DeviceOptions { selector, portable, ..DeviceOptions::default() };
        let device = &Device::open(&options).expect("a Vulkan adapter");
        let (x, out) = (buffer(device, 8), buffer(device, 8));
        let source = adder();
        let before = device.counts();
        let mut rec = device.recorder();
        rec.submit().expect("nothing to do");
        assert_eq!(device.counts(), before, "portable {portable}: an empty recording reaches no queue");
        device.write(&x, 0, &[1; 32]).expect("an upload past recordings");
        let now = device.counts();
        let queue = |counts: elgen_tensor::DeviceCounts, before: elgen_tensor::DeviceCounts| {
            let (a, b) = (counts.queue, before.queue);
            [a.submissions - b.submissions, a.uploads - b.uploads, a.upload_bytes - b.upload_bytes]
        };
        assert_eq!(queue(now, before), [1, 1, 32], "portable {portable}");
        rec.write(&x, 0, &[2; 32]).expect("an upload");
        for _ in 0..3 {
            add(&mut rec, &source, &x, &out, 8, 1);
        }
        rec.submit().expect("submission");
        let stats = rec.take_stats();
        // Without immediates, the parameters are an upload of their own.
        let (uploads, bytes) = if device.capabilities().immediates { (1, 32) } else { (2, 32 + 3 * 256) };
        assert_eq!((stats.dispatches, stats.submissions), (3, 1), "portable {portable}");
        assert_eq!((stats.uploads, stats.upload_bytes), (uploads, bytes), "portable {portable}");
        assert_eq!(queue(device.counts(), now), [1, uploads, bytes], "portable {portable}");
        // The same kernel and buffers again: nothing is looked up by text, no bind group is made.
        let now = device.counts();
        add(&mut rec, &source, &x, &out, 8, 1);
        rec.submit().expect("submission");
        let after = device.counts();
        assert_eq!(
            (after.text_lookups - now.text_lookups, after.bind_groups - now.bind_groups),
            (0, 0),
            "portable {portable}"
        );
    }
}

#[test]
fn places_are_marked_until_the_recording_is_submitted() {
    let device = &devices()[0].device;
    let (x, out, source) = (buffer(device, 1), buffer(device, 1), adder());
    let mut rec = device.recorder();
    rec.mark("layer", 0);
    add(&mut rec, &source, &x, &out, 1, 1);
    add(&mut rec, &source, &x, &out, 1, 1);
    rec.mark("layer", 1);
    let marks: Vec<_> = rec.marks().iter().map(|mark| (mark.label, mark.index, mark.dispatches)).collect();
    assert_eq!(marks, [("layer", 0, 0), ("layer", 1, 2)]);
    rec.submit().expect("submission");
    assert_eq!(rec.marks(), []);
}

#[test]
fn more_dispatches_than_a_device_without_immediates_has_room_for_are_cut() {
    let device = &devices().iter().find(|v| !v.device.capabilities().immediates).expect("a portable device").device;
    let (x, out, source) = (buffer(device, 1), buffer(device, 1), adder());
    let mut rec = device.recorder();
    let many = 8192 + 5;
    for number in 0..many {
        add(&mut rec, &source, &x, &out, 1, number);
    }
    rec.submit().expect("submission");
    let stats = rec.take_stats();
    assert_eq!((stats.dispatches, stats.submissions), (u64::from(many), 2));
    assert_eq!(words(device, &out, 1), [many - 1]);
}

#[test]
fn what_does_not_fit_is_refused_when_it_is_recorded() {
    let device = &devices()[0].device;
    let (x, out, source) = (buffer(device, 4), buffer(device, 4), adder());
    let mut rec = device.recorder();
    let kernel = device.kernel(&KernelSpec::from_source(&source)).expect("a kernel");
    let refused = |result: Result<(), TensorError>, part: &str| {
        let message = result.expect_err(part).to_string();
        assert!(message.contains(part) && message.lines().count() == 1, "{message}");
    };
    refused(rec.write(&x, 4, &[0; 16]), "16 bytes at 4 do not fit a buffer of 16");
    refused(rec.write(&x, 2, &[0; 4]), "4 bytes at 2");
    refused(rec.write(&x, u64::MAX, &[0; 4]), "do not fit");
    refused(rec.copy(&x, 0, &out, 8, 16), "16 bytes at 0 -> 8");
    refused(rec.copy(&x, 2, &out, 0, 4), "4 bytes at 2 -> 0");
    refused(rec.copy(&x, 0, &x, 8, 4), "4 bytes");
    refused(rec.dispatch(&kernel, &bind![&x], &[1_u32, 1], [1, 1, 1]), "1 buffers given, 2 expected");
    refused(rec.dispatch(&kernel, &bind![&x, &x], &[1_u32, 1], [1, 1, 1]), "written and bound twice");
    refused(rec.dispatch(&kernel, &bind![&x, &out], &[0_u32; 17], [1, 1, 1]), "bytes of parameters exceed 64");
    refused(rec.dispatch(&kernel, &bind![&x, &out], &[1_u32, 1], [1, 65536, 1]), "exceeds 65535");
    // Kernels of this workspace are reached through their ops.
    let own = device.kernel(&KernelSpec::new("stream").constant("WG", 256)).expect("a shader of the workspace");
    refused(rec.dispatch(&own, &bind![&x, &out], &[1_u32, 1], [1, 1, 1]), "is dispatched by its op alone");
    assert_eq!(rec.dispatches(), 0);
}
