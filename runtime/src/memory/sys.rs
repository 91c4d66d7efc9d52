//! The allocator's own calls; Rust has none.
#![allow(unsafe_code)]

#[cfg(target_env = "gnu")]
pub(super) fn trim() -> bool {
    // SAFETY: takes an integer (bytes to keep at the top), touches no memory that is in use, may be called by any thread.
    unsafe { libc::malloc_trim(0) == 1 }
}

/// Another C library gives back by itself, or not at all.
#[cfg(not(target_env = "gnu"))]
pub(super) fn trim() -> bool {
    false
}

#[cfg(target_env = "gnu")]
pub(super) fn bound_arenas(n: usize) {
    let n = libc::c_int::try_from(n).unwrap_or(libc::c_int::MAX);
    // SAFETY: takes two integers and sets a parameter of the allocator.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, n) };
}

/// Another C library has no such bound.
#[cfg(not(target_env = "gnu"))]
pub(super) fn bound_arenas(_: usize) {}
