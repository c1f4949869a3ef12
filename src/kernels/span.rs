//! Typed views of memory that the executor owns.
//!
//! A plan binds every kernel to its memory once and replays it many times, so kernels hold addresses rather than
//! borrows. The executor promises what a borrow would: the memory outlives the kernel, outputs of one batch do not
//! overlap anything else that the batch touches, and the parts of one kernel write disjoint ranges.

use std::ops::Range;

/// Memory a kernel reads.
#[derive(Debug)]
pub struct In<T> {
    start: *const T,
    len: usize,
}

/// Memory a kernel writes, shared between the threads that run its parts.
#[derive(Debug)]
pub struct Out<T> {
    start: *mut T,
    len: usize,
}

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<T> {}

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

// SAFETY: whoever makes a span promises that its memory may be used from any thread while kernels run.
unsafe impl<T: Sync> Send for In<T> {}
// SAFETY: as above; an `In` only reads.
unsafe impl<T: Sync> Sync for In<T> {}
// SAFETY: as above; parts of a kernel write disjoint ranges.
unsafe impl<T: Send> Send for Out<T> {}
// SAFETY: as above; parts of a kernel write disjoint ranges.
unsafe impl<T: Send> Sync for Out<T> {}

impl<T> In<T> {
    /// # Safety
    /// `start` points to `len` initialized, aligned elements that stay valid, and that no one writes while a kernel
    /// holding this span runs.
    pub unsafe fn new(start: *const T, len: usize) -> Self {
        Self { start, len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of this memory.
    ///
    /// # Panics
    /// If `range` does not lie within the span.
    pub fn part(&self, range: Range<usize>) -> Self {
        let part = &self.as_slice()[range];
        Self { start: part.as_ptr(), len: part.len() }
    }

    pub fn as_slice(&self) -> &[T] {
        // SAFETY: promised by whoever called `new`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T> Out<T> {
    /// # Safety
    /// `start` points to `len` initialized, aligned elements that stay valid, and that only the kernel holding this
    /// span touches while it runs.
    pub unsafe fn new(start: *mut T, len: usize) -> Self {
        Self { start, len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of this memory.
    ///
    /// # Panics
    /// If `range` does not lie within the span.
    pub fn part(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} lies outside {} elements",
            self.len
        );
        Self { start: self.start.wrapping_add(range.start), len: range.len() }
    }

    pub fn as_mut_ptr(&self) -> *mut T {
        self.start
    }

    /// # Safety
    /// No other part of the kernel touches `range` at the same time.
    ///
    /// # Panics
    /// If `range` does not lie within the span.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn range(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} lies outside {} elements",
            self.len
        );
        // SAFETY: the range was checked, and the caller promises that no other part touches it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
