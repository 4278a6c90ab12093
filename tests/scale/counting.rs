//! An allocator that counts what is held.
//!
//! Owns: the count. Never: a decision where memory comes from; the system's allocator gives it.

#![expect(unsafe_code, reason = "an allocator is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What glibc adds to a request, and rounds it up to.
const HEADER: usize = 8;
const GRAIN: usize = 16;

static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Bytes held by the whole process, with the allocator's own share.
pub(crate) fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

fn charged(size: usize) -> usize {
    (size + HEADER).next_multiple_of(GRAIN)
}

// SAFETY: every call goes to the system's allocator with the arguments as they came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(charged(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(charged(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps `dealloc`'s promises; `at` is the system allocator's.
        unsafe { System.dealloc(at, layout) }
    }
}
