//! Log lines: a level, a stable event name, a sentence. Any crate may emit one where it *handles* something; the sink is
//! a hook that `catchwater` sets (JSON lines on standard error) and tests read. Never a row value, never a secret.

use std::fmt::Arguments;
use std::sync::OnceLock;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

type Hook = fn(Level, &'static str, Arguments<'_>);
static HOOK: OnceLock<Hook> = OnceLock::new();

/// Sets the process-wide sink. The first call wins.
pub fn set_hook(hook: Hook) {
    let _ = HOOK.set(hook);
}

/// `event` is stable (`capture.retry`), the sentence is for people.
pub fn emit(level: Level, event: &'static str, message: Arguments<'_>) {
    if let Some(hook) = HOOK.get() {
        hook(level, event, message);
    }
}

/// `log!(Warn, "capture.retry", "source {name}: {error}")`
#[macro_export]
macro_rules! log {
    ($level:ident, $event:literal, $($arg:tt)+) => {
        $crate::log::emit($crate::log::Level::$level, $event, format_args!($($arg)+))
    };
}
