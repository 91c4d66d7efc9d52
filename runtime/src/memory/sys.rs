//! The allocator's own call; Rust has none.
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
