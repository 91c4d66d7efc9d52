//! Pure. Assertions for the edges: `always!`/`never!` panic in tests and debug builds, and are counted in the field.

use crate::metric::Counter;

/// How many `always!`/`never!` have failed in this process; above zero is a bug of ours.
pub static BROKEN: Counter = Counter::new();

/// Returns the condition, so the caller can go on safely when it does not hold.
#[macro_export]
macro_rules! always {
    ($cond:expr, $($why:tt)+) => {{
        let held = $cond;
        if !held {
            $crate::check::BROKEN.inc();
            debug_assert!(held, $($why)+);
        }
        held
    }};
}

/// The opposite of [`always!`].
#[macro_export]
macro_rules! never {
    ($cond:expr, $($why:tt)+) => { !$crate::always!(!$cond, $($why)+) };
}
