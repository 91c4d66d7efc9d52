//! Named crash points. `crash_point!("log.after_append")` calls the hook that the simulator or `catchwater` set;
//! without a hook, and always in a release build, it is nothing. `panic_point!("group.propose", gid)` is one where the hook
//! may panic: for what must contain a panic.

use std::sync::OnceLock;

type Hook = fn(&'static str);
static HOOK: OnceLock<Hook> = OnceLock::new();
type PanicHook = fn(&'static str, u64);
static PANIC_HOOK: OnceLock<PanicHook> = OnceLock::new();

/// Sets the process-wide hook. The first call wins.
pub fn set_hook(hook: Hook) {
    let _ = HOOK.set(hook);
}

/// Sets the process-wide hook of the panic points; it is told the point's name and whose it is. The first call wins.
pub fn set_panic_hook(hook: PanicHook) {
    let _ = PANIC_HOOK.set(hook);
}

pub fn may_panic(name: &'static str, of: u64) {
    if let Some(hook) = PANIC_HOOK.get() {
        hook(name, of);
    }
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

#[macro_export]
macro_rules! panic_point {
    ($name:literal, $of:expr) => {
        if cfg!(debug_assertions) || cfg!(sim) {
            $crate::crash::may_panic($name, $of);
        }
    };
}
