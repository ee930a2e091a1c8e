//! The contract of a product: what comes before, what follows, where columns go and which rows it is made of, against the parts by themselves.

use elgen_tensor::ops::{
    Activation, Linear, Merge, Norm, Operand, Partials, Product, Prologue, RowList, Slots, Store, combine, layer_norm,
    linear, linear_gated, store_packed,
};
use elgen_tensor::{Class, DType, Device, Recorder, Table, Tensor, WeightFormat};
use elgen_tests::harness::{
    assert_same_bits, compare, devices, matrix, numbers, poisoned, read_raw, read_rows, stored, upload, values,
};
use elgen_tests::twin;

const ROWS: usize = 7;
const IN: usize = 10;
const OUT: usize = 14;

struct Case {
    x: Tensor,
    weight: Linear,
    other: Tensor,
    norm: Norm,
}

impl Case {
    fn new(device: &Device) -> Self {
        let bias = device.tensor_from("bias", Class::Weights, 1, OUT, DType::F32, &values(3, OUT)).unwrap();
        Self {
            x: upload(device, ROWS, IN, &values(1, ROWS * IN)),
            weight: Linear {
                weight: matrix(device, OUT, IN, WeightFormat::F32, &values(2, OUT * IN)),
                bias: Some(bias),
            },
            other: upload(device, ROWS, OUT, &values(4, ROWS * OUT)),
            norm: Norm::layer_norm(&device.into(), "norm", &values(5, IN), &values(6, IN), 1e-5).unwrap(),
        }
    }
}

fn recorded(device: &Device, record: impl FnOnce(&mut Recorder)) {
    let mut rec = device.recorder();
    record(&mut rec);
    rec.submit().unwrap();
}

#[test]
fn a_norm_before_it_and_what_follows_are_its_parts() {
    for variant in devices() {
        let device = &variant.device;
        let case = Case::new(device);
        for activation in [Activation::None, Activation::GeluTanh] {
            for (number, operand) in
                [Operand::None, Operand::Residual(&case.other), Operand::Gate(&case.other)].into_iter().enumerate()
            {
                let outputs =
                    || (poisoned(device, ROWS + 1, OUT, DType::F32), poisoned(device, ROWS + 1, IN, DType::F32));
                let ((out, normed), (want, want_normed)) = (outputs(), outputs());
                recorded(device, |rec| {
                    let prologue = Prologue::Norm { norm: &case.norm, normed: &normed };
                    let product = Product::new(&case.x, &case.weight, &out, ROWS);
                    Product { prologue, activation, operand, ..product }.record(rec).unwrap();
                    layer_norm(rec, &case.x, &case.norm, &want_normed, ROWS).unwrap();
                    match operand {
                        Operand::Gate(gate) => {
                            linear_gated(rec, &want_normed, &case.weight, activation, gate, &want, ROWS).unwrap();
                        }
                        Operand::Residual(other) => {
                            let residual = Some(other);
                            linear(rec, &want_normed, &case.weight, activation, residual, &want, ROWS).unwrap();
                        }
                        Operand::None => {
                            linear(rec, &want_normed, &case.weight, activation, None, &want, ROWS).unwrap();
                        }
                    }
                });
                let what = format!("{}, {activation:?}, operand {number}", variant.name);
                assert_same_bits(&read_rows(device, &out, ROWS, &what), &read_rows(device, &want, ROWS, &what), &what);
                // What was normalised is there for others.
                let rows = |x: &Tensor| read_rows(device, x, ROWS, &what);
                assert_same_bits(&rows(&normed), &rows(&want_normed), &what);
            }
        }
    }
}

#[test]
fn what_splits_left_behind_is_merged_before_it() {
    const SPLITS: usize = 3;
    for variant in devices() {
        let device = &variant.device;
        let weight = Linear { weight: matrix(device, OUT, 8, WeightFormat::F32, &values(2, OUT * 8)), bias: None };
        let mut partials = Partials::new(device, ROWS, SPLITS, 2, 8).unwrap();
        partials.contexts = upload(device, SPLITS * ROWS, 8, &values(7, SPLITS * ROWS * 8));
        let sums: Vec<f32> = values(8, SPLITS * ROWS * 2 * 2).iter().map(|x| x.abs() + 0.5).collect();
        device.write(&partials.stats, 0, bytemuck::cast_slice(&sums)).unwrap();
        let empty = |columns: usize| poisoned(device, ROWS + 1, columns, DType::F32);
        let (x, out, want_x, want) = (empty(8), empty(OUT), empty(8), empty(OUT));
        recorded(device, |rec| {
            let merge = Merge { partials: &partials, splits: SPLITS, num_heads: 2, head_width: 4 };
            let product = Product::new(&x, &weight, &out, ROWS);
            Product { prologue: Prologue::Merge(merge), ..product }.record(rec).unwrap();
            combine(rec, &partials, SPLITS, (2, 4), &want_x, 0, ROWS as u32).unwrap();
            linear(rec, &want_x, &weight, Activation::None, None, &want, ROWS).unwrap();
        });
        for (got, want) in [(&out, &want), (&x, &want_x)] {
            let rows = |x: &Tensor| read_rows(device, x, ROWS, &variant.name);
            assert_same_bits(&rows(got), &rows(want), &variant.name);
        }
    }
}

#[test]
fn columns_go_to_cache_slots_too() {
    for variant in devices() {
        let device = &variant.device;
        let case = Case::new(device);
        for dtype in [DType::F32, DType::F16] {
            let slots = numbers(device, &[9, 3, 5, 0, 1, 8, 2]);
            let slab = || device.tensor("slab", Class::Cache, 10, 6, dtype).unwrap();
            let (first, second, want) = (slab(), slab(), slab());
            let out = poisoned(device, ROWS + 1, OUT, DType::F32);
            recorded(device, |rec| {
                let to = |first, count| Slots::Packed { slots: slots.view(), first, count };
                let stores = [
                    Store { first_column: 4, to: to(0, ROWS), slab: &first },
                    Store { first_column: 4, to: to(2, 3), slab: &second },
                ];
                let product = Product::new(&case.x, &case.weight, &out, ROWS);
                Product { stores: &stores, ..product }.record(rec).unwrap();
                store_packed(rec, slots.view(), 0, ROWS, &out, 4, &want).unwrap();
            });
            let all = device.read_tensor(&first).unwrap();
            assert_same_bits(&all, &device.read_tensor(&want).unwrap(), &variant.name);
            assert!(all.iter().any(|x| *x != 0.0));
            let some = device.read_tensor(&second).unwrap();
            for slot in 0..10 {
                let stored = &some[slot * 6..][..6];
                let wanted = if [5, 0, 1].contains(&slot) { all[slot * 6..][..6].to_vec() } else { vec![0.0; 6] };
                assert_same_bits(stored, &wanted, &format!("{}, slot {slot}", variant.name));
            }
        }
    }
}

/// Each listed row at its own place, the same bits as in the whole product, and no other row touched.
#[test]
fn a_list_of_rows_is_all_that_is_made() {
    for variant in devices() {
        let device = &variant.device;
        let case = Case::new(device);
        for list in [vec![5], vec![6, 0, 3], vec![1, 1, 4], (0..ROWS as u32).rev().collect::<Vec<_>>(), Vec::new()] {
            let (out, whole) = (poisoned(device, ROWS, OUT, DType::F32), poisoned(device, ROWS, OUT, DType::F32));
            let (activation, operand) = (Activation::Relu, Operand::Residual(&case.other));
            let rows: Table<u32> = numbers(device, &[list.clone(), vec![99]].concat());
            recorded(device, |rec| {
                let product = Product { activation, operand, ..Product::new(&case.x, &case.weight, &out, ROWS) };
                Product { rows: RowList::Listed(rows.view(), list.len()), ..product }.record(rec).unwrap();
                Product { out: &whole, ..product }.record(rec).unwrap();
            });
            let (got, whole) = (read_raw(device, &out), read_raw(device, &whole));
            let columns = out.ld();
            for row in 0..ROWS {
                let (got, want) = (&got[row * columns..][..columns], &whole[row * columns..][..columns]);
                let what = format!("{}, row {row} of {list:?}", variant.name);
                if list.contains(&(row as u32)) {
                    assert_same_bits(got, want, &what);
                } else {
                    assert!(got.iter().all(|x| x.is_nan()), "{what}");
                }
            }
        }
    }
}

#[test]
fn rows_behind_the_tensors_are_errors() {
    let device = &devices()[0].device;
    let case = Case::new(device);
    let out = poisoned(device, ROWS, OUT, DType::F32);
    let rows = numbers(device, &[0, ROWS as u32, 2]);
    let product = Product::new(&case.x, &case.weight, &out, ROWS);
    let listed = |count| Product { rows: RowList::Listed(rows.view(), count), ..product };
    let mut rec = device.recorder();
    assert!(listed(1).record(&mut rec).is_ok());
    assert!(listed(2).record(&mut rec).is_err(), "a row behind the last");
    assert!(listed(4).record(&mut rec).is_err(), "more entries than there are");
    assert!(Product { rows: RowList::First(ROWS + 1), ..product }.record(&mut rec).is_err(), "a row too many");
    let narrow = poisoned(device, ROWS, IN - 1, DType::F32);
    let prologue = Prologue::Norm { norm: &case.norm, normed: &narrow };
    assert!(Product { prologue, ..product }.record(&mut rec).is_err(), "normed rows without room");
}

#[test]
fn the_whole_product_matches_its_twin() {
    let device = &devices()[0].device;
    let case = Case::new(device);
    let (out, normed) = (poisoned(device, ROWS + 1, OUT, DType::F32), poisoned(device, ROWS + 1, IN, DType::F32));
    recorded(device, |rec| {
        let prologue = Prologue::Norm { norm: &case.norm, normed: &normed };
        let operand = Operand::Residual(&case.other);
        Product { prologue, operand, ..Product::new(&case.x, &case.weight, &out, ROWS) }.record(rec).unwrap();
    });
    let wide = |seed: u64, n: usize| stored(&values(seed, n), DType::F32);
    let x: Vec<f64> =
        wide(1, ROWS * IN).chunks(IN).flat_map(|row| twin::layer_norm(row, &wide(5, IN), &wide(6, IN), 1e-5)).collect();
    let (w, bias, other) = (wide(2, OUT * IN), wide(3, OUT), wide(4, ROWS * OUT));
    let mut want = Vec::new();
    for (row, other) in x.chunks(IN).zip(other.chunks(OUT)) {
        for (n, weights) in w.chunks(IN).enumerate() {
            want.push(row.iter().zip(weights).map(|(a, b)| a * b).sum::<f64>() + bias[n] + other[n]);
        }
    }
    compare(&read_rows(device, &out, ROWS, "product"), &want).unwrap();
}
