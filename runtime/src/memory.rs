//! What the allocator keeps. It takes memory by arenas, one for each busy thread, and what is freed stays there: after every
//! burst (a topic with all its rows goes, another comes) each arena is as large as its own largest moment, and those moments
//! do not coincide. Measured in a soak with topics that come and go: 4 to 10 MB were in use at any time, flat, while the
//! arenas grew from 12 to 23 MB in ten minutes. With as many arenas as cores the same soak is flat (30 minutes on two cores:
//! 0.6 % a minute before, 0.12 after), since few threads run at a time and small pieces come from each thread's own cache anyway.

mod sys;

/// Lets the allocator have as many arenas as there are cores (its own bound is eight for each). Call it before the first thread
/// starts: an arena that is there stays.
pub fn bound_arenas() {
    let cores = std::thread::available_parallelism().map_or(ARENAS_MIN, std::num::NonZero::get);
    sys::bound_arenas(cores.max(ARENAS_MIN));
}

/// One would make the workers wait for each other even on one core that is taken from them in turn.
const ARENAS_MIN: usize = 2;

/// Gives whole free pages back to the system. Milliseconds for tens of megabytes; threads that allocate meanwhile may wait for
/// their arena: call it now and then, on a thread that may block. False: there was nothing to give.
pub fn give_back() -> bool {
    // A simulated world has no pages.
    !cfg!(sim) && sys::trim()
}

#[cfg(test)]
mod tests {
    /// In a process of its own the figures would be exact; here other tests allocate, so it asks for a large part.
    #[test]
    fn what_was_freed_goes_back_to_the_system() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap_or_default().to_owned();
            line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0)
        };
        // Small pieces, so that they lie in an arena; every hundredth stays and holds what is around it.
        let all: Vec<Box<[u8]>> = (0..64_000).map(|n| vec![n as u8; 1_000].into_boxed_slice()).collect();
        let full = resident();
        let kept: Vec<Box<[u8]>> = all.into_iter().enumerate().filter(|(n, _)| n % 100 == 0).map(|(_, b)| b).collect();
        assert!(super::give_back());
        let left = resident();
        assert!(left + 30_000 < full, "{full} kB before, {left} kB after, {} pieces kept", kept.len());
    }
}
