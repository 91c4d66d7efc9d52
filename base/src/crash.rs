//! Named crash points. `crash_point!("log.after_append")` calls the hook that the simulator or `catchwater` set;
//! without a hook, and always in a release build, it is nothing.

use std::sync::OnceLock;

type Hook = fn(&'static str);
static HOOK: OnceLock<Hook> = OnceLock::new();

/// Sets the process-wide hook. The first call wins.
pub fn set_hook(hook: Hook) {
    let _ = HOOK.set(hook);
}

pub fn hit(name: &'static str) {
    if let Some(hook) = HOOK.get() {
        hook(name);
    }
}

#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        if cfg!(debug_assertions) || cfg!(sim) {
            $crate::crash::hit($name);
        }
    };
}
