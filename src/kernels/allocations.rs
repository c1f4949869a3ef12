//! Counts what is asked of the heap, by any thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters; threads take turns with them, so that they seldom share one.
const SHARDS: usize = 32;

/// The system's allocator with counters. A program that wants counts makes it its `#[global_allocator]`.
pub struct CountingAllocator;

/// On a cache line of its own.
#[repr(align(128))]
struct Shard {
    count: AtomicU64,
    bytes: AtomicU64,
}

static COUNTERS: [Shard; SHARDS] =
    [const { Shard { count: AtomicU64::new(0), bytes: AtomicU64::new(0) } }; SHARDS];
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's counter; `SHARDS` before its first allocation. Without a destructor it needs no heap itself.
    static SHARD: Cell<usize> = const { Cell::new(SHARDS) };
}

/// What was asked of the heap: how often, and how many bytes, freed since or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allocations {
    pub count: u64,
    pub bytes: u64,
}

impl Allocations {
    /// Of all threads since the process began; zero unless [`CountingAllocator`] is the global allocator.
    pub fn so_far() -> Self {
        COUNTERS.iter().fold(Self::default(), |sum, shard| Self {
            count: sum.count + shard.count.load(Ordering::Relaxed),
            bytes: sum.bytes + shard.bytes.load(Ordering::Relaxed),
        })
    }

    /// What came after `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, bytes: self.bytes - earlier.bytes }
    }
}

fn count(bytes: usize) {
    let own = SHARD.try_with(|shard| {
        if shard.get() == SHARDS {
            shard.set(THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    });
    let shard = &COUNTERS[own.unwrap_or(0)];
    shard.count.fetch_add(1, Ordering::Relaxed);
    shard.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: every call goes to `System` unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
