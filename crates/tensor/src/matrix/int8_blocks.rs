//! Rows of 8-bit integers in blocks of 32 columns with a scale each; for tests.
//!
//! A device row is its integers, four to a word and padded with zeros to whole blocks, and behind them the blocks' scales. An element is its integer times
//! its block's scale.

use crate::tensor::product;

/// Columns of a block.
const COLUMNS: usize = 32;

/// Device bytes of a row: 32 integers and a scale for each block.
pub(super) fn row_bytes(cols: usize) -> u64 {
    product(&[cols.div_ceil(COLUMNS), COLUMNS + 4])
}

/// Rows of `cols` values: the largest magnitude of a block becomes 127.
pub(super) fn encode(values: &[f32], cols: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in values.chunks(cols.max(1)) {
        let scales: Vec<f32> = row.chunks(COLUMNS).map(|block| largest(block) / 127.0).collect();
        for (block, scale) in row.chunks(COLUMNS).zip(&scales) {
            // Of a block of zeros the scale is 0.
            let integer = |x: &f32| if *scale > 0.0 { (x / scale).round() as i8 } else { 0 };
            let start = bytes.len();
            bytes.extend(block.iter().map(|x| integer(x).to_le_bytes()[0]));
            bytes.resize(start + COLUMNS, 0);
        }
        bytes.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
    }
    bytes
}

fn largest(block: &[f32]) -> f32 {
    block.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_its_integers_and_then_its_scales() {
        let mut row = vec![0.0; 34];
        (row[0], row[1], row[31], row[32], row[33]) = (-2.54, 1.28, 0.0, 0.5, -0.1);
        let bytes = encode(&row, 34);
        assert_eq!((bytes.len(), row_bytes(34)), (72, 72));
        assert_eq!(bytes[..2], [(-127_i8).to_le_bytes()[0], 64]);
        assert_eq!(bytes[32..34], [127, (-25_i8).to_le_bytes()[0]]);
        assert!(bytes[2..32].iter().chain(&bytes[34..64]).all(|x| *x == 0));
        let scales: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes[64..]);
        assert_eq!(scales, [2.54 / 127.0, 0.5 / 127.0]);
        assert_eq!(encode(&[0.0; 3], 3), [0; 36]);
        assert_eq!(row_bytes(usize::MAX), u64::MAX);
    }
}
