//! Planted bugs. `mutant!("fsync_lies")` is `false` outside `--cfg sim`; the simulator switches one on per run and thread,
//! a binary built with that cfg one for its whole life (`CATCHWATER_MUTANT`, for the rig on real disks).

#[cfg(sim)]
mod active {
    use std::cell::Cell;
    use std::sync::OnceLock;
    static PROCESS: OnceLock<String> = OnceLock::new();
    thread_local! {
        static ACTIVE: Cell<&'static str> = const { Cell::new("") };
    }
    pub fn set(name: &'static str) {
        ACTIVE.with(|a| a.set(name));
    }
    /// For every thread of this process, until it ends. The first call wins.
    pub fn set_process(name: String) {
        let _ = PROCESS.set(name);
    }
    pub fn is(name: &str) -> bool {
        ACTIVE.with(|a| a.get() == name) || PROCESS.get().is_some_and(|p| p == name)
    }
}
#[cfg(sim)]
pub use active::{is, set, set_process};

#[macro_export]
macro_rules! mutant {
    ($name:literal) => {{
        #[cfg(sim)]
        {
            $crate::mutant::is($name)
        }
        #[cfg(not(sim))]
        {
            false
        }
    }};
}
