//! Asking for memory before it is needed: the lines of many users are then under way together.
//!
//! *Invariant:* asking changes nothing but what a core's caches hold. Any address may be asked for,
//! also one that is nobody's: the instruction never faults and reads nothing.

/// Asks for the cache line where `thing` begins.
#[inline]
#[cfg(all(target_arch = "x86_64", not(miri), not(loom)))]
#[allow(unsafe_code)]
pub(crate) fn ask<T>(thing: &T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: it is part of every processor of this kind, and see the head of this file.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(thing).cast()) }
}

/// Nothing is asked for: other processors, and those who look at every order of events.
#[inline]
#[cfg(not(all(target_arch = "x86_64", not(miri), not(loom))))]
pub(crate) fn ask<T>(_thing: &T) {}
