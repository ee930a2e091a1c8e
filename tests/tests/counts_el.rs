//! What the EL kernel really loads and computes, counted by itself: the unique bytes of docs/el-attention.md §1.5 to 1.7, times the tiles that the
//! query rows are cut into, and the FLOPs of §1.7, rounded up to whole tiles, chunks of keys and invocations.

use elgen_attention::{CrossQueries, ElAttend, ElQueries, ElTile, SPLIT, Shape, el_attend_tiled};
use elgen_tensor::ops::Partials;
use elgen_tensor::{Class, DType, Device, Grouping, RowState, Rows};
use elgen_tests::harness::{devices, numbers, table, upload, upload_u32};

/// A decode step's attention of one layer: sentences with their number of keys, and beams.
struct Step {
    sentences: Vec<usize>,
    beams: usize,
    heads: usize,
    d_model: usize,
    dtype: DType,
    /// Query rows of a tile, keys of a split.
    tile: (u32, usize),
    /// Through the slot table, each beam with keys of its own.
    own: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Counted {
    bytes: u64,
    flops: u64,
}

impl Step {
    fn rows(&self) -> usize {
        self.sentences.len() * self.beams
    }

    fn splits(&self) -> usize {
        self.sentences.iter().max().map_or(1, |keys| keys.div_ceil(self.tile.1))
    }

    /// As the kernel counts.
    fn run(&self, device: &Device) -> Counted {
        let (rows, columns) = (self.rows(), self.heads * self.d_model);
        let q = upload(device, rows, columns, &vec![0.1; rows * columns]);
        let slots: usize = self.sentences.iter().sum::<usize>() * if self.own { self.beams } else { 1 };
        let x = vec![0.5; slots * self.d_model];
        let x = device.tensor_from("x", Class::Cache, slots, self.d_model, self.dtype, &x).unwrap();
        let out = device.tensor("out", Class::Activations, rows, columns, DType::F32).unwrap();
        let counts = upload_u32(device, &[0, 0]);
        let partials = Partials::new(device, rows, self.splits(), self.heads, columns).unwrap();
        let mut grouping = Grouping::default();
        let (mut ranges, mut lists, mut at) = (Vec::new(), Vec::new(), 0);
        for (s, keys) in self.sentences.iter().enumerate() {
            grouping.push(0, s as u32, self.beams as u32);
            for beam in 0..self.beams {
                let first = at + if self.own { beam * keys } else { 0 };
                ranges.push([first as u32, *keys as u32]);
                lists.push((first as u32..(first + keys) as u32).collect::<Vec<_>>());
            }
            at += keys * if self.own { self.beams } else { 1 };
        }
        let product = ElAttend {
            shape: Shape::new(self.d_model, self.heads, 4, 0.25),
            q: &q,
            x: &x,
            bias: None,
            out: &out,
            splits: Some((&partials, self.splits())),
            segment: grouping.segments[0],
        };
        let tile = ElTile { rows: self.tile.0, quads: quads(self.d_model), subgroup: false, split: self.tile.1 };
        let mut rec = device.recorder();
        if self.own {
            let longest = self.sentences.iter().max().copied().unwrap_or(1);
            let mut table = Rows::new(device, rows, longest).unwrap();
            table.set_active(device, (0..rows as u32).collect(), &vec![0; rows]).unwrap();
            let states: Vec<RowState> = lists.iter().map(|l| RowState::default().with_length(l.len() as u32)).collect();
            let mut slots = vec![u32::MAX; rows * longest];
            for (row, list) in lists.iter().enumerate() {
                slots[row * longest..][..list.len()].copy_from_slice(list);
            }
            table.place(device, &states, None, Some(&slots)).unwrap();
            el_attend_tiled(&mut rec, ElQueries::Slots(&table), product, Some(tile), Some(&counts)).unwrap();
        } else {
            let index = numbers(device, &(0..rows as u32).collect::<Vec<_>>());
            let ranges = elgen_tests::harness::ranges(device, &ranges);
            let groups = table(device, &grouping.groups);
            let queries = ElQueries::Groups(CrossQueries {
                groups: groups.view(),
                index: index.view(),
                ranges: ranges.view(),
                segments: &grouping.segments,
                count: rows,
            });
            el_attend_tiled(&mut rec, queries, product, Some(tile), Some(&counts)).unwrap();
        }
        rec.submit().unwrap();
        let counted = device.read(&counts, 8).unwrap();
        let word = |i: usize| u64::from(u32::from_le_bytes(counted[4 * i..4 * i + 4].try_into().unwrap()));
        // A unit is the fma of a vec4: 8 FLOPs.
        Counted { bytes: word(0) * 4 * self.dtype.bytes(), flops: word(1) * 8 }
    }

    /// Tiles that read a sentence's keys: per row with its own keys, else over all pairs of its rows and heads.
    fn tiles(&self) -> u64 {
        let rows = self.tile.0 as usize;
        (if self.own { self.beams * self.heads.div_ceil(rows) } else { (self.beams * self.heads).div_ceil(rows) })
            as u64
    }

    /// What the tiling issues.
    fn issued(&self) -> Counted {
        let keys: u64 = self.sentences.iter().map(|keys| *keys as u64).sum();
        // Chunks of 4 keys begin anew in each split.
        let chunked = |keys: usize| {
            let (whole, rest) = (keys / self.tile.1, keys % self.tile.1);
            (whole * self.tile.1.next_multiple_of(4) + rest.next_multiple_of(4)) as u64
        };
        let computed: u64 = self.sentences.iter().map(|keys| chunked(*keys)).sum();
        let owned = (self.d_model / 4).next_multiple_of(16 * quads(self.d_model) as usize) as u64 * 4;
        Counted {
            bytes: self.tiles() * keys * self.d_model as u64 * self.dtype.bytes(),
            flops: 4 * self.tiles() * u64::from(self.tile.0) * computed * owned,
        }
    }

    /// What the formulas of §1.7 say that one pass reads and computes.
    fn formulas(&self) -> Counted {
        let (d, s) = (self.d_model as u64, self.dtype.bytes());
        let keys: u64 = self.sentences.iter().map(|keys| *keys as u64).sum();
        let read = if self.own { self.beams as u64 } else { 1 };
        Counted { bytes: read * keys * d * s, flops: 4 * self.beams as u64 * self.heads as u64 * keys * d }
    }
}

fn quads(d_model: usize) -> u32 {
    if d_model > 512 { 2 } else { 1 }
}

#[test]
fn issued_bytes_are_those_of_the_tiling() {
    for (i, (sentences, beams, heads, d_model)) in
        [(vec![7, 40], 4, 8, 64), (vec![33], 5, 3, 60), (vec![4, 9, 1], 1, 16, 256), (vec![130], 3, 12, 576)]
            .into_iter()
            .enumerate()
    {
        for dtype in [DType::F32, DType::F16] {
            for own in [false, true] {
                for tile in [(8, SPLIT), (4, 16)] {
                    let step = Step { sentences: sentences.clone(), beams, heads, d_model, dtype, tile, own };
                    let variant = &devices()[[2, 1, 3, 2][i]];
                    let what = format!("{}: {sentences:?} x {beams}, {heads} x {d_model}, {tile:?}", variant.name);
                    assert_eq!(step.run(&variant.device), step.issued(), "{what}");
                    assert_eq!(step.issued().bytes, step.formulas().bytes * step.rereads(), "{what}");
                    assert!(step.issued().flops >= step.formulas().flops, "{what}");
                }
            }
        }
    }
}

impl Step {
    /// How often each unique byte is read.
    fn rereads(&self) -> u64 {
        self.tiles() / if self.own { self.beams as u64 } else { 1 }
    }
}

/// Where tiles, chunks and invocations come out even, a single pass is exactly what the formulas say, with splits and without.
#[test]
fn one_tile_reads_the_unique_bytes_and_computes_what_the_formulas_say() {
    for dtype in [DType::F32, DType::F16] {
        for split in [SPLIT, 32] {
            let base = Step {
                sentences: vec![64, 100],
                beams: 2,
                heads: 8,
                d_model: 256,
                dtype,
                tile: (16, split),
                own: false,
            };
            let own = Step { tile: (8, split), own: true, sentences: vec![64, 100], ..base };
            for step in [&base, &own] {
                let variant = &devices()[2 + usize::from(split == SPLIT)];
                assert_eq!(step.run(&variant.device), step.formulas(), "{}, {dtype:?}, {split}", variant.name);
            }
        }
    }
}
