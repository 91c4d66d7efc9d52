//! What happens in a run, one line each on stderr, for whoever looks into one seed (`catchwater-sim --seed N --tell 1`).
//! Nothing of it is drawn or folded: a told run is the run.

use std::sync::atomic::{AtomicBool, Ordering};

static ON: AtomicBool = AtomicBool::new(false);

/// For the whole process.
pub fn on() {
    ON.store(true, Ordering::Relaxed);
}

pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// `tell!(world, "format", …)`: with the time of the world in front.
macro_rules! tell {
    ($world:expr, $($words:tt)*) => {
        if crate::tell::is_on() {
            eprintln!("{:>9} {}", $world.engine.now(), format!($($words)*));
        }
    };
}
pub(crate) use tell;
