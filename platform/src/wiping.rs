//! A heap that forgets: what is freed is overwritten first, whoever allocated it. Libraries keep plaintext in
//! buffers of their own (age's `StreamWriter` does) and free them as they are, and a vector that grows leaves
//! its old place behind.
#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, with every byte wiped before it goes back.
pub struct Wiping;

// SAFETY: all memory comes from `System` with the layout asked for and goes back to it with the same one;
// in between it is only written to when its owner has given it up.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that `System` wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up `layout.size()` bytes at `place`, which came from `System`.
        unsafe {
            wipe(place, layout.size());
            System.dealloc(place, layout);
        }
    }

    /// Never in place: the system would move the bytes and free the old ones, or cut them off, as they are.
    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that is not 0 and fits the alignment; the two places are distinct
        // and each as long as what is copied; the old one is given up where there is a new one.
        unsafe {
            let fresh = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !fresh.is_null() {
                std::ptr::copy_nonoverlapping(place, fresh, size.min(layout.size()));
                self.dealloc(place, layout);
            }
            fresh
        }
    }
}

/// Overwrites bytes that nobody reads again.
///
/// # Safety
///
/// `length` bytes at `place` may be written to.
unsafe fn wipe(place: *mut u8, length: usize) {
    // SAFETY: the caller's promise. The compiler must take the empty assembly for a reader of the memory, and
    // so cannot leave the writing out, as it otherwise may before memory is freed.
    unsafe {
        place.write_bytes(0, length);
        std::arch::asm!("/* {0} */", in(reg) place, options(nostack, preserves_flags));
    }
}
