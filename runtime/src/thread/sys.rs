//! Scheduling classes of the calling thread; `rustix` has no call for them.
#![allow(unsafe_code)]

/// Puts the calling thread into SCHED_RR; false if the system refuses.
pub(super) fn round_robin(priority: i32) -> bool {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: `param` is a whole `sched_param` that lives through the call, which only reads it; 0 = the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &param) == 0 }
}

#[cfg(test)]
pub(super) fn is_round_robin() -> bool {
    // SAFETY: takes an integer, touches no memory of ours; 0 = the calling thread.
    unsafe { libc::sched_getscheduler(0) == libc::SCHED_RR }
}
