//! Planted bugs. `mutant!("fsync_lies")` is `false` outside `--cfg sim`; the simulator switches one on per run.

#[cfg(sim)]
mod active {
    use std::cell::Cell;
    thread_local! {
        static ACTIVE: Cell<&'static str> = const { Cell::new("") };
    }
    pub fn set(name: &'static str) {
        ACTIVE.with(|a| a.set(name));
    }
    pub fn is(name: &str) -> bool {
        ACTIVE.with(|a| a.get() == name)
    }
}
#[cfg(sim)]
pub use active::{is, set};

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
