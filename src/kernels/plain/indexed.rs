//! Rows and elements chosen by u32 ids. Ids outside the table (ignored targets among them) choose zeros.

use bytemuck::Pod;

use crate::error::Result;
use crate::kernels::body::Body;
use crate::kernels::number::Float;
use crate::kernels::simd::Vector;
use crate::kernels::split::{Split, expect_len};
use crate::kernels::{In, Out};

/// (table [rows, width], ids `[n]`) -> [n, width]
#[derive(Debug)]
pub struct Embedding<T> {
    width: usize,
    table: In<T>,
    ids: In<u32>,
    y: Out<T>,
    split: Split,
}

impl<T: Pod + Send + Sync> Embedding<T> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(width: usize, table: In<T>, ids: In<u32>, y: Out<T>) -> Result<Self> {
        expect_len("the table", table.len(), table.len().checked_div(width).unwrap_or(0) * width)?;
        expect_len("the embedded rows", y.len(), ids.len() * width)?;
        Ok(Self { width, table, ids, y, split: Split::rows(ids.len(), 2 * width * size_of::<T>()) })
    }
}

impl<T: Pod + Send + Sync> Body for Embedding<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        for i in self.split.range(part) {
            let id = self.ids.as_slice()[i] as usize;
            // SAFETY: parts are disjoint ranges of rows.
            let y = unsafe { self.y.range(i * self.width..(i + 1) * self.width) };
            match self.table.as_slice().get(id * self.width..(id + 1) * self.width) {
                Some(row) => y.copy_from_slice(row),
                None => y.fill(T::zeroed()),
            }
        }
    }
}

/// (ids `[n]`, values [n, width]) -> [rows, width]: sums the values of equal ids, in their order.
#[derive(Debug)]
pub struct ScatterRows<T> {
    width: usize,
    ids: In<u32>,
    values: In<T>,
    y: Out<T>,
    split: Split,
}

impl<T: Float> ScatterRows<T> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(width: usize, ids: In<u32>, values: In<T>, y: Out<T>) -> Result<Self> {
        let rows = y.len().checked_div(width).unwrap_or(0);
        expect_len("the scattered values", values.len(), ids.len() * width)?;
        expect_len("the table's gradient", y.len(), rows * width)?;
        // Every part reads all ids: fewer, larger parts than elsewhere.
        let split = Split::by(rows, rows.div_ceil(64).max(16));
        Ok(Self { width, ids, values, y, split })
    }
}

impl<T: Float> Body for ScatterRows<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let (rows, width) = (self.split.range(part), self.width);
        // SAFETY: parts are disjoint ranges of rows.
        let y = unsafe { self.y.range(rows.start * width..rows.end * width) };
        y.fill(T::zeroed());
        for (i, &id) in self.ids.as_slice().iter().enumerate() {
            if rows.contains(&(id as usize)) {
                let at = (id as usize - rows.start) * width;
                let values = &self.values.as_slice()[i * width..(i + 1) * width];
                for (y, value) in y[at..at + width].iter_mut().zip(values) {
                    *y = T::narrow(y.widen() + value.widen());
                }
            }
        }
    }
}

/// (x [n, m], ids `[n]`) -> [n, 1]: one element of each row.
#[derive(Debug)]
pub struct TakeLast<T> {
    width: usize,
    x: In<T>,
    ids: In<u32>,
    y: Out<T>,
    split: Split,
}

impl<T: Pod + Send + Sync> TakeLast<T> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(width: usize, x: In<T>, ids: In<u32>, y: Out<T>) -> Result<Self> {
        expect_len("the rows", x.len(), ids.len() * width)?;
        expect_len("the taken elements", y.len(), ids.len())?;
        // One cache line is touched for each row.
        Ok(Self { width, x, ids, y, split: Split::rows(ids.len(), 64) })
    }
}

impl<T: Pod + Send + Sync> Body for TakeLast<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let rows = self.split.range(part);
        // SAFETY: parts are disjoint ranges of y.
        let y = unsafe { self.y.range(rows.clone()) };
        for (y, row) in y.iter_mut().zip(rows) {
            let id = self.ids.as_slice()[row] as usize;
            *y = if id < self.width { self.x.as_slice()[row * self.width + id] } else { T::zeroed() };
        }
    }
}

/// (values [n, 1], ids `[n]`) -> [n, size]: zero but for one element of each row.
#[derive(Debug)]
pub struct ScatterLast<T> {
    size: usize,
    values: In<T>,
    ids: In<u32>,
    y: Out<T>,
    split: Split,
}

impl<T: Pod + Send + Sync> ScatterLast<T> {
    /// # Errors
    /// An internal error if the lengths do not fit.
    pub fn new(size: usize, values: In<T>, ids: In<u32>, y: Out<T>) -> Result<Self> {
        expect_len("the scattered values", values.len(), ids.len())?;
        expect_len("the scattered rows", y.len(), ids.len() * size)?;
        Ok(Self { size, values, ids, y, split: Split::rows(ids.len(), size * size_of::<T>()) })
    }
}

impl<T: Pod + Send + Sync> Body for ScatterLast<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        for row in self.split.range(part) {
            // SAFETY: parts are disjoint ranges of rows.
            let y = unsafe { self.y.range(row * self.size..(row + 1) * self.size) };
            y.fill(T::zeroed());
            if let Some(y) = y.get_mut(self.ids.as_slice()[row] as usize) {
                *y = self.values.as_slice()[row];
            }
        }
    }
}
