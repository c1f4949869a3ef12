use super::{Element, PANEL, offset, packed_len};
use crate::error::Result;
use crate::kernels::split::{Split, expect_len};
use crate::kernels::{In, Kernel, Out};

/// Rows of a packed table: a tied output projection then needs no second copy of the embedding.
///
/// (packed table [rows, width], ids `[n]`) -> [n, width]; an id outside of the table gives zeros.
#[derive(Debug)]
pub struct PackedEmbedding<E> {
    rows: usize,
    width: usize,
    packed: In<E>,
    ids: In<u32>,
    y: Out<E>,
    split: Split,
}

impl<E: Element> PackedEmbedding<E> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new([rows, width]: [usize; 2], packed: In<E>, ids: In<u32>, y: Out<E>) -> Result<Self> {
        expect_len("the packed table", packed.len(), packed_len::<E>(rows, width))?;
        expect_len("the embedded rows", y.len(), ids.len() * width)?;
        // Every element lies in a cache line of its own.
        let split = Split::rows(ids.len(), 64 * width);
        Ok(Self { rows, width, packed, ids, y, split })
    }
}

impl<E: Element> Kernel for PackedEmbedding<E> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    fn run(&self, part: usize, _scratch: &mut [u8]) {
        let panel_len = packed_len::<E>(PANEL, self.width);
        for i in self.split.range(part) {
            let id = self.ids.as_slice()[i] as usize;
            // SAFETY: parts are disjoint ranges of rows.
            let y = unsafe { self.y.range(i * self.width..(i + 1) * self.width) };
            if id >= self.rows {
                y.fill(E::narrow(0.0));
                continue;
            }
            let panel = &self.packed.as_slice()[id / PANEL * panel_len..][..panel_len];
            for (k, value) in y.iter_mut().enumerate() {
                *value = panel[offset::<E>(k, id % PANEL)];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::kernels::testing::{Matrix, run};

    fn check<E: Element + PartialEq + std::fmt::Debug>(rows: usize, width: usize) {
        let table = Matrix::random(rows, width, 3);
        let mut packed = vec![E::narrow(0.0); packed_len::<E>(rows, width)];
        let panel_len = packed_len::<E>(PANEL, width);
        for (row, values) in table.values.chunks(width).enumerate() {
            for (k, &value) in values.iter().enumerate() {
                packed[row / PANEL * panel_len + offset::<E>(k, row % PANEL)] = E::narrow(value);
            }
        }
        let ids = [rows as u32 - 1, 0, u32::MAX, rows as u32 / 2, rows as u32];
        let mut y = vec![E::narrow(f32::NAN); ids.len() * width];
        run(&PackedEmbedding::new([rows, width], In::of(&packed), In::of(&ids), Out::of(&mut y)).unwrap());
        for (&id, row) in ids.iter().zip(y.chunks(width)) {
            let expected = table.values.chunks(width).nth(id as usize);
            let expected = expected.map_or(vec![E::narrow(0.0); width], |row| {
                row.iter().map(|&value| E::narrow(value)).collect()
            });
            assert_eq!(row, expected, "row {id} of {rows} x {width}");
        }
    }

    #[test]
    fn rows_come_back_out_of_their_panels() {
        for (rows, width) in [(1, 1), (32, 4), (70, 7), (33, 64)] {
            check::<f32>(rows, width);
            check::<bf16>(rows, width);
        }
    }
}
