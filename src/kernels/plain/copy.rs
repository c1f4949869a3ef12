//! Copies that change the layout: permutations, broadcasts, slices, concatenations, writes into states.

use bytemuck::Pod;

use crate::error::{Error, Result};
use crate::graph::MAX_RANK;
use crate::kernels::body::Body;
use crate::kernels::simd::Vector;
use crate::kernels::split::{Split, expect_len};
use crate::kernels::{In, Out};

/// y = x, element for element.
#[derive(Debug)]
pub struct Copy<T> {
    x: In<T>,
    y: Out<T>,
    split: Split,
}

impl<T: Pod + Send + Sync> Copy<T> {
    /// # Errors
    /// An internal error if the lengths differ.
    pub fn new(x: In<T>, y: Out<T>) -> Result<Self> {
        expect_len("the argument", x.len(), y.len())?;
        Ok(Self { x, y, split: Split::rows(y.len(), 2 * size_of::<T>()) })
    }
}

impl<T: Pod + Send + Sync> Body for Copy<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let range = self.split.range(part);
        // SAFETY: parts are disjoint ranges of y.
        unsafe { self.y.range(range.clone()) }.copy_from_slice(&self.x.as_slice()[range]);
    }
}

/// y[i, j, ..] = x[offset + i * strides`[0]` + j * strides`[1]` + ..], y row-major: a permutation, a broadcast (stride 0)
/// or a slice (offset).
#[derive(Debug)]
pub struct StridedCopy<T> {
    dims: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
    offset: usize,
    x: In<T>,
    y: Out<T>,
    /// Rows of y along its last axis.
    split: Split,
}

impl<T: Pod + Send + Sync> StridedCopy<T> {
    /// `dims` are y's extents, `strides` how far x moves (in elements) for a step along each of them.
    ///
    /// # Errors
    /// An internal error if there are too many axes, if y's length is not that of `dims`, or if x is too short.
    pub fn new(dims: &[usize], strides: &[usize], offset: usize, x: In<T>, y: Out<T>) -> Result<Self> {
        if dims.len() != strides.len() || dims.len() > MAX_RANK {
            return Err(Error::internal(format!("cannot copy {dims:?} with strides {strides:?}")));
        }
        let elements = dims.iter().product();
        expect_len("the result of a strided copy", y.len(), elements)?;
        let last: usize = dims.iter().zip(strides).map(|(d, s)| d.saturating_sub(1) * s).sum();
        if elements > 0 && offset + last >= x.len() {
            return Err(Error::internal(format!(
                "a copy of {dims:?} with strides {strides:?} from {offset} reads past {} elements",
                x.len()
            )));
        }
        // Axes of extent 1 are put in front, so that the last axis is the input's last.
        let mut full =
            Self { dims: [1; MAX_RANK], strides: [0; MAX_RANK], offset, x, y, split: Split::by(0, 1) };
        full.dims[MAX_RANK - dims.len()..].copy_from_slice(dims);
        full.strides[MAX_RANK - dims.len()..].copy_from_slice(strides);
        let width = full.dims[MAX_RANK - 1];
        full.split = Split::rows(elements.checked_div(width).unwrap_or(0), 2 * width * size_of::<T>());
        Ok(full)
    }

    /// Where the given row of y starts in x.
    #[inline(always)]
    fn source(&self, mut row: usize) -> usize {
        let mut at = self.offset;
        for axis in (0..MAX_RANK - 1).rev() {
            at += row % self.dims[axis] * self.strides[axis];
            row /= self.dims[axis];
        }
        at
    }
}

impl<T: Pod + Send + Sync> Body for StridedCopy<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let x = self.x.as_slice();
        let (width, stride) = (self.dims[MAX_RANK - 1], self.strides[MAX_RANK - 1]);
        for row in self.split.range(part) {
            let start = self.source(row);
            // SAFETY: parts are disjoint ranges of rows.
            let y = unsafe { self.y.range(row * width..(row + 1) * width) };
            match stride {
                1 => y.copy_from_slice(&x[start..start + width]),
                0 => y.fill(x[start]),
                _ => {
                    for (y, x) in y.iter_mut().zip(x[start..].iter().step_by(stride)) {
                        *y = *x;
                    }
                }
            }
        }
    }
}

/// Tensors joined along an axis.
#[derive(Debug)]
pub struct Concat<T> {
    /// Each input and the elements it contributes to a row of y.
    inputs: Vec<(In<T>, usize)>,
    y: Out<T>,
    width: usize,
    split: Split,
}

impl<T: Pod + Send + Sync> Concat<T> {
    /// `outer` is the product of the extents before the joined axis.
    ///
    /// # Errors
    /// An internal error if an input's length is no multiple of `outer`, or if they do not fill y.
    pub fn new(outer: usize, inputs: &[In<T>], y: Out<T>) -> Result<Self> {
        let inputs: Vec<_> = inputs.iter().map(|&x| (x, x.len().checked_div(outer).unwrap_or(0))).collect();
        for (x, width) in &inputs {
            expect_len("a joined tensor", x.len(), outer * width)?;
        }
        let width: usize = inputs.iter().map(|(_, width)| width).sum();
        expect_len("the joined tensor", y.len(), outer * width)?;
        // A part is one input's share of some rows: numbered rows first, then inputs.
        let split = Split::rows(outer, 2 * width * size_of::<T>() / inputs.len().max(1));
        Ok(Self { inputs, y, width, split })
    }
}

impl<T: Pod + Send + Sync> Body for Concat<T> {
    fn parts(&self) -> usize {
        self.split.count() * self.inputs.len()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let (rows, index) = (self.split.range(part / self.inputs.len()), part % self.inputs.len());
        let (x, width) = self.inputs[index];
        let before: usize = self.inputs[..index].iter().map(|(_, width)| width).sum();
        for row in rows {
            let start = row * self.width + before;
            // SAFETY: every part has its own rows and, in them, its own columns.
            let y = unsafe { self.y.range(start..start + width) };
            y.copy_from_slice(&x.as_slice()[row * width..(row + 1) * width]);
        }
    }
}

/// Rows start.. of a state [capacity, width] are replaced by `rows` [n, width].
#[derive(Debug)]
pub struct WriteRows<T> {
    rows: In<T>,
    start: In<u32>,
    state: Out<T>,
    width: usize,
    split: Split,
}

impl<T: Pod + Send + Sync> WriteRows<T> {
    /// Rows that would lie past the state's end are dropped when the kernel runs.
    ///
    /// # Errors
    /// An internal error if the lengths are no whole rows or there is not one start.
    pub fn new(width: usize, rows: In<T>, start: In<u32>, state: Out<T>) -> Result<Self> {
        let n = rows.len().checked_div(width).unwrap_or(0);
        expect_len("the written rows", rows.len(), n * width)?;
        expect_len("the state", state.len(), state.len().checked_div(width).unwrap_or(0) * width)?;
        expect_len("the first row's number", start.len(), 1)?;
        Ok(Self { rows, start, state, width, split: Split::rows(n, 2 * width * size_of::<T>()) })
    }
}

impl<T: Pod + Send + Sync> Body for WriteRows<T> {
    fn parts(&self) -> usize {
        self.split.count()
    }

    #[inline(always)]
    fn compute<V: Vector>(&self, part: usize, _scratch: &mut [u8]) {
        let first = self.start.as_slice()[0] as usize;
        for row in self.split.range(part) {
            let to = (first + row) * self.width;
            if to + self.width <= self.state.len() {
                // SAFETY: every part has its own rows.
                let state = unsafe { self.state.range(to..to + self.width) };
                state.copy_from_slice(&self.rows.as_slice()[row * self.width..(row + 1) * self.width]);
            }
        }
    }
}
